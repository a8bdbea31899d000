// SPDX-License-Identifier: MPL-2.0
//! `tokenizer.json`, and what `tokenizer_config.json` says beside it.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokenizers::Tokenizer;

use crate::error::{EngineError, Result};

/// `tokenizer_config.json`.
#[derive(Default, Deserialize)]
pub struct TokenizerConfig {
    #[serde(default)]
    pub chat_template: Option<Source>,
    #[serde(flatten)]
    pub others: serde_json::Map<String, serde_json::Value>,
}

impl TokenizerConfig {
    /// A named token such as `eos_token`, written as text or as an object with `content`.
    pub fn token(&self, name: &str) -> Option<&str> {
        let value = self.others.get(name)?;
        value.as_str().or_else(|| value.get("content")?.as_str())
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

/// Reads a `tokenizer.json`.
pub fn read_tokenizer(path: &Path) -> Result<Tokenizer> {
    let bytes = std::fs::read(path)
        .map_err(|source| EngineError::Read { path: path.to_owned(), source })?;
    let fault = |e: tokenizers::Error| EngineError::Checkpoint {
        path: PathBuf::from(path),
        reason: format!("not a tokenizer that can be read: {e}"),
    };
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(fault)?;
    // A prompt is neither cut nor filled up, whatever the file was saved with.
    tokenizer.with_truncation(None).map_err(fault)?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}
