// SPDX-License-Identifier: MPL-2.0
//! How far what is found is to be trusted.
//!
//! A model that was never trained to look things up likes some units better than others whatever is asked.
//! So its layers are asked twice, by the question and by one that says nothing ([`ANY`]): where they agree
//! on what only the question likes, that is what was asked for, and where each likes something else, it is
//! chance, and a context that covers the stream evenly answers better.

use crate::memory::weigh::budget::standardise;

/// A question that asks for nothing in particular.
pub const ANY: &str = "What is there?";

/// Mean correlation between two layers at or below which all, and from which on nothing, of the context
/// goes evenly over the stream. Chosen on validation videos of `models/toyworld` (.34, standard deviation
/// of a question .17) and `models/everyday` (.12 and .12).
const CHANCE: f64 = 0.1;
const SURE: f64 = 0.25;

/// The fraction of a context that goes evenly over the stream, by every layer's scores of the same units
/// for the question and for any.
pub fn evenly(mut question: Vec<Vec<f32>>, mut any: Vec<Vec<f32>>) -> f64 {
    let units = question.first().map_or(0, Vec::len);
    let same = |lists: &[Vec<f32>]| lists.iter().all(|scores| scores.len() == units);
    if question.len() < 2 || question.len() != any.len() || !same(&question) || !same(&any) {
        return 0.0;
    }
    for (own, any) in question.iter_mut().zip(&mut any) {
        if !standardise(own) || !standardise(any) {
            return 0.0;
        }
        own.iter_mut().zip(any).for_each(|(own, any)| *own -= *any);
        if !standardise(own) {
            return 0.0;
        }
    }
    let layers = question.len() as f64;
    let mut sums = vec![0.0f64; units];
    for own in &question {
        sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += f64::from(*own));
    }
    // The variance of a sum of equals is theirs and twice what any two of them have in common.
    let variance = sums.iter().map(|sum| sum * sum).sum::<f64>() / units as f64;
    let agreement = (variance / layers - 1.0) / (layers - 1.0);
    ((SURE - agreement) / (SURE - CHANCE)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::testing::random_tensor;

    /// Of so many layers, of so many units each.
    fn random_scores(seed: u64, layers: u64, units: usize) -> Vec<Vec<f32>> {
        let layer = |at: u64| random_tensor(7919 * seed + 104_729 * at, units).to_vec1().unwrap();
        (0..layers).map(layer).collect()
    }

    #[test]
    fn what_all_layers_find_is_trusted_and_what_each_finds_alone_is_not() {
        let any = random_scores(1, 5, 200);
        let alone = random_scores(2, 5, 200);
        let beside = |found: &[Vec<f32>]| -> Vec<Vec<f32>> {
            let pairs = any.iter().zip(found);
            pairs
                .map(|(any, own)| any.iter().zip(own).map(|(a, b)| 3.0 * a + b).collect())
                .collect()
        };
        assert_eq!(evenly(beside(&alone), any.clone()), 1.0);
        let together = vec![alone[0].clone(); 5];
        assert_eq!(evenly(beside(&together), any.clone()), 0.0);
        let halves: Vec<Vec<f32>> = alone
            .iter()
            .map(|own| own.iter().zip(&alone[0]).map(|(a, b)| a + 0.3 * b).collect())
            .collect();
        let between = evenly(beside(&halves), any.clone());
        assert!(between > 0.0 && between < 1.0, "{between}");
        // What layers like whatever is asked is no agreement on the question.
        let liked: Vec<Vec<f32>> = alone
            .iter()
            .map(|own| own.iter().zip(&alone[0]).map(|(a, b)| a + 9.0 * b).collect())
            .collect();
        let always = vec![alone[0].iter().map(|x| 9.0 * x).collect::<Vec<f32>>(); 5];
        assert!(evenly(liked, always) > 0.9);
    }

    #[test]
    fn where_nothing_can_be_said_what_is_found_is_trusted() {
        let scores = random_scores(1, 3, 20);
        assert_eq!(evenly(Vec::new(), Vec::new()), 0.0);
        assert_eq!(evenly(scores[..1].to_vec(), scores[..1].to_vec()), 0.0);
        assert_eq!(evenly(scores.clone(), random_scores(2, 3, 19)), 0.0);
        assert_eq!(evenly(vec![vec![1.0; 20]; 3], scores.clone()), 0.0);
        assert_eq!(evenly(scores.clone(), scores.clone()), 0.0);
        assert_eq!(evenly(vec![vec![f32::NAN; 20]; 3], scores), 0.0);
    }
}
