// SPDX-License-Identifier: MPL-2.0
//! Words around a picture stay as long as anything of it does: what chooses among rows chooses among
//! pictures, and the words come with them.

use std::collections::BTreeSet;

use crate::memory::unit::Row;

/// `budget` rows of a list, ascending, in which every picture that something is left of has all its
/// words. `choose` says which so many of these rows of pictures stay; where it wants fewer, so be it.
pub fn with_words(
    rows: &[Row],
    budget: usize,
    mut choose: impl FnMut(&[usize], usize) -> Vec<usize>,
) -> Vec<usize> {
    let (words, pictures): (Vec<usize>, Vec<usize>) =
        (0..rows.len()).partition(|&i| rows[i].is_word());
    if words.is_empty() {
        return choose(&pictures, budget);
    }
    let mut count = budget.min(pictures.len());
    let (mut keep, limited) = loop {
        let kept = choose(&pictures, count);
        let needed = words_of(rows, &words, &kept);
        let over = (kept.len() + needed.len()).saturating_sub(budget);
        if over == 0 {
            let limited = kept.len() == count;
            break ([kept, needed].concat(), limited);
        }
        // Fewer may be of fewer units, and then their words go too.
        count = kept.len() - over.min(kept.len()).div_ceil(2);
    };
    keep.sort_unstable();
    if limited {
        fill(rows, &mut keep, budget);
    }
    keep
}

/// Brings the rows that are kept, ascending, to this number: with more of the same pictures, then with
/// words of pictures that are gone, the newest first, then with anything.
pub fn fill(rows: &[Row], keep: &mut Vec<usize>, count: usize) {
    let mut kept: BTreeSet<usize> = keep.iter().copied().collect();
    let alive: BTreeSet<u64> = keep.iter().map(|&i| rows[i].unit).collect();
    let more = |row: &Row| !row.is_word() && alive.contains(&row.unit);
    for wanted in [&more as &dyn Fn(&Row) -> bool, &Row::is_word, &|_| true] {
        for i in (0..rows.len()).rev() {
            if kept.len() >= count {
                break;
            }
            if wanted(&rows[i]) {
                kept.insert(i);
            }
        }
    }
    *keep = kept.into_iter().collect();
}

/// Those of these words whose pictures something is kept of.
fn words_of(rows: &[Row], words: &[usize], kept: &[usize]) -> Vec<usize> {
    let alive: BTreeSet<u64> = kept.iter().map(|&i| rows[i].unit).collect();
    words.iter().copied().filter(|&i| alive.contains(&rows[i].unit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::unit::{BEHIND, FRONT};
    use crate::model::rope::Place;

    /// Units of one word, three tokens and one word.
    fn rows(units: u64) -> Vec<Row> {
        let codes = [FRONT, 0, 1, 2, BEHIND];
        let row = |unit, patch| Row { unit, patch, step: 0, place: Place::text(0), score: 0.0 };
        (0..units).flat_map(|unit| codes.map(|patch| row(unit, patch))).collect()
    }

    #[test]
    fn what_stays_has_its_words_and_is_never_more_than_the_budget() {
        let rows = rows(4);
        for budget in 0..=rows.len() {
            // The oldest of each picture first.
            let by_patch = |pictures: &[usize], count: usize| {
                let mut order = pictures.to_vec();
                order.sort_by_key(|&i| (rows[i].patch, i));
                order.truncate(count);
                order.sort_unstable();
                order
            };
            let keep = with_words(&rows, budget, by_patch);
            assert_eq!(keep.len(), budget);
            assert!(keep.is_sorted());
            let of = |unit: u64, word: bool| {
                keep.iter().filter(|&&i| rows[i].unit == unit && rows[i].is_word() == word).count()
            };
            // Too little for any unit at all is the newest words.
            let whole = |unit| of(unit, false) == 0 || of(unit, true) == 2;
            assert!(budget < 3 || (0..4).all(whole), "{budget}: {keep:?}");
        }
    }

    #[test]
    fn who_wants_fewer_gets_fewer() {
        let rows = rows(2);
        assert_eq!(with_words(&rows, 9, |_, _| vec![6]), [5, 6, 9]);
    }
}
