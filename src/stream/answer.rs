// SPDX-License-Identifier: MPL-2.0
//! A question, its answer, and what the answer was made from.

use std::time::Duration;

use crate::evidence::Evidence;
use crate::memory::find::Context;
use crate::memory::unit::Unit;
use crate::model::generate::{Finish, Sampling};

/// A question about everything pushed so far.
#[derive(Clone, Debug)]
pub struct Question {
    pub text: String,
    pub max_tokens: usize,
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
        Self { text: text.into(), max_tokens, keep_logits: false, sampling: None }
    }

    pub fn max_tokens(self, max_tokens: usize) -> Self {
        Self { max_tokens, ..self }
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
    pub timings: Timings,
    pub layers: Vec<LayerContext>,
    /// Units of the segment that was still open, as the answer saw them. Their ids are those that
    /// follow the memory's own.
    pub open_units: Vec<Unit>,
    /// `[vocab]`, if the question asked for it.
    pub first_logits: Option<Vec<f32>>,
}
