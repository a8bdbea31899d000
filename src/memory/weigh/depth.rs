// SPDX-License-Identifier: MPL-2.0
//! What matters at which depth: shallow layers go by what is new, deep ones by what is looked at
//! (HERMES §4.2).

use super::score::min_max;

/// The first of the deep layers, and so the end of the middle ones (HERMES §4.2).
pub fn deep_from(depth: usize) -> usize {
    (depth as f64 * (1.0 - 0.3)) as usize
}

/// The end of the shallow layers.
pub fn shallow_to(depth: usize) -> usize {
    (depth as f64 * 0.1) as usize
}

/// HERMES: shallow layers go by recency, deep ones by attention, the ones between by both; then
/// each layer leans on the next. `attention[l]` are layer `l`'s rows, oldest first.
pub fn by_depth(attention: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let depth = attention.len();
    let (shallow, deep) = (shallow_to(depth), deep_from(depth));
    let mut lean = Vec::with_capacity(depth);
    let mut scores = Vec::with_capacity(depth);
    for (layer, attention) in attention.iter().enumerate() {
        let (weight, decay, smooth) = if layer < shallow {
            (1.0, 20.0, 0.1)
        } else if layer >= deep {
            (0.0, 0.0, 0.4)
        } else {
            let p = (layer - shallow) as f32 / (deep - shallow) as f32;
            (1.0 - 0.9 * p, 20.0 - 19.5 * p, 0.3)
        };
        let n = attention.len();
        let age = |i: usize| (n - 1 - i) as f32 / (n - 1).max(1) as f32;
        let recency: Vec<f32> = (0..n).map(|i| (-decay * age(i)).exp()).collect();
        let (seen, recent) = (min_max(attention, 1e-6), min_max(&recency, 1e-6));
        let mixed = seen.iter().zip(recent).map(|(a, r)| (1.0 - weight) * a + weight * r);
        scores.push(mixed.collect::<Vec<f32>>());
        lean.push(smooth);
    }
    for layer in (0..depth.saturating_sub(1)).rev() {
        let next = resized(&scores[layer + 1], scores[layer].len());
        let own = scores[layer].iter().zip(next);
        scores[layer] = own.map(|(s, next)| (1.0 - lean[layer]) * s + lean[layer] * next).collect();
    }
    scores
}

/// Linear interpolation with half-pixel centres.
fn resized(x: &[f32], n: usize) -> Vec<f32> {
    if x.len() == n || x.is_empty() {
        return if x.is_empty() { vec![0.0; n] } else { x.to_vec() };
    }
    let step = x.len() as f32 / n as f32;
    let at = |i: usize| {
        let place = ((i as f32 + 0.5) * step - 0.5).max(0.0);
        let low = (place as usize).min(x.len() - 1);
        let high = (low + 1).min(x.len() - 1);
        x[low] + (place - low as f32) * (x[high] - x[low])
    };
    (0..n).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_another_length_is_read_between_its_places() {
        assert_eq!(resized(&[0.0, 1.0, 2.0, 3.0], 2), [0.5, 2.5]);
        assert_eq!(resized(&[0.0, 1.0], 4), [0.0, 0.25, 0.75, 1.0]);
        assert_eq!(resized(&[], 2), [0.0, 0.0]);
    }
}
