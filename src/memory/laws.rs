// SPDX-License-Identifier: MPL-2.0
//! What holds for any composition of the parts (other methods §6.6), also for those that no paper
//! has: random recipes on random streams through a small random decoder.

pub(super) mod ages;
mod asked;
mod cover;
mod newest;
mod older;
mod saved;

use std::collections::HashMap;
use std::sync::mpsc;
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use candle_nn::Activation;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::VideoMemory;
use super::answer::Answering;
use super::find::{self, Bare};
use super::intake::{Encoded, FrameTokens, Prompts, Segment, Segmenter, Teller};
use super::kv::Kv;
use super::recipe::{
    Bank, BudgetRule, Compression, Cut, Grains, Heads, Keeps, Leave, Older, Order, Pick, Places,
    Probe, Questions, Recipe, Reduce, Resident, Retrieval, Scope, Sees, Signal, Span, Sparse,
    Tiers,
};
use super::store::StoreOptions;
use super::testing::{Lcg, random_tensor};
use super::unit::{Geometry, RESIDUE, Row};
use super::weigh::rank::consensus;
use super::weigh::score::cosine;
use super::weigh::select::ranked;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::model::checkpoint::{Mrope, TextConfig};
use crate::model::decoder::{Attend, Decoder, testing};
use crate::model::rope::Layout;

pub(super) const TOKENS: usize = 4;
pub(super) const WIDTH: usize = 16;
const LAYERS: usize = 4;

pub(super) fn decoder() -> Decoder {
    decoder_with(None)
}

/// `section`: pairs that are turned by time, height and width.
fn decoder_with(section: Option<[usize; 3]>) -> Decoder {
    decoder_of(section.map(|section| Mrope { section, interleaved: false }), false)
}

pub(super) fn decoder_of(mrope: Option<Mrope>, head_norms: bool) -> Decoder {
    let config = TextConfig {
        vocab_size: 8,
        hidden_size: WIDTH,
        intermediate_size: 16,
        layers: LAYERS,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        max_positions: 4096,
        rms_norm_eps: 1e-6,
        rope_theta: 1e4,
        mrope,
        qkv_bias: !head_norms,
        head_norms,
        act: Activation::Silu,
    };
    testing::of(&config, |seed, name, shape| {
        let noise = random_tensor(seed + 1, shape);
        if name.contains("norm") { noise.affine(0.1, 1.0) } else { noise.affine(0.5, 0.0) }.unwrap()
    })
}

/// A recipe's pseudo-questions.
fn bank(recipe: &Recipe) -> Vec<Tensor> {
    let questions = recipe.pseudo_questions().iter().zip(0..);
    questions.map(|(_, i)| random_tensor(80 + i, (2 + i as usize % 2, WIDTH))).collect()
}

/// What a question saw and came to.
pub(super) struct Looked {
    pub answer: Vec<f32>,
    pub units: Vec<Vec<u64>>,
    pub mass: Vec<(u64, f64)>,
    /// Keys and values of all layers' contexts.
    pub contexts: Vec<f32>,
}

/// One stream's life without pixels and words.
pub(super) struct Run<'a> {
    decoder: &'a Decoder,
    recipe: Recipe,
    memory: VideoMemory,
    segmenter: Segmenter,
    frames: u64,
    /// Seconds of the frames; beyond them, and without, one a second.
    times: Vec<f64>,
    cancel: Cancel,
}

impl<'a> Run<'a> {
    pub(super) fn new(decoder: &'a Decoder, recipe: &Recipe) -> Self {
        Self::kept(decoder, recipe, false)
    }

    /// `on_device`: in the forms that stay where they are computed.
    pub(super) fn kept(decoder: &'a Decoder, recipe: &Recipe, on_device: bool) -> Self {
        Self::stored(decoder, recipe, on_device, StoreOptions::default())
    }

