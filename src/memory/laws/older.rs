// SPDX-License-Identifier: MPL-2.0
//! What gets fewer behind newer frames, against what the released codes leave (tools/fixtures/make_older.py).

use std::collections::HashMap;

use super::super::kv::{read, unfiled};
use super::super::recipe::Older;
use super::*;

/// Of the fixture's pictures, four rows and columns.
const PATCHES: usize = 16;

pub(super) fn fixture(name: &str) -> HashMap<String, Tensor> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/");
    candle_core::safetensors::load(format!("{path}{name}.safetensors"), &Device::Cpu).unwrap()
}

pub(super) fn ints(tensor: &Tensor) -> Vec<u32> {
    tensor.to_dtype(DType::U32).unwrap().to_vec1().unwrap()
}

/// The fixture's frames behind one another.
fn run<'a>(decoder: &'a Decoder, recipe: &Recipe, frames: &Tensor) -> Run<'a> {
    run_with(decoder, recipe, frames, Vec::new())
}

/// The same where these pseudo-questions are asked.
pub(super) fn run_with<'a>(
    decoder: &'a Decoder,
    recipe: &Recipe,
    frames: &Tensor,
    bank: Vec<Tensor>,
) -> Run<'a> {
    let mut run = Run::new(decoder, recipe);
    run.memory.prompts.bank = bank;
    run.memory.lay_out(frames.dim(1).unwrap(), 1.0, Layout::Run).unwrap();
    for at in 0..frames.dim(0).unwrap() {
        run.push(&[frames.get(at).unwrap()]);
    }
    run
}

/// Unit by unit which patches are left, and all of their tokens.
pub(super) type Left = (Vec<(u64, Vec<u32>)>, Vec<f32>);

pub(super) fn left(run: &Run<'_>, patches_of_a_whole: usize) -> Left {
    let stored = &run.memory.stored;
    let (mut patches, mut tokens) = (Vec::new(), Vec::new());
    for input in &stored.inputs {
        let unit = stored.units.get(input.unit).unwrap();
        let own = unit.patches.as_ref();
        let own = own.map_or((0..patches_of_a_whole as u32).collect(), |p| p.to_vec());
        patches.push((input.unit, own));
        tokens.extend(read(&unfiled(&input.load().unwrap().unwrap()).unwrap()).unwrap());
    }
    (patches, tokens)
}

/// Whether what is left is what was released, `[m]` places in pictures of `side` rows and columns and `[m, C]`
/// tokens; how many stand beside where they do there.
///
/// Of two that are merged both are as near to their mean, and rounding says there which place is its.
pub(super) fn same_places(
    (patches, tokens): (&[(u64, Vec<u32>)], &[f32]),
    [places, released]: [&Tensor; 2],
    side: u32,
) -> usize {
    let picture = side * side;
    let of_unit = |(unit, own): &(u64, Vec<u32>)| -> Vec<u32> {
        own.iter().map(|patch| *unit as u32 * picture + patch).collect()
    };
    let own_places: Vec<u32> = patches.iter().flat_map(of_unit).collect();
    let theirs = ints(places);
    let rows = |tokens: &[f32]| -> Vec<Vec<f32>> {
        tokens.chunks_exact(WIDTH).map(<[f32]>::to_vec).collect()
    };
    let (own, released) = (rows(tokens), rows(&read(released).unwrap()));
    assert_eq!(own_places.len(), theirs.len(), "{own_places:?} of {theirs:?}");
    let far =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let mut elsewhere = 0;
    for (place, token) in own_places.iter().zip(&own) {
        let same = theirs.iter().zip(&released).filter(|(_, other)| far(token, other) < 1e-5);
        let at: Vec<u32> = same.map(|(place, _)| *place).collect();
        let [at] = at[..] else { panic!("{place} is not among theirs, or more than once") };
        let (rows, columns) = (place.abs_diff(at) / side, (place % side).abs_diff(at % side));
        assert!(rows <= 2 && columns <= 1, "{place} is at {at}");
        assert_eq!(place / picture, at / picture, "{place} is at {at}");
        elsewhere += usize::from(*place != at);
    }
    elsewhere
}

