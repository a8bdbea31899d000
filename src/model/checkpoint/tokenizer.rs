// SPDX-License-Identifier: MPL-2.0
//! `tokenizer.json`, and what `tokenizer_config.json` says beside it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::{AddedToken, DecodeStream, Tokenizer};

use crate::error::{EngineError, Result};

/// `tokenizer_config.json`.
#[derive(Default, Deserialize)]
pub struct TokenizerConfig {
    #[serde(default)]
    pub chat_template: Option<Source>,
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

impl TokenizerConfig {
    /// A named token such as `eos_token`, written as text or as an object with `content`.
    pub fn token(&self, name: &str) -> Option<&str> {
        content(self.others.get(name)?)
    }

    /// Every token that is named for its part in a prompt: `eos_token` and its like, those that are
    /// listed beside them, and those that are flagged.
    pub fn controls(&self) -> Vec<&str> {
        let named = self.others.iter().filter(|(name, _)| name.ends_with("_token"));
        let named = named.filter_map(|(_, value)| content(value));
        let lists = ["additional_special_tokens", "extra_special_tokens"];
        let listed = lists.iter().filter_map(|name| self.others.get(*name)).flat_map(members);
        let flagged = self.others.get("added_tokens_decoder").into_iter().flat_map(members);
        let flagged = flagged.filter(|token| token.get("special") == Some(&Value::Bool(true)));
        named.chain(listed.filter_map(content)).chain(flagged.filter_map(content)).collect()
    }
}

fn content(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// What a list or an object holds.
fn members(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

/// A template as `tokenizer_config.json` may hold it.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Source {
    One(String),
    Named(Vec<Named>),
}

#[derive(Deserialize)]
pub struct Named {
    pub name: String,
    pub template: String,
}

/// The tokenizer of a folder. The crate panics on some damaged files; here that is an error which
/// names the file.
#[derive(Clone)]
pub struct SafeTokenizer {
    tokenizer: Tokenizer,
    path: PathBuf,
}

impl SafeTokenizer {
    /// Reads a `tokenizer.json`.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path)
            .map_err(|source| EngineError::Read { path: path.to_owned(), source })?;
        let read = || -> tokenizers::Result<Tokenizer> {
            let mut tokenizer = Tokenizer::from_bytes(bytes)?;
            // A prompt is neither cut nor filled up, whatever the file was saved with.
            tokenizer.with_truncation(None)?;
            tokenizer.with_padding(None);
            Ok(tokenizer)
        };
        match guarded(read) {
            Ok(tokenizer) => Ok(Self { tokenizer, path: path.to_owned() }),
            Err(reason) => Err(EngineError::Checkpoint {
                path: path.to_owned(),
                reason: format!("not a tokenizer that can be read: {reason}"),
            }),
        }
    }

    /// Changes the tokenizer.
    pub fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Tokenizer) -> tokenizers::Result<T>,
    ) -> Result<T> {
        let changed = guarded(|| change(&mut self.tokenizer));
        changed.map_err(|reason| EngineError::Checkpoint { path: self.path.clone(), reason })
    }

    /// Makes it blind to control tokens: these, and those that the file flags.
    pub fn blind_to<'a>(&mut self, controls: impl IntoIterator<Item = &'a String>) -> Result<()> {
        let added = self.added();
        let special = |text: &String| {
            let own = added.iter().find(|(_, token)| token.content == *text);
            let own = own.map(|(_, token)| token.clone());
            own.unwrap_or_else(|| AddedToken::from(text.clone(), true)).special(true)
        };
        let controls: Vec<AddedToken> = controls.into_iter().map(special).collect();
        self.change(|tokenizer| {
            tokenizer.add_special_tokens(controls)?;
            tokenizer.set_encode_special_tokens(true);
            Ok(())
        })
    }

    /// The tokens that the file adds to the vocabulary.
    pub fn added(&self) -> Vec<(u32, AddedToken)> {
        let added = guarded(|| Ok(self.tokenizer.get_added_tokens_decoder()));
        added.unwrap_or_default().into_iter().collect()
    }

    /// The largest id there is.
    pub fn largest_id(&self) -> Option<u32> {
        guarded(|| Ok(self.tokenizer.get_vocab(true).into_values().max())).ok()?
    }

    pub fn id(&self, text: &str) -> Option<u32> {
        guarded(|| Ok(self.tokenizer.token_to_id(text))).ok()?
    }

    pub fn text(&self, id: u32) -> Option<String> {
        guarded(|| Ok(self.tokenizer.id_to_token(id))).ok()?
    }

    /// The ids of a text; with `frame`, those that the file puts around every text too.
    pub fn encode(&self, text: &str, frame: bool) -> Result<Vec<u32>> {
        let ids = guarded(|| Ok(self.tokenizer.encode_fast(text, frame)?.get_ids().to_vec()));
        ids.map_err(|reason| self.fault(&reason))
    }

    /// The text of ids, without the tokens that the file flags as special.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        guarded(|| self.tokenizer.decode(ids, true)).map_err(|reason| self.fault(&reason))
    }

    /// Decodes token by token.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream(self.tokenizer.decode_stream(true))
    }

    fn fault(&self, reason: &str) -> EngineError {
        EngineError::Tokenizer(format!("{}: {reason}", self.path.display()))
    }
}

/// Text as it grows; holds back incomplete characters.
pub struct TextStream<'a>(
    DecodeStream<
        'a,
        tokenizers::ModelWrapper,
        tokenizers::NormalizerWrapper,
        tokenizers::PreTokenizerWrapper,
        tokenizers::PostProcessorWrapper,
        tokenizers::DecoderWrapper,
    >,
);

impl TextStream<'_> {
    /// The text that one more token adds, as far as it can be told yet.
    pub fn step(&mut self, id: u32) -> Option<String> {
        guarded(|| self.0.step(id)).ok()?
    }
}

/// Runs code of the tokenizers crate, which indexes and unwraps what a file says.
fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("it is damaged: parts of it contradict each other".into()),
    }
}
