// SPDX-License-Identifier: MPL-2.0
//! An answer that is one of several: which of them, by the model's own probabilities.
//!
//! The probability of a choice is that of its tokens, one after the other, behind the prompt. With
//! and without a capital it is the same choice, and counts with the sum of both. Where one choice begins like
//! another ("open", "open wide") the end of the turn counts as one more token of every choice.

use std::time::{Duration, Instant};

use candle_core::{D, DType, Tensor};

use super::decoder::Attend;
use super::generate::next_logits;
use super::video_llm::VideoLlm;
use crate::cancel::Cancel;
use crate::error::{EngineError, Result};

/// An [`Attend`] that can forget what has run through it last.
pub trait Rewind: Attend {
    /// Tokens that have run through it.
    fn tokens(&self) -> usize;

    /// Forgets all but the first so many.
    fn rewind(&mut self, tokens: usize);
}

/// One of the answers that a question allows.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    pub text: String,
    /// Its share of what the model gives all choices together; all shares add up to 1.
    pub probability: f64,
}

/// What the model makes of a question's choices.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// In the order in which they were given.
    pub choices: Vec<Choice>,
    /// Index of the likeliest; of equals the first.
    pub best: usize,
    /// Its tokens, as the model would rather write it.
    pub ids: Vec<u32>,
    /// Mean natural logarithm of the probabilities of these, as in
    /// [`Generated`](super::generate::Generated).
    pub confidence: f64,
    /// `[vocab]`: behind the prompt.
    pub first_logits: Vec<f32>,
    /// The prompt's pass.
    pub prefill: Duration,
    /// From there to the end.
    pub decode: Duration,
}

/// One way of writing a choice.
struct Writing {
    choice: usize,
    ids: Vec<u32>,
}

/// Runs the prompt `[n, C]` through the decoder, then every choice behind it.
///
/// # Errors
/// [`EngineError::Question`] for fewer than two choices, an empty one or one given twice;
/// [`Cancelled`](EngineError::Cancelled), [`NotFinite`](EngineError::NotFinite), or what the computation
/// fails with.
pub fn weigh<A: Rewind + ?Sized>(
    model: &VideoLlm,
    prompt: &Tensor,
    choices: &[String],
    attend: &mut A,
    cancel: &Cancel,
) -> Result<Verdict> {
    let start = Instant::now();
    check(choices)?;
    let writings = writings(model, choices)?;
    let first = next_logits(model, prompt, attend)?;
    let behind = attend.tokens();
    let first_logits: Vec<f32> = first.to_vec1()?;
    let first = log_probabilities(&first.unsqueeze(0)?)?;
    let prefill = start.elapsed();

    let ends: Vec<u32> = model.prompts().ends().iter().copied().collect();
    let to_the_end = begin_alike(&writings);
    let mut likely: Vec<(f64, f64)> = Vec::with_capacity(writings.len());
    for Writing { ids, .. } in &writings {
        cancel.check()?;
        // Rows of scores: behind the prompt, then behind each token that has another one behind it.
        let run = if to_the_end { ids.len() } else { ids.len() - 1 };
        let rows = match run {
            0 => first.clone(),
            _ => {
                let embeds = model.decoder().embed(&ids[..run])?;
                let hidden = model.decoder().forward(&embeds, attend)?;
                attend.rewind(behind);
                let own = log_probabilities(&model.decoder().logits(&hidden)?)?;
                Tensor::cat(&[&first, &own], 0)?
            }
        };
        let wanted = Tensor::new(ids.as_slice(), rows.device())?.unsqueeze(1)?;
        let said = rows.narrow(0, 0, ids.len())?.gather(&wanted, 1)?.sum_all()?;
        let mut sum = f64::from(said.to_scalar::<f32>()?);
        let confidence = sum / ids.len() as f64;
        if to_the_end && !ends.is_empty() {
            let ends = Tensor::new(ends.as_slice(), rows.device())?;
            let ended = rows.narrow(0, ids.len(), 1)?.index_select(&ends, 1)?;
            sum += f64::from(ended.log_sum_exp(D::Minus1)?.squeeze(0)?.to_scalar::<f32>()?);
        }
        if sum.is_nan() {
            let what = "the scores of the answers that the question allows".into();
            return Err(EngineError::NotFinite { what });
        }
        likely.push((sum, confidence));
    }
    let (shares, best, writing) = decide(choices.len(), &writings, &likely);
    let shares = choices.iter().zip(shares);
    Ok(Verdict {
        choices: shares
            .map(|(text, probability)| Choice { text: text.clone(), probability })
            .collect(),
        best,
        ids: writings.get(writing).map(|writing| writing.ids.clone()).unwrap_or_default(),
        confidence: likely.get(writing).map_or(f64::NEG_INFINITY, |likely| likely.1),
        first_logits,
        prefill,
        decode: start.elapsed() - prefill,
    })
}

/// Logarithms of probabilities `[n, vocab]`, of scores.
fn log_probabilities(scores: &Tensor) -> Result<Tensor> {
    let scores = scores.to_dtype(DType::F32)?;
    Ok(scores.broadcast_sub(&scores.log_sum_exp(D::Minus1)?.unsqueeze(1)?)?)
}

