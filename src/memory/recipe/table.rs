// SPDX-License-Identifier: MPL-2.0
//! The table of methods: one row a method, with what its paper or its released code has.
//!
//! `streamkv` and `rekv` follow the released code, `streamkv-paper` the published text; where the
//! two differ is listed in `docs/methods.md`.

use super::composition::Recipe;
use super::parts::{
    Bank, BudgetRule, Compression, Cut, Expert, Grains, Keeps, Older, Order, Places, Questions,
    Reduce, Retrieval, Rung, Rungs, Sees, Similarity, Span, Sparse, Thinning, Tiers,
};
use super::prompts::{
    HERMES_GLOBAL, HERMES_LOCAL, REKV_SYSTEM, SAVEMEM_BANK, STREAMKV_GUIDANCE, STREAMKV_SYSTEM,
};
use super::resident::{Heads, Leave, Pick, Probe, Resident, Scope, Signal};

/// Fewer candidates than this many per layer never fill a context; more would not fit it.
const MOST_RETRIEVED: usize = 128;

/// Frames of a video that LLaVA-OneVision was trained on.
const TRAINED: usize = 32;

/// `max_position_embeddings` of the published checkpoints less HERMES's 1024.
pub const DEFAULT_LIMIT: usize = 32_768 - 1024;