    fn stored(decoder: &'a Decoder, recipe: &Recipe, on_device: bool, store: StoreOptions) -> Self {
        let geometry = Geometry {
            layers: LAYERS,
            heads: decoder.heads(),
            kv_heads: decoder.kv_heads(),
            head_dim: decoder.head_dim(),
            unit_tokens: TOKENS,
            picture_tokens: TOKENS,
            unit_seconds: 1.0,
            scale: decoder.scale(),
            dtype: DType::F32,
            device: Device::Cpu,
            on_device,
            rope: decoder.rope().clone(),
            layout: Layout::Run,
        };
        let cancel = Cancel::new();
        let mut memory = VideoMemory::new(geometry, recipe);
        memory.store_in(store);
        let probes = recipe.probes().len() as u64;
        memory.set_prompts(Prompts {
            probes: (0..probes).map(|i| random_tensor(70 + i, (2, WIDTH))).collect(),
            guidance: recipe.compression.is_some().then(|| random_tensor(61, (2, WIDTH))),
            bank: bank(recipe),
            any: None,
            teller: None,
        });
        memory.open(decoder, &random_tensor(60, (3, WIDTH)), &cancel).unwrap();
        let segmenter = Segmenter::of(recipe).where_they_are(on_device);
        Self {
            decoder,
            recipe: recipe.clone(),
            memory,
            segmenter,
            frames: 0,
            times: Vec::new(),
            cancel,
        }
    }

    /// The same where pictures of two rows and columns stand by their times, `step` positions a second.
    fn on_three_axes(decoder: &'a Decoder, recipe: &Recipe, step: f32, times: &[f64]) -> Self {
        let mut run = Self::new(decoder, recipe);
        run.memory
            .lay_out(TOKENS, 1.0, Layout::Grid { rows: 2, cols: 2, step, compat: false })
            .unwrap();
        run.times = times.to_vec();
        run
    }

    /// The same of pictures with words around them, as `teller` tells them.
    pub(super) fn told(
        decoder: &'a Decoder,
        recipe: &Recipe,
        (layout, teller): (Layout, &Teller),
        store: StoreOptions,
    ) -> Self {
        let mut run = Self::stored(decoder, recipe, false, store);
        run.memory.prompts.teller = Some(teller.clone());
        run.memory.lay_out(TOKENS, 1.0, layout).unwrap();
        run.segmenter = Segmenter::of(recipe).comparing(WIDTH);
        run
    }

    pub(super) fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    pub(super) fn memory(&self) -> &VideoMemory {
        &self.memory
    }

    pub(super) fn push(&mut self, frames: &[Tensor]) {
        let named = frames.iter().map(|tokens| {
            let at = self.times.get(self.frames as usize).copied();
            let at = at.unwrap_or(self.frames as f64);
            self.frames += 1;
            FrameTokens::whole(tokens.clone(), self.frames - 1..self.frames, (at, at))
        });
        let named: Vec<FrameTokens> = named.collect();
        if frames.len() > 1 {
            self.segmenter.foresee(&named).unwrap();
        }
        for frame in named {
            if let Some(segment) = self.segmenter.push(frame).unwrap() {
                self.remember(&segment);
            }
        }
        if !self.segmenter.holds_frames()
            && let Some(segment) = self.segmenter.close().unwrap()
        {
            self.remember(&segment);
        }
    }

    fn encode(&self, segment: &Segment) -> Encoded {
        self.memory.encode(self.decoder, segment, &self.cancel).unwrap()
    }

    fn remember(&mut self, segment: &Segment) {
        let encoded = self.encode(segment);
        self.memory.commit(encoded).unwrap();
        self.memory.settle().unwrap();
    }

    /// What the question's last token comes to, with the units that it saw in each layer.
    pub(super) fn ask(&self, seed: u64) -> (Vec<f32>, Vec<Vec<u64>>) {
        let Looked { answer, units, .. } = self.looks(seed);
        (answer, units)
    }

    pub(super) fn looks(&self, seed: u64) -> Looked {
        let branch =
            self.segmenter.open_segment(Vec::new()).unwrap().map(|open| self.encode(&open));
        let view = self.memory.view(branch.as_ref());
        let question = random_tensor(seed, (3, WIDTH));
        let any = random_tensor(seed + 1, (2, WIDTH));
        let asked = find::Asked { tokens: &question, any: Some(&any), embedding: None };
        let contexts = find::contexts(view, asked, self.decoder, &self.cancel).unwrap();
        let mut answering = Answering::new(self.memory.held(), &contexts, 3, &self.cancel);
        let out = self.decoder.forward(&question, &mut answering).unwrap();
        let mass: Vec<(u64, f64)> = answering.into_mass().unwrap().into_iter().collect();
        for &(unit, mass) in &mass {
            let unit = view.unit(unit).expect("an answer sees what the memory knows");
            assert!(unit.start <= unit.end);
            assert!(mass.is_finite() && mass >= 0.0);
        }
        let units = contexts.iter().flatten().map(|context| context.units()).collect();
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let kv = contexts.iter().flatten().flat_map(|c| [flat(&c.kv.k), flat(&c.kv.v)]);
        Looked { answer: flat(&out), units, mass, contexts: kv.flatten().collect() }
    }

