// SPDX-License-Identifier: MPL-2.0
//! A Hugging Face model folder, read with suspicion.
//!
//! What the files say is checked before it is used: architecture, sizes, names, shapes and file
//! lengths. Both layouts of the folders are read (one JSON file per processor and legacy RoPE
//! fields, or the nested `processor_config.json` and `rope_parameters` of transformers 5), and all
//! spellings of the weight names.

pub(super) mod check;
mod controls;
pub(super) mod generation;
pub(super) mod mrope;
pub(super) mod pair;
pub(super) mod processor;
pub(super) mod text;
pub(super) mod tokenizer;
mod twins;
mod weights;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

pub(crate) use generation::{FILE as GENERATION_CONFIG, Generation};
pub use processor::{ProcessorConfig, Settings};
pub use text::{Mrope, TextConfig, Words};
pub(crate) use weights::{Weights, random};

use crate::error::{EngineError, Result};
use crate::model::files::{read_json, read_optional, weight_files};
use crate::model::hub;

const CONFIG: &str = "config.json";

/// A model folder; what its `config.json` means is for a family to say.
pub struct Checkpoint {
    dir: PathBuf,
    config: Value,
}

impl Checkpoint {
    /// Refuses what the name of a model on the hub already tells.
    ///
    /// # Errors
    /// [`Hub`](EngineError::Hub) with the name of what is read instead.
    pub fn check_name(path: &Path) -> Result<()> {
        let name = path.to_string_lossy();
        let reason = name.strip_prefix(hub::PREFIX).and_then(twins::gguf_by_name);
        reason.map_or(Ok(()), |reason| Err(EngineError::Hub { name: name.into(), reason }))
    }

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
        if let Some(reason) = twins::gguf(dir) {
            return fault(&reason);
        }
        if !dir.is_dir() {
            return fault(
                "not a directory; expected a Hugging Face directory with config.json, \
                 tokenizer.json and *.safetensors",
            );
        }
        let config = read_json(&dir.join(CONFIG))?;
        if let Some(reason) = twins::quantised(dir, &config) {
            return Err(EngineError::Checkpoint { path: dir.join(CONFIG), reason });
        }
        Ok(Self { dir: dir.to_owned(), config })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What `config.json` holds, unchecked.
    pub(crate) fn config(&self) -> &Value {
        &self.config
    }

    /// Where it lies, for what is wrong with it.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir.join(CONFIG)
    }

    /// The safetensors files: those the index names, or the single one.
    pub(crate) fn weights(&self) -> Result<Weights> {
        Weights::open(&self.dir, &weight_files(&self.dir)?)
    }

    /// Ids of the tokens that the folder's JSON files name for their part in a prompt.
    pub(crate) fn control_ids(&self) -> Result<BTreeSet<u32>> {
        controls::control_ids(&self.dir)
    }

    /// What `generation_config.json` asks of an answer.
    pub(crate) fn generation(&self) -> Result<Generation> {
        Generation::read(&self.dir)
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

/// Values of method options, by their names with `_` for `-`.
pub type MethodOptions = serde_json::Map<String, Value>;

/// What a model's folder recommends for streaming (`streamkvqa.json`, optional).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Recommendations {
    /// The longest stream, in frames, that the model was trained to answer about.
    pub trained_frames: Option<usize>,
    /// Frames per second to sample.
    pub sample_rate: Option<f64>,
    /// Method options by name, for every method that has them: what the model's size, its pictures
    /// and its words ask of any method.
    pub recipe: MethodOptions,
    /// The same for single methods, by the method's name; these win.
    pub recipes: BTreeMap<String, MethodOptions>,
    /// Options that make a method another than the published one because it answers better so, for
    /// every method that has them.
    pub added: MethodOptions,
    /// The same for single methods, by the method's name; these win over all others.
    pub added_to: BTreeMap<String, MethodOptions>,
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
