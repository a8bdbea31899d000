// SPDX-License-Identifier: MPL-2.0
//! A Hugging Face model folder, read with suspicion.
//!
//! What the files say is checked before it is used: architecture, sizes, names, shapes and file
//! lengths. Both layouts of the folders are read (one JSON file per processor and legacy RoPE
//! fields, or the nested `processor_config.json` and `rope_parameters` of transformers 5), and all
//! spellings of the weight names.

mod config;
mod processor;
mod weights;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

pub(super) use config::{Checker, MAX_GRID, MAX_LAYERS, MAX_VOCAB, MAX_WIDTH};
pub use config::{
    Config, OneVisionConfig, QwenVisionConfig, SiglipConfig, TextConfig, VisionConfig,
};
pub use processor::ProcessorConfig;
pub(crate) use weights::{INDEX, SINGLE, Weights, index_files, weight_files};

use crate::error::{EngineError, Result};
use crate::model::hub;

/// A model folder whose config has been read and checked.
pub struct Checkpoint {
    dir: PathBuf,
    config: Config,
}

impl Checkpoint {
    pub fn open(dir: &Path) -> Result<Self> {
        let fault = |reason: &str| {
            Err(EngineError::Checkpoint { path: dir.to_owned(), reason: reason.into() })
        };
        if !dir.exists() {
            return fault(
                "no such directory; expected a Hugging Face directory with config.json, \
                 tokenizer.json and *.safetensors",
            );
        }
        if !dir.is_dir() {
            return fault(
                "not a directory; expected a Hugging Face directory with config.json, \
                 tokenizer.json and *.safetensors",
            );
        }
        let config = Config::read(&dir.join("config.json"))?;
        Ok(Self { dir: dir.to_owned(), config })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn processor(&self) -> Result<ProcessorConfig> {
        ProcessorConfig::read(&self.dir, &self.config.vision)
    }

    /// The safetensors files: those the index names, or the single one.
    pub(crate) fn weights(&self) -> Result<Weights> {
        Weights::open(&self.dir, &weight_files(&self.dir)?)
    }

    /// Ids that end an answer, from every file that names some.
    pub(crate) fn end_ids(&self) -> Result<Vec<u32>> {
        let mut ids = self.config.end_ids.clone();
        let generation: Option<GenerationConfig> =
            read_optional(&self.dir.join("generation_config.json"))?;
        ids.extend(generation.map(|g| g.eos_token_id.into_vec()).unwrap_or_default());
        Ok(ids)
    }

    pub(crate) fn recommendations(&self) -> Result<Recommendations> {
        let path = self.dir.join("streamkvqa.json");
        let mut read: Recommendations = read_optional(&path)?.unwrap_or_default();
        read.folder.clone_from(&self.dir);
        let fault = |reason: &str| Err(EngineError::Checkpoint { path, reason: reason.into() });
        if read.sample_rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
            return fault("`sample_rate` must be a positive number of frames per second");
        }
        if read.trained_frames == Some(0) {
            return fault("`trained_frames` must be at least 1");
        }
        Ok(read)
    }
}

/// What a model's folder recommends for streaming (`streamkvqa.json`, optional).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Recommendations {
    /// The longest stream, in frames, that the model was trained to answer about.
    pub trained_frames: Option<usize>,
    /// Frames per second to sample.
    pub sample_rate: Option<f64>,
    /// Method options by name, for every method that has them.
    pub recipe: serde_json::Map<String, serde_json::Value>,
    /// The same for single methods, by the method's name; these win.
    pub recipes: BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
    /// The folder that recommends.
    #[serde(skip)]
    pub folder: PathBuf,
}

impl Recommendations {
    /// A model that is recommended: a path is meant from this folder, a name on the hub is itself.
    pub fn model(&self, named: &str) -> PathBuf {
        let named = Path::new(named);
        if hub::is_name(named) { named.to_owned() } else { self.folder.join(named) }
    }
}

#[derive(Deserialize)]
struct GenerationConfig {
    #[serde(default)]
    eos_token_id: Ids,
}

/// No id, one id or a list of them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(untagged)]
pub(crate) enum Ids {
    #[default]
    None,
    One(u32),
    Many(Vec<u32>),
}

impl Ids {
    pub fn into_vec(self) -> Vec<u32> {
        match self {
            Self::None => Vec::new(),
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

/// A JSON or text file larger than this is not a model's.
const MAX_TEXT_BYTES: u64 = 256 << 20;

/// The text of a file of the folder.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let read = |path: &Path| -> std::io::Result<String> {
        let size = std::fs::metadata(path)?.len();
        if size > MAX_TEXT_BYTES {
            let message = format!("{size} bytes are too many for a file of this kind");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, message));
        }
        std::fs::read_to_string(path)
    };
    read(path).map_err(|source| EngineError::Read { path: path.to_owned(), source })
}

/// A JSON file; `None` if there is none.
pub(crate) fn read_optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if path.exists() { read_json(path).map(Some) } else { Ok(None) }
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    parse_json(path, &read_text(path)?)
}

pub(crate) fn parse_json<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| EngineError::Checkpoint {
        path: path.to_owned(),
        reason: format!("not the JSON expected here: {e}"),
    })
}
