// SPDX-License-Identifier: MPL-2.0
//! How detail falls with age. Units take one rung of a ladder after the other, always the oldest of
//! those that stand on the same one, so that nothing newer is ever thinner than something older.
//!
//! Which rung is taken next goes by what lies on each: a share of all stays whole, and the rest is
//! spread evenly over the rungs. Each rung holds as much as another and reaches further back by as much
//! as it is thinner, so what is remembered reaches back exponentially far, and its size stays.
//!
//! This file decides and touches no tensor; [`thin`](super::thin) does.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::memory::recipe::{Rung, Rungs, Thinning};
use crate::memory::unit::{Kind, Unit};

/// What a unit takes besides its tokens, in tokens.
const BESIDES: usize = 1;

/// A unit as it comes to the ladder, with the tokens that its picture has by now.
pub type Standing<'a> = (&'a Unit, usize);

/// How far the units of a memory have come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ladder {
    /// Units with ids below the `l`-th number have taken rung `l`; the numbers descend.
    below: Vec<u64>,
}

/// What is to become of a unit. Words around a picture stay as they are while it is there at all.
#[derive(Clone, Debug, PartialEq)]
pub enum Becomes {
    /// So many of its picture's tokens.
    Tokens(usize),
    /// One token for a picture: the mean of these units, itself first.
    Sketch(Vec<u64>),
    Nothing,
}

/// A unit on its way.
#[derive(Clone, Debug)]
struct Climber {
    id: u64,
    kind: Kind,
    /// Tokens of its picture, and of the words around it.
    tokens: usize,
    words: usize,
    /// The units of which it is the sketch.
    sketch: Vec<u64>,
}

impl Ladder {
    /// Rungs that a unit has taken.
    pub fn height(&self, id: u64) -> usize {
        self.below.iter().take_while(|below| id < **below).count()
    }