    /// Everything that is held, bit for bit.
    pub(super) fn fingerprint(&self) -> Vec<u32> {
        let mut bits = Vec::new();
        let mut add = |tensor: &Tensor| {
            let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            bits.extend(values.into_iter().map(f32::to_bits));
        };
        for (at, layer) in self.memory.stored.layers.iter().enumerate() {
            let prefix = layer.prefix.iter().cloned();
            let window = layer.window.view().unwrap();
            let blocks = layer.blocks.iter().filter_map(|block| block.load().unwrap());
            let resident = self.memory.held().resident_at(at).and_then(|r| r.kv().cloned());
            for kv in prefix.chain(window).chain(blocks).chain(resident) {
                add(&kv.k);
                add(&kv.v);
            }
        }
        for kv in self.memory.stored.inputs.iter().filter_map(|input| input.load().unwrap()) {
            add(&kv.k);
            add(&kv.v);
        }
        bits
    }

    /// The laws that hold after every step.
    pub(super) fn check(&self) {
        for at in 0..LAYERS {
            if let (Some(layer), Some(recipe)) =
                (self.memory.held().resident_at(at), &self.recipe.resident)
            {
                let cap = recipe.cap * self.memory.geometry.unit_tokens;
                assert!(layer.tokens() <= cap, "{} resident", layer.tokens());
                for rows in layer.lists() {
                    assert_eq!(rows.len(), layer.tokens());
                    let mut own: Vec<_> = rows
                        .iter()
                        .filter(|row| row.patch != RESIDUE)
                        .map(|row| (row.unit, row.order()))
                        .collect();
                    let order = own.clone();
                    own.sort_unstable();
                    own.dedup();
                    assert_eq!(own, order, "in stream order, each token once");
                    for row in rows {
                        assert!(self.memory.units().any(|unit| unit.id == row.unit));
                        assert!(row.score.is_finite());
                    }
                }
                if let Some(kv) = layer.kv() {
                    assert_eq!(kv.tokens().unwrap(), layer.tokens());
                    self.check_values(at, layer.lists(), kv);
                }
            }
            for unit in self.memory.held().units(at) {
                let unit = self.memory.units().find(|known| known.id == unit).unwrap();
                assert!(unit.frames.end <= self.frames && unit.start <= unit.end);
            }
        }
        let finite = self.fingerprint().into_iter().all(|bits| f32::from_bits(bits).is_finite());
        assert!(finite, "something held is not a number");
    }
}

impl Run<'_> {
    /// Keys and values that a layer still holds are those that came in: where the store has the
    /// unit too, it has the same.
    fn check_values(&self, at: usize, lists: &[Vec<Row>], kv: &Kv) {
        let numbers = |kv: &Kv| {
            let of = |t: &Tensor| t.to_vec3::<f32>().unwrap();
            [of(&kv.k), of(&kv.v)]
        };
        let blocks = self.memory.stored.layers[at].blocks.iter();
        let stored: HashMap<u64, _> = blocks
            .filter_map(|block| Some((block.unit, numbers(&block.load().unwrap()?))))
            .collect();
        for (held, which) in numbers(kv).iter().zip(0..) {
            for (head, values) in held.iter().enumerate() {
                let rows = lists.get(head).unwrap_or(&lists[0]);
                for (row, value) in rows.iter().zip(values).filter(|(row, _)| row.patch != RESIDUE)
                {
                    let Some(stored) = stored.get(&row.unit) else { continue };
                    let unit = self.memory.units().find(|unit| unit.id == row.unit).unwrap();
                    // Within a sketch stand the words of any of those that it stands for.
                    if unit.patches.as_deref() == Some(&[RESIDUE]) {
                        continue;
                    }
                    let length = self.memory.geometry.length(unit);
                    let own = self.memory.held().rows_of(unit, length);
                    let Some(index) = own.iter().position(|own| own.patch == row.patch) else {
                        // What is stored may have become thinner than what is resident.
                        let thinned = self.memory.stored.height(row.unit) > 0;
                        assert!(thinned, "layer {at}, {row:?} is not stored");
                        continue;
                    };
                    assert_eq!(value, &stored[which][head][index], "layer {at}, {row:?}");
                }
            }
        }
    }
}

