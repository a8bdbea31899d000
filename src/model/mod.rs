// SPDX-License-Identifier: MPL-2.0
use crate::error::Result;
use std::path::Path;
use std::sync::Arc;
pub mod prompt;

/// Which device runs the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceChoice {
    /// The first CUDA device if this build and machine have one, else the CPU.
    #[default]
    Auto,
    Cpu,
    Cuda(usize),
}

/// In which number format the weights are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DTypeChoice {
    /// f32 on the CPU; the checkpoint's own on a GPU.
    #[default]
    Auto,
    F32,
    Bf16,
    F16,
}

/// How far loading has come: `done` of `total` bytes of weights.
#[derive(Clone, Copy, Debug)]
pub struct LoadProgress {
    pub done: u64,
    pub total: u64,
}

#[derive(Clone, Default)]
pub struct LoadOptions {
    pub device: DeviceChoice,
    pub dtype: DTypeChoice,
    /// Called from the loading thread after every tensor.
    pub progress: Option<Arc<dyn Fn(LoadProgress) + Send + Sync>>,
    pub cancel: crate::Cancel,
}

/// A loaded Video-LLM. Cloning shares the weights.
#[derive(Clone)]
pub struct VideoLlm {}

impl VideoLlm {
    pub fn load(dir: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        let _ = (dir.as_ref(), options);
        Ok(Self {})
    }
    /// What the model's folder recommends (`streamkvqa.json`); empty if it has none.
    pub fn recommended_sample_rate(&self) -> Option<f64> {
        None
    }
}
