// SPDX-License-Identifier: MPL-2.0
//! The `config.json` of a SigLIP or CLIP folder, checked before candle sees it.

use std::path::Path;

use candle_transformers::models::clip::ClipConfig;
use candle_transformers::models::clip::text_model::{Activation as ClipActivation, ClipTextConfig};
use candle_transformers::models::clip::vision_model::ClipVisionConfig;
use candle_transformers::models::siglip;
use serde::Deserialize;

use super::check::{Checker, MAX_GRID, MAX_LAYERS, MAX_VOCAB, MAX_WIDTH};
use crate::error::Result;
use crate::model::files::read_json;

/// Which pair a folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model) enum Kind {
    Siglip,
    Clip,
}

/// The sizes of a pair, as candle takes them.
pub(in crate::model) enum Config {
    Siglip(siglip::Config),
    Clip(ClipConfig),
}

/// What a folder leaves out has the default of the class that wrote it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Raw {
    model_type: Option<String>,
    text_config: RawTower,
    vision_config: RawTower,
    projection_dim: Option<usize>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawTower {
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
    vocab_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    pad_token_id: Option<u32>,
    num_channels: Option<usize>,
    image_size: Option<usize>,
    patch_size: Option<usize>,
}

/// One tower, checked.
struct Tower {
    hidden_size: usize,
    intermediate_size: usize,
    layers: usize,
    heads: usize,
}

impl Config {
    pub fn read(path: &Path) -> Result<Self> {
        let check = Checker(path);
        let raw: Raw = read_json(path)?;
        match raw.model_type.as_deref() {
            Some("siglip") => siglip(&check, &raw).map(Self::Siglip),
            Some("clip") => clip(&check, &raw).map(Self::Clip),
            found => check.fault(format!(
                "model_type is {}; the text-image model of `external-model` has to be siglip or \
                 clip",
                found.unwrap_or("nothing")
            )),
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Siglip(_) => Kind::Siglip,
            Self::Clip(_) => Kind::Clip,
        }
    }

    /// Side of the picture that the image tower takes, in pixels.
    pub fn image_size(&self) -> usize {
        match self {
            Self::Siglip(config) => config.vision_config.image_size,
            Self::Clip(config) => config.vision_config.image_size,
        }
    }

    /// Tokens that the text tower can read.
    pub fn text_length(&self) -> usize {
        match self {
            Self::Siglip(config) => config.text_config.max_position_embeddings,
            Self::Clip(config) => config.text_config.max_position_embeddings,
        }
    }

    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Siglip(config) => config.text_config.vocab_size,
            Self::Clip(config) => config.text_config.vocab_size,
        }
    }

    /// The padding of a text, where the text tower wants it padded and the tokenizer does not say
    /// with what.
    pub fn pad(&self) -> Option<u32> {
        match self {
            Self::Siglip(config) => Some(config.text_config.pad_token_id),
            Self::Clip(_) => None,
        }
    }
}

fn siglip(check: &Checker, raw: &Raw) -> Result<siglip::Config> {
    let (text, vision) = (&raw.text_config, &raw.vision_config);
    let tower = |name: &str, raw: &RawTower| -> Result<_> {
        let act = raw.hidden_act.as_deref().unwrap_or("gelu_pytorch_tanh");
        let act = check.activation(&format!("{name}.hidden_act"), act)?;
        let eps = raw.layer_norm_eps.unwrap_or(1e-6);
        let eps = check.positive(&format!("{name}.layer_norm_eps"), eps)?;
        Ok((check.tower(name, raw, (768, 3072, 12))?, act, eps))
    };
    let (words, words_act, words_eps) = tower("text_config", text)?;
    let (eyes, eyes_act, eyes_eps) = tower("vision_config", vision)?;
    let (image_size, patch_size) = check.picture(vision, 16)?;
    Ok(siglip::Config {
        text_config: siglip::TextConfig {
            vocab_size: check.vocabulary(text, 32000)?,
            hidden_size: words.hidden_size,
            intermediate_size: words.intermediate_size,
            num_hidden_layers: words.layers,
            num_attention_heads: words.heads,
            max_position_embeddings: check.length(text, 64)?,
            hidden_act: words_act,
            layer_norm_eps: words_eps,
            pad_token_id: text.pad_token_id.unwrap_or(1),
            // Of no effect in the towers.
            bos_token_id: 0,
            eos_token_id: 0,
        },
        vision_config: siglip::VisionConfig {
            hidden_size: eyes.hidden_size,
            intermediate_size: eyes.intermediate_size,
            num_hidden_layers: eyes.layers,
            num_attention_heads: eyes.heads,
            num_channels: 3,
            image_size,
            patch_size,
            hidden_act: eyes_act,
            layer_norm_eps: eyes_eps,
        },
    })
}

