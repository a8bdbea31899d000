// SPDX-License-Identifier: MPL-2.0
//! What pseudo-questions leave of a stream, and what a question then sees of it (SAVEMem), against the released
//! code (tools/fixtures/make_older.py) and in itself.

use super::super::recipe::Older;
use super::newest::frames;
use super::older::{fixture, ints, left, run_with, same_places};
use super::*;

/// Of the fixture's pictures, six rows and columns.
const PATCHES: usize = 36;

fn savemem(sizes: &[(&str, &str)]) -> Recipe {
    let mut recipe = Recipe::named("savemem").unwrap();
    sizes.iter().for_each(|(key, value)| recipe.set(key, value).unwrap());
    recipe
}

/// The settings of the fixture.
const SETTINGS: [(&str, &str); 5] = [
    ("tier-whole", "2"),
    ("tier-changed", "4"),
    ("tier-same", "0.8"),
    ("hold", "5"),
    ("gate-few", "3"),
];

fn watched_by<'a>(decoder: &'a Decoder, recipe: &Recipe) -> Run<'a> {
    let fixture = fixture("salient");
    let bank = fixture["salient.bank"].clone();
    run_with(decoder, recipe, &fixture["salient.frames"], vec![bank])
}

fn units(run: &Run<'_>, question: &Tensor) -> Vec<u64> {
    let view = run.memory.view(None);
    let contexts = find::contexts(view, question, run.decoder, &run.cancel).unwrap();
    let units: Vec<Vec<u64>> = contexts.iter().flatten().map(|c| c.units()).collect();
    assert!(units.len() == LAYERS && units.iter().all(|own| *own == units[0]), "{units:?}");
    units[0].clone()
}

#[test]
fn tiers_leave_what_the_released_code_leaves() {
    let (decoder, fixture) = (decoder(), fixture("salient"));
    let run = watched_by(&decoder, &savemem(&SETTINGS));
    let (patches, tokens) = left(&run, PATCHES);
    let released = [&fixture["salient.places"], &fixture["salient.tokens"]];
    assert!(same_places((&patches, &tokens), released, 6) <= 4);
    // Of some that are old the salient tokens are left, and of some means.
    let whole = patches.iter().rev().take(2).all(|(_, own)| own.len() == PATCHES);
    assert!(whole && patches[0].0 == 0, "{patches:?}");
}

#[test]
fn a_question_finds_what_it_finds_in_the_released_code() {
    let (decoder, fixture) = (decoder(), fixture("salient"));
    for (gate, name) in [("0.1", "salient.present"), ("2", "salient.past")] {
        // Nothing is merged: the released code asks of means what it would of one of their tokens.
        let recipe = savemem(&[&SETTINGS[..], &[("gate", gate), ("tier-changed", "44")]].concat());
        let run = watched_by(&decoder, &recipe);
        let found = units(&run, &fixture["salient.question"]);
        let released: Vec<u64> = ints(&fixture[name]).into_iter().map(u64::from).collect();
        assert_eq!(found, released, "{name}");
        if gate == "2" {
            let (held, _) = left(&run, PATCHES);
            assert!(found.len() < held.len(), "nothing was left out");
        }
    }
}

/// What has to do with the question stands in the newest, and then only before them.
#[test]
fn the_past_is_looked_at_where_the_present_has_nothing_to_do_with_the_question() {
    let (decoder, frames) = (decoder(), frames(7));
    let run = {
        let mut run = Run::new(&decoder, &savemem(&[("hold", "9"), ("tier-same", "1")]));
        run.push(&frames);
        run
    };
    let (held, _) = left(&run, TOKENS);
    let held: Vec<u64> = held.iter().map(|(unit, _)| *unit).collect();
    assert!(held.len() > 4, "{held:?}");
    let of = |at: usize| frames[at].narrow(0, 0, 3).unwrap();
    let newest: Vec<u64> = vec![5, 6];
    assert_eq!(units(&run, &of(6)), newest);
    assert_eq!(units(&run, &of(6).neg().unwrap()), held);
    // Confined to what was before, there is nothing newer.
    let within = run.memory.view(None).between((0.0, 3.5)).unwrap();
    let view = find::View { within: Some(&within), ..run.memory.view(None) };
    let seen = find::contexts(view, &of(6).neg().unwrap(), run.decoder, &run.cancel).unwrap();
    let before: Vec<u64> = held.iter().copied().filter(|unit| *unit <= 3).collect();
    assert_eq!(seen[0].as_ref().unwrap().units(), before);
}

