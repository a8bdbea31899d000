// SPDX-License-Identifier: MPL-2.0
//! A small decoder with seeded weights.

use candle_core::{DType, Device, Tensor};
use candle_nn::{Activation, VarBuilder, VarMap};

use super::Decoder;
use crate::model::checkpoint::TextConfig;

pub const WIDTH: usize = 32;

/// Numbers in -1..1.
fn noise(seed: u64, shape: &[usize]) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// `[n, WIDTH]`.
pub fn rows(seed: u64, n: usize) -> Tensor {
    noise(seed + 1000, &[n, WIDTH])
}

/// Three layers of four query heads on two KV heads.
pub fn decoder() -> Decoder {
    let config = TextConfig {
        vocab_size: 8,
        hidden_size: WIDTH,
        intermediate_size: 48,
        layers: 3,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        max_positions: 4096,
        rms_norm_eps: 1e-6,
        rope_theta: 1e4,
        mrope: None,
        qkv_bias: true,
        head_norms: false,
        act: Activation::Silu,
    };
    of(&config, |seed, name, shape| {
        let noise = noise(seed, shape);
        if name.contains("norm") { noise.affine(0.1, 1.0) } else { noise.affine(0.4, 0.0) }.unwrap()
    })
}

/// A decoder whose weights `value` makes by their number, name and shape.
pub fn of(config: &TextConfig, value: impl Fn(u64, &str, &[usize]) -> Tensor) -> Decoder {
    let weights = VarMap::new();
    let made = || {
        let vb = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
        Decoder::new(config, vb, None).unwrap()
    };
    // Once for the names of its weights, and once more with their values.
    made();
    let mut vars: Vec<_> = weights.data().lock().unwrap().clone().into_iter().collect();
    vars.sort_by(|a, b| a.0.cmp(&b.0));
    for (seed, (name, var)) in vars.into_iter().enumerate() {
        var.set(&value(seed as u64, &name, var.dims())).unwrap();
    }
    made()
}
