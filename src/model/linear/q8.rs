// SPDX-License-Identifier: MPL-2.0
//! Products with weights of eight bits, in whole numbers.
//!
//! Weights are [`quantised`](crate::model::quantised) when they are loaded and packed once, a block of
//! outputs at a time. What comes in is quantised row by row and slice by slice as it comes: the range
//! of a slice, zero included, is divided into as many steps as a byte has values, so that
//! `x = step * (code - zero)`. The product of codes and numbers is exact: [`panels`](super::panels) take
//! it where the processor has the instruction for that, `rten-gemm` with what there is elsewhere. What it
//! stands for is added up in f32 as soon as a tile is done, while it lies in the cache.
//!
//! With few rows, as in decoding, reading the weights takes all the time. So each row goes in twice, as the high and the low byte of codes
//! of 16 bits, and what comes in is as good as exact.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, DType, Result, Storage, Tensor};
use rayon::prelude::*;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedAMatrix, PackedBMatrix};
use rten_tensor::NdTensorView;

use super::columns::{FEW, Shared};
use super::panels::{Bytes, Group, Panels, Tiles, WIDTH};
use crate::model::attention::simd::{self, Level, Scale};
use crate::model::quantised::slices;

/// Outputs of a block; a thread's share of a product is a multiple of it.
const OUTPUTS: usize = 128;
/// Rows of a tile: with a block's outputs, what stays in the second cache.
const ROWS: usize = 64;

type Executor = GemmExecutor<u8, i8, i32>;

thread_local! {
    // One a thread: making it asks the processor what it can do, which takes long in a virtual machine.
    static EXECUTOR: Executor = Executor::new();
}

/// Whether this processor multiplies bytes so fast that eight bits are the faster format for any
/// number of rows.
pub fn is_fast() -> bool {
    Bytes::is_there()
}

/// Values of a code, less one. Kernels without the instruction for it add two products in 16 bits,
/// where codes of 8 bits would not fit.
fn top() -> u8 {
    if !Bytes::is_there() && EXECUTOR.with(Executor::may_saturate) { 127 } else { 255 }
}

/// What is done to an output, in place, when it is complete.
pub type Finish = fn(Level, &mut [f32]);

/// A layer whose weights are in eight bits, with its bias.
#[derive(Clone)]
pub struct Layer {
    inputs: usize,
    outputs: usize,
    blocks: Vec<Arc<Block>>,
}

/// Some of a layer's outputs.
struct Block {
    slices: Vec<Slice>,
    bias: Vec<f32>,
}

/// The weights of a block's outputs for some inputs.
struct Slice {
    numbers: Numbers,
    /// By output: what a weight's number is worth, and the sum of the numbers.
    scales: Vec<f32>,
    sums: Vec<i32>,
}

/// Whole numbers of weights, as the kernel wants them.
enum Numbers {
    Panels(Panels<Bytes>),
    Packed(PackedBMatrix<i8>),
}

/// Codes of rows, as the kernel wants them.
enum Coded {
    Tiles(Tiles<Bytes>),
    Packed(PackedAMatrix<u8>),
}

impl Numbers {
    /// `[outputs, inputs]`.
    fn new(numbers: &[i8], outputs: usize, inputs: usize) -> Self {
        if Bytes::is_there() {
            return Self::Panels(Panels::new(numbers, (outputs, inputs, inputs), Vec::new()));
        }
        let numbers = NdTensorView::from_data([outputs, inputs], numbers);
        Self::Packed(EXECUTOR.with(|executor| executor.prepack_b(numbers.transposed())))
    }

    /// Counts of codes `[rows, inputs]`, some rows and outputs at a time: `to(rows, outputs, counts,
    /// stride)`, where counts of a row lie `stride` behind those of the last. `room` is memory to use
    /// again.
    fn multiply(
        &self,
        codes: &Coded,
        width: usize,
        room: &mut Vec<i32>,
        mut to: impl FnMut(Range<usize>, Range<usize>, &[i32], usize),
    ) -> Result<()> {
        match (self, codes) {
            (Self::Panels(panels), Coded::Tiles(tiles)) => panels
                .multiply(tiles, |first, outputs, sums| {
                    to(first..first + sums.len(), outputs, sums.as_flattened(), WIDTH);
                })
                .ok_or_else(|| candle_core::Error::msg("codes and weights of different widths")),
            (Self::Packed(numbers), Coded::Packed(codes)) => {
                room.resize(codes.rows() * width, 0);
                let (a, b) = (GemmInputA::Packed(codes), GemmInputB::Packed(numbers));
                EXECUTOR
                    .with(|executor| executor.gemm(room, a, b, GemmOptions::default()).map(|_| ()))
                    .map_err(candle_core::Error::wrap)?;
                to(0..codes.rows(), 0..width, room, width);
                Ok(())
            }
            _ => candle_core::bail!("codes and weights for different kernels"),
        }
    }
}

