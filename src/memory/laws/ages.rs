// SPDX-License-Identifier: MPL-2.0
//! What holds of a bounded memory whatever it is composed of: it stays within its bound, what is older
//! is never finer, what is gone is not found, and what is left says when it was.

use std::collections::BTreeSet;

use super::super::recipe::{Rung, Rungs, Thinning};
use super::super::store::codec::Codec;
use super::super::store::{Budget, RECORD};
use super::super::unit::{Kind, Unit};
use super::*;

pub(in crate::memory) fn thinning() -> impl Strategy<Value = Thinning> {
    let rung = prop_oneof![Just(Rung::Tokens), Just(Rung::Frames), Just(Rung::Sketch)];
    (prop::collection::vec(rung, 0..5), 0.0..1.0)
        .prop_map(|(rungs, whole)| Thinning { rungs: Rungs(rungs), whole })
}

fn bytes(run: &Run<'_>) -> u64 {
    run.memory.store_stats().bytes()
}

/// A bound with room for about so many units of what is opened so.
fn bound<'a>(
    open: impl Fn(StoreOptions) -> Run<'a>,
    frames: impl Fn(u64, usize) -> Vec<Tensor>,
    units: u64,
) -> u64 {
    let mut free = open(StoreOptions::default());
    // Windows and caches are full by then.
    free.push(&frames(77, 24));
    let (early, before) = (bytes(&free), free.memory.units().len() as u64);
    free.push(&frames(78, 24));
    let fresh = (free.memory.units().len() as u64).saturating_sub(before).max(1);
    let unit = bytes(&free).saturating_sub(early) / fresh;
    early.saturating_sub(before * unit) + units * unit.max(1000)
}

/// With so many bytes on the device.
fn within(bound: u64) -> StoreOptions {
    let budget = Budget { device: Some(bound), ..Budget::default() };
    StoreOptions { budget, ..StoreOptions::default() }
}

/// The laws of a memory with room for about so many units, over these steps of a stream, one that is
/// asked and one that is not; `law`: what else holds after each.
pub(in crate::memory) fn grows_old<'a>(
    open: impl Fn(StoreOptions) -> Run<'a>,
    frames: impl Fn(u64, usize) -> Vec<Tensor>,
    units: u64,
    (seed, steps): (u64, &[usize]),
    law: impl Fn(&Run<'_>),
) -> std::result::Result<(), TestCaseError> {
    let bound = bound(&open, &frames, units);
    let (mut asked, mut silent) = (open(within(bound)), open(within(bound)));
    let all = frames(seed, steps.iter().sum());
    let mut rest = &all[..];
    let (mut known, mut gone) = (BTreeSet::new(), BTreeSet::new());
    for &n in steps {
        let (now, later) = rest.split_at(n);
        rest = later;
        asked.push(now);
        silent.push(now);
        asked.check();
        asked.check_ages();
        law(&asked);
        if asked.memory.take_warnings().is_empty() {
            prop_assert!(bytes(&asked) <= bound, "{} of {bound} bytes", bytes(&asked));
        } else {
            // Not even one unit fits.
            prop_assert!(asked.memory.units().len() <= 1 || asked.recipe.resident.is_some());
            return Ok(());
        }
        let held = asked.held();
        gone.extend(known.difference(&held).copied());
        known.extend(held.iter().copied());
        prop_assert!(gone.is_disjoint(&held), "what is gone is back");
        let before = asked.fingerprint();
        let (answer, seen) = asked.ask(seed + 1);
        prop_assert!(answer.iter().all(|x| x.is_finite()), "the answer is not a number");
        let found: BTreeSet<u64> = seen.into_iter().flatten().collect();
        prop_assert!(gone.is_disjoint(&found), "what is gone is found");
        prop_assert!(asked.fingerprint() == before, "asking left a trace");
    }
    prop_assert!(asked.fingerprint() == silent.fingerprint(), "the memory knows the questions");
    Ok(())
}

