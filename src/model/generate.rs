// SPDX-License-Identifier: MPL-2.0
//! The decode loop: greedy, token by token, with the text handed out as it grows.

use std::time::{Duration, Instant};

use candle_core::Tensor;
use candle_transformers::generation::{LogitsProcessor, Sampling};

use super::decoder::Attend;
use super::prompt::TextStream;
use super::video_llm::VideoLlm;
use crate::cancel::Cancel;
use crate::error::Result;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its turn.
    Stop,
    /// The token limit was reached.
    Length,
}

/// An answer as it came out of the model.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Without the token that ended the answer.
    pub ids: Vec<u32>,
    pub text: String,
    pub finish: Finish,
    /// `[vocab]`: what the first token was chosen from.
    pub first_logits: Vec<f32>,
    /// Up to the choice of the first token.
    pub prefill: Duration,
    /// From there to the end.
    pub decode: Duration,
}

/// Runs `prompt` `[n, C]` through the decoder and decodes greedily until the model ends its turn or
/// `max_tokens` tokens have come. `attend` keeps the keys and values of each pass for the next.
/// `on_token` gets pieces of valid UTF-8 that add up to the text.
pub fn generate<A: Attend + ?Sized>(
    model: &VideoLlm,
    prompt: &Tensor,
    attend: &mut A,
    max_tokens: usize,
    cancel: &Cancel,
    on_token: &mut dyn FnMut(&str),
) -> Result<Generated> {
    let start = Instant::now();
    let mut greedy = LogitsProcessor::from_sampling(0, Sampling::ArgMax);
    let mut logits = next_logits(model, prompt, attend)?;
    let first_logits = logits.to_vec1()?;
    let mut token = greedy.sample(&logits)?;
    let prefill = start.elapsed();

    let mut ids = Vec::new();
    let mut text = Text::new(model, on_token);
    let mut finish = Finish::Length;
    while ids.len() < max_tokens {
        if model.prompts().is_end(token) {
            finish = Finish::Stop;
            break;
        }
        ids.push(token);
        text.push(token);
        if ids.len() == max_tokens {
            break;
        }
        cancel.check()?;
        logits = next_logits(model, &model.decoder().embed(&[token])?, attend)?;
        token = greedy.sample(&logits)?;
    }
    let text = text.finish(&ids)?;
    let decode = start.elapsed() - prefill;
    Ok(Generated { ids, text, finish, first_logits, prefill, decode })
}

/// Scores `[vocab]` of the token after the last row of `embeds`.
fn next_logits<A: Attend + ?Sized>(
    model: &VideoLlm,
    embeds: &Tensor,
    attend: &mut A,
) -> Result<Tensor> {
    let hidden = model.decoder().forward(embeds, attend)?;
    let last = hidden.dim(0)?.saturating_sub(1);
    Ok(model.decoder().logits(&hidden.narrow(0, last, 1)?)?.squeeze(0)?)
}

/// Hands out the text in pieces and remembers how much of it is out.
struct Text<'a> {
    model: &'a VideoLlm,
    stream: TextStream<'a>,
    told: String,
    on_token: &'a mut dyn FnMut(&str),
}

impl<'a> Text<'a> {
    fn new(model: &'a VideoLlm, on_token: &'a mut dyn FnMut(&str)) -> Self {
        Self { model, stream: model.prompts().stream(), told: String::new(), on_token }
    }

    fn push(&mut self, token: u32) {
        // A piece that does not decode yet comes out with a later one, or at the end.
        if let Ok(Some(piece)) = self.stream.step(token) {
            self.told.push_str(&piece);
            (self.on_token)(&piece);
        }
    }

    /// The whole text; what was held back to the end is handed out now.
    fn finish(self, ids: &[u32]) -> Result<String> {
        let text = self.model.prompts().decode(ids)?;
        if let Some(rest) = text.strip_prefix(&self.told)
            && !rest.is_empty()
        {
            (self.on_token)(rest);
        }
        Ok(text)
    }
}
