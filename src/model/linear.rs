// SPDX-License-Identifier: MPL-2.0
//! Linear layers `y = x W^T + b` whose weights may be held in fewer bits than `x`: as floats of 16
//! bits ([`floats`]), or as whole numbers of eight ([`q8`]), on the CPU.

mod columns;
mod floats;
mod panels;
mod q8;

use candle_core::{CpuStorage, DType, Device, Module, Storage, Tensor};
use candle_nn::{Activation, VarBuilder};
use rayon::prelude::*;

use super::attention::simd::{self, Level};
use super::{kernels, quantised, worth};

/// A linear layer; the constructors are those of `candle_nn`.
#[derive(Clone, Debug)]
pub struct Linear(Weights);

#[derive(Clone, Debug)]
enum Weights {
    Floats(candle_nn::Linear),
    /// In bf16, as what comes in may be.
    Rounding(candle_nn::Linear),
    Eight(q8::Layer),
}

/// Whether this processor multiplies bytes so fast that weights of eight bits are the faster ones for
/// any number of rows.
pub fn eight_bits_are_fast() -> bool {
    q8::is_fast()
}

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

/// Takes the weights in eight bits, where the model is held in them.
pub fn linear_b(
    inputs: usize,
    outputs: usize,
    bias: bool,
    vb: VarBuilder,
) -> candle_core::Result<Linear> {
    let bias = if bias { Some(vb.get(outputs, "bias")?) } else { None };
    let eight_bits = quantised::named("weight");
    if quantised::fits(inputs) && vb.contains_tensor(&eight_bits) {
        let rows = vb.get((outputs, inputs), &eight_bits)?;
        let layer = q8::Layer::new(&rows, inputs, bias.as_ref())?;
        return Ok(Linear(Weights::Eight(layer)));
    }
    let layer = candle_nn::Linear::new(vb.get((outputs, inputs), "weight")?, bias);
    Ok(Linear(match vb.contains_tensor(&quantised::rounding("weight")) {
        true => Weights::Rounding(layer),
        false => Weights::Floats(layer),
    }))
}

impl Linear {
    /// `weight` is `[outputs, inputs]` in floats, `bias` `[outputs]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self(Weights::Floats(candle_nn::Linear::new(weight, bias)))
    }

    /// `weight`, `[outputs, inputs]` in floats, in eight bits if it can be.
    pub fn in_eight_bits(weight: &Tensor) -> candle_core::Result<Self> {
        let (_, inputs) = weight.dims2()?;
        if !quantised::fits(inputs) {
            return Ok(Self::new(weight.clone(), None));
        }
        let layer = q8::Layer::new(&quantised::quantised(weight)?, inputs, None)?;
        Ok(Self(Weights::Eight(layer)))
    }

    /// Bytes of weights in eight bits.
    pub fn eight_bits_bytes(&self) -> u64 {
        match &self.0 {
            Weights::Eight(layer) => (layer.inputs() * layer.outputs()) as u64,
            Weights::Floats(_) | Weights::Rounding(_) => 0,
        }
    }

    /// Whether the weights are in eight bits.
    pub fn is_eight_bits(&self) -> bool {
        matches!(self.0, Weights::Eight(_))
    }

    /// Layers over the same input as one, their outputs side by side: one product instead of several.
    ///
    /// # Errors
    /// Where their inputs or formats differ.
    pub fn joined(layers: &[Self]) -> candle_core::Result<Self> {
        let mut floats = Vec::new();
        let mut eight = Vec::new();
        for layer in layers {
            match &layer.0 {
                Weights::Floats(layer) | Weights::Rounding(layer) => floats.push(layer),
                Weights::Eight(layer) => eight.push(layer),
            }
        }
        if floats.is_empty() {
            return Ok(Self(Weights::Eight(q8::Layer::joined(eight)?)));
        }
        if !eight.is_empty() {
            candle_core::bail!("layers of different formats cannot be joined")
        }
        let weights: Vec<&Tensor> = floats.iter().map(|layer| layer.weight()).collect();
        let bias = |layer: &&candle_nn::Linear| match layer.bias() {
            Some(bias) => Ok(bias.clone()),
            None => layer.weight().narrow(1, 0, 1)?.squeeze(1)?.zeros_like(),
        };
        let bias = match floats.iter().any(|layer| layer.bias().is_some()) {
            true => {
                let all = floats.iter().map(bias).collect::<candle_core::Result<Vec<_>>>()?;
                Some(Tensor::cat(&all, 0)?)
            }
            false => None,
        };
        let joined = candle_nn::Linear::new(Tensor::cat(&weights, 0)?, bias);
        Ok(Self(match layers.iter().all(|layer| matches!(layer.0, Weights::Rounding(_))) {
            true => Weights::Rounding(joined),
            false => Weights::Floats(joined),
        }))
    }
}