/// However long the stream.
#[test]
fn what_is_held_has_an_end_and_the_least_salient_went() {
    let (decoder, frames) = (decoder(), frames(60));
    for budget in [1, 2, 5, 12] {
        let mut recipe = savemem(&[]);
        assert!(recipe.set_budget(budget, TOKENS));
        let mut run = Run::new(&decoder, &recipe);
        for (at, frame) in frames.iter().enumerate() {
            run.push(std::slice::from_ref(frame));
            let (patches, _) = left(&run, TOKENS);
            let held: usize = patches.iter().map(|(_, own)| own.len()).sum();
            assert!(held <= budget * TOKENS, "{held} of {budget} behind {at}");
            assert_eq!(patches.last().unwrap().0, at as u64);
        }
    }
}

#[test]
fn what_goes_of_the_oldest_is_less_salient_than_what_stays() {
    let (decoder, frames) = (decoder(), frames(40));
    let recipe = savemem(&[("hold", "3"), ("tier-changed", "2")]);
    let words: Vec<Vec<f32>> =
        bank(&recipe).iter().flat_map(|words| words.to_vec2::<f32>().unwrap()).collect();
    let salience = |(unit, patch): &(u64, u32)| -> f32 {
        let token = frames[*unit as usize].get(*patch as usize).unwrap().to_vec1().unwrap();
        words.iter().map(|word| cosine(&token, word)).fold(f32::NEG_INFINITY, f32::max)
    };
    // Two are whole and of two more what changed.
    let old = |run: &Run<'_>, newest: u64| -> Vec<(u64, u32)> {
        let old = left(run, TOKENS).0.into_iter().filter(|(unit, _)| unit + 4 <= newest);
        old.flat_map(|(unit, own)| own.into_iter().map(move |patch| (unit, patch))).collect()
    };
    let mut run = Run::new(&decoder, &recipe);
    let mut went = 0;
    for (newest, frame) in (0..).zip(&frames) {
        let before = if newest > 0 { old(&run, newest - 1) } else { Vec::new() };
        run.push(std::slice::from_ref(frame));
        let after = old(&run, newest);
        let gone: Vec<f32> =
            before.iter().filter(|token| !after.contains(token)).map(salience).collect();
        let least = after.iter().map(salience).fold(f32::INFINITY, f32::min);
        assert!(gone.iter().all(|gone| *gone <= least + 1e-6), "{gone:?} went for {least}");
        went += gone.len();
    }
    assert!(went > 5, "{went}");
}

/// The oldest stays where a pseudo-question has to do with it, and goes where none has.
#[test]
fn what_any_question_may_want_outlives_what_is_newer() {
    let (decoder, mut frames) = (decoder(), frames(16));
    let recipe = savemem(&[("hold", "4"), ("tier-changed", "2")]);
    let oldest = |frames: &[Tensor]| {
        let mut run = Run::new(&decoder, &recipe);
        run.push(frames);
        left(&run, TOKENS).0[0].0
    };
    let word = bank(&recipe)[0].narrow(0, 0, 1).unwrap();
    frames[0] = word.neg().unwrap().broadcast_as((TOKENS, WIDTH)).unwrap().contiguous().unwrap();
    assert!(oldest(&frames) > 0);
    let salient = (word
        + random_tensor(3, (TOKENS, WIDTH)).affine(0.1, 0.0).unwrap().sum_keepdim(0).unwrap())
    .unwrap();
    frames[0] = salient.broadcast_as((TOKENS, WIDTH)).unwrap().contiguous().unwrap();
    assert_eq!(oldest(&frames), 0);
}

