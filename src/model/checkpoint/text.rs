// SPDX-License-Identifier: MPL-2.0
//! The decoder's part of a config, which all families share.

use candle_nn::Activation;
use serde::Deserialize;

use super::check::{Checker, MAX_LAYERS, MAX_POSITIONS, MAX_VOCAB, MAX_WIDTH};
use super::generation::Ids;
use crate::error::Result;

/// What a family's config says beside its vision, checked.
#[derive(Clone, Debug)]
pub struct Words {
    pub text: TextConfig,
    /// The output head is the embedding matrix.
    pub tied: bool,
    /// The token that stands for the video in a prompt.
    pub video_token: u32,
    pub end_ids: Vec<u32>,
}

/// The sizes of a decoder, Qwen2's or Qwen3's.
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
    /// How pairs turn with time, height and width, if not all of them with one position.
    pub mrope: Option<Mrope>,
    /// Queries, keys and values have a bias (Qwen2).
    pub qkv_bias: bool,
    /// Queries and keys are normed head by head before they are turned (Qwen3).
    pub head_norms: bool,
    pub act: Activation,
}

/// How the pairs of a head are shared out among time, height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mrope {
    /// Pairs of each.
    pub section: [usize; 3],
    /// Pair by pair in turn (Qwen3-VL), not one run of pairs after the other.
    pub interleaved: bool,
}

impl RawRope {
    /// What kind of RoPE is asked for.
    pub fn kind(&self) -> Option<&str> {
        self.rope_type.as_deref().or(self.older_type.as_deref())
    }
}

impl TextConfig {
    /// Weights of the layers, which a token reads all.
    pub fn weights(&self) -> usize {
        let Self { hidden_size, intermediate_size, layers, heads, kv_heads, head_dim, .. } = self;
        let attention = 2 * hidden_size * (heads + kv_heads) * head_dim;
        layers.saturating_mul(attention.saturating_add(3 * hidden_size * intermediate_size))
    }
}

/// What a decoder's config may hold. Defaults of `Qwen2Config`.
#[derive(Deserialize)]
#[serde(default)]
pub struct RawText {
    pub model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: Option<usize>,
    pub head_dim: Option<usize>,
    pub hidden_act: String,
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f64,
    pub rope_theta: Option<f64>,
    pub rope_parameters: Option<RawRope>,
    pub rope_scaling: Option<RawRope>,
    pub mrope_section: Option<Vec<usize>>,
    pub mrope_interleaved: bool,
    pub attention_bias: bool,
    pub use_sliding_window: bool,
    pub tie_word_embeddings: bool,
    pub eos_token_id: Ids,
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
            mrope_interleaved: false,
            attention_bias: false,
            use_sliding_window: false,
            tie_word_embeddings: false,
            eos_token_id: Ids::None,
        }
    }
}

#[derive(Deserialize)]
pub struct RawRope {
    pub rope_type: Option<String>,
    /// An older name of the same; some folders have both.
    #[serde(rename = "type")]
    pub older_type: Option<String>,
    pub rope_theta: Option<f64>,
    pub mrope_section: Option<Vec<usize>>,
    pub mrope_interleaved: Option<bool>,
}

pub fn checked_text(check: &Checker, raw: &RawText) -> Result<TextConfig> {
    let third = raw.model_type == "qwen3";
    if !third && raw.model_type != "qwen2" {
        return check.fault(format!(
            "`text_config.model_type` is `{}`; supported: `qwen2` and `qwen3`",
            raw.model_type
        ));
    }
    if third && raw.attention_bias {
        return check.fault("`text_config.attention_bias` is true; supported: false".into());
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
    // Qwen3's class has a default, Qwen2's none.
    let head_dim = raw.head_dim.or(third.then_some(128));
    if head_dim.is_none() {
        check.whole_heads("text_config", hidden_size, heads)?;
    }
    let head_dim =
        check.within("text_config.head_dim", head_dim.unwrap_or(hidden_size / heads), 1024)?;
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
        mrope: mrope(check, raw, head_dim)?,
        qkv_bias: !third,
        head_norms: third,
        act: check.activation("text_config.hidden_act", &raw.hidden_act)?,
    })
}

/// The RoPE base, from `rope_parameters` or the legacy pair `rope_theta`, `rope_scaling`.
fn rope_theta(check: &Checker, raw: &RawText) -> Result<f64> {
    for (field, rope) in
        [("rope_parameters", &raw.rope_parameters), ("rope_scaling", &raw.rope_scaling)]
    {
        let kind = rope.as_ref().and_then(|rope| rope.kind());
        // What is dynamic is the default up to `max_position_embeddings`, beyond which there is a warning.
        if let Some(kind) = kind.filter(|&kind| !["default", "dynamic"].contains(&kind)) {
            return check.fault(format!(
                "`text_config.{field}` asks for RoPE of type `{kind}`; supported: `default`"
            ));
        }
    }
    // What transformers 5 takes first.
    let inside = |rope: &Option<RawRope>| rope.as_ref().and_then(|rope| rope.rope_theta);
    let inside = inside(&raw.rope_scaling).or_else(|| inside(&raw.rope_parameters));
    check.positive("text_config.rope_theta", inside.or(raw.rope_theta).unwrap_or(10_000.0))
}

fn mrope(check: &Checker, raw: &RawText, head_dim: usize) -> Result<Option<Mrope>> {
    let Some(section) = raw.mrope_section.as_deref() else { return Ok(None) };
    let (pairs, interleaved) = (head_dim / 2, raw.mrope_interleaved);
    let sum = section.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
    match <[usize; 3]>::try_from(section) {
        // In turn, the last pair of height is that of number `3 h - 2`, of width `3 w - 1`.
        Ok([_, h, w]) if interleaved && (3 * h > pairs + 1 || 3 * w > pairs) => check.fault(format!(
            "`mrope_section` is {section:?}; with `mrope_interleaved`, height and width may have a \
             third each of the {pairs} pairs"
        )),
        Ok(section) if sum == Some(pairs) => Ok(Some(Mrope { section, interleaved })),
        _ => check.fault(format!(
            "`mrope_section` is {section:?}; expected three numbers that add up to {pairs}, half \
             of the head dim"
        )),
    }
}