/// `frames` random frames in a memory of this recipe.
fn watched<'a>(decoder: &'a Decoder, recipe: &Recipe, frames: u64) -> Run<'a> {
    let mut run = Run::new(decoder, recipe);
    let frames = (0..frames).map(|i| random_tensor(200 + i, (TOKENS, WIDTH)));
    run.push(&frames.collect::<Vec<_>>());
    run
}

/// A pass that is held up in its first layer.
struct HeldUp {
    begun: mpsc::Sender<()>,
    goes_on: mpsc::Receiver<()>,
}

impl Attend for HeldUp {
    fn attend(&mut self, layer: usize, q: &Tensor, _: &Tensor, _: &Tensor) -> Result<Tensor> {
        if layer == 0 {
            self.begun.send(()).unwrap();
            // Whoever waits for this pass fails by that.
            self.goes_on.recv_timeout(Duration::from_secs(60)).unwrap();
        }
        Ok(q.clone())
    }
}

#[test]
fn a_question_about_the_present_waits_for_no_other_stream() {
    let decoder = decoder();
    let run = watched(&decoder, &Recipe::named("rekv").unwrap(), 3);
    let frame = FrameTokens::whole(random_tensor(7, (TOKENS, WIDTH)), 3..4, (3.0, 3.0));
    let segment = Segment { frames: vec![frame] };
    let ((begun, has_begun), (go_on, goes_on)) = (mpsc::channel(), mpsc::channel());
    let other = Mutex::new(Some(HeldUp { begun, goes_on }));
    std::thread::scope(|scope| {
        let decoder = &decoder;
        let other = scope.spawn(move || {
            let new = || other.lock().take().unwrap();
            let rows = random_tensor(1, (2, WIDTH));
            decoder.forward_together(&rows, &Cancel::new(), new).map(|_| ())
        });
        has_begun.recv().unwrap();
        let branch = run.memory.encode_at_once(decoder, &segment, &run.cancel).unwrap();
        assert_eq!(branch.units.len(), 1);
        go_on.send(()).unwrap();
        other.join().unwrap().unwrap();
    });
}

#[test]
fn a_consensus_is_one_for_all_layers() {
    let decoder = decoder();
    let recipe = Recipe {
        reduce: Reduce::Nothing,
        cut: Cut::Uniform { frames: 1 },
        retrieval: Retrieval::Consensus { units: 4 },
        ..Recipe::named("cacheflow").unwrap()
    };
    let run = watched(&decoder, &recipe, 12);
    let view = run.memory.view(None);
    for seed in 0..4 {
        let mut bare = Bare::new(view, &run.cancel);
        decoder.forward(&random_tensor(seed, (3, WIDTH)), &mut bare).unwrap();
        let best = |layer: usize| -> Vec<u64> {
            let offered = view.candidates(layer);
            let units = offered.units();
            let scores = offered.scores(&bare.queries[layer], recipe.similarity).unwrap();
            ranked(&scores).into_iter().map(|i| units[i]).collect()
        };
        let mut expected = consensus(&best(0), &best(LAYERS - 1), 4);
        expected.sort_unstable();
        let (_, found) = run.ask(seed);
        assert!(found.iter().all(|units| *units == expected), "{found:?}");
    }
}

#[test]
fn the_finer_grains_lean_on_the_coarsest() {
    let decoder = decoder();
    let found = |lean: f64, seed: u64| {
        let recipe = Recipe {
            grains: Grains {
                frames: vec![0.5, 1.0, 2.0],
                keep: vec![1.0; 3],
                attention: vec![0.5; 3],
                retrieve: vec![3, 3, 2],
            },
            retrieval: Retrieval::Grains { lean, top: 1 },
            ..Recipe::named("mukv").unwrap()
        };
        let mut units = watched(&decoder, &recipe, 12).ask(seed).1.remove(0);
        units.sort_unstable();
        units
    };
    // Not only the order of what is found: candidates are twice as many.
    assert!((0..4).any(|seed| found(0.0, seed) != found(1.0, seed)));
}

