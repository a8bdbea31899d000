// SPDX-License-Identifier: MPL-2.0
//! What a frame costs beside the model (`cargo bench --bench frames`): from pixels to what the tower
//! takes, and turning rows to their places.

use candle_core::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gststreamkvqa::model::rope::{Place, Positions, Rope};
use gststreamkvqa::{Frame, LoadOptions, VideoLlm};

fn frame(width: usize, height: usize) -> Frame {
    let rgb = (0..3 * width * height).map(|i| (i * 2_654_435_761) as u8).collect();
    Frame::new(rgb, width, height, 0.0).unwrap()
}

fn preprocessing(c: &mut Criterion) {
    let mut group = c.benchmark_group("preprocessing");
    group.sample_size(20);
    for name in ["models/toyworld", "tests/fixtures/qwen-wide"] {
        let folder = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
        let model = VideoLlm::load(folder, &LoadOptions::default()).unwrap();
        for (width, height) in [(640, 360), (1920, 1080)] {
            let frames = [frame(width, height)];
            let picture = model.picture(&frames[0]).unwrap();
            let id = BenchmarkId::new(name, format!("{width}x{height}"));
            group.bench_function(id, |b| {
                b.iter(|| model.vision().pixels(&frames, &picture, &Device::Cpu).unwrap());
            });
        }
    }
}

fn rotation(c: &mut Criterion) {
    let mut group = c.benchmark_group("rotation");
    group.sample_size(20);
    // The KV heads and a retrieved context of LLaVA-OneVision 7B, and the same in a picture's places.
    let (heads, n, dim) = (4, 64 * 196, 128);
    let x = Tensor::randn(0f32, 1.0, (heads, n, dim), &Device::Cpu).unwrap();
    group.throughput(Throughput::Elements((heads * n * dim) as u64));
    let plain = Rope::new(dim, 1e6, &Device::Cpu).unwrap();
    let run = Positions::run(14, n);
    group.bench_function("run", |b| b.iter(|| plain.rotate(&x, &run).unwrap()));
    let three = Rope::multimodal([16, 24, 24], 1e6, &Device::Cpu).unwrap();
    let place = |i: usize| Place { t: 14 + i / 196, h: 14 + i % 196 / 14, w: 14 + i % 14 };
    let grid = Positions::listed((0..n).map(place).collect());
    group.bench_function("grid", |b| b.iter(|| three.rotate(&x, &grid).unwrap()));
}

criterion_group!(benches, preprocessing, rotation);
criterion_main!(benches);
