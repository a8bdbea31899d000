// SPDX-License-Identifier: MPL-2.0
//! A text-image pair beside the language model: says how well a picture fits a sentence, for
//! retrieval by an outside expert (MemStream §3.3, ReKV's external retrieval §3.2).
//!
//! It reads a Hugging Face folder of SigLIP or CLIP; the towers are candle-transformers'.

mod clip;
pub(super) mod shared;
mod words;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Tensor};
use candle_transformers::models::siglip;

use self::clip::Clip;
use self::words::Words;
use super::checkpoint::pair::Config;
use super::checkpoint::{ProcessorConfig, Weights};
use super::device::Formats;
use super::files::{fingerprint, weight_files};
use super::hub;
use super::load::{DTypeChoice, LoadOptions};
use super::preprocess::Resampler;
use super::preprocess::square::Squares;
use super::sound::finite;
use crate::error::{EngineError, Result};
use crate::frame::Frame;

/// A loaded pair.
pub struct TextImage {
    folder: PathBuf,
    fingerprint: OnceLock<String>,
    towers: Towers,
    squares: Squares,
    words: Words,
    device: Device,
}

enum Towers {
    Siglip(Box<siglip::Model>),
    Clip(Box<Clip>),
}

impl TextImage {
    /// Reads a folder with `config.json`, `tokenizer.json`, the settings of the image processor
    /// and safetensors, a model of the hub by its name (`hf:owner/name`), or an installed one. The pair
    /// computes in f32 on `device`; of `options`, device and number format do not count.
    ///
    /// # Errors
    /// What is missing or wrong, by file and tensor; [`Cancelled`](crate::EngineError::Cancelled)
    /// between two tensors.
    pub fn load(dir: &Path, device: &Device, options: &LoadOptions) -> Result<Self> {
        let dir = &hub::folder(dir, options)?;
        if !dir.is_dir() {
            return Err(EngineError::Checkpoint {
                path: dir.clone(),
                reason: "there is no such folder; `external-model` or, without it, the \
                         streamkvqa.json of the language model names it. Put the folder of a SigLIP \
                         or CLIP model there, name another, or do without: experts=internal"
                    .into(),
            });
        }
        let config = Config::read(&dir.join("config.json"))?;
        let words = Words::read(dir, &config)?;
        let side = config.image_size();
        let (processor, edge) = ProcessorConfig::read_square(dir, config.kind(), side)?;
        let weights = Weights::open(dir, &weight_files(dir)?)?;
        let formats = Formats::new(DTypeChoice::F32, device.is_cpu(), None, false)?;
        // Old versions of transformers saved tables of positions; who ranks needs no scale.
        let unread = |name: &str| name.ends_with(".position_ids") || name == "logit_scale";
        let (towers, _) = weights.build(formats, device, options, unread, |vb| {
            Ok(match &config {
                Config::Siglip(config) => Towers::Siglip(Box::new(siglip::Model::new(config, vb)?)),
                Config::Clip(config) => Towers::Clip(Box::new(Clip::new(config, vb)?)),
            })
        })?;
        let squares = Squares { resampler: Resampler::new(&processor), side, edge };
        let (folder, device) = (dir.clone(), device.clone());
        Ok(Self { folder, fingerprint: OnceLock::new(), towers, squares, words, device })
    }

    /// A name for what the pair is, by the content of its files.
    ///
    /// # Errors
    /// [`EngineError::Read`] for a file that has gone.
    pub fn fingerprint(&self) -> Result<&str> {
        if let Some(known) = self.fingerprint.get() {
            return Ok(known);
        }
        let found = fingerprint(&self.folder)?;
        Ok(self.fingerprint.get_or_init(|| found))
    }

    /// # Errors
    /// [`Frame`](crate::EngineError::Frame) for a frame that [`pixels`](Self::pixels) cannot take.
    pub fn check(&self, frame: &Frame) -> Result<()> {
        self.squares.check(frame)
    }

    /// The pixels that the image tower takes, `[f, 3, S, S]`.
    ///
    /// # Errors
    /// [`Frame`](crate::EngineError::Frame) for a frame that is too long and thin to cut a square
    /// out of its middle.
    pub fn pixels(&self, frames: &[Frame]) -> Result<Tensor> {
        self.squares.pixels(frames, &self.device)
    }

    /// What the image tower makes of each frame: `[D]` each, of any length.
    ///
    /// # Errors
    /// As [`pixels`](Self::pixels), or what the computation fails with.
    pub fn images(&self, frames: &[Frame]) -> Result<Vec<Arc<[f32]>>> {
        let pixels = self.pixels(frames)?;
        let features = match &self.towers {
            Towers::Siglip(towers) => towers.get_image_features(&pixels)?,
            Towers::Clip(towers) => towers.images(&pixels)?,
        };
        if !finite(&features)? {
            return Err(EngineError::NotFinite { what: "what the text-image pair sees".into() });
        }
        let rows: Vec<Vec<f32>> = features.to_dtype(DType::F32)?.to_vec2()?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// What the text tower makes of a text, `[D]`, of any length; a text that is longer than the
    /// tower can read is cut off.
    ///
    /// # Errors
    /// [`Tokenizer`](crate::EngineError::Tokenizer), or what the computation fails with.
    pub fn text(&self, text: &str) -> Result<Vec<f32>> {
        let ids = self.token_ids(text)?;
        let length = ids.len();
        let ids = Tensor::from_vec(ids, (1, length), &self.device)?;
        let features = match &self.towers {
            Towers::Siglip(towers) => towers.get_text_features(&ids)?,
            Towers::Clip(towers) => towers.text(&ids)?,
        };
        if !finite(&features)? {
            return Err(EngineError::NotFinite { what: "what the text-image pair reads".into() });
        }
        Ok(features.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
    }

    /// What the text tower reads of a text: SigLIP's is padded to a fixed length.
    ///
    /// # Errors
    /// [`Tokenizer`](crate::EngineError::Tokenizer).
    pub fn token_ids(&self, text: &str) -> Result<Vec<u32>> {
        self.words.ids(text)
    }
}
