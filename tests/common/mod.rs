// SPDX-License-Identifier: MPL-2.0
//! What the engine's tests share: the fixtures and a comparison that says where it failed.
#![allow(dead_code, unused_imports)] // each test binary uses its part

pub mod against;
mod copy;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
pub use copy::{Copy, fixture};
use gststreamkvqa::{Frame, LoadOptions, VideoLlm};

pub fn tensors(path: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

/// The model that ships.
pub fn toyworld_model() -> VideoLlm {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/models/toyworld");
    VideoLlm::load(folder, &LoadOptions::default()).unwrap()
}

/// A video of the toy world, one frame a second.
pub fn painted(video: &toyworld::Stream) -> Vec<Frame> {
    const SIZE: (usize, usize) = (160, 120);
    let paint = |index| video.frame(index, SIZE.0, SIZE.1);
    let frame = |index| Frame::new(paint(index), SIZE.0, SIZE.1, index as f64).unwrap();
    (0..video.frames()).map(frame).collect()
}

/// The files in which a store that writes to `folder` keeps its blocks, oldest first.
pub fn segment_files(folder: &Path) -> Vec<PathBuf> {
    let list = |path: &Path| std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = list(folder).flat_map(|stream| list(&stream)).collect();
    files.sort();
    files
}

/// `[n, h, w, 3]` u8 as frames, one a second.
pub fn frames_of(tensor: &Tensor) -> Vec<Frame> {
    let (n, height, width, _) = tensor.dims4().unwrap();
    (0..n)
        .map(|i| {
            let rgb = tensor.get(i).unwrap().flatten_all().unwrap().to_vec1::<u8>().unwrap();
            Frame::new(rgb, width, height, i as f64).unwrap()
        })
        .collect()
}

#[track_caller]
pub fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: lengths");
    let worst = found
        .iter()
        .zip(expected)
        .enumerate()
        .map(|(i, (a, b))| (i, (a - b).abs()))
        .max_by(|a, b| a.1.total_cmp(&b.1));
    if let Some((i, difference)) = worst {
        assert!(
            difference <= tolerance,
            "{what}[{i}]: {} is {difference:e} from {}",
            found[i],
            expected[i]
        );
    }
}
