// SPDX-License-Identifier: MPL-2.0
//! From scores to the next token: what `generation_config.json` asks for, in the order and to the
//! letter of transformers' `generate`, then the best token or a draw.

use std::collections::BTreeSet;

use candle_core::{Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling as Draw};

use super::checkpoint::Generation;
use super::{kernels, sound};
use crate::error::{EngineError, Result};

/// How a token is drawn instead of taking the best.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Scores are divided by it: below 1 the likely become likelier. Above 0.
    pub temperature: f64,
    /// Draw from the fewest tokens that have this probability together; 1: from all.
    pub top_p: f64,
    /// Equal seeds draw equally.
    pub seed: u64,
}

/// The tokens that stand before an answer, as `generate` counts its `input_ids`: the prompt's, and a
/// placeholder for each token of video.
#[derive(Clone, Debug, Default)]
pub struct History {
    ids: Vec<u32>,
    /// Placeholders that are left out of `ids`: a run of them says no more from some length on.
    spared: usize,
}

impl History {
    /// Of ids as they are.
    pub fn new(ids: Vec<u32>) -> Self {
        Self { ids, spared: 0 }
    }

    /// Of `opening`, a video of `tokens` tokens that `placeholder` stands for, and `tail`; runs
    /// longer than `reach` cannot be told apart.
    pub(super) fn around(
        (opening, tail): (&[u32], &[u32]),
        (placeholder, tokens): (u32, usize),
        reach: usize,
    ) -> Self {
        let kept = tokens.min(reach.saturating_add(1));
        let video = std::iter::repeat_n(placeholder, kept);
        let ids = opening.iter().copied().chain(video).chain(tail.iter().copied()).collect();
        Self { ids, spared: tokens - kept }
    }

    /// Of `opening`, units of `tokens` tokens that `placeholder` stands for, each with words around it,
    /// and `tail`; `gone` tokens of video stand before all that, unseen.
    pub(super) fn of_lines(
        (opening, tail): (&[u32], &[u32]),
        lines: &[[Vec<u32>; 2]],
        (placeholder, tokens): (u32, usize),
        gone: usize,
        reach: usize,
    ) -> Self {
        let kept = tokens.min(reach.saturating_add(1));
        let mut ids = opening.to_vec();
        for [front, behind] in lines {
            ids.extend(front);
            ids.extend(std::iter::repeat_n(placeholder, kept));
            ids.extend(behind);
        }
        ids.extend(tail);
        Self { ids, spared: gone + lines.len() * (tokens - kept) }
    }
}

/// Chooses the tokens of one answer, one after the other.
pub(super) struct Chooser<'a> {
    rules: &'a Generation,
    ends: &'a BTreeSet<u32>,
    /// The tokens before the answer, and its own.
    ids: Vec<u32>,
    /// Of `ids`, how many stand before the answer.
    before: usize,
    spared: usize,
    draw: Option<LogitsProcessor>,
}

impl<'a> Chooser<'a> {
    /// `ends`: the tokens that end an answer.
    pub fn new(
        rules: &'a Generation,
        ends: &'a BTreeSet<u32>,
        history: &History,
        sampling: Option<Sampling>,
    ) -> Self {
        let draw = sampling.map(|Sampling { temperature, top_p, seed }| {
            let draw = Draw::TopP { p: top_p.clamp(0.0, 1.0), temperature };
            LogitsProcessor::from_sampling(seed, draw)
        });
        let History { ids, spared } = history.clone();
        Self { rules, ends, before: ids.len(), ids, spared, draw }
    }

    /// The next token by its scores, which are changed on the way.
    ///
    /// # Errors
    /// [`EngineError::NotFinite`] for scores that say nothing.
    pub fn next(&mut self, mut scores: Vec<f32>) -> Result<u32> {
        if !scores.iter().all(|score| score.is_finite()) {
            return Err(no_scores());
        }
        self.penalise(&mut scores);
        for id in self.forbidden() {
            if let Some(score) = scores.get_mut(id as usize) {
                *score = f32::NEG_INFINITY;
            }
        }
        let token = match &mut self.draw {
            Some(draw) if scores.iter().any(|&score| score > f32::NEG_INFINITY) => {
                let scores = Tensor::new(scores.as_slice(), &Device::Cpu)?;
                draw.sample(&scores)?
            }
            _ => best(&scores),
        };
        self.ids.push(token);
        Ok(token)
    }

    /// The same by scores `[vocab]` that lie where the model runs. Where no rule changes them, a device
    /// is asked for the best token alone.
    ///
    /// # Errors
    /// As [`next`](Self::next), and what the computation fails with.
    pub fn next_of(&mut self, scores: &Tensor) -> Result<u32> {
        let as_they_are = self.draw.is_none() && self.rules.repetition_penalty == 1.0;
        if !kernels::stays_on(scores.device()) || !as_they_are || !self.forbidden().is_empty() {
            return self.next(scores.to_vec1()?);
        }
        if !sound::finite(scores)? {
            return Err(no_scores());
        }
        let token = scores.argmax(0)?.to_scalar()?;
        self.ids.push(token);
        Ok(token)
    }

    fn penalise(&self, scores: &mut [f32]) {
        let penalty = self.rules.repetition_penalty;
        if penalty == 1.0 {
            return;
        }
        let said: BTreeSet<u32> = self.ids.iter().copied().collect();
        for id in said {
            if let Some(score) = scores.get_mut(id as usize) {
                *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
            }
        }
    }