impl Coded {
    /// `[rows, inputs]`.
    fn new(codes: &[u8], inputs: usize) -> Self {
        if Bytes::is_there() {
            return Self::Tiles(Tiles::new(codes, inputs));
        }
        let codes = NdTensorView::from_data([codes.len() / inputs, inputs], codes);
        Self::Packed(EXECUTOR.with(|executor| executor.prepack_a(codes)))
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} in eight bits", self.inputs, self.outputs)
    }
}

impl Layer {
    /// `rows` is what [`quantised`](crate::model::quantised::quantised) makes of `[outputs, inputs]`,
    /// `bias` `[outputs]` or nothing.
    pub fn new(rows: &Tensor, inputs: usize, bias: Option<&Tensor>) -> Result<Self> {
        let (outputs, bytes) = rows.dims2()?;
        if bytes != inputs + 4 * slices(inputs).len() {
            candle_core::bail!("{bytes} bytes are not {inputs} weights in eight bits")
        }
        let rows = rows.contiguous()?;
        let (storage, layout) = rows.storage_and_layout();
        let Storage::Cpu(CpuStorage::U8(rows)) = &*storage else {
            candle_core::bail!("weights in eight bits are bytes on the CPU")
        };
        let rows = &rows[layout.start_offset()..][..outputs * bytes];
        let bias = match bias {
            Some(bias) => bias.to_dtype(DType::F32)?.to_vec1()?,
            None => vec![0f32; outputs],
        };
        let blocks = rows
            .par_chunks(OUTPUTS * bytes)
            .zip(bias.par_chunks(OUTPUTS))
            .map(|(rows, bias)| Arc::new(Block::new(rows, inputs, bias)))
            .collect();
        Ok(Self { inputs, outputs, blocks })
    }

    /// Layers over the same input as one.
    pub fn joined<'a>(layers: impl IntoIterator<Item = &'a Self>) -> Result<Self> {
        let mut layers = layers.into_iter();
        let Some(first) = layers.next() else { candle_core::bail!("no layers to join") };
        let mut all = first.clone();
        for layer in layers {
            if layer.inputs != all.inputs {
                candle_core::bail!("{all:?} and {layer:?} have not the same input")
            }
            all.outputs += layer.outputs;
            all.blocks.extend(layer.blocks.iter().cloned());
        }
        Ok(all)
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `[rows, outputs]` of `x` `[rows, inputs]`.
    pub fn multiply(&self, x: &[f32], finish: Option<Finish>) -> Result<Vec<f32>> {
        let (inputs, outputs, level) = (self.inputs, self.outputs, Level::detect());
        let rows = x.len() / inputs;
        if rows == 0 {
            return Ok(Vec::new());
        }
        // Tiles of nearly one height: weights are read for each.
        let height = rows.div_ceil(rows.div_ceil(ROWS));
        let tiles = if rows <= FEW {
            vec![Codes::pairs(level, x, inputs)]
        } else {
            x.par_chunks(height * inputs).map(|x| Codes::bytes(level, x, inputs)).collect()
        };
        let mut starts = Vec::with_capacity(self.blocks.len());
        let mut start = 0;
        for block in &self.blocks {
            starts.push(start);
            start += block.bias.len();
        }
        let mut y = vec![0f32; rows * outputs];
        let place = Shared(y.as_mut_ptr());
        // Tile after tile of one block, so that its weights are read once.
        (0..self.blocks.len() * tiles.len()).into_par_iter().try_for_each_init(
            Vec::new,
            |room, task| {
                let (at, tile) = (task / tiles.len(), task % tiles.len());
                let (block, codes) = (&self.blocks[at], &tiles[tile]);
                let (first, start) = (tile * height, starts[at]);
                block.multiply(level, codes, room, finish, |row| {
                    // SAFETY: `first + row` is one of the `rows`, and this block's outputs of it lie
                    // within `y`; no other task has them, and this one has them once at a time.
                    unsafe {
                        let start = place.get().add((first + row) * outputs + start);
                        std::slice::from_raw_parts_mut(start, block.bias.len())
                    }
                })
            },
        )?;
        Ok(y)
    }
}

impl Block {
    fn new(rows: &[u8], inputs: usize, bias: &[f32]) -> Self {
        let bytes = rows.len() / bias.len();
        let slice = |(at, slice): (usize, Range<usize>)| {
            let width = slice.len();
            let mut numbers = Vec::with_capacity(bias.len() * width);
            let mut scales = Vec::with_capacity(bias.len());
            let mut sums = Vec::with_capacity(bias.len());
            for row in rows.chunks_exact(bytes) {
                let of_row = row[slice.clone()].iter().map(|&byte| byte as i8);
                sums.push(of_row.clone().map(i32::from).sum());
                numbers.extend(of_row);
                let scale = &row[inputs + 4 * at..][..4];
                scales.push(f32::from_le_bytes([scale[0], scale[1], scale[2], scale[3]]));
            }
            let numbers = Numbers::new(&numbers, bias.len(), width);
            Slice { numbers, scales, sums }
        };
        let slices = slices(inputs).into_iter().enumerate().map(slice).collect();
        Self { slices, bias: bias.to_vec() }
    }

