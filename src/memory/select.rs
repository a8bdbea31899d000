// SPDX-License-Identifier: MPL-2.0
//! Which candidates a budget buys: the best by score, with forced members, in stream order.

/// Indices of the `k` highest scores, ascending; of equal scores the earlier one wins. A score
/// that is not a number ranks last.
pub fn top(scores: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let rank = |i: usize| if scores[i].is_nan() { f32::NEG_INFINITY } else { scores[i] };
    order.sort_by(|&a, &b| rank(b).total_cmp(&rank(a)));
    order.truncate(k);
    order.sort_unstable();
    order
}

/// [`top`], but the last `recent` candidates are always among the `k`; with `k < recent` it is the
/// last `k` alone (StreamKV release, `retrieve_local`).
pub fn top_with_recent(scores: &[f32], k: usize, recent: usize) -> Vec<usize> {
    let n = scores.len();
    if n <= k {
        return (0..n).collect();
    }
    let forced = recent.min(k);
    let mut chosen = top(&scores[..n - forced], k - forced);
    chosen.extend(n - forced..n);
    chosen
}

/// [`top_with_recent`] over groups of `chunk` neighbours ranked by their mean score (ReKV's
/// `retrieve_chunk_size`); the last group may be short.
pub fn top_chunks(scores: &[f32], k: usize, chunk: usize, recent: usize) -> Vec<usize> {
    if chunk <= 1 || scores.len() <= k {
        return top_with_recent(scores, k, recent);
    }
    let means: Vec<f32> =
        scores.chunks(chunk).map(|group| group.iter().sum::<f32>() / group.len() as f32).collect();
    top_with_recent(&means, (k / chunk).max(1), recent.div_ceil(chunk))
        .into_iter()
        .flat_map(|group| group * chunk..((group + 1) * chunk).min(scores.len()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_is_in_stream_order_and_prefers_the_earlier_of_equals() {
        assert_eq!(top(&[1.0, 3.0, 2.0, 3.0], 2), [1, 3]);
        assert_eq!(top(&[5.0, 5.0, 5.0], 2), [0, 1]);
        assert_eq!(top(&[1.0, f32::NAN, 2.0], 2), [0, 2]);
        assert_eq!(top(&[1.0], 4), [0]);
    }

    #[test]
    fn recent_candidates_are_forced() {
        let scores = [9.0, 8.0, 7.0, 0.0, 0.0];
        assert_eq!(top_with_recent(&scores, 3, 2), [0, 3, 4]);
        assert_eq!(top_with_recent(&scores, 1, 2), [4]);
        assert_eq!(top_with_recent(&scores, 5, 2), [0, 1, 2, 3, 4]);
        assert_eq!(top_with_recent(&scores, 2, 0), [0, 1]);
    }

    #[test]
    fn chunks_are_ranked_by_their_mean() {
        let scores = [0.0, 9.0, 5.0, 5.0, 1.0];
        assert_eq!(top_chunks(&scores, 2, 2, 0), [2, 3]);
        assert_eq!(top_chunks(&scores, 4, 2, 2), [2, 3, 4]);
        assert_eq!(top_chunks(&scores, 5, 2, 0), [0, 1, 2, 3, 4]);
    }
}
