// SPDX-License-Identifier: MPL-2.0
//! Products with weights that are floats, of 32 bits or 16.
//!
//! On the CPU candle widens both whole operands of a bf16 product to f32, every time. Here `x` is
//! f32 already and the weights are widened a tile at a time, into the cache, where the product is
//! taken: that is exact and costs no memory. A product with few rows, as in decoding, reads every
//! weight once and is bound by memory, so half the bytes make it faster (`docs/benchmarks.md`, real
//! sizes); with many rows the format makes no difference. Everything else is candle's own layer.

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use super::columns::{FEW, Shared};
use crate::model::attention::simd::{self, Level};

/// `x W^T` where this room knows a better way than candle: f32 on the CPU times narrower weights,
/// or few rows of it times any.
pub(super) fn product(x: &Tensor, weight: &Tensor) -> candle_core::Result<Option<Tensor>> {
    let (outputs, inputs) = weight.dims2()?;
    let Some((&width, batch)) = x.dims().split_last() else { return Ok(None) };
    let rows: usize = batch.iter().product();
    let on_cpu = matches!((x.device(), weight.device()), (Device::Cpu, Device::Cpu));
    let fits = width == inputs && x.dtype() == DType::F32 && weight.is_contiguous();
    if !on_cpu || !fits || (weight.dtype() == DType::F32 && rows > FEW) {
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
}

impl Element for f32 {
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
    turned.par_chunks_mut(CHUNK * rows).zip(w.par_chunks(CHUNK * inputs)).for_each_init(
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

/// Tile by tile of the weights, each widened into half of a common L2 and multiplied there.
fn multiply_many<T: Element>(x: &[f32], w: &[T], inputs: usize, outputs: usize) -> Vec<f32> {
    /// Outputs and inputs of a tile: 512 KiB.
    const WIDTH: usize = 128;
    const DEPTH: usize = 1024;
    let (level, rows) = (Level::detect(), x.len() / inputs);
    // Narrow products are cut finer, so that no thread is left without work.
    let share = outputs.div_ceil(2 * rayon::current_num_threads()).next_multiple_of(16);
    let width = share.min(WIDTH);
    let mut y = vec![0f32; rows * outputs];
    let start = Shared(y.as_mut_ptr());
    w.par_chunks(width * inputs).enumerate().for_each_init(
        || vec![0f32; width * DEPTH.min(inputs)],
        |tile, (block, w)| {
            let columns = w.len() / inputs;
            for from in (0..inputs).step_by(DEPTH) {
                let depth = DEPTH.min(inputs - from);
                for (wide, w) in tile.chunks_exact_mut(depth).zip(w.chunks_exact(inputs)) {
                    T::widen(&w[from..from + depth], level, wide);
                }
                // SAFETY: columns `block * width ..+ columns` of all rows lie within `y`, and no
                // other block has them; `x` has `rows` rows of `inputs`, `tile` `columns` rows of
                // `depth`.
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
                        tile.as_ptr(),
                        depth as isize,
                        1,
                        1.0,
                        1.0,
                        false,
                        false,
                        false,
                        gemm::Parallelism::None,
                    );
                }
            }
        },
    );
    y
}