#[test]
fn the_coarse_context_is_of_candidates_only() {
    let decoder = decoder();
    // Two candidates for one coarse piece: more than they cannot say where to look.
    let found = |top: usize, seed: u64| {
        let recipe = Recipe {
            grains: Grains {
                frames: vec![0.5, 1.0, 2.0],
                keep: vec![1.0; 3],
                attention: vec![0.5; 3],
                retrieve: vec![3, 3, 1],
            },
            retrieval: Retrieval::Grains { lean: 1.0, top },
            ..Recipe::named("mukv").unwrap()
        };
        watched(&decoder, &recipe, 16).ask(seed).1.remove(0)
    };
    for seed in 0..4 {
        assert_eq!(found(2, seed), found(8, seed), "seed {seed}");
    }
    assert!((0..4).any(|seed| found(1, seed) != found(2, seed)));
}

pub(super) fn resident() -> impl Strategy<Value = Resident> {
    let signal = || {
        prop_oneof![
            Just(Signal::Attention),
            Just(Signal::Novelty),
            Just(Signal::ValueNorm),
            Just(Signal::Recency),
        ]
    };
    let pick = prop_oneof![
        Just(Pick::Top),
        Just(Pick::Evenly),
        (1..4usize, 0.0..1.0).prop_map(|(size, free)| Pick::Buckets { size, free }),
    ];
    let probe = prop_oneof![
        Just(Probe::Turn),
        Just(Probe::Words { local: "a".into(), global: "b".into() }),
        (1..3usize).prop_map(|units| Probe::Newest { units }),
        Just(Probe::Itself),
    ];
    let leave = prop_oneof![Just(Leave::Nothing), Just(Leave::Prototypes), Just(Leave::Summary)];
    (
        (1..7usize, prop_oneof![Just(1.0), 0.1..1.0], signal(), signal()),
        (0.0..1.0, prop_oneof![Just(0.0), 0.0..1.0], any::<[bool; 5]>()),
        (pick, probe, leave),
    )
        .prop_map(
            |((cap, floor, signal, then), (share, recent, flags), (pick, probe, leave))| Resident {
                cap,
                floor,
                prefix_counts: flags[4],
                total: 0,
                signal,
                share,
                then,
                recent,
                heads: if flags[0] { Heads::Own } else { Heads::Shared },
                by_depth: flags[1],
                pick,
                scope: if flags[2] { Scope::Step } else { Scope::Whole },
                leave,
                probe,
                pooling: flags[3],
            },
        )
}

