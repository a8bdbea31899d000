// SPDX-License-Identifier: MPL-2.0
//! The config of Qwen2.5-VL: flat, as published in 2025, or with a `text_config`, as transformers
//! 4.52 and later save it. Sizes must be there; what else is left out takes the default of
//! transformers' config classes.

use serde::Deserialize;
use serde_json::Value;

use crate::error::Result;
use crate::model::checkpoint::check::{Checker, MAX_LAYERS, MAX_WIDTH, Sides};
use crate::model::checkpoint::generation::Ids;
use crate::model::checkpoint::processor::Cells;
use crate::model::checkpoint::text::{RawRope, RawText, Words, checked_text};

/// The vision tower's sizes and rules.
#[derive(Clone, Debug)]
pub struct Config {
    pub layers: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub heads: usize,
    /// Width of the merger's output, which is the decoder's.
    pub out_hidden_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Side of a token in patches.
    pub merge: usize,
    /// Frames that become one step of time.
    pub frames_per_unit: usize,
    /// Side of an attention window in tokens.
    pub window: usize,
    /// Layers whose attention is not bound to windows.
    pub full_layers: Vec<usize>,
    /// Positions on the time axis that one second takes.
    pub tokens_per_second: f64,
    pub act: candle_nn::Activation,
}

impl Config {
    /// How it cuts a video up.
    pub fn cells(&self) -> Cells {
        let Self { patch_size, merge, frames_per_unit, .. } = *self;
        Cells { patch_size, merge, frames_per_unit }
    }
}

#[derive(Deserialize)]
struct Raw {
    vision_config: RawVision,
    #[serde(default = "video_token")]
    video_token_id: u32,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    eos_token_id: Ids,
    #[serde(default)]
    text_config: Option<Value>,
}

fn video_token() -> u32 {
    151_656
}

#[derive(Deserialize)]
struct RawQwenText {
    #[serde(default)]
    model_type: Option<String>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    #[serde(default = "silu")]
    hidden_act: String,
    #[serde(default = "max_positions")]
    max_position_embeddings: usize,
    #[serde(default = "text_eps")]
    rms_norm_eps: f64,
    #[serde(default)]
    rope_theta: Option<f64>,
    #[serde(default)]
    rope_parameters: Option<RawRope>,
    #[serde(default)]
    rope_scaling: Option<RawRope>,
    #[serde(default)]
    use_sliding_window: Option<bool>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    eos_token_id: Ids,
}

fn silu() -> String {
    "silu".into()
}

fn max_positions() -> usize {
    32_768
}

fn text_eps() -> f64 {
    1e-5
}

#[derive(Deserialize)]
struct RawVision {
    depth: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_heads: usize,
    out_hidden_size: usize,
    #[serde(default = "silu")]
    hidden_act: String,
    #[serde(default = "three", alias = "in_chans")]
    in_channels: usize,
    #[serde(default = "patch")]
    patch_size: Sides,
    #[serde(default = "two")]
    spatial_merge_size: usize,
    #[serde(default = "two")]
    temporal_patch_size: usize,
    #[serde(default = "window")]
    window_size: usize,
    #[serde(default = "full_layers")]
    fullatt_block_indexes: Vec<usize>,
    #[serde(default = "tokens_per_second")]
    tokens_per_second: f64,
}

fn three() -> usize {
    3
}

fn patch() -> Sides {
    Sides::One(14)
}

fn two() -> usize {
    2
}

fn window() -> usize {
    112
}

fn full_layers() -> Vec<usize> {
    vec![7, 15, 23, 31]
}

fn tokens_per_second() -> f64 {
    4.0
}