    /// The next `steps` steps of units, oldest first, and how many they were: less where no more can be
    /// taken. The newest unit stays as it is.
    pub fn climb(
        &mut self,
        units: &[Standing<'_>],
        rule: &Thinning,
        steps: usize,
    ) -> (BTreeMap<u64, Becomes>, usize) {
        let (mut gone, mut taken) = (BTreeMap::new(), 0);
        let Some((_, older)) = units.split_last() else { return (gone, taken) };
        let mut rungs: Vec<VecDeque<Climber>> = vec![VecDeque::new(); self.below.len() + 1];
        for &(unit, tokens) in older {
            let (id, kind, words) = (unit.id, unit.kind, unit.words.tokens());
            let climber = Climber { id, kind, tokens, words, sketch: Vec::new() };
            rungs[self.height(unit.id)].push_back(climber);
        }
        while let Some(height) = next(&rungs, rule).filter(|_| taken < steps) {
            let newest = step(&mut rungs, height, rule, &mut gone);
            taken += 1;
            if self.below.len() == height {
                self.below.push(0);
            }
            if let Some(below) = self.below.get_mut(height) {
                *below = (*below).max(newest + 1);
            }
        }
        let was: BTreeMap<u64, usize> = older.iter().map(|(unit, n)| (unit.id, *n)).collect();
        let changed = rungs.into_iter().flatten().filter_map(|climber| match climber.sketch {
            ids if !ids.is_empty() => Some((climber.id, Becomes::Sketch(ids))),
            _ if was.get(&climber.id) == Some(&climber.tokens) => None,
            _ => Some((climber.id, Becomes::Tokens(climber.tokens))),
        });
        gone.extend(changed);
        (gone, taken)
    }
}

fn size(rung: &VecDeque<Climber>) -> usize {
    rung.iter().map(|climber| climber.tokens + climber.words + BESIDES).sum()
}

/// What stands on this rung takes; the last one is taken again and again.
fn rung(rule: &Thinning, height: usize) -> Option<Rung> {
    let Rungs(rungs) = &rule.rungs;
    rungs.get(height).or(rungs.last()).copied()
}

/// The height from which the next step is taken.
fn next(rungs: &[VecDeque<Climber>], rule: &Thinning) -> Option<usize> {
    let sizes: Vec<usize> = rungs.iter().map(size).collect();
    let can = |height: usize| match rung(rule, height) {
        None => false,
        // Beyond the ladder only what makes fewer of many goes on.
        Some(Rung::Tokens) => height < rule.rungs.0.len() && !rungs[height].is_empty(),
        Some(Rung::Frames) => rungs[height].len() > 1,
        Some(Rung::Sketch) if height < rule.rungs.0.len() => !rungs[height].is_empty(),
        Some(Rung::Sketch) => rungs[height].len() > 1,
    };
    let whole = sizes.first().copied().unwrap_or(0);
    let all: usize = sizes.iter().sum();
    if can(0) && whole as f64 > rule.whole * all as f64 {
        return Some(0);
    }
    // Of equals the finer one.
    let thinner = (1..rungs.len()).filter(|&height| can(height)).rev();
    if let Some(height) = thinner.max_by_key(|&height| sizes[height]) {
        return Some(height);
    }
    // Whoever stands alone goes up to the next.
    let mut alone = (0..rungs.len()).filter(|&height| !rungs[height].is_empty());
    let (lowest, others) = (alone.next()?, alone.next());
    let goes = can(lowest) || (others.is_some() && rung(rule, lowest) != Some(Rung::Tokens));
    goes.then_some(lowest)
}

/// The oldest at this height take their rung; the newest id among them.
fn step(
    rungs: &mut Vec<VecDeque<Climber>>,
    height: usize,
    rule: &Thinning,
    gone: &mut BTreeMap<u64, Becomes>,
) -> u64 {
    if rungs.len() == height + 1 {
        rungs.push(VecDeque::new());
    }
    let Some(mut first) = rungs[height].pop_front() else { return 0 };
    let mut newest = first.id;
    match rung(rule, height) {
        Some(Rung::Tokens) => first.tokens = first.tokens.div_ceil(2),
        // A summary or a piece of another grain is no neighbour: it goes on as it is, to the end of the
        // ladder.
        Some(Rung::Frames) => {
            let is_beside =
                |second: &Climber| second.kind == first.kind || height >= rule.rungs.0.len();
            if rungs[height].front().is_some_and(is_beside)
                && let Some(second) = rungs[height].pop_front()
            {
                gone.insert(second.id, Becomes::Nothing);
                newest = second.id;
            }
        }
        Some(Rung::Sketch) => {
            if first.sketch.is_empty() {
                first.sketch = vec![first.id];
            }
            first.tokens = 1;
            if height >= rule.rungs.0.len()
                && let Some(second) = rungs[height].pop_front()
            {
                newest = second.id;
                gone.insert(second.id, Becomes::Nothing);
                let more = if second.sketch.is_empty() { vec![second.id] } else { second.sketch };
                first.sketch.extend(more);
            }
        }
        None => {}
    }
    rungs[height + 1].push_back(first);
    newest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::unit::Words;

    fn unit(id: u64, kind: Kind) -> Unit {
        Unit {
            id,
            kind,
            segment: 0,
            frames: id..id + 1,
            start: id as f64,
            end: id as f64,
            told: 0.0,
            at: 0,
            time: 0.0,
            patches: None,
            words: Words::default(),
            embedding: None,
        }
    }

    /// A memory of nothing but numbers, with room for so many tokens.
    struct Numbers {
        ladder: Ladder,
        rule: Thinning,
        held: Vec<(Unit, usize)>,
        room: usize,
    }

    impl Numbers {
        fn new(rungs: &[Rung], whole: f64, room: usize) -> Self {
            let rule = Thinning { rungs: Rungs(rungs.to_vec()), whole };
            Self { ladder: Ladder::default(), rule, held: Vec::new(), room }
        }

        fn size(&self) -> usize {
            let size = |(unit, tokens): &(Unit, usize)| tokens + unit.words.tokens() + BESIDES;
            self.held.iter().map(size).sum()
        }

        /// Takes a unit in; whether it was possible without dropping any.
        fn push(&mut self, unit: Unit, tokens: usize) -> bool {
            self.held.push((unit, tokens));
            while self.size() > self.room {
                let units: Vec<Standing<'_>> = self.held.iter().map(|(u, n)| (u, *n)).collect();
                let (becomes, taken) = self.ladder.climb(&units, &self.rule, 2);
                if taken == 0 {
                    return false;
                }
                self.held.retain(|(unit, _)| becomes.get(&unit.id) != Some(&Becomes::Nothing));
                for (unit, tokens) in &mut self.held {
                    match becomes.get(&unit.id) {
                        Some(Becomes::Tokens(n)) => *tokens = *n,
                        Some(Becomes::Sketch(ids)) => {
                            assert_eq!(ids.first(), Some(&unit.id));
                            *tokens = 1;
                        }
                        _ => {}
                    }
                }
            }
            true
        }

        fn sizes(&self) -> Vec<usize> {
            self.held.iter().map(|(_, tokens)| *tokens).collect()
        }
    }

    #[test]
    fn each_rung_is_taken_by_the_oldest_that_stand_below_it() {
        let rungs = [Rung::Tokens, Rung::Frames, Rung::Sketch];
        let mut numbers = Numbers::new(&rungs, 0.5, 40);
        for id in 0..64 {
            assert!(numbers.push(unit(id, Kind::Frame), 8));
        }
        let sizes = numbers.sizes();
        assert_eq!((sizes.first(), sizes.last()), (Some(&1), Some(&8)));
        assert!(sizes.contains(&4), "{sizes:?}");
        assert_eq!(numbers.held[0].0.id, 0, "the oldest is a sketch of what was oldest");
    }

    #[test]
    fn a_share_stays_whole() {
        for (whole, least, most) in [(0.2, 0.1, 0.3), (0.5, 0.4, 0.6), (0.8, 0.7, 0.9)] {
            let mut numbers = Numbers::new(&[Rung::Tokens, Rung::Frames], whole, 900);
            for id in 0..1000 {
                assert!(numbers.push(unit(id, Kind::Frame), 8));
            }
            let of_whole = numbers.sizes().iter().filter(|n| **n == 8).count() * 9;
            let share = of_whole as f64 / numbers.size() as f64;
            assert!((least..most).contains(&share), "{share} for {whole}");
        }
    }

    #[test]
    fn a_summary_does_not_go_for_the_frame_beside_it() {
        let mut numbers = Numbers::new(&[Rung::Frames, Rung::Tokens], 0.0, 60);
        for id in 0..9 {
            let kind = if id % 3 == 2 { Kind::Summary } else { Kind::Frame };
            assert!(numbers.push(unit(id, kind), 8));
        }
        let of = |kind| numbers.held.iter().filter(|(unit, _)| unit.kind == kind).count();
        assert_eq!(of(Kind::Summary), 3, "{:?}", numbers.held);
        assert!(of(Kind::Frame) < 6, "{:?}", numbers.held);
    }

    #[test]
    fn words_count_and_do_not_get_fewer() {
        let of = |words: Words| {
            let mut numbers = Numbers::new(&[Rung::Tokens, Rung::Sketch], 0.5, 200);
            for id in 0..200 {
                let unit = Unit { words, ..unit(id, Kind::Frame) };
                assert!(numbers.push(unit, 8));
            }
            numbers.held.len()
        };
        let (bare, told) = (of(Words::default()), of(Words { front: 5, behind: 1 }));
        // A sketch takes two tokens, or eight.
        assert!(told < bare && bare <= 4 * told, "{told} of {bare}");
    }

    fn rungs() -> impl Strategy<Value = Vec<Rung>> {
        let rung = prop_oneof![Just(Rung::Tokens), Just(Rung::Frames), Just(Rung::Sketch)];
        prop::collection::vec(rung, 1..6)
    }

    proptest! {
        #[test]
        fn nothing_newer_is_thinner_than_something_older(
            rungs in rungs(),
            whole in 0.0..1.0,
            room in 30..200usize,
            n in 1..400u64,
        ) {
            let mut numbers = Numbers::new(&rungs, whole, room);
            for id in 0..n {
                let fits = numbers.push(unit(id, Kind::Frame), 8);
                let sizes = numbers.sizes();
                prop_assert!(sizes.windows(2).all(|pair| pair[0] <= pair[1]), "{sizes:?}");
                prop_assert_eq!(*sizes.last().unwrap(), 8, "the newest stays as it is");
                let heights: Vec<usize> =
                    numbers.held.iter().map(|(unit, _)| numbers.ladder.height(unit.id)).collect();
                prop_assert!(heights.windows(2).all(|pair| pair[0] >= pair[1]), "{heights:?}");
                if !fits {
                    // Half of the tokens of everything is as far as such a ladder goes.
                    prop_assert_eq!(rungs.last(), Some(&Rung::Tokens));
                    return Ok(());
                }
            }
        }
    }
}