pub(super) fn recipe() -> impl Strategy<Value = Recipe> {
    let cut = prop_oneof![
        Just(Cut::Never),
        (1..5usize).prop_map(|frames| Cut::Uniform { frames }),
        (1..3usize, 3..6usize).prop_map(|(min, max)| Cut::Semantic {
            threshold: 0.2,
            min,
            max,
            close_at_max: false,
            seconds: 50.0,
        }),
        (1..3usize).prop_map(|frames| Cut::Pack { frames }),
    ];
    let reduce = prop_oneof![
        Just(Reduce::Nothing),
        (-0.5..1.0).prop_map(|alike| Reduce::Frames { alike }),
        (-0.5..1.0).prop_map(|alike| Reduce::Patches { alike }),
        (0.1..1.0).prop_map(|keep| Reduce::Peaks { keep }),
    ];
    let places = prop_oneof![
        Just(Places::Packed),
        Just(Places::Kept),
        (5..60usize).prop_map(|limit| Places::Lazy { limit }),
        Just(Places::Scaled),
        Just(Places::Local),
    ];
    let best = (1..6usize, 0..3usize, 1..3usize, 0.0..1.0, any::<bool>(), 0.0..1.0).prop_map(
        |(units, recent, chunk, spread, agree, temperature)| Retrieval::Best {
            read: if temperature < 0.5 { 0.4 } else { 1.0 },
            oldest: usize::from(temperature > 0.3),
            cover: temperature > 0.2,
            reach: (10.0 * temperature) as usize,
            units,
            most: 8,
            recent,
            chunk,
            spread,
            agree,
            rule: BudgetRule::Stretched { temperature },
        },
    );
    let retrieval = prop_oneof![
        Just(Retrieval::All { last: None }),
        (1..5usize).prop_map(|last| Retrieval::All { last: Some(last) }),
        best,
        (1..5usize).prop_map(|units| Retrieval::Consensus { units }),
        (1..5usize).prop_map(|units| Retrieval::Fresh { units }),
        (0.0..3.0, 0..5usize).prop_map(|(gate, few)| Retrieval::Gated { gate, few }),
        (1..6usize, 0.1..1.0, 0..2usize).prop_map(|(tokens, share, recent)| Retrieval::Pages {
            tokens,
            share,
            recent
        }),
    ];
    let compression = prop::option::of((0.1..1.0).prop_map(|keep_ratio| Compression {
        keep_ratio,
        rule: BudgetRule::Stretched { temperature: 0.5 },
        guidance: String::new(),
    }));
    let window = prop::option::of(6..40usize);
    (
        (cut, reduce, places, retrieval, compression),
        (prop::option::of(resident()), 0..4usize, window, 0.1..1.0f64),
        any::<[bool; 6]>(),
    )
        .prop_map(|((cut, reduce, places, retrieval, compression), more, flags)| {
            let (resident, sees, window, keep) = more;
            let grained = flags[0] && resident.is_none();
            let sees = match (sees, &resident) {
                _ if grained => Sees::Prefix,
                (0, Some(_)) => Sees::Resident,
                (1, _) => Sees::Changed(Sparse { units: 3, keep, pairs: flags[1] }),
                _ => Sees::Window,
            };
            let grains = Grains {
                frames: vec![0.5, 1.0, 2.0],
                keep: vec![0.4, 0.6, 0.8],
                attention: vec![0.5; 3],
                retrieve: vec![3, 2, 1],
            };
            let plain = resident.is_none() && sees == Sees::Window && !grained;
            let gated = matches!(retrieval, Retrieval::Gated { .. });
            let fresh = (matches!(retrieval, Retrieval::Fresh { .. }) || gated) && !grained;
            let all = matches!(retrieval, Retrieval::All { .. }) && plain && flags[5];
            let sees = match sees {
                Sees::Changed(_) if fresh => Sees::Window,
                Sees::Window if all || fresh && resident.is_none() && flags[5] => Sees::Nothing,
                sees => sees,
            };
            let fresh = fresh || all;
            let older = match (sees, keep) {
                (Sees::Nothing, ..0.4) => Older::Tiers(Tiers {
                    whole: 2,
                    changed: 2,
                    same: 0.9,
                    cap: if gated { 3 } else { 5 },
                    bank: gated.then(|| Bank {
                        questions: Questions(vec!["a".into(), "b".into()]),
                        spare: keep,
                        scene: 1.1,
                    }),
                }),
                (Sees::Nothing, ..0.6) => {
                    Older::Span(Span { cap: 4, directions: 5, decay: 0.7, new: 2 })
                }
                _ => Older::Stays,
            };
            let keeps = match retrieval {
                _ if fresh => Keeps::Inputs,
                Retrieval::Best { .. } if plain && flags[5] => Keeps::Inputs,
                _ => Keeps::KeysAndValues,
            };
            Recipe {
                cut,
                reduce,
                summary: flags[2],
                window,
                windowed_answers: false,
                sees,
                store: flags[3] || resident.is_none() || fresh,
                keeps,
                older,
                resident,
                places,
                order: if flags[4] { Order::Found } else { Order::Stream },
                grains: if grained { grains } else { Grains::default() },
                compression,
                retrieval: if grained {
                    Retrieval::Grains { lean: 0.3, top: 2 }
                } else {
                    retrieval
                },
                changed_representative: flags[1],
                ..Recipe::named("rekv").unwrap()
            }
        })
}