/// The checked form of a config whose `model_type` is `qwen2_5_vl`.
pub(in crate::model) fn checked(check: &Checker, json: Value) -> Result<(Words, Config)> {
    let raw: Raw = check.parse("config", json.clone())?;
    let (name, text) = match raw.text_config {
        Some(text) if !text.is_null() => ("text_config", text),
        _ => ("config", json),
    };
    let mut text: RawQwenText = check.parse(name, text)?;
    if let Some(kind) = text.model_type.as_deref()
        && !["qwen2_5_vl_text", "qwen2_5_vl"].contains(&kind)
    {
        return check
            .fault(format!("`text_config.model_type` is `{kind}`; supported: `qwen2_5_vl_text`"));
    }
    let vision = checked_vision(check, &raw.vision_config)?;
    let tied = raw.tie_word_embeddings || text.tie_word_embeddings;
    let mut end_ids = raw.eos_token_id.into_vec();
    end_ids.extend(std::mem::take(&mut text.eos_token_id).into_vec());
    let text = checked_text(check, &text.into_common(check)?)?;
    if vision.out_hidden_size != text.hidden_size {
        return check.fault(format!(
            "`vision_config.out_hidden_size` is {}, but the decoder's `hidden_size` is {}",
            vision.out_hidden_size, text.hidden_size
        ));
    }
    Ok((Words { text, tied, video_token: raw.video_token_id, end_ids }, vision))
}

impl RawQwenText {
    /// As the fields of a Qwen2 decoder, M-RoPE named as such.
    fn into_common(self, check: &Checker) -> Result<RawText> {
        let mut rope_parameters = self.rope_parameters;
        let mut rope_scaling = self.rope_scaling;
        let section = rope_parameters
            .iter_mut()
            .chain(&mut rope_scaling)
            .filter_map(|rope| {
                // Two names for the same thing; what is not the default otherwise stays a fault.
                if rope.rope_type.as_deref() == Some("mrope") {
                    rope.rope_type = None;
                }
                rope.mrope_section.take()
            })
            .next();
        let Some(section) = section else {
            return check.fault(
                "no `mrope_section`; expected in `rope_scaling` or `rope_parameters`".into(),
            );
        };
        Ok(RawText {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            hidden_act: self.hidden_act,
            max_position_embeddings: self.max_position_embeddings,
            rms_norm_eps: self.rms_norm_eps,
            rope_theta: self.rope_theta.or(Some(1_000_000.0)),
            rope_parameters,
            rope_scaling,
            mrope_section: Some(section),
            use_sliding_window: self.use_sliding_window.unwrap_or(false),
            ..RawText::default()
        })
    }
}

fn checked_vision(check: &Checker, raw: &RawVision) -> Result<Config> {
    if raw.in_channels != 3 {
        return check
            .fault(format!("`vision_config.in_channels` is {}; expected 3", raw.in_channels));
    }
    let hidden_size = check.within("vision_config.hidden_size", raw.hidden_size, MAX_WIDTH)?;
    let heads = check.within("vision_config.num_heads", raw.num_heads, 4096)?;
    if hidden_size % (4 * heads) != 0 {
        return check.fault(format!(
            "`vision_config.hidden_size` {hidden_size} over `num_heads` {heads} is no multiple of \
             4, which RoPE on two axes needs"
        ));
    }
    let layers = check.within("vision_config.depth", raw.depth, MAX_LAYERS)?;
    if let Some(layer) = raw.fullatt_block_indexes.iter().find(|&&layer| layer >= layers) {
        return check.fault(format!(
            "`vision_config.fullatt_block_indexes` names layer {layer} of {layers}"
        ));
    }
    let patch_size = check.square("vision_config.patch_size", raw.patch_size, 1024)?;
    let merge = check.within("vision_config.spatial_merge_size", raw.spatial_merge_size, 16)?;
    let window = raw.window_size / merge / patch_size;
    Ok(Config {
        layers,
        hidden_size,
        intermediate_size: check.within(
            "vision_config.intermediate_size",
            raw.intermediate_size,
            MAX_WIDTH,
        )?,
        heads,
        out_hidden_size: raw.out_hidden_size,
        patch_size,
        merge,
        frames_per_unit: check.within(
            "vision_config.temporal_patch_size",
            raw.temporal_patch_size,
            16,
        )?,
        window: check.within("vision_config.window_size in tokens", window, 4096)?,
        full_layers: raw.fullatt_block_indexes.clone(),
        tokens_per_second: check
            .positive("vision_config.tokens_per_second", raw.tokens_per_second)?,
        act: check.activation("vision_config.hidden_act", &raw.hidden_act)?,
    })
}
