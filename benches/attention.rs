// SPDX-License-Identifier: MPL-2.0
//! The attention kernel against candle's own operations (`cargo bench --bench attention`).

use candle_core::{DType, Device, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use gststreamkvqa::model::attention::{
    Stage, Visible, attend, attend_composed, attention_mass, attention_mass_composed,
};

/// Name, query heads, KV heads, query rows, keys, head dim, rule of sight.
type Case = (&'static str, usize, usize, usize, usize, usize, Visible);

fn causal(rows: usize, keys: usize) -> Visible {
    Visible::Window { offset: keys - rows, width: usize::MAX }
}

fn attention(c: &mut Criterion) {
    let cases: [Case; 5] = [
        ("frame_4k", 14, 2, 196, 4096, 64, causal(196, 4096)),
        ("frame_16k", 14, 2, 196, 16384, 64, causal(196, 16384)),
        ("siglip_729", 16, 16, 729, 729, 72, Visible::All),
        ("decode_4k", 14, 2, 1, 4096, 64, Visible::All),
        ("decode_16k", 14, 2, 1, 16384, 64, Visible::All),
    ];
    for (name, heads, kv_heads, rows, keys, dim, visible) in cases {
        let random = |shape| Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
        let q = random((heads, rows, dim));
        let (k, v) = (random((kv_heads, keys, dim)), random((kv_heads, keys, dim)));
        let scale = 1.0 / (dim as f64).sqrt();
        let stage = || [Stage { q: &q, k: &k, v: &v, visible }];
        let mut group = c.benchmark_group(name);
        group.sample_size(10);
        group.bench_function("tiled", |b| b.iter(|| attend(&stage(), scale).unwrap()));
        group.bench_function("composed", |b| b.iter(|| attend_composed(&stage(), scale).unwrap()));
        group.bench_function("naive", |b| b.iter(|| naive(&q, &k, &v, visible, scale)));
        group.bench_function("mass_tiled", |b| {
            b.iter(|| attention_mass(&q, &k, visible, scale).unwrap());
        });
        group.bench_function("mass_composed", |b| {
            b.iter(|| attention_mass_composed(&q, &k, visible, scale).unwrap());
        });
    }
}

/// What a decoder of candle-transformers does: the keys repeated per query head, a mask, candle's
/// softmax over the last axis.
fn naive(q: &Tensor, k: &Tensor, v: &Tensor, visible: Visible, scale: f64) -> Tensor {
    let (heads, rows, _) = q.dims3().unwrap();
    let (kv_heads, keys, _) = k.dims3().unwrap();
    let repeat = |x: &Tensor| {
        let x = x.unsqueeze(0).unwrap();
        candle_transformers::utils::repeat_kv(x, heads / kv_heads).unwrap().squeeze(0).unwrap()
    };
    let (k, v) = (repeat(k), repeat(v));
    let mut scores = (q.matmul(&k.t().unwrap()).unwrap() * scale).unwrap();
    if visible != Visible::All {
        let mut mask = vec![f32::NEG_INFINITY; rows * keys];
        for (i, row) in mask.chunks_exact_mut(keys).enumerate() {
            let (lo, hi) = visible.interval(i, keys);
            row[lo..hi].fill(0.0);
        }
        let mask = Tensor::from_vec(mask, (rows, keys), &Device::Cpu).unwrap();
        scores = scores.broadcast_add(&mask.to_dtype(DType::F32).unwrap()).unwrap();
    }
    candle_nn::ops::softmax_last_dim(&scores).unwrap().matmul(&v).unwrap()
}

criterion_group!(benches, attention);
criterion_main!(benches);
