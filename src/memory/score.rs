// SPDX-License-Identifier: MPL-2.0
//! Signals: numbers that say how much a stored unit matters to a query.
//!
//! ReKV and StreamKV compare one representative key per unit with one mean query (ReKV §2.5). Both
//! are means before RoPE. Keys are kept per KV head; folding the query heads of a group onto their
//! KV head gives the same dot product with `H / Hk` times less to store.

use std::collections::HashMap;

use candle_core::{DType, Tensor};

use crate::error::Result;
use crate::model::rope::Layout;

/// How a mean query is compared with a representative key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Similarity {
    /// Plain dot product (both released codes).
    Dot,
    /// Cosine (both papers).
    Cosine,
}

/// Mean key of a unit, `[Hk * d]`, from its un-rotated keys `[Hk, n, d]`.
pub fn representative(keys: &Tensor) -> Result<Vec<f32>> {
    Ok(keys.to_dtype(DType::F32)?.mean(1)?.flatten_all()?.to_vec1()?)
}

/// Mean over the rows of un-rotated queries `[H, n, d]`, folded onto the KV heads.
#[derive(Clone, Debug)]
pub struct MeanQuery {
    /// `[Hk * d]`: the sum over each group's query heads.
    folded: Vec<f32>,
    /// Length of the unfolded `[H * d]` vector.
    norm: f32,
    /// Query heads per KV head.
    group: usize,
}

impl MeanQuery {
    pub fn of(queries: &Tensor, kv_heads: usize) -> Result<Self> {
        let (heads, _, dim) = queries.dims3()?;
        let group = heads / kv_heads.max(1);
        let mean = queries.to_dtype(DType::F32)?.mean(1)?;
        let norm = mean.sqr()?.sum_all()?.to_scalar::<f32>()?.sqrt();
        let folded = mean.reshape((kv_heads, group, dim))?.sum(1)?.flatten_all()?.to_vec1()?;
        Ok(Self { folded, norm, group })
    }

    pub fn score(&self, representative: &[f32], similarity: Similarity) -> f32 {
        let dot: f32 = self.folded.iter().zip(representative).map(|(q, k)| q * k).sum();
        match similarity {
            Similarity::Dot => dot,
            Similarity::Cosine => {
                // Unfolded, the representative repeats once per query head of its group.
                let squared: f32 = representative.iter().map(|k| k * k).sum();
                let length = (squared * self.group as f32).sqrt();
                dot / (self.norm * length).max(f32::MIN_POSITIVE)
            }
        }
    }
}

/// Cosine of two vectors; 0 where one of them has no direction.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |x: &[f32], y: &[f32]| -> f64 {
        x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    };
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { (dot(a, b) / norms) as f32 } else { 0.0 }
}

/// Cosines of co-located rows of two pictures, `[n, dim]` each: what changed from one to the next.
/// Merging alike frames, dropping alike patches and adaptive key selection all look at this.
pub fn row_cosines(a: &[f32], b: &[f32], dim: usize) -> Vec<f32> {
    a.chunks_exact(dim).zip(b.chunks_exact(dim)).map(|(a, b)| cosine(a, b)).collect()
}

/// How little each row of one KV head's keys `[n, d]` resembles the recent ones of the same slot
/// (InfiniPot-V's TaR): minus the mean of the cosines, taken with the mean of the recent rows'
/// directions, which is the same. 0 where the recent rows lack the slot.
pub fn novelty(keys: &[f32], slots: &[u32], recent: &[bool]) -> Vec<f32> {
    let Some(dim) = keys.len().checked_div(slots.len()).filter(|&dim| dim > 0) else {
        return Vec::new();
    };
    let direction = |key: &[f32]| -> Vec<f32> {
        let norm = key.iter().map(|x| x * x).sum::<f32>().sqrt() + 1e-9;
        key.iter().map(|x| x / norm).collect()
    };
    let rows: Vec<Vec<f32>> = keys.chunks_exact(dim).map(direction).collect();
    let mut means: HashMap<u32, (Vec<f32>, usize)> = HashMap::new();
    for ((row, slot), _) in rows.iter().zip(slots).zip(recent).filter(|(_, recent)| **recent) {
        let (sum, count) = means.entry(*slot).or_insert_with(|| (vec![0.0; dim], 0));
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        *count += 1;
    }
    let score = |(row, slot): (&Vec<f32>, &u32)| match means.get(slot) {
        Some((sum, count)) => -row.iter().zip(sum).map(|(a, b)| a * b).sum::<f32>() / *count as f32,
        None => 0.0,
    };
    rows.iter().zip(slots).map(score).collect()
}

/// Lengths of `n` vectors in a row.
pub fn norms(values: &[f32], n: usize) -> Vec<f32> {
    let dim = values.len().checked_div(n).unwrap_or(0).max(1);
    values.chunks_exact(dim).map(|v| v.iter().map(|x| x * x).sum::<f32>().sqrt()).collect()
}

/// How a run of tokens lies in time and picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub units: usize,
    pub rows: usize,
    pub cols: usize,
}

impl Grid {
    /// `n` tokens in units of `unit_tokens`; a picture whose sides are not known is square, or a
    /// single row.
    pub fn of(n: usize, unit_tokens: usize, layout: Layout) -> Self {
        let side = unit_tokens.isqrt().max(1);
        let (rows, cols) = match layout {
            Layout::Grid { rows, cols, .. } => (rows, cols),
            Layout::Run if side * side == unit_tokens => (side, side),
            Layout::Run => (1, unit_tokens.max(1)),
        };
        Self { units: n / (rows * cols).max(1), rows, cols }
    }

