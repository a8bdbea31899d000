// SPDX-License-Identifier: MPL-2.0
//! How much each layer keeps or retrieves: StreamKV's layer-adaptive module, shared by compression
//! and retrieval (StreamKV §3.3, Alg. 1; the released code differs from the paper and both are
//! here).
//!
//! Layers whose scores are diffuse get more, layers whose scores are peaked get less.

use crate::memory::recipe::BudgetRule;

/// Scores below this spread cannot be told apart.
const FLAT: f32 = 1e-12;
const SEARCH_END: f32 = 1e-6;

/// Released behaviour: how many of its candidates each layer takes so that the layers together
/// take about `total`.
///
/// `scores[l]` are layer `l`'s candidates in any order. The search stops as soon as the sum is
/// within four of `total`; it saturates near the number of all candidates, one short per layer. A
/// layer with a single candidate, or with all scores equal, takes all it has.
pub fn allocate(scores: &[Vec<f32>], total: usize) -> Vec<usize> {
    let layers: Vec<Mass> = scores.iter().map(|s| Mass::of(s, standardised(s))).collect();
    search(&layers, total, |sum| sum.abs_diff(total) < 5, |layer, t| layer.below(t).max(1))
}

/// Published behaviour (Eqs. 5-8): softmax without standardising, the smallest prefix that reaches
/// the threshold, stop only at the exact total.
pub fn allocate_paper(scores: &[Vec<f32>], total: usize) -> Vec<usize> {
    let layers: Vec<Mass> = scores.iter().map(|s| Mass::of(s, Some(s.clone()))).collect();
    search(
        &layers,
        total,
        |sum| sum == total,
        |layer, t| (layer.below(t) + 1).min(layer.candidates).max(1),
    )
}

/// One layer's probability mass, summed up from its best candidate on.
struct Mass {
    candidates: usize,
    /// `None` where the scores say nothing.
    prefix: Option<Vec<f32>>,
}

impl Mass {
    fn of(scores: &[f32], logits: Option<Vec<f32>>) -> Self {
        Self { candidates: scores.len(), prefix: logits.map(|l| prefix_mass(&l)) }
    }

    /// How many of the best candidates stay strictly below the threshold together.
    fn below(&self, threshold: f32) -> usize {
        match &self.prefix {
            Some(prefix) => prefix.iter().filter(|&&mass| mass < threshold).count(),
            None => self.candidates,
        }
    }
}

/// Zero mean and unit (unbiased) deviation, or `None` if the scores are one value.
pub fn standardised(scores: &[f32]) -> Option<Vec<f32>> {
    let mut own = scores.to_vec();
    standardise(&mut own).then_some(own)
}

/// The same in place; `false` if the scores are one value, and they stay as they are.
pub fn standardise(scores: &mut [f32]) -> bool {
    let n = scores.len();
    if n < 2 {
        return false;
    }
    let mean = sum(scores, |score| score) / n as f32;
    let variance = sum(scores, |score| (score - mean).powi(2)) / (n - 1) as f32;
    let deviation = variance.sqrt();
    let differ = deviation.is_finite() && deviation > FLAT;
    if differ {
        scores.iter_mut().for_each(|score| *score = (*score - mean) / deviation);
    }
    differ
}

/// In lanes, so that no addition waits for the one before it.
fn sum(scores: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    const LANES: usize = 16;
    let (rows, rest) = scores.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for row in rows {
        lanes.iter_mut().zip(row).for_each(|(lane, &score)| *lane += of(score));
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|&score| of(score)).sum::<f32>()
}

fn prefix_mass(logits: &[f32]) -> Vec<f32> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut weights: Vec<f32> = logits.iter().map(|l| (l - top).exp()).collect();
    let sum: f32 = weights.iter().sum();
    weights.sort_by(|a, b| b.total_cmp(a));
    let mut mass = 0.0;
    for weight in &mut weights {
        mass += *weight / sum;
        *weight = mass;
    }
    weights
}

/// Bisects one threshold for all layers.
fn search(
    layers: &[Mass],
    total: usize,
    close_enough: impl Fn(usize) -> bool,
    count: impl Fn(&Mass, f32) -> usize,
) -> Vec<usize> {
    let (mut low, mut high) = (0.0f32, 1.0f32);
    let mut counts = vec![1; layers.len()];
    while high - low > SEARCH_END {
        let threshold = (low + high) / 2.0;
        counts = layers.iter().map(|layer| count(layer, threshold)).collect();
        let sum: usize = counts.iter().sum();
        if close_enough(sum) {
            break;
        }
        if sum > total { high = threshold } else { low = threshold }
    }
    counts
}

