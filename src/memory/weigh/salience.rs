// SPDX-License-Identifier: MPL-2.0
//! What tokens have to do with words, by late interaction: SAVEMem (2605.07897) asks pseudo-questions of every
//! token when it comes (stage 1) and the question itself of what is left (stage 2). Numbers as the released
//! code has them.

use candle_core::{D, DType, Tensor};

use super::select::{best, top};
use crate::error::Result;
use crate::memory::kv::nothing;

/// Shorter vectors have no direction.
const NOTHING: f64 = 1e-8;

/// A picture that gets old keeps such a share of its tokens where no pseudo-question has to do with it, and so
/// much more where all have.
const LEAST_SHARE: f64 = 0.15;
const MORE: f64 = 0.25;
/// One token for each quarter is no more to be chosen from.
const QUARTERS: usize = 4;

/// Scores that vary by so little of their mean say nothing, and from so much on all.
const NEAR: f64 = 0.05;
const FAR: f64 = 0.3;
/// At most a tenth of what there is goes for what it has to do with a question.
const MOST_STAY: f64 = 0.9;

/// How much what is new counts for what is usual.
const NEW: f32 = 0.2;

/// The cosine of each token with the word that it is most like, `[n]` in f32. `tokens`: `[n, C]`, or wider
/// where vectors for deeper layers stand beside; `words`: `[m, C]`, at least one.
///
/// # Errors
/// What the computation fails with.
pub fn likest(tokens: &Tensor, words: &Tensor) -> Result<Tensor> {
    if tokens.dim(0)? == 0 {
        return nothing(0);
    }
    let width = words.dim(1)?.min(tokens.dim(1)?);
    let turned = |rows: &Tensor| -> Result<Tensor> {
        let rows = rows.narrow(1, 0, width)?.to_dtype(DType::F32)?;
        let lengths = rows.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(NOTHING)?;
        Ok(rows.broadcast_div(&lengths)?)
    };
    Ok(turned(tokens)?.matmul(&turned(words)?.t()?)?.max(D::Minus1)?)
}

/// The mean of some tokens' numbers; 0 of none.
pub fn mean(scores: &[f32]) -> f32 {
    let sum: f64 = scores.iter().map(|score| f64::from(*score)).sum();
    if scores.is_empty() { 0.0 } else { (sum / scores.len() as f64) as f32 }
}

/// Which tokens of a picture stay when it gets old: of each quarter of what is left of it the most salient
/// ones, as many of each, and of all of it as many more as there is room for. The more salient the picture is,
/// the more stay. Ascending.
///
/// `patches`: where the tokens stand in a grid of so many columns.
pub fn spread_out(salience: &[f32], patches: &[u32], columns: u32) -> Vec<usize> {
    let n = salience.len();
    let share = LEAST_SHARE + MORE * f64::from(mean(salience)).clamp(0.0, 1.0);
    let count = ((n as f64 * share) as usize).max(QUARTERS);
    if count >= n {
        return (0..n).collect();
    }
    let columns = columns.max(1);
    let at = |patch: &u32| [patch / columns, patch % columns];
    let of_axis = |axis: usize| patches.iter().map(move |patch| at(patch)[axis]);
    // Twice the middle, which may lie between two.
    let middle =
        |axis| of_axis(axis).min().unwrap_or_default() + of_axis(axis).max().unwrap_or_default();
    let middles = [middle(0), middle(1)];
    let quarter = |patch: &u32| {
        let [row, column] = at(patch);
        2 * usize::from(2 * row > middles[0]) + usize::from(2 * column > middles[1])
    };
    let mut stays = vec![false; n];
    for own in 0..QUARTERS {
        let places: Vec<usize> =
            (0..n).filter(|&i| patches.get(i).is_some_and(|p| quarter(p) == own)).collect();
        let scores: Vec<f32> = places.iter().map(|&i| salience[i]).collect();
        for i in best(&scores, (count / QUARTERS).min(places.len())) {
            stays[places[i]] = true;
        }
    }
    let rest: Vec<usize> = (0..n).filter(|&i| !stays[i]).collect();
    let scores: Vec<f32> = rest.iter().map(|&i| salience[i]).collect();
    let more = count.saturating_sub(n - rest.len()).min(rest.len());
    top(&scores, more).into_iter().for_each(|i| stays[rest[i]] = true);
    (0..n).filter(|&i| stays[i]).collect()
}

