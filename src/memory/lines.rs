// SPDX-License-Identifier: MPL-2.0
//! The laws where units have words around their pictures, on one axis (InternVL) and one behind the other
//! on three that take turns, with tokens of two vectors (Qwen3-VL): random recipes on random streams.

use candle_core::Tensor;
use proptest::prelude::*;

use super::intake::Teller;
use super::laws::ages::{grows_old, thinning};
use super::laws::{Run, TOKENS, WIDTH, decoder_of, recipe, resident};
use super::recipe::{Cut, Keeps, Places, Recipe, Resident, Sees};
use super::store::StoreOptions;
use super::testing::random_tensor;
use crate::model::checkpoint::Mrope;
use crate::model::decoder::Decoder;
use crate::model::rope::Layout;

/// One of the two kinds of models that have words.
struct World {
    decoder: Decoder,
    layout: Layout,
    /// Numbers of a token.
    wide: usize,
}

impl World {
    fn new(in_lines: bool) -> Self {
        let mrope = Mrope { section: [2, 1, 1], interleaved: true };
        match in_lines {
            true => Self {
                decoder: decoder_of(Some(mrope), true),
                layout: Layout::Lines { rows: 2, cols: 2, words: 0 },
                wide: 2 * WIDTH,
            },
            false => Self { decoder: decoder_of(None, false), layout: Layout::Run, wide: WIDTH },
        }
    }

    /// One or two tokens in front of a picture, as its number has it, and one behind.
    fn teller(&self) -> Teller {
        let wide = self.wide;
        Teller(std::sync::Arc::new(move |moment| {
            let seed = 900 + moment.frame;
            let front = random_tensor(seed, (1 + moment.frame as usize % 2, wide));
            Ok([front, random_tensor(800, (1, wide))])
        }))
    }

    fn run(&self, recipe: &Recipe) -> Run<'_> {
        self.stored(recipe, StoreOptions::default())
    }

    fn stored(&self, recipe: &Recipe, store: StoreOptions) -> Run<'_> {
        Run::told(&self.decoder, recipe, (self.layout, &self.teller()), store)
    }

    fn frames(&self, seed: u64, n: usize) -> Vec<Tensor> {
        let frame = |i: usize| {
            // Every third as the one before.
            let i = if i % 3 == 2 { i - 1 } else { i };
            random_tensor(seed.wrapping_mul(1000) + i as u64, (TOKENS, self.wide))
        };
        (0..n).map(frame).collect()
    }
}

