// SPDX-License-Identifier: MPL-2.0
//! What the configs of Qwen's families with M-RoPE say beside their vision: flat, as published until
//! 2025, or in a `text_config`, as transformers 4.52 and later save it. The decoder's sizes must be there;
//! what else is left out takes the default of transformers' config classes.

use serde::Deserialize;
use serde_json::Value;

use super::check::Checker;
use super::generation::Ids;
use super::text::{RawRope, RawText, Words, checked_text};
use crate::error::Result;

/// How a family's decoder is called, and what its config leaves out.
pub struct Kind {
    /// What `text_config.model_type` may be.
    pub names: &'static [&'static str],
    /// The decoder without M-RoPE that it is otherwise.
    pub decoder: &'static str,
    /// `None`: it must be there.
    pub rope_theta: Option<f64>,
    pub rms_norm_eps: f64,
    pub max_positions: usize,
    /// `None`: the width shared out among the heads.
    pub head_dim: Option<usize>,
    /// Pairs of a head that turn with time, height and width.
    pub section: [usize; 3],
    /// Whether M-RoPE's axes take turns.
    pub interleaved: bool,
}

#[derive(Deserialize)]
struct Raw {
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
struct RawDecoder {
    #[serde(default)]
    model_type: Option<String>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    #[serde(default)]
    head_dim: Option<usize>,
    #[serde(default = "silu")]
    hidden_act: String,
    #[serde(default)]
    max_position_embeddings: Option<usize>,
    #[serde(default)]
    rms_norm_eps: Option<f64>,
    #[serde(default)]
    rope_theta: Option<f64>,
    #[serde(default)]
    rope_parameters: Option<RawRope>,
    #[serde(default)]
    rope_scaling: Option<RawRope>,
    #[serde(default)]
    attention_bias: bool,
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

/// The checked form of all that is not vision.
pub fn words(check: &Checker, json: Value, kind: &Kind) -> Result<Words> {
    let raw: Raw = check.parse("config", json.clone())?;
    let (name, text) = match raw.text_config {
        Some(text) if !text.is_null() => ("text_config", text),
        _ => ("config", json),
    };
    let mut text: RawDecoder = check.parse(name, text)?;
    if let Some(found) = text.model_type.as_deref()
        && !kind.names.contains(&found)
    {
        let expected = kind.names.first().copied().unwrap_or_default();
        return check
            .fault(format!("`text_config.model_type` is `{found}`; supported: `{expected}`"));
    }
    let tied = raw.tie_word_embeddings || text.tie_word_embeddings;
    let mut end_ids = raw.eos_token_id.into_vec();
    end_ids.extend(std::mem::take(&mut text.eos_token_id).into_vec());
    let text = checked_text(check, &text.into_common(check, kind)?)?;
    Ok(Words { text, tied, video_token: raw.video_token_id, end_ids })
}

/// What a merger makes, of which `name` speaks, must be what the decoder takes.
pub fn same_width(check: &Checker, name: &str, made: usize, words: &Words) -> Result<()> {
    let hidden_size = words.text.hidden_size;
    if made == hidden_size {
        return Ok(());
    }
    check.fault(format!(
        "`vision_config.{name}` is {made}, but the decoder's `hidden_size` is {hidden_size}"
    ))
}

impl RawDecoder {
    /// As the fields of a decoder without M-RoPE, that named as such.
    fn into_common(self, check: &Checker, kind: &Kind) -> Result<RawText> {
        let mut rope_parameters = self.rope_parameters;
        let mut rope_scaling = self.rope_scaling;
        let ropes = rope_parameters.iter_mut().chain(&mut rope_scaling);
        let mut stated = ropes.filter_map(|rope| {
            // Two names for the same thing; what is not the default otherwise stays a fault.
            if rope.kind() == Some("mrope") {
                (rope.rope_type, rope.older_type) = (None, None);
            }
            Some((rope.mrope_section.take()?, rope.mrope_interleaved))
        });
        let (section, interleaved) = stated.next().unwrap_or((kind.section.to_vec(), None));
        drop(stated);
        if let Some(interleaved) = interleaved.filter(|&stated| stated != kind.interleaved) {
            return check.fault(format!(
                "`mrope_interleaved` is {interleaved}; a model of this type has {}",
                kind.interleaved
            ));
        }
        let inside = |rope: &Option<RawRope>| rope.as_ref().and_then(|rope| rope.rope_theta);
        let inside = inside(&rope_scaling).or_else(|| inside(&rope_parameters));
        let rope_theta = inside.or(self.rope_theta).or(kind.rope_theta);
        if rope_theta.is_none() {
            return check.fault(
                "no `rope_theta`; expected in `text_config` or in its `rope_parameters`".into(),
            );
        }
        Ok(RawText {
            model_type: kind.decoder.into(),
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: self.head_dim.or(kind.head_dim),
            hidden_act: self.hidden_act,
            max_position_embeddings: self.max_position_embeddings.unwrap_or(kind.max_positions),
            rms_norm_eps: self.rms_norm_eps.unwrap_or(kind.rms_norm_eps),
            rope_theta,
            rope_parameters,
            rope_scaling,
            mrope_section: Some(section),
            mrope_interleaved: kind.interleaved,
            attention_bias: self.attention_bias,
            use_sliding_window: self.use_sliding_window.unwrap_or(false),
            ..RawText::default()
        })
    }
}
