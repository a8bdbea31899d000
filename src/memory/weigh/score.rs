// SPDX-License-Identifier: MPL-2.0
//! How alike things are: a question's mean query and a unit's mean key, rows of two pictures, and
//! scores brought to one scale.
//!
//! ReKV and StreamKV compare one representative key per unit with one mean query (ReKV §2.5). Both
//! are means before RoPE. Keys are kept per KV head; folding the query heads of a group onto their
//! KV head gives the same dot product with `H / Hk` times less to store.

use std::borrow::Cow;
use std::cmp::Ordering;

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use crate::error::Result;
use crate::memory::kv::{nothing, read, read_all};
use crate::memory::recipe::Similarity;
use crate::memory::store::{Keys, MeanKeys, PIECE};
use crate::memory::weigh::select::best;

/// Mean over the rows of un-rotated queries `[H, n, d]`, folded onto the KV heads.
#[derive(Clone, Debug)]
pub struct MeanQuery {
    folded: Folded,
    /// Query heads per KV head.
    group: usize,
}

/// The sum over each group's query heads, `Hk * d` numbers, and the length of the unfolded `[H * d]`
/// vector.
#[derive(Clone, Debug)]
enum Folded {
    Host(Vec<f32>, f32),
    /// `[Hk * d, 1]` and `[1]`.
    Device(Tensor, Tensor),
}

impl MeanQuery {
    /// `on_device`: it stays where it is.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn of(queries: &Tensor, kv_heads: usize, on_device: bool) -> Result<Self> {
        let (heads, _, dim) = queries.dims3()?;
        let group = heads / kv_heads.max(1);
        let mean = queries.to_dtype(DType::F32)?.mean(1)?;
        let norm = mean.sqr()?.sum_all()?;
        let folded = mean.reshape((kv_heads, group, dim))?.sum(1)?;
        let folded = match on_device {
            true => Folded::Device(folded.reshape((kv_heads * dim, 1))?, norm.sqrt()?.reshape(1)?),
            false => Folded::Host(read(&folded)?, norm.to_scalar::<f32>()?.sqrt()),
        };
        Ok(Self { folded, group })
    }

    /// Of every row of mean keys: one product over them.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn scores(&self, mean_keys: &MeanKeys, similarity: Similarity) -> Result<Unread> {
        let keys = mean_keys.keys()?;
        let (folded, norm) = match (&self.folded, &keys) {
            (Folded::Device(folded, norm), Keys::Device(rows)) => {
                return Ok(Unread::Device(self.product(rows, folded, norm, similarity)?));
            }
            (Folded::Host(folded, norm), _) => (Cow::Borrowed(folded), *norm),
            (Folded::Device(folded, norm), _) => {
                (Cow::Owned(read(folded)?), read(norm)?.first().copied().unwrap_or(0.0))
            }
        };
        let dim = folded.len().max(1);
        let mut scores = vec![0.0; mean_keys.len()];
        let of = |(keys, scores): (&[f32], &mut [f32])| {
            let question = (folded.as_slice(), norm, self.group);
            pulp::Arch::new().dispatch(Scoring { question, keys, scores, similarity });
        };
        let many = scores.len() > ROWS_OF_A_THREAD;
        let fetched;
        let parts = match &keys {
            Keys::Host(rows) => beside(rows.pieces(), dim, &mut scores),
            Keys::Device(rows) => {
                fetched = read(rows)?;
                beside(fetched.chunks(PIECE * dim), dim, &mut scores)
            }
        };
        // By several threads where that is worth waking them.
        match many {
            true => parts.into_par_iter().with_min_len(PIECES_OF_A_THREAD).for_each(of),
            false => parts.into_iter().for_each(of),
        }
        Ok(Unread::Host(scores))
    }

    /// The same of those rows that are among the best `k`; of others, minus infinity or what they have. Of
    /// many rows most are not read for that.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn scores_of_best(
        &self,
        mean_keys: &MeanKeys,
        similarity: Similarity,
        k: usize,
    ) -> Result<Unread> {
        let (Folded::Host(folded, _), Keys::Host(rows)) = (&self.folded, mean_keys.keys()?) else {
            return self.scores(mean_keys, similarity);
        };
        let many = mean_keys.len() > ROWS_OF_A_THREAD && k < mean_keys.len() / FEW;
        if similarity != Similarity::Dot || !many {
            return self.scores(mean_keys, similarity);
        }
        let bounds = mean_keys.bounds(folded);
        let least = bounds.least();
        let Some(least) = best(&least, k).last().and_then(|&last| least.get(last)) else {
            return self.scores(mean_keys, similarity);
        };
        // What is not a number is below nothing.
        let mut open: Vec<bool> = bounds
            .most()
            .iter()
            .map(|most| most.partial_cmp(least) != Some(Ordering::Less))
            .collect();
        open.resize(mean_keys.len(), true);
        if open.iter().filter(|open| **open).count() > mean_keys.len() / FEW {
            return self.scores(mean_keys, similarity);
        }
        let mut scores = vec![f32::NEG_INFINITY; mean_keys.len()];
        let mut open = open.as_slice();
        let parts = beside(rows.pieces(), folded.len().max(1), &mut scores).into_iter();
        let parts = parts.map(|(keys, scores)| {
            let (own, others) = open.split_at(scores.len().min(open.len()));
            open = others;
            (own, keys, scores)
        });
        parts.collect::<Vec<_>>().into_par_iter().with_min_len(PIECES_OF_A_THREAD).for_each(
            |(open, keys, scores)| {
                let question = (folded.as_slice(), 0.0, self.group);
                let scoring = Scoring { question, keys, scores, similarity };
                pulp::Arch::new().dispatch(ScoringSome { scoring, open });
            },
        );
        Ok(Unread::Host(scores))
    }

    /// The same for rows `[n, Hk * d]` that lie where the query does, `[n]`.
    fn product(
        &self,
        rows: &Tensor,
        folded: &Tensor,
        norm: &Tensor,
        similarity: Similarity,
    ) -> Result<Tensor> {
        let n = rows.dim(0)?;
        if n == 0 {
            return nothing(0);
        }
        let product = rows.matmul(folded)?.reshape(n)?;
        match similarity {
            Similarity::Dot => Ok(product),
            Similarity::Cosine => {
                let lengths = (rows.sqr()?.sum(1)? * self.group as f64)?.sqrt()?;
                let lengths = lengths.broadcast_mul(norm)?.maximum(f64::from(f32::MIN_POSITIVE))?;
                Ok((product / lengths)?)
            }
        }
    }
}

