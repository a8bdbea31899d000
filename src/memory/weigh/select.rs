// SPDX-License-Identifier: MPL-2.0
//! Which candidates a budget buys: the best by score, with forced members, in stream order.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::budget::standardised;

/// Indices of the `k` highest scores, ascending; of equal scores the earlier one wins. A score
/// that is not a number ranks last.
pub fn top(scores: &[f32], k: usize) -> Vec<usize> {
    let mut order = best(scores, k);
    order.sort_unstable();
    order
}

/// Indices of the `k` highest scores, the highest first; of equal scores the earlier one comes first.
/// A score that is not a number ranks last.
pub fn best(scores: &[f32], k: usize) -> Vec<usize> {
    let by_rank =
        |a: &usize, b: &usize| rank(scores[*b]).total_cmp(&rank(scores[*a])).then(a.cmp(b));
    // Most questions want few of many: only those are put in order.
    let mut order =
        if k < scores.len() { few(scores, k, by_rank) } else { (0..scores.len()).collect() };
    order.sort_unstable_by(by_rank);
    order
}

/// Indices of the best `k`, in any order. One pass that looks at a stretch of scores only if one of them
/// beats the `k`-th best so far.
fn few(scores: &[f32], k: usize, by_rank: impl Fn(&usize, &usize) -> Ordering) -> Vec<usize> {
    const STRETCH: usize = 16;
    let (Some(last), room) = (k.checked_sub(1), (2 * k).max(4 * STRETCH)) else {
        return Vec::new();
    };
    let mut found: Vec<usize> = Vec::with_capacity(room + STRETCH);
    // Of equals the earlier one wins, and all that are found are earlier than what comes.
    let mut beaten: Option<f32> = None;
    let cut = |found: &mut Vec<usize>| {
        if found.len() > k {
            let (_, worst, _) = found.select_nth_unstable_by(last, &by_rank);
            let worst = rank(scores[*worst]);
            found.truncate(k);
            return Some(worst);
        }
        None
    };
    for (at, stretch) in scores.chunks(STRETCH).enumerate() {
        let fits = |score: f32| beaten.is_none_or(|beaten| rank(score) > beaten);
        // As one test, which is done in vectors; what is not a number beats nothing.
        if beaten.is_some_and(|beaten| !stretch.iter().fold(false, |any, &s| any | (s > beaten))) {
            continue;
        }
        let fitting = stretch.iter().enumerate().filter(|(_, score)| fits(**score));
        found.extend(fitting.map(|(i, _)| at * STRETCH + i));
        if found.len() >= room {
            beaten = cut(&mut found).or(beaten);
        }
    }
    cut(&mut found);
    found
}

/// A score as it is compared: what is not a number is the lowest, and both zeros are one.
fn rank(score: f32) -> f32 {
    if score.is_nan() { f32::NEG_INFINITY } else { score + 0.0 }
}

/// All indices, the highest score first; of equal scores the earlier one comes first. A score that
/// is not a number ranks last.
pub fn ranked(scores: &[f32]) -> Vec<usize> {
    best(scores, scores.len())
}

/// What else than the score decides which candidates are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Choice {
    /// The first so many candidates are always among the chosen, as far as the last ones leave room.
    pub oldest: usize,
    /// The last so many candidates are always among the chosen; where the budget is smaller, it
    /// is they alone (StreamKV release, `retrieve_local`).
    pub recent: usize,
    /// Neighbours that stand or fall together, ranked by their mean score (ReKV's
    /// `retrieve_chunk_size`); the last group may be short.
    pub chunk: usize,
    /// The fraction of its score that a candidate lends to the one beside it, and that one of it
    /// to the next. A candidate is worth its own score or the best that is lent to it, scores
    /// counted in deviations from their mean. So where one candidate stands out, the budget goes to
    /// what surrounds it, and where many are as good, to them. 0: nothing is lent.
    pub spread: f64,
    /// The fraction of the rest of the budget that goes to candidates evenly apart, whatever their scores.
    pub even: f64,
}

impl Choice {
    /// Whether it goes by each candidate's own score and no other one's.
    pub fn is_of_singles(&self) -> bool {
        self.chunk <= 1 && self.spread <= 0.0 && self.even <= 0.0 && self.oldest == 0
    }

