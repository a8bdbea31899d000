// SPDX-License-Identifier: MPL-2.0
//! Rankings of stored units, and how several become one: reciprocal rank fusion (MemStream §3.3),
//! the consensus of the first and the last layer (CacheFlow §4.4), and the coarse that tells the
//! fine where to look (MuKV §1.7).

use std::collections::BTreeMap;

use super::score::cosine;
use super::select::ranked;

/// Reciprocal rank fusion: every ranking gives `1 / (kappa + rank)` to each of its units, ranks
/// from 1; best first, of equals the smaller id.
pub fn rrf(rankings: &[Vec<u64>], kappa: f64) -> Vec<(u64, f64)> {
    let mut scores: BTreeMap<u64, f64> = BTreeMap::new();
    for ranking in rankings {
        for (rank, &unit) in ranking.iter().enumerate() {
            *scores.entry(unit).or_default() += 1.0 / (kappa + rank as f64 + 1.0);
        }
    }
    let mut fused: Vec<(u64, f64)> = scores.into_iter().collect();
    fused.sort_by(|a, b| b.1.total_cmp(&a.1));
    fused
}

/// Of two rankings the best `k`: first what is among the best `k` of both, then what is among
/// those of the last, then of the first.
pub fn consensus(first: &[u64], last: &[u64], k: usize) -> Vec<u64> {
    let best = |ranking: &[u64]| ranking.iter().take(k).copied().collect::<Vec<_>>();
    let (first, last) = (best(first), best(last));
    let both = last.iter().filter(|unit| first.contains(unit));
    let only_last = last.iter().filter(|unit| !first.contains(unit));
    let only_first = first.iter().filter(|unit| !last.contains(unit));
    both.chain(only_last).chain(only_first).take(k).copied().collect()
}

/// How alike a query is to each vector.
pub fn similarities(query: &[f32], vectors: &[&[f32]]) -> Vec<f32> {
    vectors.iter().map(|vector| cosine(query, vector)).collect()
}

/// The mean of the best `count` coarse vectors by these scores; the query itself if there is none.
pub fn coarse_context(query: &[f32], coarse: &[&[f32]], scores: &[f32], count: usize) -> Vec<f32> {
    let best: Vec<usize> = ranked(scores).into_iter().take(count).collect();
    if best.is_empty() {
        return query.to_vec();
    }
    let sum = |i: usize| best.iter().map(|&b| coarse[b][i]).sum::<f32>();
    (0..query.len()).map(|i| sum(i) / best.len() as f32).collect()
}

/// Similarities to the query leaning by `weight` on those to the coarse context.
pub fn leaning(scores: &[f32], vectors: &[&[f32]], context: &[f32], weight: f64) -> Vec<f32> {
    let weight = weight as f32;
    let lean = |(score, vector): (&f32, &&[f32])| {
        (1.0 - weight) * score + weight * cosine(vector, context)
    };
    scores.iter().zip(vectors).map(lean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_equal_rankings_are_the_ranking_and_their_order_does_not_matter() {
        let ids = |fused: Vec<(u64, f64)>| fused.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        let (a, b) = (vec![3, 1, 2, 9], vec![9, 2, 1, 3]);
        assert_eq!(ids(rrf(&[a.clone(), a.clone()], 60.0)), a);
        assert_eq!(rrf(&[a.clone(), b.clone()], 60.0), rrf(&[b, a], 60.0));
    }

    #[test]
    fn consensus_prefers_what_both_layers_found() {
        assert_eq!(consensus(&[1, 2, 3], &[4, 2, 5], 3), [2, 4, 5]);
        assert_eq!(consensus(&[1, 2], &[3, 4], 3), [3, 4, 1]);
    }

    #[test]
    fn without_weight_the_coarse_says_nothing_and_with_all_of_it_the_query_does_not() {
        let vectors: Vec<&[f32]> = vec![&[1.0, 0.0], &[0.0, 1.0]];
        let scores = similarities(&[0.6, 0.8], &vectors);
        assert_eq!(leaning(&scores, &vectors, &[1.0, 0.0], 0.0), scores);
        assert_eq!(leaning(&scores, &vectors, &[1.0, 0.0], 1.0), [1.0, 0.0]);
    }
}