/// What an activation makes of a layer: on a device its bias and a GELU are one pass, on the CPU the
/// GELU that towers have is one over whole vectors.
pub fn activated(layer: &Linear, x: &Tensor, act: Activation) -> candle_core::Result<Tensor> {
    let tanh = match act {
        Activation::Gelu => Some(false),
        Activation::GeluPytorchTanh | Activation::NewGelu => Some(true),
        _ => None,
    };
    match &layer.0 {
        Weights::Eight(layer) if tanh == Some(true) => {
            return eight(layer, x, Some(simd::gelu_tanh));
        }
        Weights::Floats(layer) => {
            if let (Some(tanh), Some(bias)) = (tanh, layer.bias())
                && let Some(kernels) = kernels::on(x.device())
            {
                let product = Linear::new(layer.weight().clone(), None).forward(x)?;
                if let Some(y) = kernels.bias_gelu(&product, bias, tanh)? {
                    return Ok(y);
                }
            }
        }
        Weights::Eight(_) | Weights::Rounding(_) => {}
    }
    let y = layer.forward(x)?;
    if tanh == Some(true)
        && let Some(y) = gelu_tanh(&y)?
    {
        return Ok(y);
    }
    act.forward(&y)
}

impl Module for Linear {
    /// `[.., outputs]` of `[.., inputs]`.
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match &self.0 {
            Weights::Eight(layer) => eight(layer, x, None),
            Weights::Floats(layer) => floating(layer, x, false),
            Weights::Rounding(layer) => floating(layer, x, true),
        }
    }
}

/// A product with weights in floats; `rounding`: what comes in may be rounded to their format.
fn floating(layer: &candle_nn::Linear, x: &Tensor, rounding: bool) -> candle_core::Result<Tensor> {
    match (floats::product(x, layer.weight(), rounding)?, layer.bias()) {
        (Some(y), Some(bias)) => y.broadcast_add(bias),
        (Some(y), None) => Ok(y),
        (None, _) => layer.forward(x),
    }
}

/// A product with weights of eight bits, and what is done to it.
fn eight(layer: &q8::Layer, x: &Tensor, finish: Option<q8::Finish>) -> candle_core::Result<Tensor> {
    let y = match x.dims().split_last() {
        Some((&width, batch)) if width == layer.inputs() => {
            let y = on_floats(x, |x| layer.multiply(x, finish))?;
            y.map(|y| Tensor::from_vec(y?, [batch, &[layer.outputs()]].concat(), x.device()))
        }
        _ => None,
    };
    match y {
        Some(y) => y,
        None => {
            let (shape, dtype, device) = (x.dims(), x.dtype(), x.device().location());
            candle_core::bail!("{layer:?} of {shape:?} in {dtype:?} on {device:?}")
        }
    }
}