/// Mean keys that one thread ranks at a time, and the pieces that they lie in.
const ROWS_OF_A_THREAD: usize = PIECES_OF_A_THREAD * PIECE;
const PIECES_OF_A_THREAD: usize = 8;

/// Pieces of rows of `dim` numbers, each with the part of `scores` that is its rows'.
fn beside<'a>(
    pieces: impl Iterator<Item = &'a [f32]>,
    dim: usize,
    mut scores: &'a mut [f32],
) -> Vec<(&'a [f32], &'a mut [f32])> {
    let pieces = pieces.map(|piece| {
        let rows = (piece.len() / dim).min(scores.len());
        let (own, others) = std::mem::take(&mut scores).split_at_mut(rows);
        scores = others;
        (piece, own)
    });
    pieces.collect()
}

/// Fewer than one of so many are few: reading them one by one costs less than reading all.
const FEW: usize = 8;

/// The scores of mean keys, one behind the other.
struct Scoring<'a> {
    /// A [`MeanQuery`] on the host: what is folded, its length, and the query heads of a group.
    question: (&'a [f32], f32, usize),
    keys: &'a [f32],
    scores: &'a mut [f32],
    similarity: Similarity,
}

impl pulp::WithSimd for Scoring<'_> {
    type Output = ();

    // Into what pulp compiles for vectors of each width: a closure is not, nothing makes it be.
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let keys = self.keys.chunks_exact(self.question.0.len().max(1));
        for (score, key) in self.scores.iter_mut().zip(keys) {
            *score = fits(self.question, key, self.similarity);
        }
    }
}

/// Those that are `open`; the others stay as they are.
struct ScoringSome<'a> {
    scoring: Scoring<'a>,
    open: &'a [bool],
}