    /// The tokens that may not come next.
    fn forbidden(&self) -> Vec<u32> {
        let rules = self.rules;
        let new = self.ids.len() - self.before;
        let mut forbidden: Vec<u32> = rules.suppress.clone();
        if let Some(rest) = rules.no_repeat_ngram.checked_sub(1)
            && let Some(start) = self.ids.len().checked_sub(rest)
        {
            let last = &self.ids[start..];
            let seen = self.ids.windows(rest + 1).filter(|run| run[..rest] == *last);
            forbidden.extend(seen.map(|run| run[rest]));
        }
        for word in &rules.bad_words {
            // transformers lets every answer end.
            let is_end = word.len() == 1 && self.ends.contains(&word[0]);
            if let Some((last, first)) = word.split_last()
                && !is_end
                && self.ids.ends_with(first)
            {
                forbidden.push(*last);
            }
        }
        let length = self.ids.len().saturating_add(self.spared);
        if new < rules.min_new_tokens || length < rules.min_length {
            forbidden.extend(self.ends);
        }
        if new == 0 {
            forbidden.extend(&rules.begin_suppress);
        }
        forbidden
    }
}

fn no_scores() -> EngineError {
    EngineError::NotFinite { what: "the scores of the next token".into() }
}

/// The first of the best.
fn best(scores: &[f32]) -> u32 {
    let better = |best: (usize, f32), (id, &score): (usize, &f32)| {
        if score > best.1 { (id, score) } else { best }
    };
    scores.iter().enumerate().fold((0, f32::NEG_INFINITY), better).0 as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(rules: &Generation, history: &[u32], sampling: Option<Sampling>) -> Vec<u32> {
        let ends = BTreeSet::from([7]);
        let history = History::new(history.to_vec());
        let mut chooser = Chooser::new(rules, &ends, &history, sampling);
        // The end is best, then 6, 5 and so on.
        let scores: Vec<f32> = (0..8).map(|id| id as f32 - 3.0).collect();
        (0..6).map(|_| chooser.next(scores.clone()).unwrap()).collect()
    }

    #[test]
    fn without_rules_the_best_token_is_said() {
        assert_eq!(said(&Generation::default(), &[1, 2], None), [7; 6]);
    }

    #[test]
    fn a_least_length_counts_new_tokens_or_all() {
        let rules = Generation { min_new_tokens: 2, ..Generation::default() };
        assert_eq!(said(&rules, &[1, 2], None), [6, 6, 7, 7, 7, 7]);
        let rules = Generation { min_length: 5, ..Generation::default() };
        assert_eq!(said(&rules, &[1, 2], None), [6, 6, 6, 7, 7, 7]);
    }

    #[test]
    fn a_video_counts_token_by_token_however_long_it_is() {
        let rules = Generation { min_length: 105, no_repeat_ngram: 3, ..Generation::default() };
        let history = History::around((&[1], &[2]), (3, 100), rules.reach());
        assert_eq!(history.ids, [1, 3, 3, 3, 3, 2]);
        let ends = BTreeSet::from([7]);
        let mut chooser = Chooser::new(&rules, &ends, &history, None);
        let scores: Vec<f32> = (0..8).map(|id| id as f32).collect();
        let ids: Vec<u32> = (0..5).map(|_| chooser.next(scores.clone()).unwrap()).collect();
        assert_eq!(ids, [6, 6, 6, 7, 7]);
    }

    #[test]
    fn runs_and_words_are_not_completed() {
        let rules = Generation { no_repeat_ngram: 2, ..Generation::default() };
        assert_eq!(said(&rules, &[5, 7, 4], None), [7, 7, 6, 7, 5, 6]);
        let bad_words = vec![vec![7], vec![6], vec![5, 4], vec![5, 5]];
        let rules = Generation { bad_words, ..Generation::default() };
        assert_eq!(said(&rules, &[], None), [7; 6], "an answer may end");
    }

    #[test]
    fn where_everything_is_forbidden_something_is_said() {
        let suppress = (0..8).collect();
        let rules = Generation { suppress, ..Generation::default() };
        assert_eq!(said(&rules, &[], None), [0; 6]);
        let sampling = Sampling { temperature: 1.0, top_p: 0.9, seed: 1 };
        assert_eq!(said(&rules, &[], Some(sampling)), [0; 6]);
    }

    #[test]
    fn draws_follow_their_seed_and_the_rules() {
        let drawn = |seed, temperature, top_p| {
            let rules = Generation { suppress: vec![6], ..Generation::default() };
            said(&rules, &[], Some(Sampling { temperature, top_p, seed }))
        };
        assert_eq!(drawn(3, 5.0, 1.0), drawn(3, 5.0, 1.0));
        let many: BTreeSet<u32> = (0..40).flat_map(|seed| drawn(seed, 5.0, 1.0)).collect();
        assert_eq!(many, BTreeSet::from([0, 1, 2, 3, 4, 5, 7]));
        assert_eq!(drawn(1, 1e-3, 1.0), [7; 6], "next to no temperature");
        let few: BTreeSet<u32> = (0..40).flat_map(|seed| drawn(seed, 5.0, 0.3)).collect();
        assert!(few.is_subset(&BTreeSet::from([4, 5, 7])), "{few:?}");
    }

    #[test]
    fn scores_that_are_not_finite_say_nothing() {
        let rules = Generation::default();
        for score in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let ends = BTreeSet::new();
            let mut chooser = Chooser::new(&rules, &ends, &History::default(), None);
            let error = chooser.next(vec![0.0, score, 1.0]).unwrap_err();
            assert!(matches!(error, EngineError::NotFinite { .. }), "{error}");
        }
    }
}