fn gelu_tanh(x: &Tensor) -> candle_core::Result<Option<Tensor>> {
    const CHUNK: usize = 4096;
    /// Of one number, with its exponential.
    const OPERATIONS: usize = 16;
    let level = Level::detect();
    let y = on_floats(x, |x| {
        let mut y = x.to_vec();
        let chunks = y.par_chunks_mut(CHUNK).with_min_len(worth::items(OPERATIONS * CHUNK));
        chunks.for_each(|y| simd::gelu_tanh(level, y));
        y
    })?;
    y.map(|y| Tensor::from_vec(y, x.shape(), x.device())).transpose()
}

/// What something makes of the numbers of a tensor, row by row, where they are f32 on the CPU.
fn on_floats<T>(x: &Tensor, f: impl FnOnce(&[f32]) -> T) -> candle_core::Result<Option<T>> {
    if x.dtype() != DType::F32 || !matches!(x.device(), Device::Cpu) {
        return Ok(None);
    }
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(values)) = &*storage else { return Ok(None) };
    Ok(Some(f(&values[layout.start_offset()..][..x.elem_count()])))
}

#[cfg(test)]
mod tests {
    use super::columns::FEW;
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
                let layer = candle_nn::Linear::new(w, Some(bias));
                let y = Linear(Weights::Floats(layer.clone())).forward(&x).unwrap();
                assert_eq!(y.dims(), [rows, outputs]);
                let worst = (y - expected).unwrap().abs().unwrap().flatten_all().unwrap();
                let worst: f32 = worst.max(0).unwrap().to_scalar().unwrap();
                assert!(worst < 1e-4, "{dtype:?} {rows}x{inputs}x{outputs}: {worst}");
                if dtype == DType::BF16 {
                    // Numbers that bf16 has are not changed by rounding.
                    let x = x.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
                    let product = |rounding| floating(&layer, &x, rounding).unwrap();
                    let (rounded, exact) = (product(true), product(false));
                    let worst = self::worst(&rounded, &exact);
                    assert!(worst < 1e-4, "{rows}x{inputs}x{outputs} in bf16: {worst}");
                }
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

    /// A layer in eight bits, and the same in floats: of what its numbers stand for.
    fn both(inputs: usize, outputs: usize, seed: u32) -> (Linear, Linear) {
        let weights = noise(inputs * outputs, seed);
        let weight = Tensor::from_vec(weights, (outputs, inputs), &Device::Cpu).unwrap();
        let bias = Tensor::from_vec(noise(outputs, seed + 1), outputs, &Device::Cpu).unwrap();
        let rows = quantised::quantised(&weight).unwrap();
        let mut exact = Vec::new();
        for row in rows.to_vec2::<u8>().unwrap() {
            let (numbers, scales) = row.split_at(inputs);
            for (slice, scale) in quantised::slices(inputs).into_iter().zip(scales.chunks(4)) {
                let scale = f32::from_le_bytes(scale.try_into().unwrap());
                exact.extend(numbers[slice].iter().map(|n| f32::from(*n as i8) * scale));
            }
        }
        let exact = Tensor::from_vec(exact, (outputs, inputs), &Device::Cpu).unwrap();
        let layer = q8::Layer::new(&rows, inputs, Some(&bias)).unwrap();
        (Linear(Weights::Eight(layer)), Linear::new(exact, Some(bias)))
    }