/// While a layer holds anything of a picture that it did not make up, it holds all words around it.
fn words_are_with_their_pictures(run: &Run<'_>) {
    let memory = run.memory();
    let rows = |unit: u64, n: usize| {
        let unit = memory.units().find(|known| known.id == unit).unwrap();
        (unit.words.tokens(), memory.held().rows_of(unit, n))
    };
    // Of a unit whose input is kept, a layer has one token.
    let layers = memory.stored.layers.iter().filter(|_| run.recipe().keeps == Keeps::KeysAndValues);
    let blocks = layers.flat_map(|layer| layer.blocks.iter()).chain(&memory.stored.inputs);
    for block in blocks {
        let (words, rows) = rows(block.unit, block.tokens());
        assert_eq!(rows.iter().filter(|row| row.is_word()).count(), words, "{block:?}");
        assert!(rows.len() > words, "{block:?}");
    }
    for layer in memory.held().resident.into_iter().flatten() {
        for rows in layer.lists() {
            for unit in rows.chunk_by(|a, b| a.unit == b.unit) {
                let known = run.memory().units().find(|known| known.id == unit[0].unit).unwrap();
                let words = unit.iter().filter(|row| row.is_word()).count();
                let seen = unit.iter().any(|row| row.patch < super::unit::FRONT);
                assert!(!seen || words == known.words.tokens(), "{unit:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_composition_keeps_the_laws(
        recipe in recipe(),
        in_lines in any::<bool>(),
        seed in 0..1000u64,
        steps in prop::collection::vec(1..6usize, 1..9),
    ) {
        let world = World::new(in_lines);
        let (mut asked, mut silent) = (world.run(&recipe), world.run(&recipe));
        let all = world.frames(seed, steps.iter().sum());
        let mut rest = &all[..];
        for n in steps {
            let (now, later) = rest.split_at(n);
            rest = later;
            asked.push(now);
            silent.push(now);
            asked.check();
            words_are_with_their_pictures(&asked);
            let before = asked.fingerprint();
            let (first, again) = (asked.ask(seed + 1), asked.ask(seed + 1));
            prop_assert!(first.0.iter().all(|x| x.is_finite()), "the answer is not a number");
            prop_assert_eq!(&first, &again, "asked twice");
            prop_assert!(asked.fingerprint() == before, "asking left a trace");
        }
        prop_assert!(asked.fingerprint() == silent.fingerprint(), "the memory knows the questions");
    }

    #[test]
    fn any_composition_grows_old_within_its_bound(
        recipe in recipe(),
        thin in thinning(),
        units in 2..9u64,
        in_lines in any::<bool>(),
        seed in 0..1000u64,
        steps in prop::collection::vec(1..6usize, 4..16),
    ) {
        let (world, recipe) = (World::new(in_lines), Recipe { thin, ..recipe });
        let open = |store| world.stored(&recipe, store);
        let frames = |seed, n| world.frames(seed, n);
        grows_old(open, frames, units, (seed, &steps), words_are_with_their_pictures)?;
    }

    #[test]
    fn room_for_everything_is_no_compression(
        resident in resident(),
        places in prop_oneof![
            Just(Places::Kept),
            Just(Places::Packed),
            Just(Places::Lazy { limit: 10_000 }),
            Just(Places::Scaled),
        ],
        in_lines in any::<bool>(),
        seed in 0..1000u64,
    ) {
        let world = World::new(in_lines);
        let full = Recipe { windowed_answers: false, ..Recipe::named("full").unwrap() };
        let roomy = Recipe {
            cut: Cut::Uniform { frames: 3 },
            sees: Sees::Resident,
            store: false,
            resident: Some(Resident { cap: 64, ..resident }),
            places,
            ..full.clone()
        };
        let (mut full, mut roomy) = (world.run(&full), world.run(&roomy));
        let frames = world.frames(seed, 10);
        full.push(&frames);
        roomy.push(&frames);
        let (a, b) = (full.ask(7).0, roomy.ask(7).0);
        for (a, b) in a.iter().zip(&b) {
            prop_assert!((a - b).abs() < 1e-4, "{a} is not {b}");
        }
    }

    #[test]
    fn reading_everything_again_is_having_read_it_once(
        in_lines in any::<bool>(),
        seed in 0..1000u64,
        n in 1..12usize,
    ) {
        let world = World::new(in_lines);
        let full = Recipe { windowed_answers: false, ..Recipe::named("full").unwrap() };
        let auto = Recipe { window: None, ..Recipe::named("auto").unwrap() };
        let frames = world.frames(seed, n);
        let ask = |recipe: &Recipe| {
            let mut run = world.run(recipe);
            run.push(&frames);
            run.ask(5).0
        };
        for (a, b) in ask(&full).iter().zip(&ask(&auto)) {
            prop_assert!((a - b).abs() < 1e-4, "{a} is not {b}");
        }
    }
}

#[test]
fn what_is_added_behind_a_layer_shows() {
    let world = World::new(true);
    let full = Recipe::named("full").unwrap();
    let ask = |change: f64| {
        let mut run = world.run(&full);
        let frames: Vec<Tensor> = world.frames(3, 4);
        let changed = frames.iter().map(|frame| {
            let first = frame.narrow(1, 0, WIDTH).unwrap();
            let second = (frame.narrow(1, WIDTH, WIDTH).unwrap() * change).unwrap();
            Tensor::cat(&[first, second], 1).unwrap()
        });
        run.push(&changed.collect::<Vec<_>>());
        run.ask(5).0
    };
    assert_eq!(ask(1.0), ask(1.0));
    assert!(ask(1.0).iter().zip(ask(0.5)).any(|(a, b)| (a - b).abs() > 1e-3));
}