/// Neither its tokens nor how what is usual is measured: that is what the pseudo-questions are for.
#[test]
fn the_question_that_is_asked_changes_nothing_that_is_kept() {
    let (decoder, frames) = (decoder(), frames(24));
    let recipe = savemem(&[("tier-changed", "3"), ("hold", "5")]);
    let (mut asked, mut silent) = (Run::new(&decoder, &recipe), Run::new(&decoder, &recipe));
    let mut answers = Vec::new();
    for (at, frame) in frames.iter().enumerate() {
        asked.push(std::slice::from_ref(frame));
        silent.push(std::slice::from_ref(frame));
        for seed in 0..3 {
            answers.push(asked.looks(seed).units[0].len());
            asked.looks(100 * at as u64 + seed);
        }
        assert!(asked.memory.stored.usual().is_some());
        assert_eq!(asked.memory.stored.usual(), silent.memory.stored.usual());
        assert_eq!(asked.account(), silent.account());
        assert!(asked.fingerprint() == silent.fingerprint(), "behind frame {at}");
    }
    // Both that were answered from the newest alone and from all there is.
    assert!(answers.contains(&2) && answers.iter().any(|n| *n > 2), "{answers:?}");
    // Other pseudo-questions are another memory.
    let mut other = Run::new(&decoder, &recipe);
    other.memory.prompts.bank = vec![random_tensor(7, (4, WIDTH))];
    other.push(&frames);
    assert_ne!(other.fingerprint(), asked.fingerprint());
}

#[test]
fn how_frames_are_pushed_and_a_restart_between_change_nothing() {
    let (decoder, frames) = (decoder(), frames(30));
    let recipe = savemem(&[("tier-changed", "3"), ("hold", "5")]);
    let mut whole = Run::new(&decoder, &recipe);
    whole.push(&frames);
    let mut parts = Run::new(&decoder, &recipe);
    for part in frames.chunks(7) {
        parts.push(part);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory");
        parts.save(&path);
        parts = Run::new(&decoder, &recipe);
        parts.restore(&path);
    }
    assert!(whole.fingerprint() == parts.fingerprint());
    assert_eq!(whole.memory.stored.usual(), parts.memory.stored.usual());
    for seed in 0..6 {
        let (a, b) = (whole.looks(seed), parts.looks(seed));
        assert!(a.units == b.units && a.answer == b.answer && a.contexts == b.contexts);
    }
}

/// No pseudo-questions, room for all, and a gate that never is enough: the tiers of FluxMem, all of them seen.
#[test]
fn without_anything_of_its_own_it_is_fluxmem() {
    let (decoder, frames) = (decoder(), frames(14));
    let sizes = [("tier-whole", "2"), ("tier-changed", "3"), ("hold", "90")];
    let mut fluxmem = Recipe::named("fluxmem").unwrap();
    sizes.iter().for_each(|(key, value)| fluxmem.set(key, value).unwrap());
    let mut plain = savemem(&sizes);
    let Older::Tiers(tiers) = &mut plain.older else { panic!("no tiers") };
    tiers.bank = None;
    plain.set("gate", "1e6").unwrap();
    plain.set("gate-few", "4096").unwrap();
    let [fluxmem, plain] = [&fluxmem, &plain].map(|recipe| {
        let mut run = Run::new(&decoder, recipe);
        run.push(&frames);
        run
    });
    assert!(fluxmem.fingerprint() == plain.fingerprint());
    let (a, b) = (fluxmem.looks(4), plain.looks(4));
    assert!(a.units == b.units && a.answer == b.answer);
}
