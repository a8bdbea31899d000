// SPDX-License-Identifier: MPL-2.0
//! The config of Qwen3-VL. The decoder's sizes must be there; what else is left out takes the default of
//! transformers' config classes.

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
    /// Width of the mergers' output, which is the decoder's.
    pub out_hidden_size: usize,
    cells: Cells,
    /// Side of the position table.
    pub positions: usize,
    /// Layers whose output is added in the decoder, behind its first layer, its second and so on.
    pub deep_layers: Vec<usize>,
    /// GELU by the error function, not by tanh.
    pub exact_gelu: bool,
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

/// Defaults of `Qwen3VLVisionConfig`.
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
    num_position_embeddings: usize,
    deepstack_visual_indexes: Vec<usize>,
}

impl Default for RawVision {
    fn default() -> Self {
        Self {
            depth: 27,
            hidden_size: 1152,
            intermediate_size: 4304,
            num_heads: 16,
            out_hidden_size: 3584,
            hidden_act: "gelu_pytorch_tanh".into(),
            in_channels: 3,
            patch_size: Sides::One(16),
            spatial_merge_size: 2,
            temporal_patch_size: 2,
            num_position_embeddings: 2304,
            deepstack_visual_indexes: vec![8, 16, 24],
        }
    }
}

/// What its decoder's config is called, and what it leaves out.
const KIND: Kind = Kind {
    names: &["qwen3_vl_text"],
    decoder: "qwen3",
    // The classes of transformers 4.57 and 5 have different defaults.
    rope_theta: None,
    rms_norm_eps: 1e-6,
    max_positions: 128_000,
    head_dim: Some(128),
    section: [24, 20, 20],
    interleaved: true,
};

/// The checked form of a config whose `model_type` is `qwen3_vl`.
pub(in crate::model) fn checked(check: &Checker, json: Value) -> Result<(Words, Config)> {
    let raw: Raw = check.parse("config", json.clone())?;
    let vision = checked_vision(check, &raw.vision_config)?;
    let words = words(check, json, &KIND)?;
    same_width(check, "out_hidden_size", vision.out_hidden_size, &words)?;
    if vision.deep_layers.len() > words.text.layers {
        return check.fault(format!(
            "`vision_config.deepstack_visual_indexes` names {} layers, more than the decoder has ({})",
            vision.deep_layers.len(),
            words.text.layers
        ));
    }
    Ok((words, vision))
}

fn checked_vision(check: &Checker, raw: &RawVision) -> Result<Config> {
    if raw.in_channels != 3 {
        return check
            .fault(format!("`vision_config.in_channels` is {}; expected 3", raw.in_channels));
    }
    let hidden = check.within("vision_config.hidden_size", raw.hidden_size, MAX_WIDTH)?;
    let heads = check.within("vision_config.num_heads", raw.num_heads, 4096)?;
    if hidden % (4 * heads) != 0 {
        return check.fault(format!(
            "`vision_config.hidden_size` {hidden} over `num_heads` {heads} is no multiple of 4, \
             which RoPE on two axes needs"
        ));
    }
    let layers = check.within("vision_config.depth", raw.depth, MAX_LAYERS)?;
    let deep = &raw.deepstack_visual_indexes;
    if deep.iter().any(|&layer| layer >= layers) || !deep.windows(2).all(|pair| pair[0] < pair[1]) {
        return check.fault(format!(
            "`vision_config.deepstack_visual_indexes` is {deep:?}; expected layers of {layers}, \
             ascending"
        ));
    }
    if !["gelu_pytorch_tanh", "gelu"].contains(&raw.hidden_act.as_str()) {
        return check.fault(format!(
            "`vision_config.hidden_act` is `{}`; supported: `gelu_pytorch_tanh` and `gelu`",
            raw.hidden_act
        ));
    }
    let inner = raw.intermediate_size;
    let inner = check.within("vision_config.intermediate_size", inner, MAX_WIDTH)?;
    let table = raw.num_position_embeddings;
    let table = check.within("vision_config.num_position_embeddings", table, 1 << 20)?;
    if table.isqrt() * table.isqrt() != table {
        return check.fault(format!(
            "`vision_config.num_position_embeddings` is {table}; expected a square number"
        ));
    }
    Ok(Config {
        layers,
        sizes: Sizes { hidden, inner, heads },
        out_hidden_size: raw.out_hidden_size,
        cells: Cells {
            patch_size: check.square("vision_config.patch_size", raw.patch_size, 1024)?,
            merge: check.within("vision_config.spatial_merge_size", raw.spatial_merge_size, 16)?,
            frames_per_unit: check.within(
                "vision_config.temporal_patch_size",
                raw.temporal_patch_size,
                16,
            )?,
        },
        positions: table.isqrt(),
        deep_layers: deep.clone(),
        exact_gelu: raw.hidden_act == "gelu",
    })
}