/// # Errors
/// [`EngineError::Question`] that says what is wrong with them.
pub fn check(choices: &[String]) -> Result<()> {
    let fault = |reason: String| Err(EngineError::Question(reason));
    if choices.len() < 2 {
        return fault("`choices` has fewer than two answers to choose from".into());
    }
    for (index, choice) in choices.iter().enumerate() {
        if choice.trim().is_empty() {
            return fault("`choices` has an empty answer".into());
        }
        let same = |other: &String| other.to_lowercase() == choice.to_lowercase();
        if choices.iter().take(index).any(same) {
            return fault(format!("`choices` has {choice:?} twice"));
        }
    }
    Ok(())
}

fn writings(model: &VideoLlm, choices: &[String]) -> Result<Vec<Writing>> {
    let mut writings = Vec::new();
    for (choice, text) in choices.iter().enumerate() {
        let mut known: Vec<Vec<u32>> = Vec::new();
        for text in [text.trim().to_owned(), other_case(text.trim())] {
            let ids = model.prompts().words("choices", &text)?;
            if !ids.is_empty() && !known.contains(&ids) {
                known.push(ids);
            }
        }
        writings.extend(known.into_iter().map(|ids| Writing { choice, ids }));
    }
    Ok(writings)
}

/// With a capital where there was none, and the other way round.
fn other_case(text: &str) -> String {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return String::new() };
    let turned: String = match first.is_uppercase() {
        true => first.to_lowercase().collect(),
        false => first.to_uppercase().collect(),
    };
    turned + chars.as_str()
}

/// Whether a choice begins with the whole of another one.
fn begin_alike(writings: &[Writing]) -> bool {
    let begins = |a: &Writing, b: &Writing| a.choice != b.choice && a.ids.starts_with(&b.ids);
    writings.iter().any(|a| writings.iter().any(|b| begins(a, b)))
}

/// The shares of the choices, the likeliest one, and how it is rather written.
fn decide(choices: usize, writings: &[Writing], likely: &[(f64, f64)]) -> (Vec<f64>, usize, usize) {
    let most = likely.iter().map(|likely| likely.0).fold(f64::NEG_INFINITY, f64::max);
    let mut shares = vec![0.0; choices];
    for (writing, (sum, _)) in writings.iter().zip(likely) {
        if let Some(share) = shares.get_mut(writing.choice) {
            *share += (sum - most).exp();
        }
    }
    let total: f64 = shares.iter().sum();
    shares.iter_mut().for_each(|share| *share /= total);
    let first_best = |best: usize, at: usize| if shares[at] > shares[best] { at } else { best };
    let best = (0..choices).fold(0, first_best);
    let own = writings.iter().zip(likely).enumerate().filter(|(_, (w, _))| w.choice == best);
    let writing = own.max_by(|a, b| a.1.1.0.total_cmp(&b.1.1.0)).map_or(0, |(at, _)| at);
    (shares, best, writing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writing(choice: usize, ids: &[u32]) -> Writing {
        Writing { choice, ids: ids.to_vec() }
    }

    #[test]
    fn both_ways_of_writing_count_for_a_choice() {
        let writings = [writing(0, &[1]), writing(0, &[2]), writing(1, &[3]), writing(1, &[4])];
        let likely = [0.2f64, 0.25, 0.4, 0.01].map(|p| (p.ln(), p.ln()));
        let (shares, best, written) = decide(2, &writings, &likely);
        assert!((shares[0] - 0.45 / 0.86).abs() < 1e-12, "{shares:?}");
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!((best, written), (0, 1));
    }

    #[test]
    fn of_equals_the_first_is_taken() {
        let writings = [writing(0, &[1]), writing(1, &[2])];
        assert_eq!(decide(2, &writings, &[(-1.0, -1.0), (-1.0, -1.0)]).1, 0);
    }

    #[test]
    fn a_choice_that_begins_like_another_is_seen() {
        assert!(begin_alike(&[writing(0, &[1]), writing(1, &[1, 2])]));
        assert!(!begin_alike(&[writing(0, &[1]), writing(0, &[1, 2]), writing(1, &[2, 1])]));
    }

    #[test]
    fn a_capital_is_put_on_and_taken_off() {
        assert_eq!(other_case("yes"), "Yes");
        assert_eq!(other_case("Élan vital"), "élan vital");
        assert_eq!(other_case(""), "");
    }

    #[test]
    fn choices_that_are_none_are_named() {
        let check = |choices: &[&str]| {
            let choices: Vec<String> = choices.iter().map(|&choice| choice.into()).collect();
            check(&choices).map_err(|error| error.to_string())
        };
        check(&["yes", "no"]).unwrap();
        assert!(check(&["yes"]).unwrap_err().contains("two"));
        assert!(check(&["yes", " "]).unwrap_err().contains("empty"));
        assert!(check(&["yes", "no", "Yes"]).unwrap_err().contains("\"Yes\" twice"));
    }
}
