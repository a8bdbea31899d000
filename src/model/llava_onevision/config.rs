// SPDX-License-Identifier: MPL-2.0
//! The config of LLaVA-OneVision: a SigLIP tower, a projector and a Qwen2 decoder. Omitted fields
//! take the defaults of transformers' config classes.

use candle_nn::Activation;
use serde::Deserialize;
use serde_json::Value;

use crate::error::Result;
use crate::model::checkpoint::check::{Checker, MAX_GRID, MAX_LAYERS, MAX_WIDTH, Sides};
use crate::model::checkpoint::generation::Ids;
use crate::model::checkpoint::text::{RawText, Words, checked_text};

/// LLaVA-OneVision's tower and projector.
#[derive(Clone, Debug)]
pub struct Config {
    pub tower: SiglipConfig,
    /// Which hidden states of the tower are read; 0 is the embedding output.
    pub feature_layers: Vec<usize>,
    pub projector_act: Activation,
    pub projector_bias: bool,
    /// Width of the projector's output, which is the decoder's.
    pub out_hidden_size: usize,
}

/// The SigLIP tower's sizes.
#[derive(Clone, Debug)]
pub struct SiglipConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub image_size: usize,
    pub patch_size: usize,
    pub layer_norm_eps: f64,
    pub act: Activation,
}

impl SiglipConfig {
    /// Patches along one side, `g`; pixels that fill no patch are dropped.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    text_config: RawText,
    #[serde(default = "RawVision::one_vision")]
    vision_config: RawVision,
    #[serde(default = "video_token", alias = "video_token_id")]
    video_token_index: u32,
    #[serde(default)]
    vision_feature_layer: Layers,
    #[serde(default)]
    vision_feature_select_strategy: Option<String>,
    #[serde(default = "gelu")]
    projector_hidden_act: String,
    #[serde(default = "yes")]
    multimodal_projector_bias: bool,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    eos_token_id: Ids,
}

fn video_token() -> u32 {
    151_647
}

fn gelu() -> String {
    "gelu".into()
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Layers {
    One(i64),
    Many(Vec<i64>),
}

impl Default for Layers {
    fn default() -> Self {
        Self::One(-1)
    }
}

/// Defaults of `SiglipVisionConfig`.
#[derive(Deserialize)]
#[serde(default)]
struct RawVision {
    model_type: String,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_channels: usize,
    image_size: Sides,
    patch_size: Sides,
    hidden_act: String,
    layer_norm_eps: f64,
}

impl Default for RawVision {
    fn default() -> Self {
        Self {
            model_type: "siglip_vision_model".into(),
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: Sides::One(224),
            patch_size: Sides::One(16),
            hidden_act: "gelu_pytorch_tanh".into(),
            layer_norm_eps: 1e-6,
        }
    }
}

impl RawVision {
    /// What `LlavaOnevisionConfig` takes when there is no `vision_config` at all.
    fn one_vision() -> Self {
        Self {
            hidden_size: 1152,
            intermediate_size: 4304,
            num_hidden_layers: 26,
            num_attention_heads: 16,
            image_size: Sides::One(384),
            patch_size: Sides::One(14),
            ..Self::default()
        }
    }
}

/// The checked form of a config whose `model_type` is `llava_onevision`.
pub(in crate::model) fn checked(check: &Checker, json: Value) -> Result<(Words, Config)> {
    let raw: RawConfig = check.parse("config", json)?;
    let text = checked_text(check, &raw.text_config)?;
    let tower = checked_vision(check, &raw.vision_config)?;
    if let Some(strategy) = raw.vision_feature_select_strategy.as_deref()
        && strategy != "full"
    {
        return check.fault(format!(
            "`vision_feature_select_strategy` is `{strategy}`; a SigLIP tower has no class token \
             to drop, so only `full` is supported"
        ));
    }
    let mut end_ids = raw.eos_token_id.into_vec();
    end_ids.extend(raw.text_config.eos_token_id.into_vec());
    let vision = Config {
        feature_layers: feature_layers(check, &raw.vision_feature_layer, tower.layers)?,
        projector_act: check.activation("projector_hidden_act", &raw.projector_hidden_act)?,
        projector_bias: raw.multimodal_projector_bias,
        out_hidden_size: text.hidden_size,
        tower,
    };
    let words = Words {
        tied: raw.tie_word_embeddings || raw.text_config.tie_word_embeddings,
        video_token: raw.video_token_index,
        end_ids,
        text,
    };
    Ok((words, vision))
}

impl Config {
    pub fn is_unread(&self, name: &str) -> bool {
        if let Some(rest) = name.strip_prefix("vision_tower.encoder.layers.") {
            let layer = rest.split('.').next().and_then(|layer| layer.parse::<usize>().ok());
            let read = self.feature_layers.iter().copied().max().unwrap_or(0);
            return layer.is_some_and(|layer| (read..self.tower.layers).contains(&layer));
        }
        ["vision_tower.post_layernorm.", "vision_tower.head."].iter().any(|p| name.starts_with(p))
    }
}

fn checked_vision(check: &Checker, raw: &RawVision) -> Result<SiglipConfig> {
    if raw.model_type != "siglip_vision_model" {
        return check.fault(format!(
            "`vision_config.model_type` is `{}`; supported: `siglip_vision_model`",
            raw.model_type
        ));
    }
    if raw.num_channels != 3 {
        return check
            .fault(format!("`vision_config.num_channels` is {}; expected 3", raw.num_channels));
    }
    let hidden_size = check.within("vision_config.hidden_size", raw.hidden_size, MAX_WIDTH)?;
    let heads = check.within("vision_config.num_attention_heads", raw.num_attention_heads, 4096)?;
    check.whole_heads("vision_config", hidden_size, heads)?;
    let image_size = check.square("vision_config.image_size", raw.image_size, 8192)?;
    let patch_size = check.square("vision_config.patch_size", raw.patch_size, image_size)?;
    check.within("vision_config.image_size / patch_size", image_size / patch_size, MAX_GRID)?;
    Ok(SiglipConfig {
        hidden_size,
        intermediate_size: check.within(
            "vision_config.intermediate_size",
            raw.intermediate_size,
            MAX_WIDTH,
        )?,
        layers: check.within(
            "vision_config.num_hidden_layers",
            raw.num_hidden_layers,
            MAX_LAYERS,
        )?,
        heads,
        image_size,
        patch_size,
        layer_norm_eps: check.positive("vision_config.layer_norm_eps", raw.layer_norm_eps)?,
        act: check.activation("vision_config.hidden_act", &raw.hidden_act)?,
    })
}

/// Hidden states are counted from the embedding output (0) to the last layer's; negative numbers
/// count from the end.
fn feature_layers(check: &Checker, raw: &Layers, layers: usize) -> Result<Vec<usize>> {
    let wanted = match raw {
        Layers::One(layer) => std::slice::from_ref(layer),
        Layers::Many(list) => list,
    };
    let states = layers as i64 + 1;
    let mut found = Vec::with_capacity(wanted.len());
    for &layer in wanted {
        let index = if layer < 0 { layer.saturating_add(states) } else { layer };
        match usize::try_from(index) {
            Ok(index) if index <= layers => found.push(index),
            _ => {
                return check.fault(format!(
                    "`vision_feature_layer` {layer} of a tower with {layers} layers"
                ));
            }
        }
    }
    if found.is_empty() || found.len() > 64 {
        return check.fault("`vision_feature_layer` must name 1 to 64 layers".into());
    }
    Ok(found)
}
