// SPDX-License-Identifier: MPL-2.0
//! The forms of the memory that stay where they are computed, against those that lie on the host: the
//! same contexts, evidence and answers. Both run on the CPU here.

use candle_core::Tensor;
use proptest::prelude::*;

use super::laws::{Run, TOKENS, WIDTH, decoder, recipe};
use super::recipe::{Cut, Older, Recipe, Retrieval, Sees};
use super::testing::random_tensor;

/// A published method, small enough that a short stream fills what it holds.
fn small(name: &str) -> Recipe {
    let mut recipe = Recipe::named(name).unwrap();
    recipe.window = recipe.window.map(|_| 14);
    match &mut recipe.cut {
        Cut::Semantic { threshold, min, max, .. } => (*threshold, *min, *max) = (0.2, 2, 4),
        Cut::Uniform { frames } => *frames = (*frames).min(3),
        Cut::Never | Cut::Pack { .. } => {}
    }
    match &mut recipe.retrieval {
        Retrieval::All { last } => *last = last.map(|_| 3),
        Retrieval::Best { units, most, recent, .. } => {
            (*units, *most, *recent) = (3, 5, (*recent).min(1));
        }
        Retrieval::Consensus { units } | Retrieval::Fresh { units } => *units = 3,
        Retrieval::Gated { few, .. } => *few = 2,
        Retrieval::Grains { top, .. } => *top = 2,
        Retrieval::Pages { tokens, recent, .. } => (*tokens, *recent) = (3, 1),
    }
    match &mut recipe.older {
        Older::Stays => {}
        Older::Tiers(tiers) => (tiers.whole, tiers.changed, tiers.cap) = (2, 3, 8),
        Older::Span(span) => (span.cap, span.directions, span.new) = (5, 6, 2),
    }
    if let Sees::Changed(rule) = &mut recipe.sees {
        rule.units = 3;
    }
    if let Some(resident) = &mut recipe.resident {
        resident.cap = 5;
        if resident.floor < 1.0 {
            resident.floor = 0.6;
        }
    }
    if !recipe.grains.is_empty() {
        recipe.grains.frames = vec![0.5, 1.0, 2.0];
        recipe.grains.retrieve = vec![3, 2, 1];
    }
    recipe
}

/// Frames of which no two are alike: of equals, rounding would choose.
fn frames(seed: u64, n: usize) -> Vec<Tensor> {
    let frame = |i| random_tensor(seed.wrapping_mul(1000) + i, (TOKENS, WIDTH));
    (0..n as u64).map(frame).collect()
}

fn close(a: &[f32], b: &[f32], within: f32, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= within * a.abs().max(1.0), "{what}[{i}]: {b} is not {a}");
    }
}

/// Two memories of one stream, one in each form, after every step.
fn compare(recipe: &Recipe, all: &[Tensor], steps: &[usize], within: f32, what: &str) {
    let decoder = decoder();
    let [mut host, mut device] = [false, true].map(|form| Run::kept(&decoder, recipe, form));
    let mut rest = all;
    for (step, &n) in steps.iter().enumerate() {
        let (now, later) = rest.split_at(n.min(rest.len()));
        rest = later;
        host.push(now);
        device.push(now);
        device.check();
        let what = format!("{what}, step {step}");
        let floats = |bits: Vec<u32>| bits.into_iter().map(f32::from_bits).collect::<Vec<_>>();
        let held = [&host, &device].map(|run| floats(run.fingerprint()));
        close(&held[0], &held[1], within, &format!("{what}: held"));
        let (a, b) = (host.looks(7), device.looks(7));
        assert_eq!(a.units, b.units, "{what}: what is found");
        close(&a.contexts, &b.contexts, within, &format!("{what}: contexts"));
        close(&a.answer, &b.answer, within, &format!("{what}: the answer"));
        let ids = |mass: &[(u64, f64)]| mass.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        assert_eq!(ids(&a.mass), ids(&b.mass), "{what}: evidence");
        for ((id, a), (_, b)) in a.mass.iter().zip(&b.mass) {
            assert!((a - b).abs() < f64::from(within), "{what}: evidence of {id}: {b} is not {a}");
        }
    }
}

#[test]
fn every_published_method_finds_and_says_the_same_in_both_forms() {
    for name in Recipe::names() {
        for seed in 0..3 {
            let what = format!("{name}, stream {seed}");
            compare(&small(name), &frames(40 + seed, 24), &[1, 5, 3, 8, 7], 1e-6, &what);
        }
        compare(&Recipe::named(name).unwrap(), &frames(50, 20), &[7, 13], 1e-6, name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn so_does_any_composition(
        recipe in recipe(),
        seed in 0..1000u64,
        steps in prop::collection::vec(1..6usize, 1..6),
    ) {
        // A residue is weighted by scores, which may add up to little.
        compare(&recipe, &frames(seed, steps.iter().sum()), &steps, 1e-5, "a composition");
    }
}