    /// Indices of the best `k` candidates, ascending.
    pub fn of(&self, scores: &[f32], k: usize) -> Vec<usize> {
        let n = scores.len();
        if n <= k {
            return (0..n).collect();
        }
        if self.chunk <= 1 {
            return self.singles(scores, k);
        }
        let groups = scores.chunks(self.chunk);
        let means: Vec<f32> =
            groups.map(|group| group.iter().sum::<f32>() / group.len() as f32).collect();
        let groups = |candidates: usize| candidates.div_ceil(self.chunk);
        let (oldest, recent) = (groups(self.oldest), groups(self.recent));
        let grouped = Self { oldest, recent, chunk: 1, ..*self };
        grouped
            .of(&means, (k / self.chunk).max(1))
            .into_iter()
            .flat_map(|group| group * self.chunk..((group + 1) * self.chunk).min(n))
            .collect()
    }

    fn singles(&self, scores: &[f32], k: usize) -> Vec<usize> {
        let n = scores.len();
        let forced = self.recent.min(k);
        let lent = (self.spread > 0.0).then(|| spread(scores, self.spread as f32));
        let scores = lent.as_deref().unwrap_or(scores);
        let oldest = self.oldest.min(k - forced);
        let (middle, room) = (n - forced - oldest, k - forced - oldest);
        let ranked = best(&scores[oldest..n - forced], room);
        let even = ((room as f64 * self.even).round() as usize).min(room);
        let evenly = (0..even).map(|i| (i * middle + middle / 2) / even);
        let mut taken: BTreeSet<usize> = evenly.collect();
        for i in ranked {
            if taken.len() == room {
                break;
            }
            taken.insert(i);
        }
        let mut chosen: Vec<usize> = (0..oldest).collect();
        chosen.extend(taken.into_iter().map(|i| oldest + i));
        chosen.extend(n - forced..n);
        chosen
    }
}

/// Scores in deviations from their mean, each raised to what its neighbours lend it.
fn spread(scores: &[f32], fraction: f32) -> Vec<f32> {
    let Some(mut worth) = standardised(scores) else { return scores.to_vec() };
    // What is below the mean is nothing to lend.
    lend(&mut worth, fraction);
    worth.reverse();
    lend(&mut worth, fraction);
    worth.reverse();
    worth
}

/// Raises each to the fraction of the one before it, front to back.
fn lend(worth: &mut [f32], fraction: f32) {
    /// So many pieces go side by side: in one alone, every step would wait for the one before it.
    const PIECES: usize = 8;
    let raise = |own: &mut f32, before: f32| {
        let raised = own.max(fraction * before.max(0.0));
        std::mem::replace(own, raised) < raised
    };
    let len = (worth.len() / PIECES).max(1);
    let mut pieces: Vec<&mut [f32]> = worth.chunks_exact_mut(len).take(PIECES).collect();
    for i in 1..len {
        for piece in &mut pieces {
            if let Some([before, own]) = piece.get_mut(i - 1..=i) {
                raise(own, *before);
            }
        }
    }
    // Across a border what is lent goes on until it raises nothing. Behind the pieces is the rest.
    let rest = PIECES * len;
    for start in (1..=PIECES).map(|piece| piece * len) {
        for i in start..worth.len() {
            let before = worth[i - 1];
            if !raise(&mut worth[i], before) && i < rest {
                break;
            }
        }
    }
}

/// Spends `share` of a budget on the forced candidates and the best by the first score, and the
/// rest on the best of the others by the second (InfiniPot-V §2.4). Where the forced ones do not
/// fit their share, the newest of them do.
pub fn quota(
    first: &[f32],
    second: Option<&[f32]>,
    forced: &[bool],
    share: f64,
    budget: usize,
) -> Vec<usize> {
    let n = first.len();
    if n <= budget {
        return (0..n).collect();
    }
    let later = match second {
        Some(_) => ((1.0 - share) * budget as f64).round_ties_even() as usize,
        None => 0,
    };
    let early = budget - later.min(budget);
    let mut taken: Vec<bool> = vec![false; n];
    let mut left = budget;
    let newest = (0..n).rev().filter(|&i| forced[i]).take(early);
    for i in newest.collect::<Vec<_>>() {
        taken[i] = true;
        left -= 1;
    }
    let mut take = |scores: &[f32], count: usize, left: &mut usize| {
        let free: Vec<usize> = ranked(scores).into_iter().filter(|&i| !taken[i]).collect();
        for i in free.into_iter().take(count.min(*left)) {
            taken[i] = true;
            *left -= 1;
        }
    };
    let for_first = early - (budget - left);
    take(first, for_first, &mut left);
    let rest = left;
    take(second.unwrap_or(first), rest, &mut left);
    (0..n).filter(|&i| taken[i]).collect()
}

