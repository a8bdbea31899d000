// SPDX-License-Identifier: MPL-2.0
//! `config.json`: serde mirrors of what transformers writes, and the checked form of it that the
//! model is built from. LLaVA-OneVision's and what both architectures share is here, the rest of
//! Qwen2.5-VL's in [`qwen`]. Omitted fields take the defaults of transformers' config classes.

mod qwen;

use std::path::Path;

use candle_nn::Activation;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use self::qwen::QwenVisionConfig;
use super::{Ids, parse_json, read_text};
use crate::error::{EngineError, Result};

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

/// LLaVA-OneVision's tower and projector.
#[derive(Clone, Debug)]
pub struct OneVisionConfig {
    pub tower: SiglipConfig,
    /// Which hidden states of the tower are read; 0 is the embedding output.
    pub feature_layers: Vec<usize>,
    pub projector_act: Activation,
    pub projector_bias: bool,
    /// Width of the projector's output, which is the decoder's.
    pub out_hidden_size: usize,
}

/// The Qwen2 decoder's sizes.
#[derive(Clone, Debug)]
pub struct TextConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub max_positions: usize,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    /// How many pairs turn with time, height and width, if not all of them with one position.
    pub mrope_section: Option<[usize; 3]>,
    pub act: Activation,
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
struct Header {
    model_type: Option<String>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
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

/// Defaults of `Qwen2Config`.
#[derive(Deserialize)]
#[serde(default)]
struct RawText {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: String,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_parameters: Option<RawRope>,
    rope_scaling: Option<RawRope>,
    mrope_section: Option<Vec<usize>>,
    use_sliding_window: bool,
    tie_word_embeddings: bool,
    eos_token_id: Ids,
}

impl Default for RawText {
    fn default() -> Self {
        Self {
            model_type: "qwen2".into(),
            vocab_size: 151_936,
            hidden_size: 4096,
            intermediate_size: 22_016,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: Some(32),
            head_dim: None,
            hidden_act: "silu".into(),
            max_position_embeddings: 32_768,
            rms_norm_eps: 1e-6,
            rope_theta: None,
            rope_parameters: None,
            rope_scaling: None,
            mrope_section: None,
            use_sliding_window: false,
            tie_word_embeddings: false,
            eos_token_id: Ids::None,
        }
    }
}

#[derive(Deserialize)]
struct RawRope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    mrope_section: Option<Vec<usize>>,
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

/// One number, or height and width.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Sides {
    One(usize),
    Two([usize; 2]),
}

/// Reports what is wrong with one file.
pub(in crate::model) struct Checker<'a>(pub &'a Path);

impl Checker<'_> {
    pub fn fault<T>(&self, reason: String) -> Result<T> {
        Err(EngineError::Checkpoint { path: self.0.to_owned(), reason })
    }

    /// Reads one object of the file; a field that is missing or of another type is named.
    fn parse<T: DeserializeOwned>(&self, name: &str, json: Value) -> Result<T> {
        serde_json::from_value(json).or_else(|e| self.fault(format!("`{name}`: {e}")))
    }

    pub fn within(&self, name: &str, value: usize, max: usize) -> Result<usize> {
        if (1..=max).contains(&value) {
            return Ok(value);
        }
        self.fault(format!("`{name}` is {value}; expected 1 to {max}"))
    }

    /// The width of a tower is shared out evenly among its heads.
    pub fn whole_heads(&self, tower: &str, hidden_size: usize, heads: usize) -> Result<()> {
        if hidden_size.is_multiple_of(heads) {
            return Ok(());
        }
        self.fault(format!(
            "`{tower}.hidden_size` {hidden_size} is no multiple of `num_attention_heads` {heads}"
        ))
    }

    pub fn positive(&self, name: &str, value: f64) -> Result<f64> {
        if value.is_finite() && value > 0.0 {
            return Ok(value);
        }
        self.fault(format!("`{name}` is {value}; expected a positive number"))
    }

    pub fn activation(&self, name: &str, value: &str) -> Result<Activation> {
        // candle's serde names are the ones transformers uses, with the same meaning.
        let parsed = serde_json::from_value(serde_json::Value::String(value.to_lowercase()));
        match parsed {
            Ok(act) => Ok(act),
            Err(_) => self.fault(format!("`{name}` is `{value}`, an activation not known here")),
        }
    }

    fn square(&self, name: &str, sides: Sides, max: usize) -> Result<usize> {
        match sides {
            Sides::One(side) => self.within(name, side, max),
            Sides::Two([height, width]) if height == width => self.within(name, height, max),
            Sides::Two([height, width]) => {
                self.fault(format!("`{name}` is {height}x{width}; only squares are supported"))
            }
        }
    }
}

/// Beyond these a number is a damaged file, not a model; products of them stay far from overflow.
pub(in crate::model) const MAX_WIDTH: usize = 1 << 17;
pub(in crate::model) const MAX_LAYERS: usize = 1024;
pub(in crate::model) const MAX_VOCAB: usize = 1 << 24;
const MAX_POSITIONS: usize = 1 << 30;
/// The pooling matrix has the fourth power of this many elements, over 4.
pub(in crate::model) const MAX_GRID: usize = 64;

