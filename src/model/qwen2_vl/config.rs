// SPDX-License-Identifier: MPL-2.0
//! The config of Qwen2-VL: flat, as published in 2024, or with a `text_config`. The decoder's sizes must be
//! there; what else is left out takes the default of transformers' config classes.

use serde::Deserialize;
use serde_json::Value;

use crate::error::Result;
use crate::model::checkpoint::check::{Checker, MAX_LAYERS, MAX_WIDTH, Sides};
use crate::model::checkpoint::mrope::{Kind, same_width, words};
use crate::model::checkpoint::processor::Cells;
use crate::model::checkpoint::text::Words;
use crate::model::vision::merged::Sizes;

/// The vision tower's sizes.
#[derive(Clone, Debug)]
pub struct Config {
    pub layers: usize,
    pub sizes: Sizes,
    /// Width of the merger's output, which is the decoder's.
    pub out_hidden_size: usize,
    cells: Cells,
}

impl Config {
    /// How it cuts a video up.
    pub fn cells(&self) -> Cells {
        self.cells
    }
}

#[derive(Deserialize)]
struct Raw {
    vision_config: RawVision,
}

/// Defaults of `Qwen2VLVisionConfig`, which a folder that transformers 4.5 saved leaves out.
#[derive(Deserialize)]
#[serde(default)]
struct RawVision {
    depth: usize,
    embed_dim: usize,
    mlp_ratio: usize,
    num_heads: usize,
    /// Of what comes out of the merger.
    hidden_size: usize,
    hidden_act: String,
    in_channels: usize,
    patch_size: Sides,
    spatial_merge_size: usize,
    temporal_patch_size: usize,
}

impl Default for RawVision {
    fn default() -> Self {
        Self {
            depth: 32,
            embed_dim: 1280,
            mlp_ratio: 4,
            num_heads: 16,
            hidden_size: 3584,
            hidden_act: "quick_gelu".into(),
            in_channels: 3,
            patch_size: Sides::One(14),
            spatial_merge_size: 2,
            temporal_patch_size: 2,
        }
    }
}

/// What its decoder's config is called, and what it leaves out.
const KIND: Kind = Kind {
    names: &["qwen2_vl_text", "qwen2_vl"],
    decoder: "qwen2",
    rope_theta: Some(1_000_000.0),
    rms_norm_eps: 1e-5,
    max_positions: 32_768,
    head_dim: None,
    section: [16, 24, 24],
    interleaved: false,
};

/// The checked form of a config whose `model_type` is `qwen2_vl`.
pub(in crate::model) fn checked(check: &Checker, json: Value) -> Result<(Words, Config)> {
    let raw: Raw = check.parse("config", json.clone())?;
    let vision = checked_vision(check, &raw.vision_config)?;
    let words = words(check, json, &KIND)?;
    // What other families call `out_hidden_size`.
    same_width(check, "hidden_size", vision.out_hidden_size, &words)?;
    Ok((words, vision))
}

fn checked_vision(check: &Checker, raw: &RawVision) -> Result<Config> {
    if raw.in_channels != 3 {
        return check
            .fault(format!("`vision_config.in_channels` is {}; expected 3", raw.in_channels));
    }
    if raw.hidden_act != "quick_gelu" {
        return check.fault(format!(
            "`vision_config.hidden_act` is `{}`; supported: `quick_gelu`",
            raw.hidden_act
        ));
    }
    let hidden = check.within("vision_config.embed_dim", raw.embed_dim, MAX_WIDTH)?;
    let heads = check.within("vision_config.num_heads", raw.num_heads, 4096)?;
    if hidden % (4 * heads) != 0 {
        return check.fault(format!(
            "`vision_config.embed_dim` {hidden} over `num_heads` {heads} is no multiple of 4, which \
             RoPE on two axes needs"
        ));
    }
    let ratio = check.within("vision_config.mlp_ratio", raw.mlp_ratio, 64)?;
    let inner =
        check.within("vision_config.embed_dim times `mlp_ratio`", hidden * ratio, MAX_WIDTH)?;
    Ok(Config {
        layers: check.within("vision_config.depth", raw.depth, MAX_LAYERS)?,
        sizes: Sizes { hidden, inner, heads },
        out_hidden_size: raw.hidden_size,
        cells: Cells {
            patch_size: check.square("vision_config.patch_size", raw.patch_size, 1024)?,
            merge: check.within("vision_config.spatial_merge_size", raw.spatial_merge_size, 16)?,
            frames_per_unit: check.within(
                "vision_config.temporal_patch_size",
                raw.temporal_patch_size,
                16,
            )?,
        },
    })
}
