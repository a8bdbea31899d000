// SPDX-License-Identifier: MPL-2.0
//! `config.json`: serde mirrors of what transformers writes, and the checked form of it that the
//! model is built from. Each architecture has a file, the decoder that they share another.

mod one_vision;
mod qwen;
mod text;

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

pub use self::one_vision::{OneVisionConfig, SiglipConfig};
pub use self::qwen::QwenVisionConfig;
pub use self::text::TextConfig;
use self::text::Words;
use super::check::Checker;
use crate::error::Result;
use crate::model::files::{parse_json, read_text};

/// A checked config.
#[derive(Clone, Debug)]
pub struct Config {
    pub text: TextConfig,
    pub vision: VisionConfig,
    /// The output head is the embedding matrix.
    pub tied: bool,
    /// The token that stands for the video in a prompt.
    pub video_token: u32,
    pub(crate) end_ids: Vec<u32>,
}

/// The half that sees, by architecture.
#[derive(Clone, Debug)]
pub enum VisionConfig {
    OneVision(OneVisionConfig),
    Qwen(QwenVisionConfig),
}

#[derive(Deserialize)]
struct Header {
    model_type: Option<String>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
}

impl Config {
    /// Reads and checks a `config.json`.
    pub fn read(path: &Path) -> Result<Self> {
        let check = Checker(path);
        let text = read_text(path)?;
        let header: Header = parse_json(path, &text)?;
        let json: Value = parse_json(path, &text)?;
        match header.model_type.as_deref() {
            Some("llava_onevision") => {
                let (words, vision) = one_vision::checked(&check, json)?;
                Ok(Self::new(words, VisionConfig::OneVision(vision)))
            }
            Some("qwen2_5_vl") => {
                let (words, vision) = qwen::checked(&check, json)?;
                Ok(Self::new(words, VisionConfig::Qwen(vision)))
            }
            kind => {
                let names = header.architectures.unwrap_or_default().join(", ");
                check.fault(format!(
                    "the model is of type `{}` ({names}); supported: `llava_onevision` \
                     (LlavaOnevisionForConditionalGeneration with a SigLIP tower and a Qwen2 \
                     decoder) and `qwen2_5_vl` (Qwen2_5_VLForConditionalGeneration)",
                    kind.unwrap_or("none"),
                ))
            }
        }
    }

    fn new(words: Words, vision: VisionConfig) -> Self {
        let Words { text, tied, video_token, end_ids } = words;
        Self { text, vision, tied, video_token, end_ids }
    }

    /// Whether a weight (by canonical name) belongs to the architecture but is never read: the
    /// vision tower behind the last layer that is, a copy of tied embeddings, and tables that old
    /// versions of transformers saved although they compute them.
    pub(crate) fn is_unread(&self, name: &str) -> bool {
        let of_tower = match &self.vision {
            VisionConfig::OneVision(config) => config.is_unread(name),
            VisionConfig::Qwen(_) => false,
        };
        of_tower
            || (self.tied && name == "lm_head.weight")
            || name.ends_with(".position_ids")
            || name.ends_with(".rotary_emb.inv_freq")
    }
}
