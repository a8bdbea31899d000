// SPDX-License-Identifier: MPL-2.0
//! The control tokens of a checkpoint: what its template or its config uses as one, whatever
//! `tokenizer.json` flags.

use std::collections::{BTreeMap, BTreeSet};

use aho_corasick::{AhoCorasick, MatchKind};

use crate::error::{EngineError, Result};
use crate::model::checkpoint::Checkpoint;
use crate::model::checkpoint::tokenizer::{SafeTokenizer, TokenizerConfig};

pub(super) struct Controls {
    /// By text.
    tokens: BTreeMap<String, u32>,
    pub ids: BTreeSet<u32>,
    /// Finds them in a text; patterns in the order of `tokens`.
    finder: AhoCorasick,
}

impl Controls {
    /// Those of a folder; `used` is what its template is made of and what it renders. SafeTokenizer of the
    /// vocabulary that are control tokens become tokens of their own in `words`.
    pub fn of(
        words: &mut SafeTokenizer,
        checkpoint: &Checkpoint,
        config: &TokenizerConfig,
        used: &str,
    ) -> Result<Self> {
        let mut tokens = BTreeMap::new();
        let added = words.added();
        for (id, token) in &added {
            let text = &token.content;
            if token.special || is_marked(text) && used.contains(text.as_str()) {
                tokens.insert(text.clone(), *id);
            }
        }
        // An id may be that of an ordinary word, which stands for nothing.
        let by_id = checkpoint.control_ids()?;
        for (text, id) in by_id.iter().filter_map(|&id| Some((words.text(id)?, id))) {
            if is_marked(&text) && (is_bracketed(&text) || added.iter().any(|(own, _)| *own == id))
            {
                tokens.insert(text, id);
            }
        }
        for (text, id) in config.controls().iter().filter_map(|&t| Some((t, words.id(t)?))) {
            tokens.insert(text.to_owned(), id);
        }
        tokens.remove("");
        let own: BTreeSet<&String> = added.iter().map(|(_, token)| &token.content).collect();
        let others: Vec<_> = tokens.keys().filter(|text| !own.contains(text)).cloned().collect();
        if !others.is_empty() {
            let others = others.into_iter().map(|text| tokenizers::AddedToken::from(text, true));
            words.change(|tokenizer| tokenizer.add_special_tokens(others.collect::<Vec<_>>()))?;
        }
        // Of two that begin at one place the longer counts, as in the tokenizer itself.
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens.keys())
            .map_err(|e| EngineError::Checkpoint {
                path: checkpoint.dir().join("tokenizer.json"),
                reason: format!("too many control tokens: {e}"),
            })?;
        Ok(Self { ids: tokens.values().copied().collect(), tokens, finder })
    }

    pub fn texts(&self) -> impl Iterator<Item = &String> {
        self.tokens.keys()
    }

    /// The text up to the first control token, that token, and what follows it.
    pub fn next<'a>(&self, text: &'a str) -> (&'a str, Option<u32>, &'a str) {
        let found = self.finder.find(text).and_then(|found| {
            let id = *self.tokens.values().nth(found.pattern().as_usize())?;
            Some((text.get(..found.start())?, Some(id), text.get(found.end()..)?))
        });
        found.unwrap_or((text, None, ""))
    }
}

/// Whether a text looks like more than words and blanks.
fn is_marked(text: &str) -> bool {
    text.chars().any(|c| !c.is_alphanumeric() && !c.is_whitespace())
}

fn is_bracketed(text: &str) -> bool {
    let within = |open, close| text.starts_with(open) && text.ends_with(close);
    within('<', '>') || within('[', ']')
}
