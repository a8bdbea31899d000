// SPDX-License-Identifier: MPL-2.0
//! A folder of a model that a test may change.
#![allow(dead_code)] // each test binary uses its part

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use gststreamkvqa::{EngineError, LoadOptions, VideoLlm};
use serde_json::Value;

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A copy of a fixture that may be damaged.
pub struct Copy(tempfile::TempDir);

impl Copy {
    pub fn of(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(fixture(name)).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap();
            if !file.to_string_lossy().starts_with("expected") {
                std::fs::copy(&path, dir.path().join(file)).unwrap();
            }
        }
        Self(dir)
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    pub fn edit(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let path = self.path(file);
        let mut value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        change(&mut value);
        std::fs::write(path, value.to_string()).unwrap();
    }

    pub fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path(file), text).unwrap();
    }

    pub fn load(&self) -> VideoLlm {
        VideoLlm::load(self.dir(), &LoadOptions::default()).unwrap()
    }

    pub fn error(&self) -> EngineError {
        VideoLlm::load(self.dir(), &LoadOptions::default()).err().expect("must be refused")
    }

    /// The folder is refused with a message that has all these parts.
    pub fn refused(&self, parts: &[&str]) {
        let message = self.error().to_string();
        for part in parts {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    }

    /// Changes the last weight of a file by as little as there is.
    pub fn nudge(&self, file: &str) {
        let path = self.path(file);
        let mut content = std::fs::read(&path).unwrap();
        // The lowest byte of an f32.
        let at = content.len() - 4;
        content[at] ^= 1;
        std::fs::write(path, content).unwrap();
    }

    /// Rewrites the safetensors file with other tensors.
    pub fn rewrite(&self, change: impl FnOnce(&mut Vec<(String, Tensor)>)) {
        let path = self.path("model.safetensors");
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        let mut tensors: Vec<_> = tensors.into_iter().collect();
        change(&mut tensors);
        let tensors: HashMap<_, _> = tensors.into_iter().collect();
        candle_core::safetensors::save(&tensors, path).unwrap();
    }

    /// Changes the numbers of the tensors whose names end like this; there must be one.
    pub fn change(&self, name: &str, change: impl Fn(usize, f32) -> f32) {
        self.rewrite(|tensors| {
            let mut found = tensors.iter_mut().filter(|(own, _)| own.ends_with(name)).peekable();
            assert!(found.peek().is_some(), "{name}");
            for (_, tensor) in found {
                let (shape, dtype) = (tensor.dims().to_vec(), tensor.dtype());
                let numbers = tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
                let numbers = numbers.to_vec1::<f32>().unwrap().into_iter().enumerate();
                let numbers: Vec<f32> = numbers.map(|(i, x)| change(i, x)).collect();
                let changed = Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap();
                *tensor = changed.to_dtype(dtype).unwrap();
            }
        });
    }
}
