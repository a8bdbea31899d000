// SPDX-License-Identifier: MPL-2.0
//! What holds where the newest frames are encoded when a question comes: DSCache is a past that they do
//! not see, and SimpleStream is DSCache without one.

use super::super::kv::read;
use super::*;
use crate::model::rope::Positions;

/// Of so many resident frames so many are seen anew.
fn dscache(cap: usize, fresh: usize) -> Recipe {
    let mut recipe = Recipe::named("dscache").unwrap();
    recipe.set("cap", &cap.to_string()).unwrap();
    recipe.set("fresh", &fresh.to_string()).unwrap();
    recipe
}

fn simplestream(fresh: usize) -> Recipe {
    let mut recipe = Recipe::named("simplestream").unwrap();
    recipe.set("fresh", &fresh.to_string()).unwrap();
    recipe
}

/// No two alike.
pub(super) fn frames(n: u64) -> Vec<Tensor> {
    (0..n).map(|i| random_tensor(500 + i, (TOKENS, WIDTH))).collect()
}

pub(super) fn seen<'a>(decoder: &'a Decoder, recipe: &Recipe, frames: &[Tensor]) -> Run<'a> {
    let mut run = Run::new(decoder, recipe);
    run.push(frames);
    run
}

/// Keys, turned on by so many places, and values of the last `n` tokens that each layer sees.
fn newest(run: &Run<'_>, n: usize, on: usize) -> Vec<[Vec<f32>; 2]> {
    let question = random_tensor(5, (3, WIDTH));
    let view = run.memory.view(None);
    let contexts = find::contexts(view, &question, run.decoder, &run.cancel).unwrap();
    let of = |context: &find::Context| {
        let kv = context.kv.part(context.kv.tokens().unwrap() - n, n).unwrap();
        let k = kv.k.contiguous().unwrap();
        let k = run.decoder.rope().rotate(&k, &Positions::constant(on, n)).unwrap();
        [read(&k).unwrap(), read(&kv.v).unwrap()]
    };
    contexts.iter().flatten().map(of).collect()
}

/// Keys and values that each layer holds of the first so many units that it holds anything of.
fn oldest_held(run: &Run<'_>, units: usize) -> Vec<Vec<f32>> {
    let layers = (0..LAYERS).map(|at| run.memory.held().resident_at(at).unwrap());
    let held = layers.map(|layer| {
        let kv = layer.kv().unwrap().part(0, units * TOKENS).unwrap();
        [read(&kv.k).unwrap(), read(&kv.v).unwrap()].concat()
    });
    held.collect()
}

#[test]
fn the_newest_are_seen_as_without_a_past_and_the_past_is_seen_too() {
    let (decoder, all) = (decoder(), frames(12));
    let with = seen(&decoder, &dscache(5, 2), &all);
    let without = seen(&decoder, &simplestream(2), &all);
    let (a, b) = (with.looks(7), without.looks(7));
    assert!(a.units.iter().all(|units| *units == [7, 8, 9, 10, 11]), "{:?}", a.units);
    assert!(b.units.iter().all(|units| *units == [10, 11]), "{:?}", b.units);
    let differs = |a: &[f32], b: &[f32]| a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-3);
    // Behind three frames of the past.
    let moved = newest(&without, 2 * TOKENS, 3 * TOKENS);
    for ([k, v], [moved_k, moved_v]) in newest(&with, 2 * TOKENS, 0).iter().zip(&moved) {
        assert_eq!(v, moved_v);
        assert!(!differs(k, moved_k));
    }
    assert!(differs(&a.answer, &b.answer), "the past is not looked at");

    let mut other = all.clone();
    other[8] = random_tensor(1, (TOKENS, WIDTH));
    let answer = |recipe: &Recipe| seen(&decoder, recipe, &other).ask(7).0;
    assert!(differs(&a.answer, &answer(&dscache(5, 2))), "what is past does not show");
    assert_eq!(b.answer, answer(&simplestream(2)));
}

#[test]
fn without_a_past_one_is_the_other() {
    let (decoder, all) = (decoder(), frames(9));
    let ask = |recipe: &Recipe| seen(&decoder, recipe, &all).ask(7);
    assert_eq!(ask(&dscache(3, 3)), ask(&simplestream(3)));
}

/// The release's past: a frame that leaves the newest ones is encoded behind those that left before it,
/// and the oldest goes.
#[test]
fn the_past_is_what_frames_make_of_each_other_that_are_encoded_as_they_leave_the_newest() {
    let (decoder, all) = (decoder(), frames(15));
    let (past, fresh) = (3, 2);
    let dscache = dscache(past + fresh, fresh);
    let resident = Resident { cap: past, ..dscache.resident.clone().unwrap() };
    let left = Recipe {
        resident: Some(resident),
        retrieval: Retrieval::All { last: None },
        keeps: Keeps::KeysAndValues,
        store: false,
        ..dscache.clone()
    };
    let left = seen(&decoder, &left, &all[..all.len() - fresh]);
    let whole = seen(&decoder, &dscache, &all);
    assert_eq!(oldest_held(&whole, past), oldest_held(&left, past));
    // Not as it is where every frame sees all that is resident.
    let mut more = dscache;
    more.set("fresh", "1").unwrap();
    assert_ne!(oldest_held(&seen(&decoder, &more, &all), past), oldest_held(&left, past));
}
