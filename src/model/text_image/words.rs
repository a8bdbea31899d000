// SPDX-License-Identifier: MPL-2.0
//! Texts to ids, as the processors of SigLIP and CLIP do it.

use std::path::Path;

use tokenizers::{PaddingDirection, PaddingParams, PaddingStrategy, TruncationParams};

use crate::error::{EngineError, Result};
use crate::model::checkpoint::pair::Config;
use crate::model::checkpoint::tokenizer::{SafeTokenizer, TokenizerConfig};
use crate::model::files::read_optional;

pub(super) struct Words {
    tokenizer: SafeTokenizer,
    /// SigLIP was trained on small letters, and not every tokenizer.json of SigLIP 2 sees to it.
    small: bool,
}

impl Words {
    /// Reads `tokenizer.json` and, if it is there, `tokenizer_config.json`.
    pub fn read(dir: &Path, config: &Config) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        let mut tokenizer = SafeTokenizer::read(&path)?;
        let others: TokenizerConfig =
            read_optional(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
        let fault = |reason: String| EngineError::Checkpoint { path: path.clone(), reason };
        let length = config.text_length();
        let cut = TruncationParams { max_length: length, ..TruncationParams::default() };
        // CLIP's text tower looks back only, so that what follows the end cannot matter.
        let padding = config.pad().map(|pad| {
            // The class default in config.json is often not the tokenizer's.
            let named = others.token("pad_token").and_then(|name| tokenizer.id(name));
            let left = others.others.get("padding_side").is_some_and(|side| side == "left");
            PaddingParams {
                strategy: PaddingStrategy::Fixed(length),
                direction: if left { PaddingDirection::Left } else { PaddingDirection::Right },
                pad_id: named.unwrap_or(pad),
                ..PaddingParams::default()
            }
        });
        let pad = padding.as_ref().map(|padding| padding.pad_id);
        tokenizer.change(|tokenizer| {
            tokenizer.with_padding(padding);
            let cut = tokenizer.with_truncation(Some(cut)).map(|_| ());
            cut.map_err(|e| {
                format!("does not fit into the {length} tokens of config.json: {e}").into()
            })
        })?;

        let largest = tokenizer.largest_id().max(pad);
        let vocabulary = config.vocab_size();
        if let Some(largest) = largest.filter(|&id| id as usize >= vocabulary) {
            return Err(fault(format!(
                "has a token {largest}, and config.json a vocabulary of {vocabulary}; one of them \
                 belongs to another model"
            )));
        }
        let small = config.pad().is_some()
            && others.others.get("do_lower_case").is_none_or(|small| small != false);
        let words = Self { tokenizer, small };
        if words.ids("")?.is_empty() {
            let reason = "puts no end token behind a text, where the text tower is read out".into();
            return Err(fault(reason));
        }
        Ok(words)
    }

    pub fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let small = self.small.then(|| text.to_lowercase());
        self.tokenizer.encode(small.as_deref().unwrap_or(text), true)
    }
}
