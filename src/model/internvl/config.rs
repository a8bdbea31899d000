// SPDX-License-Identifier: MPL-2.0
//! The config of InternVL in transformers' layout: InternViT, a projector and a Qwen2 or Qwen3 decoder.
//! Omitted fields take the defaults of transformers' config classes.

use candle_nn::Activation;
use serde::Deserialize;
use serde_json::Value;

use crate::error::Result;
use crate::model::checkpoint::check::{Checker, MAX_GRID, MAX_LAYERS, MAX_WIDTH, Sides};
use crate::model::checkpoint::generation::Ids;
use crate::model::checkpoint::text::{RawText, Words, checked_text};

/// The sizes of InternViT and of what is behind it.
#[derive(Clone, Debug)]
pub struct Config {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub image_size: usize,
    pub patch_size: usize,
    pub layer_norm_eps: f64,
    /// Queries, keys and values have a bias.
    pub attention_bias: bool,
    /// A norm behind the last layer.
    pub last_norm: bool,
    pub act: Activation,
    pub projector_act: Activation,
    /// Patches along a side of a token.
    pub merge: usize,
    /// Width of the projector's output, which is the decoder's.
    pub out_hidden_size: usize,
}

impl Config {
    /// Patches along one side, `g`.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    text_config: RawText,
    #[serde(default)]
    vision_config: RawVision,
    #[serde(default = "image_token")]
    image_token_id: u32,
    #[serde(default = "half")]
    downsample_ratio: f64,
    #[serde(default = "gelu")]
    projector_hidden_act: String,
    #[serde(default)]
    vision_feature_layer: Option<Value>,
    #[serde(default)]
    vision_feature_select_strategy: Option<String>,
    #[serde(default)]
    tie_word_embeddings: Option<bool>,
    #[serde(default)]
    eos_token_id: Ids,
}

fn image_token() -> u32 {
    151_667
}

fn half() -> f64 {
    0.5
}

fn gelu() -> String {
    "gelu".into()
}

/// Defaults of `InternVLVisionConfig`.
#[derive(Deserialize)]
#[serde(default)]
struct RawVision {
    model_type: String,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    attention_bias: bool,
    use_qk_norm: bool,
    num_channels: usize,
    image_size: Sides,
    patch_size: Sides,
    hidden_act: String,
    norm_type: String,
    layer_norm_eps: f64,
    use_mask_token: bool,
    use_absolute_position_embeddings: bool,
    use_mean_pooling: bool,
}

impl Default for RawVision {
    fn default() -> Self {
        Self {
            model_type: "internvl_vision".into(),
            hidden_size: 1024,
            intermediate_size: 4096,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            attention_bias: false,
            use_qk_norm: false,
            num_channels: 3,
            image_size: Sides::One(448),
            patch_size: Sides::One(14),
            hidden_act: "gelu".into(),
            norm_type: "layer_norm".into(),
            layer_norm_eps: 1e-6,
            use_mask_token: false,
            use_absolute_position_embeddings: true,
            use_mean_pooling: true,
        }
    }
}

/// The checked form of a config whose `model_type` is `internvl`.
pub(in crate::model) fn checked(check: &Checker, json: Value) -> Result<(Words, Config)> {
    // Of the decoder's class, which the text config may leave to it.
    let said = json.pointer("/text_config/tie_word_embeddings").is_some();
    let raw: Raw = check.parse("config", json)?;
    let text = checked_text(check, &raw.text_config)?;
    if let Some(layer) = raw.vision_feature_layer.filter(|layer| *layer != -1) {
        return check.fault(format!("`vision_feature_layer` is {layer}; supported: -1"));
    }
    if let Some(strategy) = raw.vision_feature_select_strategy.as_deref()
        && strategy != "default"
    {
        return check.fault(format!(
            "`vision_feature_select_strategy` is `{strategy}`; supported: `default`, without the \
             class token"
        ));
    }
    let vision = checked_vision(check, &raw.vision_config)?;
    let ratio = raw.downsample_ratio;
    let merge = (1.0 / ratio).round();
    if !(ratio > 0.0 && (merge * ratio - 1.0).abs() < 1e-9 && merge <= 16.0) {
        return check
            .fault(format!("`downsample_ratio` is {ratio}; expected 1 over a whole number"));
    }
    let merge = merge as usize;
    let grid = vision.grid();
    if !grid.is_multiple_of(merge) {
        return check.fault(format!(
            "`vision_config.image_size` gives {grid} patches a side, which `downsample_ratio` \
             {ratio} does not divide"
        ));
    }
    let vision = Config {
        projector_act: check.activation("projector_hidden_act", &raw.projector_hidden_act)?,
        merge,
        out_hidden_size: text.hidden_size,
        ..vision
    };
    let mut end_ids = raw.eos_token_id.into_vec();
    end_ids.extend(raw.text_config.eos_token_id.into_vec());
    let own = said.then_some(raw.text_config.tie_word_embeddings);
    let tied = raw.tie_word_embeddings.or(own).unwrap_or(true);
    Ok((Words { text, tied, video_token: raw.image_token_id, end_ids }, vision))
}

fn checked_vision(check: &Checker, raw: &RawVision) -> Result<Config> {
    if raw.model_type != "internvl_vision" {
        return check.fault(format!(
            "`vision_config.model_type` is `{}`; supported: `internvl_vision`",
            raw.model_type
        ));
    }
    if raw.use_qk_norm || raw.norm_type != "layer_norm" {
        return check.fault(
            "the vision tower is InternViT-6B (`use_qk_norm`, `norm_type`); supported: InternViT-300M, \
             which models up to 14B have"
                .into(),
        );
    }
    if raw.use_mask_token || !raw.use_absolute_position_embeddings {
        return check.fault(
            "`vision_config.use_mask_token` must be false and `use_absolute_position_embeddings` true"
                .into(),
        );
    }
    if raw.num_channels != 3 {
        return check
            .fault(format!("`vision_config.num_channels` is {}; expected 3", raw.num_channels));
    }
    let within =
        |name: &str, value, max| check.within(&format!("vision_config.{name}"), value, max);
    let hidden_size = within("hidden_size", raw.hidden_size, MAX_WIDTH)?;
    let heads = within("num_attention_heads", raw.num_attention_heads, 4096)?;
    check.whole_heads("vision_config", hidden_size, heads)?;
    let image_size = check.square("vision_config.image_size", raw.image_size, 8192)?;
    let patch_size = check.square("vision_config.patch_size", raw.patch_size, image_size)?;
    within("image_size / patch_size", image_size / patch_size, MAX_GRID)?;
    let act = check.activation("vision_config.hidden_act", &raw.hidden_act)?;
    Ok(Config {
        hidden_size,
        intermediate_size: within("intermediate_size", raw.intermediate_size, MAX_WIDTH)?,
        layers: within("num_hidden_layers", raw.num_hidden_layers, MAX_LAYERS)?,
        heads,
        image_size,
        patch_size,
        layer_norm_eps: check.positive("vision_config.layer_norm_eps", raw.layer_norm_eps)?,
        attention_bias: raw.attention_bias,
        last_norm: !raw.use_mean_pooling,
        act,
        projector_act: act,
        merge: 1,
        out_hidden_size: 0,
    })
}