fn clip(check: &Checker, raw: &Raw) -> Result<ClipConfig> {
    let (text, vision) = (&raw.text_config, &raw.vision_config);
    let tower = |name: &str, raw: &RawTower, sizes| -> Result<Tower> {
        // All that candle's towers can do.
        if let Some(act) = raw.hidden_act.as_deref().filter(|&act| act != "quick_gelu") {
            return check.fault(format!(
                "`{name}.hidden_act` is `{act}`; CLIP is supported with `quick_gelu`, which \
                 OpenAI's checkpoints have"
            ));
        }
        if let Some(eps) = raw.layer_norm_eps.filter(|&eps| eps != 1e-5) {
            return check.fault(format!("`{name}.layer_norm_eps` is {eps}; supported: 1e-5"));
        }
        check.tower(name, raw, sizes)
    };
    let words = tower("text_config", text, (512, 2048, 8))?;
    let eyes = tower("vision_config", vision, (768, 3072, 12))?;
    let (image_size, patch_size) = check.picture(vision, 32)?;
    let projection_dim = raw.projection_dim.unwrap_or(512);
    let projection_dim = check.within("projection_dim", projection_dim, MAX_WIDTH)?;
    Ok(ClipConfig {
        text_config: ClipTextConfig {
            vocab_size: check.vocabulary(text, 49408)?,
            embed_dim: words.hidden_size,
            activation: ClipActivation::QuickGelu,
            intermediate_size: words.intermediate_size,
            max_position_embeddings: check.length(text, 77)?,
            pad_with: None,
            num_hidden_layers: words.layers,
            num_attention_heads: words.heads,
            projection_dim,
        },
        vision_config: ClipVisionConfig {
            embed_dim: eyes.hidden_size,
            activation: ClipActivation::QuickGelu,
            intermediate_size: eyes.intermediate_size,
            num_hidden_layers: eyes.layers,
            num_attention_heads: eyes.heads,
            projection_dim,
            num_channels: 3,
            image_size,
            patch_size,
        },
        // Of no effect in the towers.
        logit_scale_init_value: 0.0,
        image_size,
    })
}

/// Longer texts than this are no caption.
const MAX_TEXT: usize = 1 << 16;

impl Checker<'_> {
    /// `sizes` stand for those that are left out: width, width within, heads.
    fn tower(&self, name: &str, raw: &RawTower, sizes: (usize, usize, usize)) -> Result<Tower> {
        let within = |field: &str, found: Option<usize>, default, max| {
            self.within(&format!("{name}.{field}"), found.unwrap_or(default), max)
        };
        let hidden_size = within("hidden_size", raw.hidden_size, sizes.0, MAX_WIDTH)?;
        let heads = within("num_attention_heads", raw.num_attention_heads, sizes.2, 4096)?;
        self.whole_heads(name, hidden_size, heads)?;
        Ok(Tower {
            hidden_size,
            intermediate_size: within(
                "intermediate_size",
                raw.intermediate_size,
                sizes.1,
                MAX_WIDTH,
            )?,
            layers: within("num_hidden_layers", raw.num_hidden_layers, 12, MAX_LAYERS)?,
            heads,
        })
    }

    /// Sides of the picture and of a patch.
    fn picture(&self, raw: &RawTower, patch: usize) -> Result<(usize, usize)> {
        if let Some(channels) = raw.num_channels.filter(|&channels| channels != 3) {
            return self.fault(format!("`vision_config.num_channels` is {channels}; expected 3"));
        }
        let image = raw.image_size.unwrap_or(224);
        let image = self.within("vision_config.image_size", image, 8192)?;
        let patch = raw.patch_size.unwrap_or(patch);
        let patch = self.within("vision_config.patch_size", patch, image)?;
        self.within("vision_config.image_size / patch_size", image / patch, MAX_GRID)?;
        Ok((image, patch))
    }

    fn vocabulary(&self, raw: &RawTower, default: usize) -> Result<usize> {
        self.within("text_config.vocab_size", raw.vocab_size.unwrap_or(default), MAX_VOCAB)
    }

    fn length(&self, raw: &RawTower, default: usize) -> Result<usize> {
        let length = raw.max_position_embeddings.unwrap_or(default);
        self.within("text_config.max_position_embeddings", length, MAX_TEXT)
    }
}
