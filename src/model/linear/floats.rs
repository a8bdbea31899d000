// SPDX-License-Identifier: MPL-2.0
//! Products with weights that are floats, of 32 bits or 16.
//!
//! On the CPU candle widens both whole operands of a bf16 product to f32, every time. Here `x` is
//! f32 already and the weights are widened a tile at a time, into the cache, where the product is
//! taken: that is exact and costs no memory. A product with few rows, as in decoding, reads every
//! weight once and is bound by memory, so half the bytes make it faster (`docs/benchmarks.md`, real
//! sizes). With many rows, bf16 is multiplied as such where that was asked for and the processor can: `x` is
//! then rounded to it, as it is everywhere else that computes in bf16. Everything else is candle's own layer.

use std::cell::Cell;
use std::ops::Range;

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use super::columns::{FEW, Shared};
use super::panels::{self, Group, Pairs, Panels, Tiles};
use crate::model::attention::simd::{self, Level};
use crate::model::worth;

/// `x W^T` where this room knows a better way than candle: f32 on the CPU times narrower weights,
/// or few rows of it times any. `rounding`: `x` may be rounded to the weights' format.
pub(super) fn product(
    x: &Tensor,
    weight: &Tensor,
    rounding: bool,
) -> candle_core::Result<Option<Tensor>> {
    let (outputs, inputs) = weight.dims2()?;
    let Some((&width, batch)) = x.dims().split_last() else { return Ok(None) };
    let rows: usize = batch.iter().product();
    let on_cpu = matches!((x.device(), weight.device()), (Device::Cpu, Device::Cpu));
    let fits = width == inputs && x.dtype() == DType::F32 && weight.is_contiguous();
    if !on_cpu || !fits {
        return Ok(None);
    }
    if rows * inputs * outputs == 0 {
        let shape = [batch, &[outputs]].concat();
        return Tensor::zeros(shape, DType::F32, &Device::Cpu).map(Some);
    }
    let x = x.contiguous()?;
    let (x_storage, x_layout) = x.storage_and_layout();
    let (w_storage, w_layout) = weight.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(x_data)), Storage::Cpu(weights)) = (&*x_storage, &*w_storage)
    else {
        return Ok(None);
    };
    let x_data = &x_data[x_layout.start_offset()..][..rows * inputs];
    let range = w_layout.start_offset()..w_layout.start_offset() + outputs * inputs;
    let y = match weights {
        CpuStorage::BF16(w) if rounding && rows > FEW && Pairs::is_there() => {
            multiply_pairs(x_data, &w[range], inputs, outputs)
        }
        CpuStorage::BF16(w) => multiply(x_data, &w[range], inputs, outputs),
        CpuStorage::F16(w) => multiply(x_data, &w[range], inputs, outputs),
        CpuStorage::F32(w) => multiply(x_data, &w[range], inputs, outputs),
        _ => return Ok(None),
    };
    let shape = [batch, &[outputs]].concat();
    Tensor::from_vec(y, shape, &Device::Cpu).map(Some)
}

/// A number format of weights.
trait Element: Copy + Sync {
    /// Writes a row in f32; both have the same length.
    fn widen(row: &[Self], level: Level, wide: &mut [f32]);

    /// The numbers themselves, where they are f32.
    fn wide(_: &[Self]) -> Option<&[f32]> {
        None
    }
}

impl Element for f32 {
    fn wide(rows: &[Self]) -> Option<&[f32]> {
        Some(rows)
    }

    fn widen(row: &[Self], _: Level, wide: &mut [f32]) {
        wide.copy_from_slice(row);
    }
}

impl Element for bf16 {
    fn widen(row: &[Self], level: Level, wide: &mut [f32]) {
        simd::widen(level, row, wide);
    }
}

impl Element for f16 {
    fn widen(row: &[Self], _: Level, wide: &mut [f32]) {
        row.convert_to_f32_slice(wide);
    }
}

/// `[rows, outputs]` of `x` `[rows, inputs]` and `w` `[outputs, inputs]`; no size is zero.
fn multiply<T: Element>(x: &[f32], w: &[T], inputs: usize, outputs: usize) -> Vec<f32> {
    if x.len() / inputs <= FEW {
        multiply_few(x, w, inputs, outputs)
    } else {
        multiply_many(x, w, inputs, outputs)
    }
}

/// Row by row of the weights: each is read once, and stays in the innermost cache for all of `x`.
fn multiply_few<T: Element>(x: &[f32], w: &[T], inputs: usize, outputs: usize) -> Vec<f32> {
    const CHUNK: usize = 64;
    let (level, rows) = (Level::detect(), x.len() / inputs);
    // [outputs, rows], so that every thread writes to a stretch of its own.
    let mut turned = vec![0f32; outputs * rows];
    let chunks = turned.par_chunks_mut(CHUNK * rows).zip(w.par_chunks(CHUNK * inputs));
    chunks.with_min_len(worth::items(CHUNK * rows * inputs)).for_each_init(
        || vec![0f32; inputs],
        |wide, (out, w)| {
            for (out, w) in out.chunks_exact_mut(rows).zip(w.chunks_exact(inputs)) {
                T::widen(w, level, wide);
                for (out, x) in out.iter_mut().zip(x.chunks_exact(inputs)) {
                    *out = simd::dot(level, x, wide);
                }
            }
        },
    );
    if rows == 1 {
        return turned;
    }
    (0..rows).flat_map(|row| turned.iter().skip(row).step_by(rows).copied()).collect()
}

