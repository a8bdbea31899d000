// SPDX-License-Identifier: MPL-2.0
//! Weights that are made up, for measuring a model whose files are not at hand: what it costs does
//! not depend on what it has learned.

use std::sync::Arc;

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use parking_lot::Mutex;
use rayon::prelude::*;

use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::model::device::Formats;
use crate::model::quantised;

/// Builds something from made-up weights, and says how many bytes they take. They depend on `seed`,
/// on their names and on the kind of device.
pub(crate) fn build<T>(
    seed: u64,
    formats: Formats,
    device: &Device,
    cancel: &Cancel,
    build: impl Fn(VarBuilder<'static>) -> Result<T>,
) -> Result<(T, u64)> {
    let made = Arc::new(Made { seed, formats, cancel: cancel.clone(), bytes: Mutex::new(0) });
    let backend: Box<dyn SimpleBackend> = Box::new(Backend(made.clone()));
    let built = build(VarBuilder::from_backend(backend, formats.flow, device.clone()));
    cancel.check()?;
    let bytes = *made.bytes.lock();
    Ok((built?, bytes))
}

struct Made {
    seed: u64,
    formats: Formats,
    cancel: Cancel,
    bytes: Mutex<u64>,
}

impl Made {
    fn tensor(&self, shape: Shape, wanted: &str, device: &Device) -> Result<Tensor> {
        self.cancel.check()?;
        let eight_bits = quantised::name_of(wanted);
        let name = eight_bits.unwrap_or(wanted);
        let dtype = self.formats.of(shape.rank());
        let (shift, scale) = spread(name, &shape);
        let seed = self.seed ^ (u64::from(crc32fast::hash(name.as_bytes())) << 32);
        let tensor = match device {
            // In the device's own memory: what a GPU holds need not fit beside it on the host.
            Device::Cuda(_) => {
                device.set_seed(seed)?;
                Tensor::randn(shift, scale, shape.clone(), device)?
            }
            _ => Tensor::from_vec(noise(seed, shift, scale, &shape), shape.clone(), device)?,
        };
        let tensor = tensor.to_dtype(dtype)?;
        let tensor = if eight_bits.is_some() { quantised::quantised(&tensor)? } else { tensor };
        *self.bytes.lock() += (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64;
        Ok(tensor)
    }
}

/// Mean and standard deviation of a weight, such that layers keep the scale of what goes through
/// them; as `tools/real-size/write.py` has them.
fn spread(name: &str, shape: &Shape) -> (f32, f32) {
    if name.contains("norm") || name.contains("ln_q") {
        return (if name.ends_with("bias") { 0.0 } else { 1.0 }, 0.1);
    }
    match shape.dims() {
        [_, inputs @ ..] if !inputs.is_empty() => {
            (0.0, (inputs.iter().product::<usize>() as f32).sqrt().recip())
        }
        _ => (0.0, 0.02),
    }
}

/// Numbers of nearly normal distribution, each from its place: the sum of the four quarters of one
/// random word.
fn noise(seed: u64, shift: f32, scale: f32, shape: &Shape) -> Vec<f32> {
    let number = |place: u64| {
        let word = mixed(seed ^ mixed(place));
        let sum: u64 = (0..4).map(|quarter| (word >> (16 * quarter)) & 0xFFFF).sum();
        // Four uniform numbers of 0..1 have mean 2 and variance 4 / 12.
        let normal = (sum as f32 / 65535.0 - 2.0) * 3f32.sqrt();
        shift + scale * normal
    };
    (0..shape.elem_count() as u64).into_par_iter().map(number).collect()
}

/// The mixing function of SplitMix64.
fn mixed(word: u64) -> u64 {
    let word = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

struct Backend(Arc<Made>);

impl SimpleBackend for Backend {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        _: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        self.0.tensor(shape, name, device).map_err(|fault| match fault {
            EngineError::Compute(fault) => fault,
            fault => candle_core::Error::msg(fault),
        })
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("`{name}` is wanted in any shape, and there is no file that has one")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.formats.have(name, |_| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and standard deviation.
    fn moments(values: &[f32]) -> (f32, f32) {
        let n = values.len() as f32;
        let mean = values.iter().sum::<f32>() / n;
        (mean, (values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n).sqrt())
    }

    #[test]
    fn made_up_weights_have_the_spread_of_their_kind_and_come_again_by_their_seed() {
        let formats =
            Formats { matrices: DType::F32, flow: DType::F32, eight_bits: false, in_bf16: false };
        let values = |seed: u64, name: &str, shape: (usize, usize)| {
            let wanted = |vb: VarBuilder| Ok(vb.get(shape, name)?);
            let (tensor, bytes) =
                build(seed, formats, &Device::Cpu, &Cancel::default(), wanted).unwrap();
            assert_eq!(bytes, 4 * (shape.0 * shape.1) as u64);
            tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let one = values(1, "q_proj.weight", (256, 400));
        let (mean, deviation) = moments(&one);
        assert!(mean.abs() < 1e-3 && (deviation - 0.05).abs() < 5e-4, "{mean} {deviation}");
        assert_eq!(one, values(1, "q_proj.weight", (256, 400)));
        assert_ne!(one, values(2, "q_proj.weight", (256, 400)));
        assert_ne!(one, values(1, "k_proj.weight", (256, 400)));
        let (mean, deviation) = moments(&values(1, "layer_norm1.weight", (100, 400)));
        assert!((mean - 1.0).abs() < 5e-3 && (deviation - 0.1).abs() < 5e-3, "{mean} {deviation}");
    }
}
