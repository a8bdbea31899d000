// SPDX-License-Identifier: MPL-2.0
//! The decode loop: token by token, with the text handed out as it grows, until the model ends its
//! turn, says the same over and over, or has said enough.

use std::time::{Duration, Instant};

use candle_core::{D, DType, Tensor};

use super::choice::Chooser;
pub use super::choice::{History, Sampling};
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
    /// The model said the same over and over.
    Loop,
}

impl Finish {
    /// The word for it: `stop`, `length` or `loop`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Loop => "loop",
        }
    }
}

/// What is to be answered, and how.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// `[n, C]`: what runs through the decoder first.
    pub prompt: &'a Tensor,
    /// Everything before the answer, for the rules of `generation_config.json`.
    pub before: History,
    pub max_tokens: usize,
    /// `None`: the best token each time.
    pub sampling: Option<Sampling>,
}

impl<'a> Request<'a> {
    /// The best token each time, and nothing before the answer that counts.
    pub fn greedy(prompt: &'a Tensor, max_tokens: usize) -> Self {
        Self { prompt, before: History::default(), max_tokens, sampling: None }
    }
}

/// An answer as it came out of the model.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Without the token that ended the answer.
    pub ids: Vec<u32>,
    pub text: String,
    pub finish: Finish,
    /// `[vocab]`: what the first token was chosen from, before any rule.
    pub first_logits: Vec<f32>,
    /// Mean natural logarithm of the probabilities that the model itself, before any rule, gave these
    /// tokens; `None`: there is none.
    pub confidence: Option<f64>,
    /// Up to the choice of the first token.
    pub prefill: Duration,
    /// From there to the end.
    pub decode: Duration,
}

/// Runs the prompt through the decoder and decodes until the answer ends. `attend` keeps the keys
/// and values of each pass for the next. `on_token` gets pieces of valid UTF-8 that add up to the
/// text.
///
/// # Errors
/// [`Cancelled`](crate::EngineError::Cancelled), [`NotFinite`](crate::EngineError::NotFinite), or
/// what the computation fails with.
pub fn generate<A: Attend + ?Sized>(
    model: &VideoLlm,
    request: &Request,
    attend: &mut A,
    cancel: &Cancel,
    on_token: &mut dyn FnMut(&str),
) -> Result<Generated> {
    let start = Instant::now();
    let Request { prompt, before, max_tokens, sampling } = request;
    let mut chooser = Chooser::new(model.generation(), model.prompts().ends(), before, *sampling);
    let mut logits = next_logits(model, prompt, attend)?;
    let first_logits: Vec<f32> = logits.to_vec1()?;
    let mut token = chooser.next(first_logits.clone())?;
    let prefill = start.elapsed();

    let mut ids = Vec::new();
    let mut text = Text::new(model, on_token);
    let mut guard = LoopGuard::default();
    let mut sure = Sureness::default();
    let mut finish = Finish::Length;
    while ids.len() < *max_tokens {
        if model.prompts().is_end(token) {
            finish = Finish::Stop;
            break;
        }
        ids.push(token);
        text.push(token);
        sure.add(&logits, token)?;
        if ids.len() == *max_tokens {
            break;
        }
        if guard.sees_a_loop(&ids) {
            finish = Finish::Loop;
            break;
        }
        cancel.check()?;
        logits = next_logits(model, &model.decoder().embed(&[token])?, attend)?;
        token = chooser.next_of(&logits)?;
    }
    let text = text.finish(&ids)?;
    let confidence = sure.mean(ids.len())?;
    let decode = start.elapsed() - prefill;
    Ok(Generated { ids, text, finish, first_logits, confidence, prefill, decode })
}

/// Scores `[vocab]` of the token after the last row of `embeds`.
pub(super) fn next_logits<A: Attend + ?Sized>(
    model: &VideoLlm,
    embeds: &Tensor,
    attend: &mut A,
) -> Result<Tensor> {
    let hidden = model.decoder().forward(embeds, attend)?;
    let last = hidden.dim(0)?.saturating_sub(1);
    Ok(model.decoder().logits(&hidden.narrow(0, last, 1)?)?.squeeze(0)?)
}

/// Gathers how likely the model found what was said; read once, at the end.
#[derive(Default)]
struct Sureness {
    /// `[1]`
    sum: Option<Tensor>,
}

impl Sureness {
    /// Of scores `[vocab]`.
    fn add(&mut self, scores: &Tensor, token: u32) -> Result<()> {
        let scores = scores.to_dtype(DType::F32)?;
        let said = scores.narrow(0, token as usize, 1)?;
        let likely = said.broadcast_sub(&scores.log_sum_exp(D::Minus1)?)?;
        self.sum = Some(match self.sum.take() {
            Some(sum) => (sum + likely)?,
            None => likely,
        });
        Ok(())
    }

    fn mean(self, tokens: usize) -> Result<Option<f64>> {
        let Some(sum) = self.sum else { return Ok(None) };
        let sum: Vec<f32> = sum.to_vec1()?;
        Ok(sum.first().map(|&sum| f64::from(sum) / tokens.max(1) as f64))
    }
}

/// Knows an answer that will not end: its last tokens are one phrase, again and again.
#[derive(Default)]
struct LoopGuard {
    /// For each length of a phrase, how many of the last tokens equal the one a phrase before.
    equal: Vec<usize>,
}

impl LoopGuard {
    /// The longest phrase that is looked for, in tokens.
    const PHRASE: usize = 128;
    /// What is said so often, and is so long altogether, is no figure of speech.
    const TIMES: usize = 4;
    const TOKENS: usize = 64;

    /// Looks at an answer that has one more token than the last time.
    fn sees_a_loop(&mut self, ids: &[u32]) -> bool {
        let Some((last, earlier)) = ids.split_last() else { return false };
        self.equal.resize(Self::PHRASE, 0);
        let before = earlier.iter().rev();
        for (equal, before) in self.equal.iter_mut().zip(before) {
            *equal = if before == last { *equal + 1 } else { 0 };
        }
        self.equal.iter().enumerate().any(|(index, equal)| {
            let phrase = index + 1;
            equal + phrase >= Self::TOKENS.max(Self::TIMES * phrase)
        })
    }
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
        if let Some(piece) = self.stream.step(token) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many tokens an answer counts as a loop.
    fn caught(ids: impl IntoIterator<Item = u32>) -> Option<usize> {
        let ids: Vec<u32> = ids.into_iter().take(2000).collect();
        let mut guard = LoopGuard::default();
        (1..=ids.len()).find(|&n| guard.sees_a_loop(&ids[..n]))
    }

    #[test]
    fn a_phrase_again_and_again_is_a_loop() {
        assert_eq!(caught(std::iter::repeat(7)), Some(64));
        assert_eq!(caught((0..).map(|i| i % 3)), Some(64));
        assert_eq!(caught((0..30).chain((0..).map(|i| i % 50))), Some(30 + 200));
        assert_eq!(caught((0..).map(|i| i % 128)), Some(512));
        assert_eq!(caught((100..120).chain(std::iter::repeat(7))), Some(20 + 64));
    }

    #[test]
    fn what_goes_on_is_no_loop() {
        assert_eq!(caught(0..2000), None);
        // Counting up: the phrase is the same but for a number.
        assert_eq!(caught((0..2000).map(|i| if i % 4 == 0 { 1000 + i } else { i % 4 })), None);
        assert_eq!(caught((0..63).map(|_| 7)), None);
        assert_eq!(caught((0..).map(|i| i % 200)), None);
    }
}
