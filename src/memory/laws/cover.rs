// SPDX-License-Identifier: MPL-2.0
//! What holds where a context covers the stream because the layers do not agree on what was asked for.

use super::newest::{frames, seen};
use super::*;
use crate::memory::find::Asked;

const UNITS: usize = 20;

/// Five units of twenty, whole, of which the last is there in any case, and so many of the oldest where
/// they cover the stream.
fn auto(cover: bool, oldest: usize, reach: usize) -> Recipe {
    let mut recipe = Recipe { window: None, ..Recipe::named("auto").unwrap() };
    for (key, value) in [("retrieve", 5), ("recent", 1), ("oldest", oldest), ("read", 1)] {
        recipe.set(key, &value.to_string()).unwrap();
    }
    recipe.set("reach", &reach.to_string()).unwrap();
    recipe.set("cover", &cover.to_string()).unwrap();
    recipe
}

/// For a question and one that asks for nothing: the units in the context, and where the question stands.
fn found(recipe: &Recipe, (question, any): (u64, u64)) -> (Vec<u64>, usize) {
    let decoder = decoder();
    let run = seen(&decoder, recipe, &frames(UNITS as u64));
    let [question, any] = [question, any].map(|seed| random_tensor(seed, (3, WIDTH)));
    let asked = Asked { tokens: &question, any: Some(&any), embedding: None };
    let contexts = find::contexts(run.memory.view(None), asked, &decoder, &run.cancel).unwrap();
    let contexts: Vec<_> = contexts.iter().flatten().collect();
    let units = contexts[0].units();
    assert!(contexts.iter().all(|context| context.units() == units), "all layers see the same");
    (units, contexts[0].next - contexts[0].prefix)
}

#[test]
fn what_covers_the_stream_stands_as_far_apart_as_it_did_or_within_reach() {
    // Of a decoder with random weights no two layers agree.
    let apart = [0, 4, 10, 16, 19];
    assert_eq!(found(&auto(true, 1, 0), (1, 2)), (apart.to_vec(), 5 * TOKENS));
    assert_eq!(found(&auto(true, 1, 100), (1, 2)), (apart.to_vec(), UNITS * TOKENS));
    assert_eq!(found(&auto(true, 1, UNITS), (1, 2)), (apart.to_vec(), UNITS * TOKENS));
    // The last one begins at 19/20 of what can be reached.
    assert_eq!(found(&auto(true, 1, 10), (1, 2)), (apart.to_vec(), 19 * 10 * TOKENS / 20 + TOKENS));
    // Never nearer than side by side.
    assert_eq!(found(&auto(true, 1, 1), (1, 2)), (apart.to_vec(), 5 * TOKENS));
}

#[test]
fn what_the_layers_agree_on_is_put_side_by_side() {
    let (units, next) = found(&auto(false, 1, 100), (1, 2));
    assert_ne!(units, [0, 4, 10, 16, 19]);
    assert_eq!((units[0], units[4], next), (0, 19, 5 * TOKENS));
    // Of a question that asks for nothing nothing is to be said: what is found is trusted, the oldest is
    // not there for its own sake.
    let best = found(&auto(false, 0, 100), (1, 2));
    assert_ne!(best.0[0], 0);
    assert_eq!(found(&auto(true, 1, 100), (1, 1)), best);
}