impl pulp::WithSimd for ScoringSome<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Scoring { question, keys, scores, similarity } = self.scoring;
        let keys = keys.chunks_exact(question.0.len().max(1));
        for ((score, key), open) in scores.iter_mut().zip(keys).zip(self.open) {
            if *open {
                *score = fits(question, key, similarity);
            }
        }
    }
}

/// How well a key fits what a [`Scoring`] asks.
#[inline(always)]
fn fits((folded, norm, group): (&[f32], f32, usize), key: &[f32], similarity: Similarity) -> f32 {
    let product = dot(folded, key);
    match similarity {
        Similarity::Dot => product,
        Similarity::Cosine => {
            // Unfolded, the mean key repeats once per query head of its group.
            let length = (dot(key, key) * group as f32).sqrt();
            product / (norm * length).max(f32::MIN_POSITIVE)
        }
    }
}

/// Scores that may still lie where they were computed. Several are read together, because a read waits
/// for all that was computed before.
#[derive(Clone, Debug)]
pub enum Unread {
    Host(Vec<f32>),
    Device(Tensor),
}

impl Unread {
    /// # Errors
    /// What the computation fails with.
    pub fn read(self) -> Result<Vec<f32>> {
        match self {
            Self::Host(scores) => Ok(scores),
            Self::Device(scores) => read(&scores),
        }
    }

    /// All of these, in one read of the device.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn read_all(all: Vec<Self>) -> Result<Vec<Vec<f32>>> {
        let on_device = |unread: &Self| match unread {
            Self::Device(scores) => Some(scores.clone()),
            Self::Host(_) => None,
        };
        let mut found =
            read_all(&all.iter().filter_map(on_device).collect::<Vec<_>>())?.into_iter();
        let scores = all.into_iter().map(|unread| match unread {
            Self::Host(scores) => scores,
            Self::Device(_) => found.next().unwrap_or_default(),
        });
        Ok(scores.collect())
    }
}