/// The best `free` share of the budget whatever their place; then by score as long as the stretch
/// that a candidate lies in has room for it: `budget / size` equal stretches of `size` each
/// (LiveVLM's vision sink bucketing, §4.3). What the stretches leave over goes by score.
pub fn buckets(scores: &[f32], budget: usize, size: usize, free: f64) -> Vec<usize> {
    let n = scores.len();
    if n <= budget {
        return (0..n).collect();
    }
    let order = ranked(scores);
    let free = ((budget as f64 * free) as usize).min(budget);
    let stretches = (budget / size.max(1)).max(1);
    let mut held = vec![0; stretches];
    let mut taken: Vec<usize> = order[..free].to_vec();
    taken.iter().for_each(|&i| held[i * stretches / n] += 1);
    let mut passed = Vec::new();
    for &i in &order[free..] {
        let stretch = i * stretches / n;
        if taken.len() < budget && held[stretch] < size {
            held[stretch] += 1;
            taken.push(i);
        } else {
            passed.push(i);
        }
    }
    taken.extend(passed.into_iter().take(budget - taken.len()));
    taken.sort_unstable();
    taken
}

/// `budget` indices at equal distances: `trunc(i * n / budget)`.
pub fn evenly(n: usize, budget: usize) -> Vec<usize> {
    if n <= budget { (0..n).collect() } else { (0..budget).map(|i| i * n / budget).collect() }
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

    fn choice(recent: usize, chunk: usize, spread: f64) -> Choice {
        Choice { recent, chunk, spread, ..Choice::default() }
    }

    #[test]
    fn recent_candidates_are_forced() {
        let scores = [9.0, 8.0, 7.0, 0.0, 0.0];
        assert_eq!(choice(2, 1, 0.0).of(&scores, 3), [0, 3, 4]);
        assert_eq!(choice(2, 1, 0.0).of(&scores, 1), [4]);
        assert_eq!(choice(2, 1, 0.0).of(&scores, 5), [0, 1, 2, 3, 4]);
        assert_eq!(choice(0, 1, 0.0).of(&scores, 2), [0, 1]);
    }

    #[test]
    fn a_choice_can_cover_all_there_is() {
        let scores: Vec<f32> = (0..100).map(|i| if i / 10 == 5 { 9.0 } else { 0.0 }).collect();
        let of = |even, oldest| {
            Choice { oldest, even, recent: 2, chunk: 1, spread: 0.0 }.of(&scores, 12)
        };
        assert_eq!(of(0.0, 0), [50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 98, 99]);
        assert_eq!(of(0.0, 2), [0, 1, 50, 51, 52, 53, 54, 55, 56, 57, 98, 99]);
        assert_eq!(of(1.0, 0), [4, 14, 24, 34, 44, 53, 63, 73, 83, 93, 98, 99]);
        assert_eq!(of(0.5, 1), [0, 10, 30, 49, 50, 51, 52, 53, 68, 88, 98, 99]);
        // The newest come first, and there is never more than there is room for.
        let few = Choice { oldest: 5, even: 1.0, recent: 3, chunk: 1, spread: 0.0 };
        assert_eq!(few.of(&scores, 4), [0, 97, 98, 99]);
        assert_eq!(few.of(&scores, 2), [98, 99]);
        for k in 1..40 {
            for even in [0.0, 0.3, 0.9, 1.0] {
                let choice = Choice { oldest: 1, even, recent: 1, chunk: 1, spread: 0.8 };
                let chosen = choice.of(&scores, k);
                assert_eq!(chosen.len(), k);
                assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]), "{chosen:?}");
            }
        }
    }

    #[test]
    fn chunks_are_ranked_by_their_mean() {
        let scores = [0.0, 9.0, 5.0, 5.0, 1.0];
        assert_eq!(choice(0, 2, 0.0).of(&scores, 2), [2, 3]);
        assert_eq!(choice(2, 2, 0.0).of(&scores, 4), [2, 3, 4]);
        assert_eq!(choice(0, 2, 0.0).of(&scores, 5), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn what_stands_out_brings_its_surroundings_and_what_does_not_stands_alone() {
        let one = [0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(choice(0, 1, 0.8).of(&one, 5), [1, 2, 3, 4, 5]);
        assert_eq!(choice(1, 1, 0.8).of(&one, 4), [2, 3, 4, 10]);
        assert_eq!(choice(0, 1, 0.0).of(&one, 2), [3, 6]);
        let many = [9.0, 0.0, 0.0, 0.0, 8.0, 0.0, 0.0, 8.5, 0.0, 0.0, 0.0];
        assert_eq!(choice(0, 1, 0.8).of(&many, 3), [0, 4, 7]);
        assert_eq!(choice(0, 1, 0.8).of(&[1.0; 4], 2), [0, 1]);
    }

    #[test]
    fn lending_in_pieces_is_lending_one_after_the_other() {
        for n in [1, 2, 7, 8, 9, 16, 100, 333] {
            for fraction in [0.0, 0.5, 0.8, 0.99, 1.0] {
                let mut lent = crate::memory::testing::random_scores(n as u64, 1, n).remove(0);
                lent.resize(n, -1.0);
                // Something that reaches over several pieces.
                lent[0] = 1e3;
                let mut expected = lent.clone();
                for i in 1..n {
                    expected[i] = expected[i].max(fraction * expected[i - 1].max(0.0));
                }
                lend(&mut lent, fraction);
                assert_eq!(lent, expected, "{n}, {fraction}");
            }
        }
    }

    #[test]
    fn stretches_hold_so_much_each_and_the_best_are_free() {
        let falling: Vec<f32> = (0..8).map(|i| 8.0 - i as f32).collect();
        assert_eq!(buckets(&falling, 4, 1, 0.25), [0, 2, 4, 6]);
        assert_eq!(buckets(&falling, 4, 1, 0.5), [0, 1, 2, 4]);
        assert_eq!(buckets(&falling, 4, 1, 1.0), [0, 1, 2, 3]);
        assert_eq!(buckets(&falling, 4, 2, 0.0), [0, 1, 4, 5]);
        // One stretch of two for three: what it leaves over goes by score.
        assert_eq!(buckets(&falling, 3, 2, 0.0), [0, 1, 2]);
    }

    #[test]
    fn a_share_is_rounded_half_to_even_and_the_rest_goes_by_the_second_score() {
        let falling: Vec<f32> = (0..8).map(|i| 8.0 - i as f32).collect();
        let rising: Vec<f32> = (0..8).map(|i| i as f32).collect();
        let chosen = |share, budget| quota(&falling, Some(&rising), &[false; 8], share, budget);
        assert_eq!(chosen(0.5, 5), [0, 1, 2, 6, 7]);
        assert_eq!(chosen(0.5, 7), [0, 1, 2, 4, 5, 6, 7]);
        assert_eq!(chosen(1.0, 3), [0, 1, 2]);
        assert_eq!(chosen(0.0, 3), [5, 6, 7]);
    }

    #[test]
    fn even_distances_reach_over_all_there_is() {
        assert_eq!(evenly(10, 4), [0, 2, 5, 7]);
        assert_eq!(evenly(3, 5), [0, 1, 2]);
    }

    #[test]
    fn the_best_few_are_the_first_of_all_in_order() {
        for seed in 0..50 {
            let mut scores = crate::memory::testing::random_scores(seed, 1, 40).remove(0);
            // Equals among them.
            scores.iter_mut().for_each(|score| *score = score.round());
            scores[7] = f32::NAN;
            let mut all: Vec<usize> = (0..scores.len()).collect();
            all.sort_by(|&a, &b| rank(scores[b]).total_cmp(&rank(scores[a])));
            for k in [0, 1, 5, 39, 40, 60] {
                assert_eq!(best(&scores, k), all[..k.min(40)], "seed {seed}, {k}");
            }
            let long: Vec<f32> =
                (0..50).flat_map(|i| scores.iter().map(move |s| s + (i % 7) as f32)).collect();
            let mut all: Vec<usize> = (0..long.len()).collect();
            all.sort_by(|&a, &b| rank(long[b]).total_cmp(&rank(long[a])));
            for k in [1, 16, 64, 700] {
                assert_eq!(best(&long, k), all[..k], "seed {seed}, {k} of many");
            }
        }
    }

    #[test]
    fn negative_zero_does_not_lose_to_zero() {
        assert_eq!(ranked(&[-0.0, 0.0, 1.0]), [2, 0, 1]);
    }
}