/// Frames of which some are as the one before.
fn frames(seed: u64, n: usize) -> Vec<Tensor> {
    let mut lcg = Lcg(seed);
    let mut frames: Vec<Tensor> = Vec::with_capacity(n);
    for i in 0..n {
        let still = lcg.next() > 0.4;
        frames.push(match frames.last() {
            Some(last) if still => last.clone(),
            _ => random_tensor(seed.wrapping_mul(1000) + i as u64, (TOKENS, WIDTH)),
        });
    }
    frames
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_composition_keeps_the_laws(
        recipe in recipe(),
        seed in 0..1000u64,
        steps in prop::collection::vec(1..6usize, 1..9),
    ) {
        let decoder = decoder();
        let (mut asked, mut silent) = (Run::new(&decoder, &recipe), Run::new(&decoder, &recipe));
        let prefix = asked.fingerprint();
        let all = frames(seed, steps.iter().sum());
        let mut rest = &all[..];
        for n in steps {
            let (now, later) = rest.split_at(n);
            rest = later;
            asked.push(now);
            silent.push(now);
            asked.check();
            let before = asked.fingerprint();
            let (first, again) = (asked.ask(seed + 1), asked.ask(seed + 1));
            prop_assert!(first.0.iter().all(|x| x.is_finite()), "the answer is not a number");
            prop_assert_eq!(&first, &again, "asked twice");
            prop_assert!(asked.fingerprint() == before, "asking left a trace");
        }
        prop_assert!(asked.fingerprint() == silent.fingerprint(), "the memory knows the questions");
        let kept = asked.memory.stored.layers[0].prefix.as_ref().unwrap();
        let opened = Run::new(&decoder, &recipe);
        let first = opened.memory.stored.layers[0].prefix.as_ref().unwrap();
        prop_assert_eq!(kept.k.to_vec3::<f32>().unwrap(), first.k.to_vec3::<f32>().unwrap());
        prop_assert!(!prefix.is_empty());
    }

    #[test]
    fn where_a_recipe_cuts_it_does_not_matter_how_frames_are_pushed(
        recipe in recipe(),
        seed in 0..1000u64,
        steps in prop::collection::vec(1..6usize, 1..6),
    ) {
        prop_assume!(recipe.cut != Cut::Never);
        let decoder = decoder();
        let all = frames(seed, steps.iter().sum());
        let (mut whole, mut parts) = (Run::new(&decoder, &recipe), Run::new(&decoder, &recipe));
        whole.push(&all);
        let mut rest = &all[..];
        for n in steps {
            let (now, later) = rest.split_at(n);
            parts.push(now);
            rest = later;
        }
        prop_assert!(whole.fingerprint() == parts.fingerprint());
        prop_assert_eq!(whole.ask(seed), parts.ask(seed));
    }

    #[test]
    fn room_for_everything_is_no_compression(recipe in resident(), seed in 0..1000u64) {
        let decoder = decoder();
        let full = Recipe::named("full").unwrap();
        let roomy = Recipe {
            cut: Cut::Uniform { frames: 3 },
            sees: Sees::Resident,
            store: false,
            resident: Some(Resident { cap: 64, ..recipe }),
            places: Places::Kept,
            ..full.clone()
        };
        let (mut full, mut roomy) = (Run::new(&decoder, &full), Run::new(&decoder, &roomy));
        let frames = frames(seed, 10);
        full.push(&frames);
        roomy.push(&frames);
        let (a, b) = (full.ask(7).0, roomy.ask(7).0);
        for (a, b) in a.iter().zip(&b) {
            prop_assert!((a - b).abs() < 1e-4, "{a} is not {b}");
        }
    }

    #[test]
    fn on_three_axes_too_and_whatever_the_rule_for_places(
        places in prop_oneof![
            Just(Places::Kept),
            Just(Places::Lazy { limit: 10_000 }),
            Just(Places::Scaled),
        ],
        resident in resident(),
        step in prop_oneof![Just(0.5f32), Just(1.0), Just(2.5)],
        regular in any::<bool>(),
        seed in 0..1000u64,
    ) {
        let decoder = decoder_with(Some([2, 1, 1]));
        let times: Vec<f64> =
            (0..10).map(|i| f64::from(i) * if regular { 1.0 } else { 1.7 } + f64::from(i / 4)).collect();
        let full = Recipe { windowed_answers: false, ..Recipe::named("full").unwrap() };
        let roomy = Recipe {
            cut: Cut::Uniform { frames: 3 },
            sees: Sees::Resident,
            store: false,
            resident: Some(Resident { cap: 64, ..resident }),
            places,
            ..full.clone()
        };
        let mut full = Run::on_three_axes(&decoder, &full, step, &times);
        let mut roomy = Run::on_three_axes(&decoder, &roomy, step, &times);
        let frames = frames(seed, 10);
        full.push(&frames);
        roomy.push(&frames);
        let (a, b) = (full.ask(7).0, roomy.ask(7).0);
        for (a, b) in a.iter().zip(&b) {
            prop_assert!((a - b).abs() < 1e-4, "{a} is not {b}");
        }
    }

    #[test]
    fn retrieving_as_much_as_there_is_is_retrieving_all(seed in 0..1000u64, n in 1..12usize) {
        let decoder = decoder();
        let rekv = Recipe::named("rekv").unwrap();
        let with = |retrieval| Recipe { retrieval, windowed_answers: false, ..rekv.clone() };
        let run = |recipe: Recipe| {
            let mut run = Run::new(&decoder, &recipe);
            run.push(&frames(seed, n));
            run.ask(5)
        };
        let all = run(with(Retrieval::All { last: None }));
        prop_assert_eq!(&run(with(Retrieval::Consensus { units: 12 })), &all);
        prop_assert_eq!(&run(with(Retrieval::All { last: Some(12) })), &all);
        let best = Retrieval::Best {
            units: 12,
            most: 12,
            recent: 0,
            chunk: 1,
            spread: 0.8,
            agree: true,
            read: 1.0,
            oldest: 1,
            cover: true,
            reach: 4,
            rule: BudgetRule::Stretched { temperature: 0.0 },
        };
        prop_assert_eq!(&run(with(best)), &all);
    }

    #[test]
    fn reading_everything_again_is_having_read_it_once(seed in 0..1000u64, n in 1..12usize) {
        let decoder = decoder();
        let full = Recipe { windowed_answers: false, ..Recipe::named("full").unwrap() };
        let auto = Recipe { window: None, ..Recipe::named("auto").unwrap() };
        let frames = frames(seed, n);
        let ask = |recipe: &Recipe| {
            let mut run = Run::new(&decoder, recipe);
            run.push(&frames);
            run.ask(5).0
        };
        for (a, b) in ask(&full).iter().zip(&ask(&auto)) {
            prop_assert!((a - b).abs() < 1e-4, "{a} is not {b}");
        }
    }
}

