// SPDX-License-Identifier: MPL-2.0
//! What a question and the store cost beside the model (`cargo bench --bench memory`): ranking at
//! growing numbers of units, choosing among them, dividing them among layers, and the codecs.

use candle_core::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gststreamkvqa::memory::kv::Kv;
use gststreamkvqa::memory::recipe::Similarity;
use gststreamkvqa::memory::store::MeanKeys;
use gststreamkvqa::memory::store::codec::{self, Codec};
use gststreamkvqa::memory::weigh::budget::allocate;
use gststreamkvqa::memory::weigh::score::MeanQuery;
use gststreamkvqa::memory::weigh::select::{best, top};

/// Query heads, KV heads and head dim of LLaVA-OneVision 7B, and tokens of a frame.
const HEADS: usize = 28;
const KV_HEADS: usize = 4;
const DIM: usize = 128;
const TOKENS: usize = 196;
const LAYERS: usize = 28;

fn random(shape: (usize, usize, usize)) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
}

fn ranking(c: &mut Criterion) {
    let mut group = c.benchmark_group("ranking");
    group.sample_size(10);
    let query = MeanQuery::of(&random((HEADS, 20, DIM)), KV_HEADS, false).unwrap();
    for units in [100, 1_000, 10_000, 100_000] {
        let keys = random((1, units, KV_HEADS * DIM)).squeeze(0).unwrap();
        let mut held = MeanKeys::default();
        held.append(&MeanKeys::of(keys, false).unwrap()).unwrap();
        let keys = held;
        group.throughput(Throughput::Elements(units as u64));
        for (name, similarity) in [("dot", Similarity::Dot), ("cosine", Similarity::Cosine)] {
            group.bench_with_input(BenchmarkId::new(name, units), &keys, |b, keys| {
                b.iter(|| query.scores(keys, similarity).unwrap().read().unwrap());
            });
        }
        group.bench_with_input(BenchmarkId::new("best_64_by_dot", units), &keys, |b, keys| {
            b.iter(|| {
                let scores = query.scores_of_best(keys, Similarity::Dot, 64).unwrap();
                best(&scores.read().unwrap(), 64)
            });
        });
        group.bench_with_input(
            BenchmarkId::new("best_64_of_all_by_dot", units),
            &keys,
            |b, keys| {
                b.iter(|| best(&query.scores(keys, Similarity::Dot).unwrap().read().unwrap(), 64));
            },
        );
    }
}

fn selection(c: &mut Criterion) {
    let mut group = c.benchmark_group("selection");
    group.sample_size(20);
    for units in [100, 1_000, 10_000, 100_000] {
        let scores: Vec<f32> =
            Tensor::randn(0f32, 1.0, units, &Device::Cpu).unwrap().to_vec1().unwrap();
        group.bench_with_input(BenchmarkId::new("best_64", units), &scores, |b, scores| {
            b.iter(|| best(scores, 64));
        });
        group.bench_with_input(BenchmarkId::new("top_half", units), &scores, |b, scores| {
            b.iter(|| top(scores, scores.len() / 2));
        });
        let layers = vec![scores; LAYERS];
        group.bench_with_input(BenchmarkId::new("among_layers", units), &layers, |b, layers| {
            b.iter(|| allocate(layers, 64 * LAYERS));
        });
    }
}

fn codecs(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    group.sample_size(20);
    let kv = Kv { k: random((KV_HEADS, TOKENS, DIM)), v: random((KV_HEADS, TOKENS, DIM)) };
    group.throughput(Throughput::Elements(kv.bytes() / 4));
    for codec in [Codec::F32, Codec::F16, Codec::Q8, Codec::Q4, Codec::Q2] {
        let packed = codec::encode(codec, &kv).unwrap();
        group.bench_function(BenchmarkId::new("encode", codec.name()), |b| {
            b.iter(|| codec::encode(codec, &kv).unwrap());
        });
        group.bench_function(BenchmarkId::new("decode", codec.name()), |b| {
            b.iter(|| codec::decode(packed.form, &packed.bytes).unwrap());
        });
    }
}

criterion_group!(benches, ranking, selection, codecs);
criterion_main!(benches);
