// SPDX-License-Identifier: MPL-2.0
//! The gate of a SwiGLU: one half of a product decides how much of the other half passes.

use candle_core::{CpuStorage, D, DType, Result, Storage, Tensor};
use candle_nn::{Activation, Module};
use rayon::prelude::*;

use super::attention::simd::{self, Level};
use super::{kernels, worth};

/// Of one number of the gate, with its exponential.
const OPERATIONS: usize = 16;

/// `act(x[.., ..I]) * x[.., I..]` of `[n, 2 I]`, which is what gate and up give in one product.
pub fn gated(x: &Tensor, act: Activation) -> Result<Tensor> {
    if matches!(act, Activation::Silu | Activation::Swish) {
        if let Some(kernels) = kernels::on(x.device())
            && let Some(y) = kernels.silu_mul(x)?
        {
            return Ok(y);
        }
        if let Some(y) = on_cpu(x)? {
            return Ok(y);
        }
    }
    let inner = x.dim(D::Minus1)? / 2;
    let gate = x.narrow(D::Minus1, 0, inner)?.contiguous()?;
    act.forward(&gate)? * x.narrow(D::Minus1, inner, inner)?.contiguous()?
}

/// In one pass over memory, in f32.
fn on_cpu(x: &Tensor) -> Result<Option<Tensor>> {
    let (rows, width) = x.dims2()?;
    let inner = width / 2;
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(values)) = &*storage else { return Ok(None) };
    if x.dtype() != DType::F32 || !x.is_contiguous() || inner == 0 {
        return Ok(None);
    }
    let values = &values[layout.start_offset()..][..rows * width];
    let level = Level::detect();
    let mut gated = vec![0f32; rows * inner];
    let pairs = gated.par_chunks_exact_mut(inner).zip(values.par_chunks_exact(width));
    pairs.with_min_len(worth::items(OPERATIONS * inner)).for_each(|(y, x)| {
        let (gate, up) = x.split_at(inner);
        simd::silu_mul(level, gate, up, y);
    });
    Tensor::from_vec(gated, (rows, inner), x.device()).map(Some)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_first_half_gates_the_second() {
        let x = Tensor::randn(0f32, 2.0, (5, 14), &Device::Cpu).unwrap();
        let (gate, up) = (x.narrow(1, 0, 7).unwrap(), x.narrow(1, 7, 7).unwrap());
        for act in [Activation::Silu, Activation::NewGelu] {
            let expected = (act.forward(&gate).unwrap() * &up).unwrap().to_vec2::<f32>().unwrap();
            let found = gated(&x, act).unwrap().to_vec2::<f32>().unwrap();
            for (a, b) in expected.iter().flatten().zip(found.iter().flatten()) {
                assert!((a - b).abs() < 1e-6 * (1.0 + a.abs()), "{act:?}: {a} {b}");
            }
        }
        let view = x.narrow(0, 1, 3).unwrap();
        assert_eq!(gated(&view, Activation::Silu).unwrap().dims(), [3, 7]);
        let turned = Tensor::randn(0f32, 2.0, (14, 5), &Device::Cpu).unwrap().t().unwrap();
        assert_eq!(gated(&turned, Activation::Silu).unwrap().dims(), [5, 7]);
    }
}