    fn tokens(self) -> usize {
        self.units * self.rows * self.cols
    }
}

/// An averaging kernel: over how many axes (1: along the tokens, 2: the picture, 3: picture and
/// time) and how wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    pub axes: usize,
    pub width: usize,
}

/// InfiniPot-V's smoothing of value norms, by quarters of the depth (§2.5).
pub fn kernel(layer: usize, depth: usize) -> Option<Kernel> {
    match layer / (depth / 4).max(1) {
        0 => Some(Kernel { axes: 3, width: 7 }),
        1 => Some(Kernel { axes: 2, width: 5 }),
        2 => Some(Kernel { axes: 1, width: 3 }),
        _ => None,
    }
}

/// Moving average with zeros around; the divisor is always the kernel's volume. Tokens that do not
/// fill the grid are left as they are.
pub fn pooled(values: &[f32], grid: Grid, kernel: Kernel) -> Vec<f32> {
    let Grid { units, rows, cols } = grid;
    if kernel.axes == 1 {
        return blurred(values, (1, 1, values.len()), (1, 1, kernel.width));
    }
    let mut width = kernel.width.min(units).min(rows).min(cols);
    width -= usize::from(width.is_multiple_of(2) && width > 0);
    if width < 2 || grid.tokens() != values.len() {
        return values.to_vec();
    }
    let deep = if kernel.axes == 3 { width } else { 1 };
    blurred(values, (units, rows, cols), (deep, width, width))
}

fn blurred(x: &[f32], shape: (usize, usize, usize), kernel: (usize, usize, usize)) -> Vec<f32> {
    let volume = (kernel.0 * kernel.1 * kernel.2) as f32;
    let span = |at: usize, width: usize, len: usize| {
        at.saturating_sub(width / 2)..(at + width / 2 + 1).min(len)
    };
    let mut out = Vec::with_capacity(x.len());
    for a in 0..shape.0 {
        for b in 0..shape.1 {
            for c in 0..shape.2 {
                let mut sum = 0.0;
                for i in span(a, kernel.0, shape.0) {
                    for j in span(b, kernel.1, shape.1) {
                        let row = (i * shape.1 + j) * shape.2;
                        sum += span(c, kernel.2, shape.2).map(|k| x[row + k]).sum::<f32>();
                    }
                }
                out.push(sum / volume);
            }
        }
    }
    out
}

/// Element by element over several lists.
pub fn mean(lists: &[Vec<f32>]) -> Vec<f32> {
    let Some(first) = lists.first() else { return Vec::new() };
    let sum = |i: usize| lists.iter().map(|list| list[i]).sum::<f32>();
    (0..first.len()).map(|i| sum(i) / lists.len() as f32).collect()
}

/// Scaled to 0..1; a constant is all 0.
pub fn min_max(x: &[f32], epsilon: f32) -> Vec<f32> {
    let low = x.iter().copied().fold(f32::INFINITY, f32::min);
    let high = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    x.iter().map(|x| (x - low) / (high - low + epsilon)).collect()
}

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
    use candle_core::Device;

    use super::*;
    use crate::memory::testing::random_tensor;

    #[test]
    fn the_folded_score_is_the_mean_of_all_raw_logits() {
        let (heads, kv_heads, dim) = (6, 2, 8);
        let q = random_tensor(3, (heads, 5, dim));
        let k = random_tensor(4, (kv_heads, 7, dim));
        let folded = MeanQuery::of(&q, kv_heads)
            .unwrap()
            .score(&representative(&k).unwrap(), Similarity::Dot);
        let mut sum = 0.0;
        for head in 0..heads {
            let logits = q
                .get(head)
                .unwrap()
                .matmul(&k.get(head / (heads / kv_heads)).unwrap().t().unwrap())
                .unwrap();
            sum += logits.sum_all().unwrap().to_scalar::<f32>().unwrap();
        }
        assert!((folded - sum / 35.0).abs() < 1e-5);
    }

    #[test]
    fn a_moving_average_has_zeros_around_and_an_odd_width_that_fits_the_picture() {
        let grid = Grid { units: 4, rows: 4, cols: 4 };
        let found = pooled(&[9.0; 64], grid, Kernel { axes: 2, width: 5 });
        assert_eq!(found[..8], [4.0, 6.0, 6.0, 4.0, 6.0, 9.0, 9.0, 6.0]);
        // Two units are too few for a width of three.
        let grid = Grid { units: 2, rows: 4, cols: 4 };
        assert_eq!(pooled(&[9.0; 32], grid, Kernel { axes: 3, width: 7 }), [9.0; 32]);
        let found = pooled(&[3.0; 4], grid, Kernel { axes: 1, width: 3 });
        assert_eq!(found, [2.0, 3.0, 3.0, 2.0]);
    }

    #[test]
    fn a_list_of_another_length_is_read_between_its_places() {
        assert_eq!(resized(&[0.0, 1.0, 2.0, 3.0], 2), [0.5, 2.5]);
        assert_eq!(resized(&[0.0, 1.0], 4), [0.0, 0.25, 0.75, 1.0]);
        assert_eq!(resized(&[], 2), [0.0, 0.0]);
    }

    #[test]
    fn a_key_in_the_querys_direction_has_cosine_one() {
        let q = Tensor::new(&[[[1f32, 2.0]], [[1.0, 2.0]]], &Device::Cpu).unwrap();
        let query = MeanQuery::of(&q, 1).unwrap();
        assert!((query.score(&[3.0, 6.0], Similarity::Cosine) - 1.0).abs() < 1e-6);
        assert!(query.score(&[0.0, 0.0], Similarity::Cosine).is_finite());
    }
}
