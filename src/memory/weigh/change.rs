// SPDX-License-Identifier: MPL-2.0
//! How quickly keys change within a piece, and which of its tokens that and the attention they
//! receive make important (MuKV §1.4-1.5).

use std::f64::consts::TAU;

use super::score::{cosine, min_max};
use super::select::{ranked, top};

/// How much each of `n` vectors in a row changes quickly: the mean size of what is left of them
/// when the lower half of the frequencies is taken out.
pub fn high_pass(vectors: &[f32], n: usize) -> Vec<f32> {
    let dim = vectors.len().checked_div(n).unwrap_or(0);
    if dim == 0 {
        return vec![0.0; n];
    }
    let bins = n / 2 + 1;
    let turns: Vec<(f64, f64)> = (0..n)
        .map(|i| {
            let (sin, cos) = (TAU * i as f64 / n as f64).sin_cos();
            (cos, sin)
        })
        .collect();
    let mut high = vec![0.0; n * dim];
    for f in (bins / 2).max(1)..bins {
        let weight = if 2 * f == n { 1.0 } else { 2.0 } / n as f64;
        for c in 0..dim {
            let (mut re, mut im) = (0.0, 0.0);
            for t in 0..n {
                let (cos, sin) = turns[f * t % n];
                let x = f64::from(vectors[t * dim + c]);
                re += x * cos;
                im -= x * sin;
            }
            for t in 0..n {
                let (cos, sin) = turns[f * t % n];
                high[t * dim + c] += weight * (re * cos - im * sin);
            }
        }
    }
    let size = |row: &[f64]| (row.iter().map(|x| x.abs()).sum::<f64>() / dim as f64) as f32;
    high.chunks_exact(dim).map(size).collect()
}

/// Both signals scaled to 0..1 and mixed; a signal that is constant says nothing.
pub fn importance(received: &[f32], keys: &[f32], attention: f64) -> Vec<f32> {
    let change = high_pass(keys, received.len());
    let (seen, change) = (min_max(received, 1e-8), min_max(&change, 1e-8));
    let weight = attention as f32;
    seen.iter().zip(change).map(|(a, f)| weight * a + (1.0 - weight) * f).collect()
}

/// The most important `count` tokens, ascending. With `alike` below 1, of two
/// among the best fifth more whose keys are more alike than that the less important one goes.
pub fn choose(importance: &[f32], keys: &[f32], count: usize, alike: f64) -> Vec<usize> {
    let n = importance.len();
    if count >= n {
        return (0..n).collect();
    }
    let candidates = ((1.2 * count as f64) as usize).min(n);
    if alike >= 1.0 || candidates <= count {
        return top(importance, count);
    }
    let dim = keys.len() / n;
    let key = |i: usize| &keys[i * dim..(i + 1) * dim];
    let mut kept: Vec<usize> = Vec::with_capacity(count);
    for i in ranked(importance).into_iter().take(candidates) {
        let double = kept.iter().any(|&j| f64::from(cosine(key(i), key(j))) > alike);
        if !double && kept.len() < count {
            kept.push(i);
        }
    }
    kept.sort_unstable();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::testing::Lcg;

    #[test]
    fn what_does_not_change_has_no_high_frequencies_and_an_alternation_has_nothing_else() {
        for n in [4, 5, 16, 49] {
            assert!(high_pass(&vec![3.0; 2 * n], n).iter().all(|x| x.abs() < 1e-6), "{n}");
        }
        let alternating: Vec<f32> = (0..16).map(|t| if t % 2 == 0 { 1.0 } else { -1.0 }).collect();
        assert!(high_pass(&alternating, 16).iter().all(|x| (x - 1.0).abs() < 1e-6));
    }

    #[test]
    fn the_lower_bins_are_taken_out_exactly() {
        for n in [4usize, 5, 16, 20, 49] {
            let first = (n / 2).div_ceil(2);
            for f in 0..n / 2 + 1 {
                let wave: Vec<f32> =
                    (0..n).map(|t| (TAU * (f * t) as f64 / n as f64).cos() as f32).collect();
                let left = high_pass(&wave, n);
                let whole: Vec<f32> = wave.iter().map(|x| x.abs()).collect();
                let wanted = if f < first.max(1) { vec![0.0; n] } else { whole };
                for (a, b) in left.iter().zip(&wanted) {
                    assert!((a - b).abs() < 1e-5, "n {n}, f {f}: {a} is not {b}");
                }
            }
        }
    }

    #[test]
    fn scaling_the_attention_changes_nothing_and_constants_are_defined() {
        let mut lcg = Lcg(3);
        let received: Vec<f32> = (0..12).map(|_| lcg.next()).collect();
        let keys: Vec<f32> = (0..24).map(|_| lcg.next()).collect();
        let shifted: Vec<f32> = received.iter().map(|x| 3.0 * x + 7.0).collect();
        let kept = |received: &[f32]| choose(&importance(received, &keys, 0.5), &keys, 5, 1.0);
        assert_eq!(kept(&received), kept(&shifted));
        assert!(importance(&[1.0; 4], &[2.0; 8], 0.5).iter().all(|x| x.abs() < 1e-6));
        assert!(importance(&[1.0], &[2.0], 0.5).iter().all(|x| x.is_finite()));
        assert_eq!(choose(&[1.0, 2.0], &[0.0; 2], 2, 1.0), [0, 1]);
    }

    #[test]
    fn doubles_go() {
        let keys = [1.0, 0.0, 1.0, 0.01, 0.0, 1.0, 0.5, 0.5, -1.0, 0.3, -0.3, 1.0];
        let importance = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0];
        assert_eq!(choose(&importance, &keys, 5, 0.9), [0, 2, 3, 4]);
        assert_eq!(choose(&importance, &keys, 5, 1.0), [0, 1, 2, 3, 4]);
    }
}
