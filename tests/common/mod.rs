// SPDX-License-Identifier: MPL-2.0
//! What the engine's tests share: the fixtures and a comparison that says where it failed.
#![allow(dead_code)] // each test binary uses its part

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use gststreamkvqa::Frame;

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub fn tensors(path: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
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
