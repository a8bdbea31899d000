// SPDX-License-Identifier: MPL-2.0
//! Linear layers `y = x W^T + b` whose weights may be held in fewer bits than `x`.
//!
//! On the CPU candle widens both whole operands of a bf16 product to f32, every time. Here `x` is
//! f32 already and the weights are widened a tile at a time, into the cache, where the product is
//! taken: that is exact and costs no memory. A product with few rows, as in decoding, reads every
//! weight once and is bound by memory, so half the bytes make it faster (`docs/benchmarks.md`, real
//! sizes); with many rows the format makes no difference. Everything else is candle's own layer.

use candle_core::{CpuStorage, DType, Device, Module, Storage, Tensor};
use candle_nn::{Activation, VarBuilder};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use super::attention::simd::{self, Level};
use super::kernels;

/// A linear layer; the constructors are those of `candle_nn`.
#[derive(Clone, Debug)]
pub struct Linear(candle_nn::Linear);

/// A layer with a bias, `[inputs]` to `[outputs]`.
pub fn linear(inputs: usize, outputs: usize, vb: VarBuilder) -> candle_core::Result<Linear> {
    linear_b(inputs, outputs, true, vb)
}

pub fn linear_no_bias(
    inputs: usize,
    outputs: usize,
    vb: VarBuilder,
) -> candle_core::Result<Linear> {
    linear_b(inputs, outputs, false, vb)
}

pub fn linear_b(
    inputs: usize,
    outputs: usize,
    bias: bool,
    vb: VarBuilder,
) -> candle_core::Result<Linear> {
    let weight = vb.get((outputs, inputs), "weight")?;
    let bias = if bias { Some(vb.get(outputs, "bias")?) } else { None };
    Ok(Linear::new(weight, bias))
}

impl Linear {
    /// `weight` is `[outputs, inputs]`, `bias` `[outputs]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self(candle_nn::Linear::new(weight, bias))
    }

    /// Layers over the same input as one, their outputs side by side: one product instead of several.
    ///
    /// # Errors
    /// Where their inputs or formats differ.
    pub fn joined(layers: &[Self]) -> candle_core::Result<Self> {
        let weights: Vec<&Tensor> = layers.iter().map(|layer| layer.0.weight()).collect();
        let bias = |layer: &Self| match layer.0.bias() {
            Some(bias) => Ok(bias.clone()),
            None => layer.0.weight().narrow(1, 0, 1)?.squeeze(1)?.zeros_like(),
        };
        let bias = match layers.iter().any(|layer| layer.0.bias().is_some()) {
            true => {
                let all = layers.iter().map(bias).collect::<candle_core::Result<Vec<_>>>()?;
                Some(Tensor::cat(&all, 0)?)
            }
            false => None,
        };
        Ok(Self::new(Tensor::cat(&weights, 0)?, bias))
    }
}

/// What an activation makes of a layer: on a device its bias and a GELU are one pass.
pub fn activated(layer: &Linear, x: &Tensor, act: Activation) -> candle_core::Result<Tensor> {
    let tanh = match act {
        Activation::Gelu => Some(false),
        Activation::GeluPytorchTanh | Activation::NewGelu => Some(true),
        _ => None,
    };
    if let (Some(tanh), Some(bias)) = (tanh, layer.0.bias())
        && let Some(kernels) = kernels::on(x.device())
    {
        let product = Linear::new(layer.0.weight().clone(), None).forward(x)?;
        if let Some(y) = kernels.bias_gelu(&product, bias, tanh)? {
            return Ok(y);
        }
    }
    act.forward(&layer.forward(x)?)
}

impl Module for Linear {
    /// `[.., outputs]` of `[.., inputs]`.
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match product(x, self.0.weight())? {
            Some(y) => match self.0.bias() {
                Some(bias) => y.broadcast_add(bias),
                None => Ok(y),
            },
            None => self.0.forward(x),
        }
    }
}

/// Up to this many rows a product is bound by reading the weights.
const FEW: usize = 4;

/// `x W^T` where this room knows a better way than candle: f32 on the CPU times narrower weights,
/// or few rows of it times any.
fn product(x: &Tensor, weight: &Tensor) -> candle_core::Result<Option<Tensor>> {
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

/// A pointer into a matrix of which each thread writes other columns.
struct Shared(*mut f32);

// SAFETY: see the only use.
unsafe impl Sync for Shared {}

impl Shared {
    /// Through a method, so that closures borrow the whole and not the bare pointer.
    fn get(&self) -> *mut f32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers in -1..1 that repeat for no size below.
    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn narrow_weights_give_the_product_of_their_values() {
        for dtype in [DType::BF16, DType::F16, DType::F32] {
            for (rows, inputs, outputs) in
                [(1, 1, 1), (1, 37, 70), (3, 64, 129), (5, 16, 3), (7, 1500, 300), (40, 33, 17)]
            {
                let x = Tensor::from_vec(noise(rows * inputs, 1), (rows, inputs), &Device::Cpu);
                let w =
                    Tensor::from_vec(noise(outputs * inputs, 2), (outputs, inputs), &Device::Cpu);
                let (x, w) = (x.unwrap(), w.unwrap().to_dtype(dtype).unwrap());
                let bias = Tensor::from_vec(noise(outputs, 3), outputs, &Device::Cpu).unwrap();
                let wide = w.to_dtype(DType::F32).unwrap();
                let expected = x.matmul(&wide.t().unwrap()).unwrap().broadcast_add(&bias).unwrap();
                let y = Linear::new(w, Some(bias)).forward(&x).unwrap();
                assert_eq!(y.dims(), [rows, outputs]);
                let worst = (y - expected).unwrap().abs().unwrap().flatten_all().unwrap();
                let worst: f32 = worst.max(0).unwrap().to_scalar().unwrap();
                assert!(worst < 1e-4, "{dtype:?} {rows}x{inputs}x{outputs}: {worst}");
            }
        }
    }

    #[test]
    fn views_and_batches_are_taken_as_they_lie() {
        let x = Tensor::from_vec(noise(2 * 6 * 8, 4), (2, 8, 6), &Device::Cpu).unwrap();
        let x = x.transpose(1, 2).unwrap();
        let w = Tensor::from_vec(noise(20 * 8, 5), (20, 8), &Device::Cpu).unwrap();
        // A weight that begins in the middle of its storage.
        let w = w.to_dtype(DType::BF16).unwrap().narrow(0, 4, 10).unwrap();
        let y: Vec<Vec<Vec<f32>>> =
            Linear::new(w.clone(), None).forward(&x).unwrap().to_vec3().unwrap();
        let x: Vec<Vec<Vec<f32>>> = x.to_vec3().unwrap();
        let rows: Vec<Vec<f32>> = w.to_dtype(DType::F32).unwrap().to_vec2().unwrap();
        assert_eq!((y.len(), y[0].len(), y[0][0].len()), (2, 6, 10));
        for (x, y) in x.iter().flatten().zip(y.iter().flatten()) {
            for (w, y) in rows.iter().zip(y) {
                let expected: f32 = x.iter().zip(w).map(|(x, w)| x * w).sum();
                assert!((y - expected).abs() < 1e-5, "{y} is not {expected}");
            }
        }
        // Nothing in, nothing out.
        let none = Tensor::zeros((0, 8), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(Linear::new(w, None).forward(&none).unwrap().dims(), [0, 10]);
    }
}
