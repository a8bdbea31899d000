// SPDX-License-Identifier: MPL-2.0
//! What is asked for when a model is loaded: from where, onto which device, in which number format,
//! and who hears how far it is.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::cancel::Cancel;
use crate::error::{EngineError, Result};

/// Which device runs the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceChoice {
    /// The first CUDA device if this build and machine have one, else the CPU.
    #[default]
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = EngineError;

    /// `auto` or nothing, `cpu`, `cuda` or `cuda:N`.
    fn from_str(name: &str) -> Result<Self> {
        match name.trim() {
            "" | "auto" => return Ok(Self::Auto),
            "cpu" => return Ok(Self::Cpu),
            "cuda" => return Ok(Self::Cuda(0)),
            _ => {}
        }
        let index = name.trim().strip_prefix("cuda:").and_then(|index| index.parse().ok());
        index.map(Self::Cuda).ok_or_else(|| EngineError::Device {
            name: name.into(),
            reason: "unknown; use auto, cpu, cuda or cuda:N".into(),
        })
    }
}

/// In which number format the weights are held. The CPU computes in f32 with any of the floats, and
/// with eight bits in whole numbers; a GPU computes in the format itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DTypeChoice {
    /// The checkpoint's own; on a CPU that multiplies bytes fast, eight bits for a large model.
    #[default]
    Auto,
    F32,
    Bf16,
    F16,
    /// Linear layers in whole numbers of eight bits with a scale for each output, the rest as in the
    /// checkpoint. On the CPU only.
    Q8,
}

impl FromStr for DTypeChoice {
    type Err = EngineError;

    /// `auto` or nothing, `f32`, `bf16`, `f16` or `q8`.
    fn from_str(name: &str) -> Result<Self> {
        Ok(match name.trim() {
            "" | "auto" => Self::Auto,
            "f32" => Self::F32,
            "bf16" => Self::Bf16,
            "f16" => Self::F16,
            "q8" => Self::Q8,
            _ => {
                return Err(EngineError::Option {
                    key: "dtype".into(),
                    reason: format!("`{name}` is none of auto, f32, bf16, f16, q8"),
                });
            }
        })
    }
}

/// What is being done with a file of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadStep {
    Download,
    /// Copying weights to where the model runs.
    Read,
}

/// How far loading has come.
#[derive(Clone, Debug)]
pub struct LoadProgress {
    pub step: LoadStep,
    /// The file in work.
    pub file: Arc<str>,
    /// Which one of the `files` of this step it is, from 1.
    pub number: usize,
    pub files: usize,
    /// Bytes, of one file when downloading and of all files when reading.
    pub done: u64,
    pub total: u64,
}

/// Hears how far loading has come.
pub type Report = dyn Fn(&LoadProgress) + Send + Sync;

/// Where models come from that are named and not given as a folder.
#[derive(Clone, Debug, Default)]
pub struct HubOptions {
    /// Download what the cache lacks.
    pub download: bool,
    /// The cache folder. `None`: `HF_HUB_CACHE`, else `HF_HOME/hub`, else
    /// `~/.cache/huggingface/hub`.
    pub cache: Option<PathBuf>,
    /// The address to download from. `None`: `HF_ENDPOINT`, else <https://huggingface.co>.
    pub endpoint: Option<String>,
}

/// How a model is loaded, and who hears of it.
#[derive(Clone, Default)]
pub struct LoadOptions {
    pub device: DeviceChoice,
    pub dtype: DTypeChoice,
    /// Called from the loading thread, after every tensor and every piece of a download.
    pub progress: Option<Arc<Report>>,
    pub cancel: Cancel,
    pub hub: HubOptions,
    /// Makes the weights up from this seed, where the model is to run, and reads no weight files: for
    /// measuring what a model of some size costs. The rest of the folder is read as ever. `auto` is
    /// bf16, in which checkpoints are published.
    pub made_up: Option<u64>,
}
