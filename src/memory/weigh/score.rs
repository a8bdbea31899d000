// SPDX-License-Identifier: MPL-2.0
//! How alike things are: a question's mean query and a unit's mean key, rows of two pictures, and
//! scores brought to one scale.
//!
//! ReKV and StreamKV compare one representative key per unit with one mean query (ReKV §2.5). Both
//! are means before RoPE. Keys are kept per KV head; folding the query heads of a group onto their
//! KV head gives the same dot product with `H / Hk` times less to store.

use candle_core::{DType, Tensor};

use crate::error::Result;
use crate::memory::recipe::Similarity;

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

    /// Of every row of `[n, Hk * d]` mean keys.
    pub fn scores(&self, mean_keys: &[f32], similarity: Similarity) -> Vec<f32> {
        let rows = mean_keys.chunks_exact(self.folded.len().max(1));
        rows.map(|key| self.score(key, similarity)).collect()
    }

    pub fn score(&self, representative: &[f32], similarity: Similarity) -> f32 {
        let product = dot(&self.folded, representative);
        match similarity {
            Similarity::Dot => product,
            Similarity::Cosine => {
                // Unfolded, the representative repeats once per query head of its group.
                let squared = dot(representative, representative);
                let length = (squared * self.group as f32).sqrt();
                product / (self.norm * length).max(f32::MIN_POSITIVE)
            }
        }
    }
}

/// In lanes, which a compiler turns into vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
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

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::memory::kv::representative;
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
    fn a_key_in_the_querys_direction_has_cosine_one() {
        let q = Tensor::new(&[[[1f32, 2.0]], [[1.0, 2.0]]], &Device::Cpu).unwrap();
        let query = MeanQuery::of(&q, 1).unwrap();
        assert!((query.score(&[3.0, 6.0], Similarity::Cosine) - 1.0).abs() < 1e-6);
        assert!(query.score(&[0.0, 0.0], Similarity::Cosine).is_finite());
    }
}