#[test]
fn a_window_of_all_changed_keys_is_a_plain_window() {
    let decoder = decoder();
    let full = Recipe { windowed_answers: false, ..Recipe::named("full").unwrap() };
    let sparse = Recipe {
        sees: Sees::Changed(Sparse { units: 64, keep: 1.0, pairs: false }),
        ..full.clone()
    };
    let (mut full, mut sparse) = (Run::new(&decoder, &full), Run::new(&decoder, &sparse));
    for part in frames(3, 11).chunks(4) {
        full.push(part);
        sparse.push(part);
    }
    for (a, b) in full.ask(9).0.iter().zip(&sparse.ask(9).0) {
        assert!((a - b).abs() < 1e-4, "{a} is not {b}");
    }
}

#[test]
fn pieces_do_not_see_each_other() {
    let decoder = decoder();
    let recipe = Recipe::named("mukv").unwrap();
    let blocks = |frames: &[Tensor]| -> Vec<Vec<f32>> {
        let mut run = Run::new(&decoder, &recipe);
        run.push(frames);
        let blocks = &run.memory.stored.layers[LAYERS - 1].blocks;
        let keys = blocks.mean_keys();
        keys.read().unwrap().chunks(keys.dim()).map(<[f32]>::to_vec).collect()
    };
    let all = frames(4, 8);
    let swapped = [&all[4..], &all[..4]].concat();
    let (a, b) = (blocks(&all), blocks(&swapped));
    let half = a.len() / 2;
    assert_eq!(a.len(), 2 * (16 + 4 + 1));
    for (a, b) in a[..half].iter().zip(&b[half..]) {
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() < 1e-6, "{a} is not {b}");
        }
    }
}
