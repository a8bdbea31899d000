// SPDX-License-Identifier: MPL-2.0
//! The config of Qwen2.5-VL: flat, as published in 2025, or with a `text_config`, as transformers
//! 4.52 and later save it. The decoder's sizes must be there; what else is left out takes the default
//! of transformers' config classes.

use serde::Deserialize;
use serde_json::Value;

use crate::error::Result;
use crate::model::checkpoint::check::{Checker, MAX_LAYERS, MAX_WIDTH, Sides};
use crate::model::checkpoint::mrope::{Kind, same_width, words};
use crate::model::checkpoint::processor::Cells;
use crate::model::checkpoint::text::Words;

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
}

/// Defaults of `Qwen2_5_VLVisionConfig`, which a folder that transformers 4.49 saved leaves out.
#[derive(Deserialize)]
#[serde(default)]
struct RawVision {
    depth: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_heads: usize,
    out_hidden_size: usize,
    hidden_act: String,
    in_channels: usize,
    patch_size: Sides,
    spatial_merge_size: usize,
    temporal_patch_size: usize,
    window_size: usize,
    fullatt_block_indexes: Vec<usize>,
    tokens_per_second: f64,
}

impl Default for RawVision {
    fn default() -> Self {
        Self {
            depth: 32,
            hidden_size: 3584,
            intermediate_size: 3420,
            num_heads: 16,
            out_hidden_size: 3584,
            hidden_act: "silu".into(),
            in_channels: 3,
            patch_size: Sides::One(14),
            spatial_merge_size: 2,
            temporal_patch_size: 2,
            window_size: 112,
            fullatt_block_indexes: vec![7, 15, 23, 31],
            tokens_per_second: 4.0,
        }
    }
}

/// The checked form of a config whose `model_type` is `qwen2_5_vl`.
pub(in crate::model) fn checked(check: &Checker, json: Value) -> Result<(Words, Config)> {
    let raw: Raw = check.parse("config", json.clone())?;
    let vision = checked_vision(check, &raw.vision_config)?;
    let words = words(check, json, &KIND)?;
    same_width(check, "out_hidden_size", vision.out_hidden_size, &words)?;
    Ok((words, vision))
}

/// What its decoder's config is called, and what it leaves out.
const KIND: Kind = Kind {
    names: &["qwen2_5_vl_text", "qwen2_5_vl"],
    decoder: "qwen2",
    rope_theta: Some(1_000_000.0),
    rms_norm_eps: 1e-5,
    max_positions: 32_768,
    head_dim: None,
    section: [16, 24, 24],
    interleaved: false,
};

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