/// The table. One row a method.
pub fn table() -> Vec<Recipe> {
    let streamkv = Recipe {
        name: "streamkv",
        reduce: Reduce::Nothing,
        cut: Cut::Semantic {
            threshold: 0.99,
            min: 4,
            max: 64,
            close_at_max: false,
            seconds: 120.0,
        },
        summary: true,
        window: Some(15_000),
        windowed_answers: false,
        sees: Sees::Window,
        store: true,
        keeps: Keeps::KeysAndValues,
        older: Older::Stays,
        thin: Thinning { rungs: Rungs(vec![Rung::Tokens, Rung::Frames]), whole: 0.5 },
        resident: None,
        places: Places::Packed,
        order: Order::Stream,
        grains: Grains::default(),
        grain_alike: 1.0,
        changed_representative: false,
        expert: Expert::Internal,
        external_model: String::new(),
        compression: Some(Compression {
            keep_ratio: 0.6,
            rule: BudgetRule::Stretched { temperature: 1.0 },
            guidance: STREAMKV_GUIDANCE.into(),
        }),
        retrieval: Retrieval::Best {
            units: 64,
            most: MOST_RETRIEVED,
            oldest: 0,
            recent: 8,
            chunk: 1,
            spread: 0.0,
            agree: false,
            read: 1.0,
            cover: false,
            reach: 0,
            rule: BudgetRule::Stretched { temperature: 0.5 },
        },
        similarity: Similarity::Dot,
        compat: false,
        system: STREAMKV_SYSTEM,
    };
    let rekv = Recipe {
        name: "rekv",
        cut: Cut::Never,
        summary: false,
        windowed_answers: true,
        compression: None,
        retrieval: Retrieval::Best {
            units: 64,
            most: MOST_RETRIEVED,
            oldest: 0,
            recent: 0,
            chunk: 1,
            spread: 0.0,
            agree: false,
            read: 1.0,
            cover: false,
            reach: 0,
            rule: BudgetRule::Stretched { temperature: 0.0 },
        },
        system: REKV_SYSTEM,
        ..streamkv.clone()
    };
    let streamkv_paper = Recipe {
        name: "streamkv-paper",
        compression: streamkv.compression.clone().map(|compression| Compression {
            keep_ratio: 0.4,
            rule: BudgetRule::Threshold,
            ..compression
        }),
        retrieval: Retrieval::Best {
            units: 8,
            most: MOST_RETRIEVED,
            oldest: 0,
            recent: 0,
            chunk: 1,
            spread: 0.0,
            agree: false,
            read: 1.0,
            cover: false,
            reach: 0,
            rule: BudgetRule::Threshold,
        },
        similarity: Similarity::Cosine,
        ..streamkv.clone()
    };
    let sliding_window = Recipe {
        name: "sliding-window",
        retrieval: Retrieval::All { last: Some(64) },
        ..rekv.clone()
    };
    let full = Recipe {
        name: "full",
        window: None,
        retrieval: Retrieval::All { last: None },
        ..rekv.clone()
    };
    let infinipot_v = Recipe {
        name: "infinipot-v",
        cut: Cut::Uniform { frames: 8 },
        windowed_answers: false,
        sees: Sees::Resident,
        store: false,
        resident: Some(Resident {
            cap: 32,
            floor: 0.75,
            prefix_counts: false,
            total: 0,
            signal: Signal::Novelty,
            share: 0.5,
            then: Signal::ValueNorm,
            recent: 0.25,
            heads: Heads::Own,
            by_depth: false,
            pick: Pick::Top,
            scope: Scope::Whole,
            leave: Leave::Nothing,
            probe: Probe::Turn,
            pooling: false,
        }),
        places: Places::Kept,
        retrieval: Retrieval::All { last: None },
        window: None,
        ..rekv.clone()
    };
    let streammem = Recipe {
        name: "streammem",
        reduce: Reduce::Frames { alike: 0.95 },
        resident: infinipot_v.resident.clone().map(|resident| Resident {
            floor: 1.0,
            signal: Signal::Attention,
            share: 1.0,
            recent: 0.0,
            heads: Heads::Shared,
            leave: Leave::Prototypes,
            ..resident
        }),
        ..infinipot_v.clone()
    };
    let hermes = Recipe {
        name: "hermes",
        cut: Cut::Uniform { frames: 16 },
        resident: streammem.resident.clone().map(|resident| Resident {
            prefix_counts: true,
            by_depth: true,
            leave: Leave::Summary,
            probe: Probe::Words { local: HERMES_LOCAL.into(), global: HERMES_GLOBAL.into() },
            ..resident
        }),
        places: Places::Lazy { limit: DEFAULT_LIMIT },
        ..infinipot_v.clone()
    };
    let livevlm = Recipe {
        name: "livevlm",
        resident: streammem.resident.clone().map(|resident| Resident {
            cap: 64,
            pick: Pick::Buckets { size: 1, free: 0.25 },
            leave: Leave::Nothing,
            probe: Probe::Newest { units: 1 },
            ..resident
        }),
        retrieval: Retrieval::Pages { tokens: 16, share: 0.4, recent: 4 },
        ..infinipot_v.clone()
    };
    let retake = Recipe {
        name: "retake",
        reduce: Reduce::Peaks { keep: 1.0 },
        cut: Cut::Uniform { frames: 32 },
        resident: streammem.resident.clone().map(|resident| Resident {
            cap: 64,
            scope: Scope::Step,
            leave: Leave::Nothing,
            probe: Probe::Itself,
            ..resident
        }),
        places: Places::Scaled,
        ..infinipot_v.clone()
    };
    let mukv = Recipe {
        name: "mukv",
        // A run of the coarsest grain at a time.
        cut: Cut::Uniform { frames: 4 },
        windowed_answers: false,
        window: None,
        places: Places::Local,
        order: Order::Found,
        grains: Grains {
            frames: vec![0.25, 1.0, 4.0],
            keep: vec![0.1, 0.1, 0.8],
            attention: vec![0.5, 0.7, 0.8],
            retrieve: vec![20, 32, 12],
        },
        sees: Sees::Prefix,
        retrieval: Retrieval::Grains { lean: 0.3, top: 5 },
        ..rekv.clone()
    };
    let memstream = Recipe {
        name: "memstream",
        windowed_answers: false,
        window: None,
        sees: Sees::Changed(Sparse { units: 64, keep: 0.25, pairs: false }),
        changed_representative: true,
        expert: Expert::Both { kappa: 60.0 },
        ..rekv.clone()
    };
    let cacheflow = Recipe {
        name: "cacheflow",
        reduce: Reduce::Patches { alike: 0.5 },
        cut: Cut::Pack { frames: 1 },
        windowed_answers: false,
        retrieval: Retrieval::Consensus { units: 64 },
        similarity: Similarity::Cosine,
        ..rekv.clone()
    };
    // The past is first in, first out; the newest frames stand behind it and are not of it. A frame a
    // time, so that each sees as much of it as the one before.
    let dscache = Recipe {
        name: "dscache",
        cut: Cut::Uniform { frames: 1 },
        store: true,
        keeps: Keeps::Inputs,
        resident: infinipot_v.resident.clone().map(|resident| Resident {
            cap: 21,
            floor: 1.0,
            heads: Heads::Shared,
            signal: Signal::Recency,
            share: 1.0,
            recent: 0.0,
            ..resident
        }),
        places: Places::Packed,
        retrieval: Retrieval::Fresh { units: 4 },
        ..infinipot_v.clone()
    };
    let simplestream = Recipe {
        name: "simplestream",
        windowed_answers: false,
        window: None,
        sees: Sees::Nothing,
        keeps: Keeps::Inputs,
        retrieval: Retrieval::Fresh { units: 4 },
        ..rekv.clone()
    };
    let fluxmem = Recipe {
        name: "fluxmem",
        cut: Cut::Uniform { frames: 1 },
        older: Older::Tiers(Tiers { whole: 4, changed: 32, same: 0.8, cap: 96, bank: None }),
        retrieval: Retrieval::All { last: None },
        ..simplestream.clone()
    };
    let causalmem = Recipe {
        name: "causalmem",
        older: Older::Span(Span { cap: 61, directions: 64, decay: 0.9, new: 8 }),
        ..fluxmem.clone()
    };
    // Pictures of 512 tokens, of which the published 2048 hold four.
    let savemem = Recipe {
        name: "savemem",
        older: Older::Tiers(Tiers {
            whole: 2,
            changed: 8,
            same: 0.8,
            cap: 4,
            bank: Some(Bank {
                questions: Questions(SAVEMEM_BANK.map(String::from).into()),
                spare: 0.15,
                scene: 1.5,
            }),
        }),
        retrieval: Retrieval::Gated { gate: 1.0, few: 10 },
        ..fluxmem.clone()
    };
    // InfiniPot-V's own baseline.
    let uniform = Recipe {
        name: "uniform",
        resident: infinipot_v.resident.clone().map(|resident| Resident {
            pick: Pick::Evenly,
            heads: Heads::Shared,
            signal: Signal::Recency,
            share: 1.0,
            recent: 0.0,
            ..resident
        }),
        ..infinipot_v.clone()
    };
    // Ours: what a question finds comes with what surrounds it and the newest frames, and is read again.
    let auto = Recipe {
        name: "auto",
        windowed_answers: false,
        keeps: Keeps::Inputs,
        retrieval: Retrieval::Best {
            units: 16,
            most: MOST_RETRIEVED,
            oldest: 1,
            recent: 4,
            chunk: 1,
            spread: 0.8,
            agree: true,
            read: 0.3,
            cover: true,
            reach: TRAINED,
            rule: BudgetRule::Stretched { temperature: 0.0 },
        },
        ..rekv.clone()
    };
    vec![
        auto,
        streamkv,
        streamkv_paper,
        rekv,
        mukv,
        infinipot_v,
        memstream,
        streammem,
        hermes,
        livevlm,
        cacheflow,
        retake,
        dscache,
        simplestream,
        fluxmem,
        causalmem,
        savemem,
        sliding_window,
        uniform,
        full,
    ]
}