impl Run<'_> {
    fn held(&self) -> BTreeSet<u64> {
        self.memory.units().map(|unit| unit.id).collect()
    }

    /// What is told by age is what is held: each unit once, each byte of a block once.
    fn check_bytes_by_age(&self) {
        let ages = self.memory.ages();
        let units: u64 = ages.iter().map(|age| age.units).sum();
        assert_eq!(units, self.memory.units().len() as u64);
        assert!(ages.windows(2).all(|pair| pair[0].oldest < pair[1].oldest), "{ages:?}");
        let oldest = self.memory.units().map(|unit| unit.start).reduce(f64::min);
        let end = self.memory.units().map(|unit| unit.end).reduce(f64::max);
        assert_eq!(ages.last().map(|age| age.oldest), end.zip(oldest).map(|(e, o)| e - o));
        if self.recipe.resident.is_none() {
            let blocks = self.memory.stored.tiers.stats();
            let bytes: u64 = ages.iter().map(|age| age.bytes).sum();
            assert_eq!(bytes, blocks.bytes() - blocks.blocks * RECORD);
        }
    }

    fn check_ages(&self) {
        let heights: Vec<usize> =
            self.memory.units().map(|unit| self.memory.stored.height(unit.id)).collect();
        assert!(heights.windows(2).all(|pair| pair[0] >= pair[1]), "{heights:?}");
        for unit in self.memory.units() {
            // A frame a second.
            assert_eq!(unit.start, unit.frames.start as f64, "{unit:?}");
            assert_eq!(unit.end, unit.frames.end as f64 - 1.0, "{unit:?}");
        }
        self.check_bytes_by_age();
        for at in 0..LAYERS {
            let blocks = &self.memory.stored.layers[at].blocks;
            let ids: Vec<u64> = blocks.iter().map(|block| block.unit).collect();
            assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "layer {at}: {ids:?}");
            assert_eq!(blocks.mean_keys().len(), ids.len());
            for block in blocks.iter() {
                let unit = self.memory.units().find(|unit| unit.id == block.unit).unwrap();
                let tokens = match self.recipe.keeps {
                    Keeps::KeysAndValues => self.memory.geometry.length(unit),
                    Keeps::Inputs => 1,
                };
                assert_eq!(block.tokens(), tokens, "{unit:?}");
            }
        }
        for input in &self.memory.stored.inputs {
            let unit = self.memory.units().find(|unit| unit.id == input.unit).unwrap();
            assert_eq!(input.tokens(), self.memory.geometry.length(unit), "{unit:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_composition_grows_old_within_its_bound(
        recipe in recipe(),
        thin in thinning(),
        units in 2..9u64,
        form in any::<bool>(),
        seed in 0..1000u64,
        steps in prop::collection::vec(1..6usize, 4..24),
    ) {
        let (recipe, decoder) = (Recipe { thin, ..recipe }, decoder());
        let open = |store| Run::stored(&decoder, &recipe, form, store);
        grows_old(open, frames, units, (seed, &steps), |_| ())?;
    }

    #[test]
    fn in_the_tier_below_too(
        units in 4..10u64,
        inputs in any::<bool>(),
        codec in prop_oneof![Just(Codec::F32), Just(Codec::Q8)],
    ) {
        let decoder = decoder();
        let name = if inputs { "auto" } else { "rekv" };
        let recipe = Recipe { window: Some(20), ..Recipe::named(name).unwrap() };
        let open = |store| Run::stored(&decoder, &recipe, false, store);
        let bound = bound(open, frames, units);
        let budget = Budget { device: Some(bound), host: Some(bound), disk: None };
        let mut run = open(StoreOptions { budget, codec: Some(codec), ..StoreOptions::default() });
        let count = 32 * units as usize;
        for part in frames(5, count).chunks(2) {
            run.push(part);
            run.check_ages();
            let stats = run.memory.store_stats();
            prop_assert!(stats.device <= bound && stats.host <= bound, "{stats:?} of {bound}");
        }
        prop_assert!(run.memory.store_stats().host > 0);
        prop_assert_eq!(run.memory.units().next().unwrap().start, 0.0);
        prop_assert!(run.memory.units().len() < count / 2);
        prop_assert!(run.ask(1).0.iter().all(|x| x.is_finite()));
    }

    #[test]
    fn detail_falls_with_age_and_nothing_is_cut_off(
        units in 8..16u64,
        inputs in any::<bool>(),
        form in any::<bool>(),
    ) {
        let decoder = decoder();
        let name = if inputs { "auto" } else { "rekv" };
        let recipe = Recipe { window: Some(20), ..Recipe::named(name).unwrap() };
        let cut = Recipe {
            thin: Thinning { rungs: Rungs::default(), ..recipe.thin.clone() },
            ..recipe.clone()
        };
        let open = |recipe, store| Run::stored(&decoder, recipe, form, store);
        let bound = bound(|store| open(&recipe, store), frames, units);
        let (mut thinned, mut cut) = (open(&recipe, within(bound)), open(&cut, within(bound)));
        for part in frames(5, 16 * units as usize).chunks(2) {
            thinned.push(part);
            cut.push(part);
            prop_assert!(bytes(&thinned) <= bound && bytes(&cut) <= bound);
        }
        prop_assert!(bytes(&thinned) > bound * 3 / 4, "{} of {bound}", bytes(&thinned));
        let reach = |run: &Run<'_>| run.memory.units().next().unwrap().start;
        prop_assert_eq!(reach(&thinned), 0.0);
        prop_assert!(reach(&cut) > 8.0 * units as f64);
        // Tokens a second, over what each unit and what lies behind it stand for.
        let held: Vec<&Unit> = thinned.memory.units().collect();
        let sizes: Vec<usize> = held.iter().map(|u| thinned.memory.geometry.length(u)).collect();
        let times: Vec<f64> = held.windows(2).map(|pair| pair[1].start - pair[0].start).collect();
        prop_assert!(sizes.windows(2).all(|pair| pair[0] <= pair[1]), "{sizes:?}");
        prop_assert!(held.iter().all(|unit| unit.kind == Kind::Frame));
        let (older, newer) = times.split_at(times.len() / 2);
        let longest = |times: &[f64]| times.iter().copied().fold(0.0, f64::max);
        prop_assert!(longest(older) > longest(newer), "{times:?}");
        prop_assert!(newer.last().is_some_and(|last| *last <= 2.0), "{times:?}");
    }
}