fn close(a: &[f32], b: &Tensor) {
    let b = read(b).unwrap();
    assert_eq!(a.len(), b.len());
    let far = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < 1e-5, "{far}");
}

#[test]
fn tiers_leave_what_the_released_code_of_fluxmem_leaves() {
    let (decoder, fixture) = (decoder(), fixture("older"));
    let mut recipe = Recipe::named("fluxmem").unwrap();
    let sizes = [("tier-whole", "2"), ("tier-changed", "4"), ("tier-same", "0.8"), ("hold", "96")];
    sizes.iter().for_each(|(key, value)| recipe.set(key, value).unwrap());
    let run = run(&decoder, &recipe, &fixture["frames"]);
    let (patches, tokens) = left(&run, PATCHES);
    let released = [&fixture["fluxmem.places"], &fixture["fluxmem.tokens"]];
    assert!(same_places((&patches, &tokens), released, 4) <= 8);
    // Something was dropped, something merged, and the newest are whole.
    assert!(patches.iter().rev().take(2).all(|(_, own)| own.len() == PATCHES));
    assert!(patches.iter().any(|(_, own)| own.len() < PATCHES / 2));
}

#[test]
fn a_span_leaves_what_the_released_code_of_causalmem_leaves() {
    let (decoder, fixture) = (decoder(), fixture("older"));
    let mut recipe = Recipe::named("causalmem").unwrap();
    let sizes = [("hold", "40"), ("span", "5"), ("span-decay", "0.9"), ("span-new", "1")];
    sizes.iter().for_each(|(key, value)| recipe.set(key, value).unwrap());
    // A model of four patches.
    let frames = fixture["frames"].narrow(1, 0, TOKENS).unwrap();
    let run = run(&decoder, &recipe, &frames);
    let (patches, tokens) = left(&run, TOKENS);
    let means: Vec<u32> =
        patches.iter().map(|(_, own)| u32::from(own.last() == Some(&RESIDUE))).collect();
    let new: Vec<u32> =
        patches.iter().zip(&means).map(|((_, own), mean)| own.len() as u32 - mean).collect();
    assert_eq!(new, ints(&fixture["causalmem.new"]));
    assert_eq!(means, ints(&fixture["causalmem.means"]));
    close(&tokens, &fixture["causalmem.tokens"]);
}

/// However long the stream: what is held stays within what was said.
#[test]
fn what_is_held_has_an_end() {
    let decoder = decoder();
    let frames: Vec<Tensor> = (0..60).map(|i| random_tensor(900 + i, (TOKENS, WIDTH))).collect();
    for name in ["fluxmem", "causalmem"] {
        let mut recipe = Recipe::named(name).unwrap();
        assert!(recipe.set_budget(6, TOKENS));
        assert!(!matches!(recipe.older, Older::Stays));
        let mut run = Run::new(&decoder, &recipe);
        for (at, frame) in frames.iter().enumerate() {
            run.push(std::slice::from_ref(frame));
            let (patches, _) = left(&run, TOKENS);
            let held: usize = patches.iter().map(|(_, own)| own.len()).sum();
            // Means that a step brings are counted in the next.
            assert!(held <= 6 * TOKENS + TOKENS, "{name}: {held} behind {at}");
            assert_eq!(patches.last().unwrap().0, at as u64, "{name}");
        }
        let (patches, _) = left(&run, TOKENS);
        let held: usize = patches.iter().map(|(_, own)| own.len()).sum();
        assert!(held > 4 * TOKENS, "{name}: {held}");
        let seen = run.looks(3);
        let units: Vec<u64> = patches.iter().map(|(unit, _)| *unit).collect();
        assert!(seen.units.iter().all(|found| *found == units), "{name}: {:?}", seen.units);
    }
}