/// In lanes, which a compiler turns into vector instructions.
#[inline(always)]
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
    // By halves: one after the other, sixteen sums take longer than all products of a short key.
    let half = |n: usize, lanes: &mut [f32; LANES]| (0..n).for_each(|i| lanes[i] += lanes[i + n]);
    [8, 4, 2, 1].into_iter().for_each(|n| half(n, &mut lanes));
    lanes[0] + rest
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
    use crate::memory::kv::representatives;
    use crate::memory::testing::random_tensor;
    use crate::memory::weigh::select::top;

    fn scores(q: &Tensor, keys: &Tensor, similarity: Similarity, on_device: bool) -> Vec<f32> {
        let (kv_heads, keys) = (keys.dim(0).unwrap(), keys.narrow(1, 0, 6).unwrap());
        let keys = representatives(&keys, &[2, 2, 2]).unwrap();
        let keys = MeanKeys::of(keys, on_device).unwrap();
        let query = MeanQuery::of(q, kv_heads, on_device).unwrap();
        let scores = query.scores(&keys, similarity).unwrap();
        assert_eq!(matches!(scores, Unread::Device(_)), on_device);
        scores.read().unwrap()
    }

    #[test]
    fn the_folded_score_is_the_mean_of_all_raw_logits() {
        let (heads, kv_heads, dim) = (6, 2, 8);
        let q = random_tensor(3, (heads, 5, dim));
        let k = random_tensor(4, (kv_heads, 6, dim));
        for on_device in [false, true] {
            let folded = scores(&q, &k, Similarity::Dot, on_device);
            let mut sums = vec![0.0; 3];
            for head in 0..heads {
                let keys = k.get(head / (heads / kv_heads)).unwrap();
                let logits = q.get(head).unwrap().matmul(&keys.t().unwrap()).unwrap();
                for row in logits.to_vec2::<f32>().unwrap() {
                    row.chunks(2)
                        .zip(&mut sums)
                        .for_each(|(own, sum)| *sum += own.iter().sum::<f32>());
                }
            }
            for (folded, sum) in folded.iter().zip(sums) {
                assert!((folded - sum / (5 * 2) as f32).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn scores_are_the_same_wherever_they_are_computed() {
        let (q, k) = (random_tensor(5, (6, 3, 8)), random_tensor(6, (2, 6, 8)));
        for similarity in [Similarity::Dot, Similarity::Cosine] {
            let (host, device) =
                (scores(&q, &k, similarity, false), scores(&q, &k, similarity, true));
            assert!(host.iter().any(|score| score.abs() > 1e-3));
            for (host, device) in host.iter().zip(&device) {
                assert!((host - device).abs() < 1e-6, "{device} is not {host}");
            }
        }
    }

    #[test]
    fn a_query_here_and_keys_there_find_each_other() {
        let (q, k) = (random_tensor(5, (6, 3, 8)), random_tensor(6, (2, 6, 8)));
        let keys =
            |on_device| MeanKeys::of(representatives(&k, &[2, 4]).unwrap(), on_device).unwrap();
        let found = [(false, true), (true, false), (false, false)].map(|(query, key)| {
            let query = MeanQuery::of(&q, 2, query).unwrap();
            query.scores(&keys(key), Similarity::Cosine).unwrap().read().unwrap()
        });
        assert_eq!((&found[0], &found[1]), (&found[2], &found[2]));
    }

    #[test]
    fn a_key_in_the_querys_direction_has_cosine_one() {
        let q = Tensor::new(&[[[1f32, 2.0]], [[1.0, 2.0]]], &Device::Cpu).unwrap();
        let keys = Tensor::new(&[[3f32, 6.0], [0.0, 0.0]], &Device::Cpu).unwrap();
        for on_device in [false, true] {
            let query = MeanQuery::of(&q, 1, on_device).unwrap();
            let keys = MeanKeys::of(keys.clone(), on_device).unwrap();
            let scores = query.scores(&keys, Similarity::Cosine).unwrap().read().unwrap();
            assert!((scores[0] - 1.0).abs() < 1e-6);
            assert!(scores[1].is_finite());
        }
    }

    #[test]
    fn the_best_are_found_without_reading_all() {
        let (n, dim, k) = (6000, 24, 64);
        let wall = random_tensor(1, (1, dim)).affine(5.0, 0.0).unwrap();
        let rows = random_tensor(2, (n, dim)).affine(0.2, 0.0).unwrap();
        let mut rows =
            rows.broadcast_add(&wall).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        // Equals, of which the earlier one wins, and what is not a number.
        rows.copy_within(100 * dim..200 * dim, 4000 * dim);
        rows[700 * dim] = f32::NAN;
        let mut keys = MeanKeys::default();
        for part in rows.chunks(70 * dim) {
            keys.append(&MeanKeys::listed(part.to_vec(), dim)).unwrap();
        }
        let others: Vec<f32> = rows[..3 * dim].iter().map(|x| 1.1 * x).collect();
        for seed in 10..20 {
            let query = MeanQuery::of(&random_tensor(seed, (4, 3, dim / 2)), 2, false).unwrap();
            let all = query.scores(&keys, Similarity::Dot).unwrap().read().unwrap();
            let few = query.scores_of_best(&keys, Similarity::Dot, k).unwrap().read().unwrap();
            assert_eq!(top(&few, k), top(&all, k));
            let read = few.iter().filter(|score| **score > f32::NEG_INFINITY).count();
            assert!((k..n / 4).contains(&read), "{read} of {n} are read");
            let same = |(few, all): (&f32, &f32)| {
                *few == f32::NEG_INFINITY || few.to_bits() == all.to_bits()
            };
            assert!(few.iter().zip(&all).all(same));
            // Some change, and some go.
            keys.set(1234, &MeanKeys::listed(others.clone(), dim)).unwrap();
            keys.drop_front(33).unwrap();
        }
        // More than can be told apart, and what has no bounds, is read.
        let alike = MeanKeys::listed(vec![1.0; n * dim], dim);
        let query = MeanQuery::of(&random_tensor(9, (4, 3, dim / 2)), 2, false).unwrap();
        for (similarity, k) in [(Similarity::Dot, k), (Similarity::Cosine, k), (Similarity::Dot, n)]
        {
            let all = query.scores(&alike, similarity).unwrap().read().unwrap();
            assert_eq!(query.scores_of_best(&alike, similarity, k).unwrap().read().unwrap(), all);
        }
    }
}