    fn worst(a: &Tensor, b: &Tensor) -> f32 {
        let worst = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
        worst.max(0).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn eight_bits_give_the_product_of_their_values_up_to_the_steps_of_the_input() {
        for (rows, inputs, outputs) in [
            (1, 32, 1),
            (1, 96, 300),
            (4, 1152, 256),
            (5, 37, 257),
            (64, 1500, 70),
            (65, 2049, 3),
            (196, 96, 600),
        ] {
            let (layer, exact) = both(inputs, outputs, 7);
            let x = Tensor::from_vec(noise(rows * inputs, 1), (rows, inputs), &Device::Cpu);
            // Not centred, as what comes out of an activation is not.
            let x = (x.unwrap() + 0.4).unwrap();
            let found = layer.forward(&x).unwrap();
            assert_eq!(found.dims(), [rows, outputs]);
            let worst = worst(&found, &exact.forward(&x).unwrap());
            // Errors of half a step of the input, of 2 over 255 or 127, and weights of -1 to 1: nearly
            // normal, of deviation step / sqrt(12) * sqrt(inputs / 3). With few rows a step is 1 / 256,
            // or 1 / 128, of that.
            let steps = if rows <= FEW { 127.0 * 128.0 } else { 127.0 };
            let limit = 5.0 * (2.0 / steps) * (inputs as f32 / 36.0).sqrt() + 1e-4;
            assert!(worst < limit, "{rows}x{inputs}x{outputs}: {worst}, not below {limit}");
        }
    }

    #[test]
    fn joined_layers_of_eight_bits_give_what_each_gives() {
        let (a, b) = (both(96, 300, 1).0, both(96, 40, 3).0);
        let joined = Linear::joined(&[a.clone(), b.clone()]).unwrap();
        for rows in [2, 9] {
            let x = Tensor::from_vec(noise(rows * 96, 5), (rows, 96), &Device::Cpu).unwrap();
            let each = Tensor::cat(&[a.forward(&x).unwrap(), b.forward(&x).unwrap()], 1).unwrap();
            assert_eq!(worst(&joined.forward(&x).unwrap(), &each), 0.0);
        }
        assert!(Linear::joined(&[a, both(128, 40, 3).0]).is_err());
        assert!(Linear::joined(&[b.clone(), both(96, 40, 3).1]).is_err());
        let wide = Tensor::zeros((2, 97), DType::F32, &Device::Cpu).unwrap();
        assert!(b.forward(&wide).is_err(), "another width");
        let none = Tensor::zeros((0, 96), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(b.forward(&none).unwrap().dims(), [0, 40]);
    }

    #[test]
    fn numbers_that_are_none_come_through_eight_bits() {
        let (layer, _) = both(64, 10, 1);
        for rows in [3, 20] {
            for none in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = noise(rows * 64, 2);
                x[64 + 5] = none;
                let x = Tensor::from_vec(x, (rows, 64), &Device::Cpu).unwrap();
                let y: Vec<Vec<f32>> = layer.forward(&x).unwrap().to_vec2().unwrap();
                let finite = |row: &Vec<f32>| row.iter().all(|y| y.is_finite());
                assert!(y[1].iter().all(|y| !y.is_finite()), "{none} in {rows} rows");
                assert!(y.iter().enumerate().all(|(i, row)| i == 1 || finite(row)));
            }
        }
        let mut weights = noise(64 * 10, 2);
        weights[3 * 64 + 9] = f32::NAN;
        let weight = Tensor::from_vec(weights, (10, 64), &Device::Cpu).unwrap();
        let layer = q8::Layer::new(&quantised::quantised(&weight).unwrap(), 64, None).unwrap();
        let x = Tensor::from_vec(noise(6 * 64, 5), (6, 64), &Device::Cpu).unwrap();
        let y: Vec<Vec<f32>> =
            Linear(Weights::Eight(layer)).forward(&x).unwrap().to_vec2().unwrap();
        assert!(y.iter().all(|row| row[3].is_nan() && row[4].is_finite()));
    }

    #[test]
    fn an_activation_is_that_of_the_layer_in_any_format() {
        let (layer, exact) = both(96, 300, 11);
        let x = Tensor::from_vec(noise(20 * 96, 5), (20, 96), &Device::Cpu).unwrap();
        for act in [Activation::GeluPytorchTanh, Activation::Gelu, Activation::Silu] {
            for layer in [&layer, &exact] {
                let expected = act.forward(&layer.forward(&x).unwrap()).unwrap();
                let found = activated(layer, &x, act).unwrap();
                assert!(worst(&found, &expected) < 1e-5, "{act:?}");
            }
        }
    }
}
