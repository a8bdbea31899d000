// SPDX-License-Identifier: MPL-2.0
//! One camera's life: push frames, ask, look at what is kept. The engine's facade.

use std::time::Duration;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::frame::Frame;
use crate::memory::recipe::Recipe;
use crate::model::VideoLlm;
use crate::model::prompt::PromptStyle;

/// What does not change during a stream's life.
#[derive(Clone, Debug, Default)]
pub struct StreamOptions {
    /// The system message in front of everything; `None` takes the prompt style's own.
    pub system_prompt: Option<String>,
    pub prompt_style: PromptStyle,
    /// Upper bound for the stored KV in bytes; the oldest frames go first. `None`: no bound.
    pub max_memory: Option<u64>,
}

/// A question about everything pushed so far.
#[derive(Clone, Debug)]
pub struct Question {
    pub text: String,
    pub max_tokens: usize,
    /// Keep the logits of the first answer token in the [`Answer`].
    pub keep_logits: bool,
}

impl Question {
    pub const DEFAULT_MAX_TOKENS: usize = 64;

    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), max_tokens: Self::DEFAULT_MAX_TOKENS, keep_logits: false }
    }

    pub fn max_tokens(self, max_tokens: usize) -> Self {
        Self { max_tokens, ..self }
    }
}

/// A stretch of stream time that an answer looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// Seconds of stream time.
    pub start: f64,
    /// Seconds of stream time; at least `start`.
    pub end: f64,
    /// Share of the answer's attention to the video that fell on this stretch, in 0..=1.
    pub score: f64,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its turn.
    Stop,
    /// The token limit was reached.
    Length,
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

#[derive(Clone, Debug)]
pub struct Answer {
    pub text: String,
    pub ids: Vec<u32>,
    pub evidence: Vec<Evidence>,
    pub finish: Finish,
    pub timings: Timings,
    pub layers: Vec<LayerContext>,
    /// `[vocab]`, if the question asked for it.
    pub first_logits: Option<Vec<f32>>,
}

/// What a stream holds, for `stats` and for benchmarks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StreamStats {
    /// Frames pushed.
    pub frames: u64,
    /// Units (frames and summaries) that at least one layer still holds.
    pub units: u64,
    pub segments: u64,
    /// Frames waiting in the open segment.
    pub open_frames: u64,
    /// Bytes of stored keys and values, windows and sinks included.
    pub bytes: u64,
}

pub struct Stream {
    model: VideoLlm,
}

impl Stream {
    pub fn new(model: VideoLlm, recipe: Recipe) -> Result<Self> {
        Self::open(model, recipe, StreamOptions::default())
    }

    pub fn open(model: VideoLlm, recipe: Recipe, options: StreamOptions) -> Result<Self> {
        let _ = (recipe, options);
        Ok(Self { model })
    }

    /// The flag that the following calls obey.
    pub fn set_cancel(&mut self, cancel: Cancel) {
        let _ = cancel;
    }

    pub fn push(&mut self, frame: &Frame) -> Result<()> {
        self.push_frames(std::slice::from_ref(frame))
    }

    /// Takes frames in stream order; several at once are encoded in one batch.
    ///
    /// On an error the memory is as it was before.
    pub fn push_frames(&mut self, frames: &[Frame]) -> Result<()> {
        let _ = frames;
        Ok(())
    }

    /// Answers from all frames pushed so far and leaves the memory as it was.
    pub fn ask(&self, question: &Question, on_token: impl FnMut(&str)) -> Result<Answer> {
        let _ = (question, on_token, &self.model);
        unimplemented!()
    }

    pub fn stats(&self) -> StreamStats {
        StreamStats::default()
    }

    /// Forgets everything seen; the prefix stays.
    pub fn clear(&mut self) -> Result<()> {
        Ok(())
    }
}