/// How many of the candidates with these scores are wanted where `few` are if the scores say which: all, as
/// long as they hardly differ.
pub fn wanted(scores: &[f32], few: usize) -> usize {
    let n = scores.len();
    if n <= few {
        return n;
    }
    let scores = scores.iter().map(|score| f64::from(*score));
    let mean = scores.clone().sum::<f64>() / n as f64;
    let variance = scores.map(|score| (score - mean).powi(2)).sum::<f64>() / (n - 1).max(1) as f64;
    let told = (variance.sqrt() / mean.abs().max(NOTHING) - NEAR) / (FAR - NEAR);
    let count = n as f64 - told.clamp(0.0, 1.0) * (n - few) as f64;
    (count as usize).max(few).max((n as f64 * MOST_STAY) as usize)
}

/// What is usual after this.
pub fn usual(before: Option<f32>, now: f32) -> f32 {
    before.map_or(now, |before| NEW * now + (1.0 - NEW) * before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_token_is_as_salient_as_the_word_it_is_most_like_whatever_their_lengths() {
        let rows = |rows: &[[f32; 3]]| {
            Tensor::new(&rows.concat()[..], &Device::Cpu).unwrap().reshape(((), 3)).unwrap()
        };
        let words = rows(&[[2.0, 0.0, 0.0], [0.0, 0.5, 0.0]]).narrow(1, 0, 2).unwrap();
        // What stands beside for deeper layers is not of the token.
        let tokens = rows(&[[3.0, 3.0, 9.0], [0.0, -1.0, 0.0], [0.0, 7.0, 0.0], [0.0; 3]]);
        let found = likest(&tokens, &words).unwrap().to_vec1::<f32>().unwrap();
        let expected = [0.5f32.sqrt(), 0.0, 1.0, 0.0];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
    }

    #[test]
    fn every_quarter_keeps_something_and_the_rest_goes_by_salience() {
        // Six rows and columns, all that is salient in the last corner.
        let patches: Vec<u32> = (0..36).collect();
        let salience: Vec<f32> =
            (0..36u32).map(|p| if p / 6 > 2 && p % 6 > 2 { 0.9 } else { 0.1 }).collect();
        // (0.15 + 0.25 * 0.3) * 36
        let left = spread_out(&salience, &patches, 6);
        assert_eq!(left.len(), 8);
        let in_corner = left.iter().filter(|&&p| p / 6 > 2 && p % 6 > 2).count();
        assert_eq!(in_corner, 2, "as many of each");
        assert_eq!(spread_out(&salience[..4], &patches[..4], 6), [0, 1, 2, 3]);
        let line: Vec<u32> = (0..20).collect();
        let rising: Vec<f32> = line.iter().map(|&p| p as f32 / 100.0).collect();
        assert_eq!(spread_out(&rising, &line, 20), [9, 17, 18, 19], "a line has two");
    }

    #[test]
    fn what_hardly_differs_all_stays_and_a_tenth_goes_at_most() {
        assert_eq!(wanted(&[0.5; 30], 10), 30);
        assert_eq!(wanted(&[0.1, 9.0, 0.1], 10), 3);
        let far: Vec<f32> = (0..30).map(|i| if i < 10 { 1.0 } else { 0.1 }).collect();
        assert_eq!(wanted(&far, 10), 27);
        assert_eq!(wanted(&far, 29), 29);
        // A spread of .06 of the mean: between all and that.
        let near: Vec<f32> = (0..30).map(|i| if i % 2 == 0 { 1.06 } else { 0.94 }).collect();
        assert_eq!(wanted(&near, 10), 29);
        assert_eq!(wanted(&[], 10), 0);
        assert_eq!(wanted(&[f32::NAN; 20], 10), 18);
    }

    #[test]
    fn the_first_is_usual_and_what_follows_changes_that_by_a_fifth() {
        assert_eq!(usual(None, 0.5), 0.5);
        assert!((usual(Some(0.5), 1.0) - 0.6).abs() < 1e-6);
    }
}