    /// Writes the outputs of all rows of `codes` where `y` says. `room` is for a tile's counts.
    fn multiply<'a>(
        &self,
        level: Level,
        codes: &Codes,
        room: &mut Vec<i32>,
        finish: Option<Finish>,
        y: impl Fn(usize) -> &'a mut [f32],
    ) -> Result<()> {
        let width = self.bias.len();
        for row in 0..codes.rows {
            y(row).copy_from_slice(&self.bias);
        }
        for (slice, part) in self.slices.iter().zip(&codes.parts) {
            slice.numbers.multiply(&part.coded, width, room, |rows, outputs, counts, stride| {
                let weights = (&slice.sums[outputs.clone()], &slice.scales[outputs.clone()]);
                let mut counts = counts.chunks(stride).map(|counts| &counts[..outputs.len()]);
                match codes.base {
                    None => {
                        for (row, counts) in rows.zip(counts) {
                            let y = &mut y(row)[outputs.clone()];
                            simd::add_counts(level, counts, part.scales[row], weights, y);
                        }
                    }
                    // Few rows are in one tile, so that both halves of a row come together.
                    Some(base) => {
                        for row in rows.start / 2..rows.end / 2 {
                            let (Some(high), Some(low)) = (counts.next(), counts.next()) else {
                                continue;
                            };
                            let y = &mut y(row)[outputs.clone()];
                            let of = (base, part.scales[row]);
                            simd::add_pairs(level, (high, low), of, weights, y);
                        }
                    }
                }
            })?;
        }
        if let Some(finish) = finish {
            (0..codes.rows).for_each(|row| finish(level, y(row)));
        }
        Ok(())
    }
}

/// Some rows of what comes in, by slice.
struct Codes {
    rows: usize,
    /// What a high byte is worth, where each row is two; `None`: a code is a byte.
    base: Option<i32>,
    parts: Vec<Part>,
}

struct Part {
    coded: Coded,
    /// Of each row.
    scales: Vec<Scale>,
}

impl Codes {
    /// Codes of a byte.
    fn bytes(level: Level, x: &[f32], inputs: usize) -> Self {
        let rows = x.len() / inputs;
        let top = top();
        let part = |slice: Range<usize>| {
            let mut codes = vec![0u8; rows * slice.len()];
            let scales = x.chunks_exact(inputs).zip(codes.chunks_exact_mut(slice.len()));
            let scales = scales.map(|(x, codes)| {
                let x = &x[slice.clone()];
                let (scale, factor) = scale(simd::spread(level, x), f32::from(top));
                simd::codes(level, x, (factor, scale.zero as f32, f32::from(top)), codes);
                scale
            });
            let scales = scales.collect();
            Part { coded: Coded::new(&codes, slice.len()), scales }
        };
        Self { rows, base: None, parts: slices(inputs).into_iter().map(part).collect() }
    }

    /// Codes of two bytes, in two rows, the high one first.
    fn pairs(level: Level, x: &[f32], inputs: usize) -> Self {
        let rows = x.len() / inputs;
        let base = i32::from(top()) + 1;
        let top = (base * base - 1) as f32;
        let part = |slice: Range<usize>| {
            let mut codes = vec![0u8; 2 * rows * slice.len()];
            let scales = x.chunks_exact(inputs).zip(codes.chunks_exact_mut(2 * slice.len()));
            let scales = scales.map(|(x, codes)| {
                let x = &x[slice.clone()];
                let (scale, factor) = scale(simd::spread(level, x), top);
                let (high, low) = codes.split_at_mut(slice.len());
                simd::pairs(level, x, (factor, scale.zero as f32, top), base, high, low);
                scale
            });
            let scales = scales.collect();
            Part { coded: Coded::new(&codes, slice.len()), scales }
        };
        Self { rows, base: Some(base), parts: slices(inputs).into_iter().map(part).collect() }
    }
}

/// The scale of numbers between two, zero among them, that become codes of `0..=top`; and codes per
/// unit. Where they are no numbers, the step is none.
fn scale((lowest, highest): (f32, f32), top: f32) -> (Scale, f32) {
    let step = (highest - lowest) / top;
    if !step.is_normal() {
        // All zero, or so small that they are as good as that.
        let step = if step.is_finite() { 0.0 } else { f32::NAN };
        return (Scale { step, zero: 0 }, 0.0);
    }
    let factor = step.recip();
    (Scale { step, zero: (-lowest * factor).round().clamp(0.0, top) as i32 }, factor)
}