impl Config {
    /// Reads and checks a `config.json`.
    pub fn read(path: &Path) -> Result<Self> {
        let check = Checker(path);
        let text = read_text(path)?;
        let header: Header = parse_json(path, &text)?;
        let json: Value = parse_json(path, &text)?;
        match header.model_type.as_deref() {
            Some("llava_onevision") => one_vision(&check, json),
            Some("qwen2_5_vl") => qwen::checked(&check, json),
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
}

fn one_vision(check: &Checker, json: Value) -> Result<Config> {
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
    Ok(Config {
        vision: VisionConfig::OneVision(OneVisionConfig {
            feature_layers: feature_layers(check, &raw.vision_feature_layer, tower.layers)?,
            projector_act: check.activation("projector_hidden_act", &raw.projector_hidden_act)?,
            projector_bias: raw.multimodal_projector_bias,
            out_hidden_size: text.hidden_size,
            tower,
        }),
        tied: raw.tie_word_embeddings || raw.text_config.tie_word_embeddings,
        video_token: raw.video_token_index,
        end_ids,
        text,
    })
}

impl Config {
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

impl OneVisionConfig {
    fn is_unread(&self, name: &str) -> bool {
        if let Some(rest) = name.strip_prefix("vision_tower.encoder.layers.") {
            let layer = rest.split('.').next().and_then(|layer| layer.parse::<usize>().ok());
            let read = self.feature_layers.iter().copied().max().unwrap_or(0);
            return layer.is_some_and(|layer| (read..self.tower.layers).contains(&layer));
        }
        ["vision_tower.post_layernorm.", "vision_tower.head."].iter().any(|p| name.starts_with(p))
    }
}

fn checked_text(check: &Checker, raw: &RawText) -> Result<TextConfig> {
    if raw.model_type != "qwen2" {
        return check.fault(format!(
            "`text_config.model_type` is `{}`; supported: `qwen2`",
            raw.model_type
        ));
    }
    if raw.use_sliding_window {
        return check.fault(
            "`text_config.use_sliding_window` is true; only full attention is supported".into(),
        );
    }
    let hidden_size = check.within("text_config.hidden_size", raw.hidden_size, MAX_WIDTH)?;
    let heads = check.within("text_config.num_attention_heads", raw.num_attention_heads, 4096)?;
    let kv_heads = raw.num_key_value_heads.unwrap_or(heads);
    let kv_heads = check.within("text_config.num_key_value_heads", kv_heads, heads)?;
    if heads % kv_heads != 0 {
        return check.fault(format!(
            "`text_config.num_attention_heads` {heads} is no multiple of `num_key_value_heads` \
             {kv_heads}"
        ));
    }
    if raw.head_dim.is_none() {
        check.whole_heads("text_config", hidden_size, heads)?;
    }
    let head_dim =
        check.within("text_config.head_dim", raw.head_dim.unwrap_or(hidden_size / heads), 1024)?;
    if head_dim % 2 != 0 {
        return check.fault(format!("the head dim {head_dim} is odd; RoPE turns pairs"));
    }
    Ok(TextConfig {
        vocab_size: check.within("text_config.vocab_size", raw.vocab_size, MAX_VOCAB)?,
        hidden_size,
        intermediate_size: check.within(
            "text_config.intermediate_size",
            raw.intermediate_size,
            MAX_WIDTH,
        )?,
        layers: check.within("text_config.num_hidden_layers", raw.num_hidden_layers, MAX_LAYERS)?,
        heads,
        kv_heads,
        head_dim,
        max_positions: check.within(
            "text_config.max_position_embeddings",
            raw.max_position_embeddings,
            MAX_POSITIONS,
        )?,
        rms_norm_eps: check.positive("text_config.rms_norm_eps", raw.rms_norm_eps)?,
        rope_theta: rope_theta(check, raw)?,
        mrope_section: mrope_section(check, raw.mrope_section.as_deref(), head_dim)?,
        act: check.activation("text_config.hidden_act", &raw.hidden_act)?,
    })
}

/// The RoPE base, from `rope_parameters` or the legacy pair `rope_theta`, `rope_scaling`.
fn rope_theta(check: &Checker, raw: &RawText) -> Result<f64> {
    for (field, rope) in
        [("rope_parameters", &raw.rope_parameters), ("rope_scaling", &raw.rope_scaling)]
    {
        let kind = rope.as_ref().and_then(|rope| rope.rope_type.as_deref());
        if let Some(kind) = kind.filter(|&kind| kind != "default") {
            return check.fault(format!(
                "`text_config.{field}` asks for RoPE of type `{kind}`; supported: `default`"
            ));
        }
    }
    let new = raw.rope_parameters.as_ref().and_then(|rope| rope.rope_theta);
    check.positive("text_config.rope_theta", new.or(raw.rope_theta).unwrap_or(10_000.0))
}

fn mrope_section(
    check: &Checker,
    raw: Option<&[usize]>,
    head_dim: usize,
) -> Result<Option<[usize; 3]>> {
    let Some(section) = raw else { return Ok(None) };
    match <[usize; 3]>::try_from(section) {
        Ok(section)
            if section.iter().try_fold(0usize, |sum, &n| sum.checked_add(n))
                == Some(head_dim / 2) =>
        {
            Ok(Some(section))
        }
        _ => check.fault(format!(
            "`mrope_section` is {section:?}; expected three numbers that add up to {}, half of the \
             head dim",
            head_dim / 2
        )),
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
