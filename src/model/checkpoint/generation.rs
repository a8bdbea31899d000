// SPDX-License-Identifier: MPL-2.0
//! `generation_config.json`: what ends an answer, and which tokens are not to be said.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::check::Checker;
use crate::error::Result;
use crate::model::files::read_optional;

/// The file's name.
pub const FILE: &str = "generation_config.json";

/// What of the file decides a greedy answer, checked. The default changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    pub end_ids: Vec<u32>,
    /// Divides positive scores of tokens that were there before, and multiplies negative ones.
    pub repetition_penalty: f32,
    /// No run of so many tokens comes twice, the prompt's included; 0: any may.
    pub no_repeat_ngram: usize,
    /// Runs of tokens that are not completed.
    pub bad_words: Vec<Vec<u32>>,
    pub suppress: Vec<u32>,
    /// Not as the first token.
    pub begin_suppress: Vec<u32>,
    /// An answer does not end before so many tokens have come.
    pub min_new_tokens: usize,
    /// The same, prompt and video counted.
    pub min_length: usize,
    /// Settings that would change an answer in transformers and are not known here, as written.
    pub unapplied: Vec<String>,
}

impl Default for Generation {
    fn default() -> Self {
        Self {
            end_ids: Vec::new(),
            repetition_penalty: 1.0,
            no_repeat_ngram: 0,
            bad_words: Vec::new(),
            suppress: Vec::new(),
            begin_suppress: Vec::new(),
            min_new_tokens: 0,
            min_length: 0,
            unapplied: Vec::new(),
        }
    }
}

/// What the file may hold; a null is as good as nothing. Ids are signed, because transformers
/// passes over those that no token has.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Raw {
    eos_token_id: Ids,
    repetition_penalty: Option<f64>,
    no_repeat_ngram_size: Option<i64>,
    bad_words_ids: Option<Vec<Vec<i64>>>,
    suppress_tokens: Option<Vec<i64>>,
    begin_suppress_tokens: Option<Vec<i64>>,
    min_new_tokens: Option<i64>,
    min_length: Option<i64>,
}

/// What else transformers lets change a greedy answer.
const UNKNOWN: [&str; 17] = [
    "constraints",
    "diversity_penalty",
    "dola_layers",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "exponential_decay_length_penalty",
    "force_words_ids",
    "forced_bos_token_id",
    "forced_decoder_ids",
    "forced_eos_token_id",
    "guidance_scale",
    "num_beam_groups",
    "num_beams",
    "penalty_alpha",
    "sequence_bias",
    "stop_strings",
    "watermarking_config",
];

impl Generation {
    /// Reads the file of a folder, which need not be there.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let check = Checker(&path);
        let Some(mut fields): Option<Map<String, Value>> = read_optional(&path)? else {
            return Ok(Self::default());
        };
        fields.retain(|_, value| !value.is_null());
        let unapplied = UNKNOWN.iter().filter_map(|&name| {
            let value = fields.get(name)?;
            (!is_neutral(value)).then(|| format!("{name}={value}"))
        });
        let unapplied = unapplied.collect();
        let raw: Raw = check.parse("generation settings", Value::Object(fields))?;
        let penalty = raw.repetition_penalty.unwrap_or(1.0);
        if raw.bad_words_ids.iter().flatten().any(Vec::is_empty) {
            return check.fault("`bad_words_ids` has a word of no tokens".into());
        }
        let count = |n: Option<i64>| n.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        Ok(Self {
            end_ids: raw.eos_token_id.into_vec(),
            repetition_penalty: check.positive("repetition_penalty", penalty)? as f32,
            no_repeat_ngram: count(raw.no_repeat_ngram_size),
            bad_words: raw.bad_words_ids.iter().flatten().filter_map(|word| whole(word)).collect(),
            suppress: there(raw.suppress_tokens),
            begin_suppress: there(raw.begin_suppress_tokens),
            min_new_tokens: count(raw.min_new_tokens),
            min_length: count(raw.min_length),
            unapplied,
        })
    }

    /// Whether the tokens before an answer matter at all.
    pub fn looks_back(&self) -> bool {
        self.reach() > 0 || self.repetition_penalty != 1.0 || self.min_length > 0
    }

    /// How many of the tokens before an answer can matter one by one.
    pub fn reach(&self) -> usize {
        let longest = self.bad_words.iter().map(Vec::len).max();
        longest.unwrap_or(0).max(self.no_repeat_ngram)
    }
}

/// Whether a setting is written down and does nothing: files of older versions hold all of them.
fn is_neutral(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(n) => matches!(n.as_f64(), Some(0.0 | 1.0)),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::String(_) => false,
    }
}

/// The ids that a token may have.
fn there(ids: Option<Vec<i64>>) -> Vec<u32> {
    ids.into_iter().flatten().filter_map(|id| u32::try_from(id).ok()).collect()
}

/// A word all of whose ids a token may have.
fn whole(word: &[i64]) -> Option<Vec<u32>> {
    word.iter().map(|&id| u32::try_from(id).ok()).collect()
}

/// No id, one id or a list of them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(untagged)]
pub enum Ids {
    #[default]
    None,
    One(u32),
    Many(Vec<u32>),
}

impl Ids {
    pub fn into_vec(self) -> Vec<u32> {
        match self {
            Self::None => Vec::new(),
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}
