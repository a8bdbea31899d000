// SPDX-License-Identifier: MPL-2.0
//! A text-image pair beside the language model: says how well a picture fits a sentence, for
//! retrieval by an outside expert (MemStream §3.3, ReKV's external retrieval).
//!
//! It reads a Hugging Face folder of SigLIP; the towers are candle-transformers'.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::siglip;
use serde::Deserialize;
use tokenizers::Tokenizer;

use super::checkpoint::read_json;
use super::preprocess::square::Squares;
use super::preprocess::{Resampler, filter};
use crate::error::{EngineError, Result};
use crate::frame::Frame;
use crate::model::checkpoint::ProcessorConfig;

/// A loaded pair.
pub struct TextImage {
    dir: PathBuf,
    model: siglip::Model,
    squares: Squares,
    tokenizer: Tokenizer,
    /// Tokens that the text tower was trained on; shorter texts are padded.
    length: usize,
    pad: u32,
    device: Device,
}

#[derive(Deserialize)]
struct Header {
    model_type: Option<String>,
}

/// SigLIP's processor: a square, bicubic, grey levels to -1..1.
const RESAMPLE: u64 = 3;

impl TextImage {
    /// Reads `config.json`, `model.safetensors` and `tokenizer.json` of a folder.
    ///
    /// # Errors
    /// What is missing or wrong, by file.
    pub fn load(dir: &Path, device: &Device) -> Result<Self> {
        let path = dir.join("config.json");
        let header: Header = read_json(&path)?;
        if header.model_type.as_deref() != Some("siglip") {
            let found = header.model_type.unwrap_or_else(|| "nothing".into());
            let reason = format!(
                "model_type is {found}; the text-image model of `external-model` has to be siglip"
            );
            return Err(EngineError::Checkpoint { path, reason });
        }
        let config: siglip::Config = read_json(&path)?;
        let weights = dir.join("model.safetensors");
        let fault = |path: &Path, e: &dyn std::fmt::Display| EngineError::Checkpoint {
            path: path.to_owned(),
            reason: e.to_string(),
        };
        let tensors =
            candle_core::safetensors::load(&weights, device).map_err(|e| fault(&weights, &e))?;
        let vb = VarBuilder::from_tensors(tensors, DType::F32, device);
        let model = siglip::Model::new(&config, vb).map_err(|e| fault(&weights, &e))?;
        let words = dir.join("tokenizer.json");
        let tokenizer = Tokenizer::from_file(&words).map_err(|e| fault(&words, &e))?;
        let side = config.vision_config.image_size;
        let resample = filter(RESAMPLE).ok_or_else(|| fault(&path, &"no such resize filter"))?;
        let processor = ProcessorConfig {
            min_pixels: side * side,
            max_pixels: side * side,
            resample,
            rescale: 1.0 / 255.0,
            mean: [0.5; 3],
            std: [0.5; 3],
        };
        Ok(Self {
            dir: dir.to_owned(),
            model,
            squares: Squares { resampler: Resampler::new(&processor), side },
            tokenizer,
            length: config.text_config.max_position_embeddings,
            pad: config.text_config.pad_token_id,
            device: device.clone(),
        })
    }

    /// What the image tower makes of each frame.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn images(&self, frames: &[Frame]) -> Result<Vec<Arc<[f32]>>> {
        let pixels = self.squares.pixels(frames, &self.device)?;
        let features = self.model.get_image_features(&pixels)?.to_dtype(DType::F32)?;
        let rows: Vec<Vec<f32>> = features.to_vec2()?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// What the text tower makes of a text; what is longer than it can read is cut off.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`], or what the computation fails with.
    pub fn text(&self, text: &str) -> Result<Vec<f32>> {
        let encoded = self.tokenizer.encode(text, true).map_err(|e| {
            EngineError::Tokenizer(format!("{}: {e}", self.dir.join("tokenizer.json").display()))
        })?;
        let mut ids = encoded.get_ids().to_vec();
        ids.resize(self.length, self.pad);
        let ids = Tensor::from_vec(ids, (1, self.length), &self.device)?;
        let features = self.model.get_text_features(&ids)?.to_dtype(DType::F32)?;
        Ok(features.flatten_all()?.to_vec1()?)
    }
}
