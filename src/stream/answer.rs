// SPDX-License-Identifier: MPL-2.0
//! A question, its answer, and what the answer was made from.

use std::time::Duration;

use crate::evidence::Evidence;
use crate::memory::find::Context;
use crate::memory::unit::Unit;
use crate::model::generate::{Finish, Generated, Sampling};
use crate::model::verdict::{Choice, Verdict};

/// A question about everything pushed so far.
#[derive(Clone, Debug)]
pub struct Question {
    pub text: String,
    pub max_tokens: usize,
    /// The answer is one of these, by the model's own probabilities; empty: the answer is free.
    pub choices: Vec<String>,
    /// Seconds of the stream, from and to, that the answer may look at; `None`: all of it.
    pub within: Option<(f64, f64)>,
    /// Keep the logits of the first answer token in the [`Answer`].
    pub keep_logits: bool,
    /// Draw tokens; `None`: take the best each time.
    pub sampling: Option<Sampling>,
}

impl Question {
    pub const DEFAULT_MAX_TOKENS: usize = 64;
    /// Longer answers are cut off here, whatever is asked for.
    pub const MAX_TOKENS: usize = 32_768;

    pub fn new(text: impl Into<String>) -> Self {
        let max_tokens = Self::DEFAULT_MAX_TOKENS;
        let text = text.into();
        Self {
            text,
            max_tokens,
            choices: Vec::new(),
            within: None,
            keep_logits: false,
            sampling: None,
        }
    }

    pub fn max_tokens(self, max_tokens: usize) -> Self {
        Self { max_tokens, ..self }
    }

    /// The same about what was to be seen from one second of the stream to another.
    pub fn within(self, from: f64, to: f64) -> Self {
        Self { within: Some((from, to)), ..self }
    }

    /// The same with the answers to choose from.
    pub fn choices<T: Into<String>>(self, choices: impl IntoIterator<Item = T>) -> Self {
        Self { choices: choices.into_iter().map(Into::into).collect(), ..self }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Encoding the open segment on its temporary branch.
    pub branch: Duration,
    /// The retrieval passes.
    pub retrieve: Duration,
    /// From the start of the answering pass to its first token.
    pub prefill: Duration,
    /// All tokens after the first.
    pub decode: Duration,
    /// From the question to its first token.
    pub first_token: Duration,
}

/// What one decoder layer looked at to answer.
#[derive(Clone, Debug)]
pub struct LayerContext {
    /// Unit ids in stream order.
    pub retrieved: Vec<u64>,
    /// Tokens in front of the question: prefix and retrieved units.
    pub context_tokens: usize,
}

impl LayerContext {
    pub(super) fn of(context: &Option<Context>) -> Self {
        match context {
            Some(context) => Self { retrieved: context.units(), context_tokens: context.tokens() },
            None => Self { retrieved: Vec::new(), context_tokens: 0 },
        }
    }
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub text: String,
    pub ids: Vec<u32>,
    pub evidence: Vec<Evidence>,
    pub finish: Finish,
    /// Mean natural logarithm of the probabilities that the model gave the tokens of the answer: 0 is
    /// certain. `None`: the answer is empty.
    pub confidence: Option<f64>,
    /// How likely each of the question's choices is; empty if it has none.
    pub choices: Vec<Choice>,
    pub timings: Timings,
    pub layers: Vec<LayerContext>,
    /// Units of the segment that was still open, as the answer saw them. Their ids are those that
    /// follow the memory's own.
    pub open_units: Vec<Unit>,
    /// `[vocab]`, if the question asked for it.
    pub first_logits: Option<Vec<f32>>,
}

/// An answer as it came out of the model, free or chosen.
pub(super) struct Said {
    pub text: String,
    pub ids: Vec<u32>,
    pub finish: Finish,
    pub confidence: Option<f64>,
    pub choices: Vec<Choice>,
    pub first_logits: Vec<f32>,
    pub prefill: Duration,
    pub decode: Duration,
}

impl From<Generated> for Said {
    fn from(generated: Generated) -> Self {
        let Generated { ids, text, finish, first_logits, confidence, prefill, decode } = generated;
        let choices = Vec::new();
        Self { text, ids, finish, confidence, choices, first_logits, prefill, decode }
    }
}

impl From<Verdict> for Said {
    fn from(verdict: Verdict) -> Self {
        let Verdict { choices, best, ids, confidence, first_logits, prefill, decode } = verdict;
        let text = choices.get(best).map_or_else(String::new, |choice| choice.text.clone());
        let (confidence, finish) = (Some(confidence), Finish::Stop);
        Self { text, ids, finish, confidence, choices, first_logits, prefill, decode }
    }
}