thread_local! {
    // Room for a tile of weights, one a thread. Made anew for each product it would be given back after each,
    // and of every page that goes the other threads have to hear.
    static PANELS: Cell<Vec<[[u8; 4]; panels::WIDTH]>> = const { Cell::new(Vec::new()) };
    static WIDE: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Inputs that are multiplied at a time.
const DEPTH: usize = 1024;

/// As many outputs for a task as leave no thread without work, in a multiple of `of`.
fn share(outputs: usize, of: usize, most: usize) -> usize {
    outputs.div_ceil(2 * rayon::current_num_threads()).next_multiple_of(of).min(most)
}

/// Both in bf16, pairs of them multiplied by the processor: `x` in tiles, and panels of the weights that
/// are made in the cache.
fn multiply_pairs(x: &[f32], w: &[bf16], inputs: usize, outputs: usize) -> Vec<f32> {
    /// Outputs of a task, and rows that are gone through while its panels lie in the cache.
    const MOST: usize = 128;
    const ROWS: usize = 48;
    let rows = x.len() / inputs;
    let slices: Vec<_> =
        (0..inputs).step_by(DEPTH).map(|from| from..inputs.min(from + DEPTH)).collect();
    let tiles: Vec<Vec<Tiles<Pairs>>> = x
        .par_chunks(ROWS * inputs)
        .with_min_len(worth::items(ROWS * inputs))
        .map(|x| {
            let tiles = |slice: &Range<usize>| {
                let mut bits = Vec::with_capacity(x.len() / inputs * slice.len());
                for x in x.chunks_exact(inputs) {
                    bits.extend(x[slice.clone()].iter().map(|&x| bf16::from_f32(x).to_bits()));
                }
                Tiles::new(&bits, slice.len())
            };
            slices.iter().map(tiles).collect()
        })
        .collect();
    let width = share(outputs, panels::WIDTH, MOST);
    let mut y = vec![0f32; rows * outputs];
    let start = Shared(y.as_mut_ptr());
    let blocks = w.par_chunks(width * inputs).enumerate();
    blocks.with_min_len(worth::items(width * inputs * rows)).for_each(|(block, w)| {
        let mut room = PANELS.take();
        let (w, columns): (&[u16], _) = (w.reinterpret_cast(), w.len() / inputs);
        for (at, slice) in slices.iter().enumerate() {
            let sizes = (columns, slice.len(), inputs);
            let panels = Panels::<Pairs>::new(&w[slice.start..], sizes, std::mem::take(&mut room));
            for (number, tiles) in tiles.iter().enumerate() {
                panels.multiply(&tiles[at], |first, columns, sums| {
                    for (row, sums) in sums.iter().enumerate() {
                        let row = number * ROWS + first + row;
                        // SAFETY: `row` is one of the rows, and this block's columns of it lie within
                        // `y`; no other task has them.
                        let y = unsafe {
                            let start = start.get().add(row * outputs + block * width);
                            std::slice::from_raw_parts_mut(start.add(columns.start), columns.len())
                        };
                        y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum);
                    }
                });
            }
            room = panels.into_room();
        }
        PANELS.set(room);
    });
    y
}

/// Tile by tile of the weights, each widened into half of a common L2 and multiplied there.
fn multiply_many<T: Element>(x: &[f32], w: &[T], inputs: usize, outputs: usize) -> Vec<f32> {
    /// Outputs of a tile: 512 KiB.
    const WIDTH: usize = 128;
    let (level, rows) = (Level::detect(), x.len() / inputs);
    let width = share(outputs, 16, WIDTH);
    let mut y = vec![0f32; rows * outputs];
    let start = Shared(y.as_mut_ptr());
    let blocks = w.par_chunks(width * inputs).enumerate();
    blocks.with_min_len(worth::items(width * inputs * rows)).for_each(|(block, w)| {
        let columns = w.len() / inputs;
        // Inputs `from ..+ depth`, of which `w` has `columns` rows that lie `stride` apart.
        let add = |w: &[f32], stride: usize, from: usize, depth: usize| {
            assert!(w.len() >= (columns - 1) * stride + depth && from + depth <= inputs);
            // SAFETY: columns `block * width ..+ columns` of all rows lie within `y`, and no other
            // block has them; `x` has `rows` rows of `inputs`; of `w` it was just asserted.
            unsafe {
                gemm::gemm(
                    rows,
                    columns,
                    depth,
                    start.get().add(block * width),
                    1,
                    outputs as isize,
                    from > 0,
                    x.as_ptr().add(from),
                    1,
                    inputs as isize,
                    w.as_ptr(),
                    stride as isize,
                    1,
                    1.0,
                    1.0,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            }
        };
        if let Some(w) = T::wide(w) {
            return add(w, inputs, 0, inputs);
        }
        let mut tile = WIDE.take();
        tile.resize(width * DEPTH.min(inputs), 0.0);
        for from in (0..inputs).step_by(DEPTH) {
            let depth = DEPTH.min(inputs - from);
            for (wide, w) in tile.chunks_exact_mut(depth).zip(w.chunks_exact(inputs)) {
                T::widen(&w[from..from + depth], level, wide);
            }
            add(&tile, depth, from, depth);
        }
        WIDE.set(tile);
    });
    y
}