/// Stretches budgets linearly so that the smallest lands near `low` and the largest near `high`,
/// then gives back or takes away the difference to the old total, one a layer. Equal budgets stay
/// as they are. The total is not guaranteed (released behaviour; absent from the paper).
pub fn rescale(budgets: &[usize], low: f64, high: f64) -> Vec<usize> {
    let (Some(&min), Some(&max)) = (budgets.iter().min(), budgets.iter().max()) else {
        return Vec::new();
    };
    if min == max {
        return budgets.to_vec();
    }
    let total = budgets.iter().sum::<usize>() as f64;
    let stretched: Vec<f64> = budgets
        .iter()
        .map(|&k| (k - min) as f64 / (max - min) as f64 * (high - low) + low)
        .collect();
    let sum: f64 = stretched.iter().sum();
    // numpy's clip: where the bounds cross, the upper one wins.
    let mut values: Vec<f64> = stretched
        .iter()
        .map(|u| {
            // In this order, as released: halves round by it.
            let scaled = if sum == 0.0 { 0.0 } else { u * (total / sum) };
            scaled.round_ties_even().max(low).min(high)
        })
        .collect();
    share_remainder(&mut values, total, low, high);
    values.iter().map(|v| v.max(0.0) as usize).collect()
}

fn share_remainder(values: &mut [f64], total: f64, low: f64, high: f64) {
    let mut rest = (total - values.iter().sum::<f64>()).round_ties_even() as i64;
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    if rest < 0 {
        // Descending, equal values still by layer index.
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    }
    for layer in order {
        let value = &mut values[layer];
        if rest > 0 && *value < high {
            *value += 1.0;
            rest -= 1;
        } else if rest < 0 && *value > low {
            *value -= 1.0;
            rest += 1;
        }
    }
}

/// Frames kept of a segment of `frames`, per layer, for the fraction `ratio` kept.
pub fn keep_counts(scores: &[Vec<f32>], frames: usize, ratio: f64, rule: BudgetRule) -> Vec<usize> {
    let layers = scores.len() as f64;
    let counts = match rule {
        BudgetRule::Stretched { temperature } => {
            let mean = frames as f64 * ratio;
            let low = (mean * (1.0 - temperature)).trunc().max(1.0);
            let high = (mean * (1.0 + temperature)).trunc().min(frames as f64);
            let total = (layers * frames as f64 * ratio) as usize;
            bounded(allocate(scores, total), temperature, mean, low, high)
        }
        BudgetRule::Threshold => {
            allocate_paper(scores, (frames as f64 * ratio).ceil() as usize * scores.len())
        }
    };
    counts.into_iter().map(|k| k.clamp(1, frames.max(1))).collect()
}

/// Units retrieved per layer for a mean of `mean` a layer.
pub fn retrieve_counts(
    scores: &[Vec<f32>],
    mean: usize,
    most: usize,
    rule: BudgetRule,
) -> Vec<usize> {
    let total = mean * scores.len();
    match rule {
        BudgetRule::Stretched { temperature } => {
            let low = (mean as f64 * (1.0 - temperature)).max(1.0);
            let high = (mean as f64 * (1.0 + temperature)).min(most as f64);
            bounded(allocate(scores, total), temperature, mean as f64, low, high)
        }
        BudgetRule::Threshold => {
            allocate_paper(scores, total).into_iter().map(|k| k.min(most)).collect()
        }
    }
}

