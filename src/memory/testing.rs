// SPDX-License-Identifier: MPL-2.0
//! Seeded numbers for the memory's tests.

use candle_core::{DType, Device, Shape, Tensor};

use crate::memory::unit::Geometry;
use crate::model::rope::{Layout, Rope};

/// The 64-bit LCG of the golden vectors: uniform in -1..1.
pub struct Lcg(pub u64);

impl Lcg {
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (((self.0 >> 33) as f64 / (1u64 << 31) as f64) * 2.0 - 1.0) as f32
    }
}

pub fn random_tensor(seed: u64, shape: impl Into<Shape>) -> Tensor {
    let shape = shape.into();
    let mut lcg = Lcg(seed);
    let values: Vec<f32> = (0..shape.elem_count()).map(|_| lcg.next()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Scores of `layers` layers with about `candidates` candidates each.
pub fn random_scores(seed: u64, layers: usize, candidates: usize) -> Vec<Vec<f32>> {
    let mut lcg = Lcg(seed);
    (0..layers)
        .map(|layer| (0..candidates + layer % 3).map(|_| 10.0 * lcg.next()).collect())
        .collect()
}

/// Layers of `(H, Hk, d)` on one axis.
pub fn geometry(
    layers: usize,
    (heads, kv_heads, head_dim): (usize, usize, usize),
    unit_tokens: usize,
) -> Geometry {
    Geometry {
        layers,
        heads,
        kv_heads,
        head_dim,
        scale: 1.0 / (head_dim as f64).sqrt(),
        dtype: DType::F32,
        device: Device::Cpu,
        on_device: false,
        rope: Rope::new(head_dim, 1e4, &Device::Cpu).unwrap().into(),
        unit_tokens,
        picture_tokens: unit_tokens,
        unit_seconds: 1.0,
        layout: Layout::Run,
    }
}