/// Temperature 0 is the uniform budget by definition, without the detour through a stretch of
/// width nothing.
fn bounded(budgets: Vec<usize>, temperature: f64, mean: f64, low: f64, high: f64) -> Vec<usize> {
    if temperature == 0.0 {
        return vec![(mean as usize).max(1); budgets.len()];
    }
    rescale(&budgets, low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four_layers() -> Vec<Vec<f32>> {
        vec![
            (1..=8).map(|s| s as f32).collect(),
            vec![8., 1., 1., 1., 1., 1., 1., 1.],
            vec![4., 4., 4., 4., 4., 4., 4., 5.],
            vec![10., 9., 1., 0., 0., 0., -5., -9.],
        ]
    }

    #[test]
    fn allocate_matches_the_golden_vectors() {
        let expected = [
            (8, [1, 1, 1, 1]),
            (12, [3, 2, 2, 3]),
            (16, [4, 5, 5, 4]),
            (19, [4, 5, 5, 4]),
            (24, [5, 6, 6, 5]),
        ];
        for (total, counts) in expected {
            assert_eq!(allocate(&four_layers(), total), counts, "N = {total}");
        }
    }

    #[test]
    fn layers_whose_scores_say_nothing_take_everything() {
        assert_eq!(allocate(&[vec![3.0], vec![7.0]], 2), [1, 1]);
        assert_eq!(allocate(&[vec![3., 3., 3.], vec![1., 2., 3.]], 3), [3, 1]);
    }

    #[test]
    fn diffuse_layers_get_more_than_peaked_ones() {
        let flat = (0..32).map(|i| 1.0 + 1e-3 * i as f32 / 31.0).collect();
        let mut peaked = vec![0.0; 32];
        peaked[0] = 100.0;
        assert_eq!(allocate(&[flat, peaked], 32), [22, 12]);
    }

    #[test]
    fn allocate_ignores_shift_and_positive_scale() {
        let scaled: Vec<Vec<f32>> =
            four_layers().iter().map(|l| l.iter().map(|s| 4.0 * s + 32.0).collect()).collect();
        assert_eq!(allocate(&four_layers(), 16), allocate(&scaled, 16));
    }

    #[test]
    fn permuting_layers_permutes_budgets() {
        let mut layers = four_layers();
        let before = allocate(&layers, 12);
        layers.reverse();
        let mut after = allocate(&layers, 12);
        after.reverse();
        assert_eq!(before, after);
    }

    #[test]
    fn allocate_stays_in_bounds_and_near_the_total() {
        for seed in 0..200u64 {
            let layers = crate::memory::testing::random_scores(seed, 6, 24);
            for total in [6, 20, 60, 100, 140] {
                let counts = allocate(&layers, total);
                let all: usize = layers.iter().map(Vec::len).sum();
                assert!(counts.iter().zip(&layers).all(|(&k, l)| (1..=l.len()).contains(&k)));
                let sum: usize = counts.iter().sum();
                // Near the total of all candidates the strict `<` leaves one a layer out.
                if total + layers.len() + 4 < all {
                    assert!(sum.abs_diff(total) <= 4, "seed {seed}: {sum} for {total}");
                }
            }
        }
    }

    #[test]
    fn rescale_matches_the_golden_vectors() {
        let cases: [(&[usize], f64, f64, &[usize]); 10] = [
            (&[4, 5, 5, 4], 1., 8., &[1, 8, 8, 1]),
            (&[3, 2, 2, 3], 1., 6., &[4, 1, 1, 4]),
            (&[2, 6, 1, 9], 1., 9., &[2, 6, 1, 9]),
            (&[60, 70, 64, 62], 32., 96., &[37, 96, 65, 51]),
            (&[3, 3, 3, 3], 1., 6., &[3, 3, 3, 3]),
            (&[1, 1, 1, 30], 1., 9., &[4, 4, 4, 9]),
            (&[5, 50, 5, 5, 5], 4., 20., &[9, 20, 9, 9, 9]),
            (&[64, 40, 90, 62, 64], 32., 96., &[64, 34, 96, 62, 64]),
            // Halves that round by the order of the release's product.
            (&[26, 22, 6], 3., 10., &[10, 10, 9]),
            (&[20, 1, 34, 1], 5., 20., &[19, 7, 20, 7]),
        ];
        for (budgets, low, high, expected) in cases {
            assert_eq!(rescale(budgets, low, high), expected, "{budgets:?}");
        }
    }

    #[test]
    fn temperature_zero_is_uniform() {
        let rule = BudgetRule::Stretched { temperature: 0.0 };
        assert_eq!(retrieve_counts(&four_layers(), 3, 128, rule), [3; 4]);
        assert_eq!(keep_counts(&four_layers(), 8, 0.6, rule), [4; 4]);
    }

    #[test]
    fn crossing_bounds_keep_one_frame() {
        let rule = BudgetRule::Stretched { temperature: 1.0 };
        let layers = vec![vec![1., 2., 3., 4.], vec![4., 1., 1., 1.]];
        assert_eq!(keep_counts(&layers, 4, 0.1, rule), [1, 1]);
    }
}
