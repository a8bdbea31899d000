// SPDX-License-Identifier: MPL-2.0
//! The options of what comes in and of what a question finds.

use super::super::composition::Recipe;
use super::super::parts::{
    Bank, BudgetRule, Cut, Expert, Grains, Keeps, Older, Reduce, Retrieval, Sees, Span, Sparse,
    Tiers,
};
use super::row::{ANY, COUNT, COUNT_OR_NONE, Row, SHARE, as_value};
use super::value::Value;

/// The one option that names another model.
pub const EXTERNAL_MODEL: &str = "external-model";

pub static ROWS: &[Row] = &[
    Row {
        name: "segment-threshold",
        help: "cosine of neighbouring frames at or below which a segment ends",
        source: "StreamKV §3.1",
        range: (-2.0, 2.0),
        field: |r| match &mut r.cut {
            Cut::Semantic { threshold, .. } => Some(threshold),
            _ => None,
        },
    },
    Row {
        name: "segment-min",
        help: "frames within which a segment does not end",
        source: "StreamKV §3.1",
        range: COUNT,
        field: |r| match &mut r.cut {
            Cut::Semantic { min, .. } => Some(min),
            _ => None,
        },
    },
    Row {
        name: "segment-max",
        help: "frames beyond which the most alike neighbours of a segment are merged",
        source: "StreamKV §3.1",
        range: COUNT,
        field: |r| match &mut r.cut {
            Cut::Semantic { max, .. } => Some(max),
            _ => None,
        },
    },
    Row {
        name: "segment-close-at-max",
        help: "close a segment that is full instead of merging in it",
        source: "ours",
        range: ANY,
        field: |r| match &mut r.cut {
            Cut::Semantic { close_at_max, .. } => Some(close_at_max),
            _ => None,
        },
    },
    Row {
        name: "segment-seconds",
        help: "seconds of stream time after which a segment closes even if nothing changes",
        source: "ours",
        range: (0.0, f64::INFINITY),
        field: |r| match &mut r.cut {
            Cut::Semantic { seconds, .. } => Some(seconds),
            _ => None,
        },
    },
    Row {
        name: "segment-frames",
        help: "frames of a segment of fixed length, with a resident cache at most half of `cap`; \
               0: cut where the picture changes",
        source: "StreamKV, `uniform`",
        range: COUNT_OR_NONE,
        field: |r| match &mut r.cut {
            Cut::Never | Cut::Pack { .. } => None,
            cut => Some(cut),
        },
    },
    Row {
        name: "summary",
        help: "append each segment's mean frame and keep it",
        source: "StreamKV §3.2",
        range: ANY,
        field: |r| match r.cut {
            Cut::Never | Cut::Pack { .. } => None,
            _ => Some(&mut r.summary),
        },
    },
    Row {
        name: "window",
        help: "tokens a new token sees while the stream is encoded, itself included",
        source: "ReKV §3.1, `n_local`",
        range: (1.0, (1 << 24) as f64),
        field: |r| r.window.as_mut().map(as_value),
    },
    Row {
        name: "keep-ratio",
        help: "fraction of a segment's frames that each layer keeps, on average",
        source: "StreamKV, `compression_ratio`",
        range: SHARE,
        field: |r| r.compression.as_mut().map(|c| as_value(&mut c.keep_ratio)),
    },
    Row {
        name: "keep-temperature",
        help: "how far layers may differ in what they keep; 0: not at all",
        source: "StreamKV code, `compress_temp`",
        range: SHARE,
        field: |r| temperature(&mut r.compression.as_mut()?.rule),
    },
    Row {
        name: "guidance",
        help: "prompt that says what to keep of a segment",
        source: "StreamKV §3.3",
        range: ANY,
        field: |r| r.compression.as_mut().map(|c| as_value(&mut c.guidance)),
    },
    Row {
        name: "retrieve",
        help: "units (frames) in the context of an answer, per layer and on average",
        source: "ReKV §3.2, `retrieve_size`",
        range: COUNT,
        field: |r| match &mut r.retrieval {
            Retrieval::Best { units, .. } | Retrieval::Consensus { units } => Some(units),
            Retrieval::All { last } => last.as_mut().map(as_value),
            Retrieval::Fresh { .. }
            | Retrieval::Gated { .. }
            | Retrieval::Grains { .. }
            | Retrieval::Pages { .. } => None,
        },
    },
    // Not what a question retrieves: how many that are goes by the model's length, and this does not.
    Row {
        name: "fresh",
        help: "newest units (frames) that are encoded behind the prefix alone when a question comes",
        source: "DSCache code, `frame_len`; SimpleStream code, `recent_frames`",
        range: COUNT,
        field: |r| match &mut r.retrieval {
            Retrieval::Fresh { units } => Some(units),
            _ => None,
        },
    },
    Row {
        name: "retrieve-max",
        help: "units in the context of an answer, at most per layer",
        source: "StreamKV code",
        range: COUNT,
        field: |r| match &mut r.retrieval {
            Retrieval::Best { most, .. } => Some(most),
            _ => None,
        },
    },
    Row {
        name: "retrieve-temperature",
        help: "how far layers may differ in what they retrieve; 0: not at all",
        source: "StreamKV code, `retrieve_temp`",
        range: SHARE,
        field: |r| match &mut r.retrieval {
            Retrieval::Best { rule, .. } => temperature(rule),
            _ => None,
        },
    },
    Row {
        name: "oldest",
        help: "oldest units that are always retrieved; with `cover`, where most is evenly apart",
        source: "ours",
        range: COUNT_OR_NONE,
        field: |r| match &mut r.retrieval {
            Retrieval::Best { oldest, .. } => Some(oldest),
            _ => None,
        },
    },
    Row {
        name: "recent",
        help: "newest units that are always retrieved",
        source: "StreamKV code, `retrieve_local`",
        range: COUNT_OR_NONE,
        field: |r| match &mut r.retrieval {
            Retrieval::Best { recent, .. } => Some(recent),
            _ => None,
        },
    },
    Row {
        name: "chunk",
        help: "neighbouring units that are ranked together",
        source: "ReKV, `retrieve_chunk_size`",
        range: COUNT,
        field: |r| match &mut r.retrieval {
            Retrieval::Best { chunk, .. } => Some(chunk),
            _ => None,
        },
    },
    Row {
        name: "spread",
        help: "fraction of its score that a unit lends to the ones beside it, so that what is found \
               comes with its surroundings where it stands out; 0: nothing",
        source: "ours",
        range: SHARE,
        field: |r| match &mut r.retrieval {
            Retrieval::Best { spread, .. } => Some(spread),
            _ => None,
        },
    },
    Row {
        name: "agree",
        help: "all layers look at the same units: those that they like best together",
        source: "ours",
        range: ANY,
        field: |r| match &mut r.retrieval {
            Retrieval::Best { agree, .. } => Some(agree),
            _ => None,
        },
    },
    Row {
        name: "read",
        help: "fraction of what is found that is read again where inputs are kept, of the newest units \
               all and of the others the tokens least like what is usually at their place, five of a \
               picture on average at least; as many more units are found",
        source: "ours",
        range: (0.01, 1.0),
        field: |r| match (&mut r.retrieval, r.keeps) {
            (Retrieval::Best { read, .. }, Keeps::Inputs) => Some(read),
            _ => None,
        },
    },
    Row {
        name: "cover",
        help: "the less the layers agree on what the question likes and `What is there?` does not, the \
               more of what is retrieved is evenly apart instead of best",
        source: "ours",
        range: ANY,
        field: |r| match &mut r.retrieval {
            Retrieval::Best { cover, agree: true, .. } => Some(cover),
            _ => None,
        },
    },
    Row {
        name: "reach",
        help: "what is read again and mostly evenly apart stands where it stood in the stream, drawn \
               together where that is further than so many units; a model's folder says how many frames \
               it was trained on; 0: side by side",
        source: "ours",
        range: COUNT_OR_NONE,
        field: |r| match (&mut r.retrieval, r.keeps) {
            (Retrieval::Best { reach, cover: true, .. }, Keeps::Inputs) => Some(reach),
            _ => None,
        },
    },
    Row {
        name: "keep",
        help: "what is stored of a unit: `kv` (its keys and values in every layer) or `inputs` (what \
               entered the language model, a mean key and value of every layer to find it by; what \
               the layers find together is encoded again)",
        source: "ours",
        range: ANY,
        field: |r| match (&r.retrieval, &r.resident, r.sees) {
            (Retrieval::Best { .. }, None, Sees::Window | Sees::Prefix) if r.store => {
                Some(&mut r.keeps)
            }
            _ => None,
        },
    },
    Row {
        name: "tier-whole",
        help: "newest units (frames) that stay whole",
        source: "FluxMem and SAVEMem scripts, 8 and 4 frames of which a unit has two",
        range: COUNT,
        field: |r| tiers(r).map(|tiers| as_value(&mut tiers.whole)),
    },
    Row {
        name: "tier-changed",
        help: "units behind these of which what changed is left; of older ones what is alike side by \
               side is merged, of `savemem` where less than 20 tokens are left, and else chosen from",
        source: "FluxMem and SAVEMem scripts, 64 and 16 frames of which a unit has two",
        range: COUNT_OR_NONE,
        field: |r| tiers(r).map(|tiers| as_value(&mut tiers.changed)),
    },
    Row {
        name: "tier-same",
        help: "cosine with what is around it one unit later above which a token did not change",
        source: "FluxMem and SAVEMem code, `direct_drop_sim_threshold`",
        range: SHARE,
        field: |r| tiers(r).map(|tiers| as_value(&mut tiers.same)),
    },
    Row {
        name: "hold",
        help: "frames' worth of tokens that are held in all; beyond them the oldest go. Of `savemem` \
               besides the whole units, and of those older than `tier-changed` the least salient tokens go",
        source: "CausalMem scripts, 12000 tokens of 196 a frame; SAVEMem scripts, 2048 of 512 a unit; of \
                 `fluxmem` ours: what 256 frames, the most that was published, leave of each other",
        range: COUNT,
        field: |r| match &mut r.older {
            Older::Stays => None,
            Older::Tiers(Tiers { cap, .. }) | Older::Span(Span { cap, .. }) => Some(cap),
        },
    },
    Row {
        name: "bank",
        help: "pseudo-questions with slashes between: a token is as salient as it has to do with one of \
               them, by their embeddings",
        source: "SAVEMem code, `_PSEUDO_QUESTIONS`",
        range: ANY,
        field: |r| bank(r).map(|bank| as_value(&mut bank.questions)),
    },
    Row {
        name: "bank-spare",
        help: "times a token's salience is added to `tier-same` for it",
        source: "SAVEMem code, `semantic_protect_weight`",
        range: (0.0, 2.0),
        field: |r| bank(r).map(|bank| as_value(&mut bank.spare)),
    },
    Row {
        name: "bank-scene",
        help: "times the usual change from unit to unit that make another scene, of which nothing goes for \
               being the same as what is around it one unit later",
        source: "SAVEMem code, `scene_change_multiplier`",
        range: (0.0, f64::INFINITY),
        field: |r| bank(r).map(|bank| as_value(&mut bank.scene)),
    },
    Row {
        name: "gate",
        help: "an answer sees the whole units alone where they have so many times as much to do with the \
               question as the newest usually have with one of `bank`; 0: always, 2: hardly ever",
        source: "SAVEMem scripts: 0.1 for benchmarks about the present, 2 about the past, 1 where both are \
                 asked",
        range: (0.0, 1e6),
        field: |r| match &mut r.retrieval {
            Retrieval::Gated { gate, .. } => Some(gate),
            _ => None,
        },
    },
    // Not `retrieve`, which goes by the model's length.
    Row {
        name: "gate-few",
        help: "units behind the whole ones that an answer sees then, if the question tells them apart: of \
               more nine in ten, and all where it hardly does",
        source: "SAVEMem code, `retrieval_top_k`",
        range: COUNT_OR_NONE,
        field: |r| match &mut r.retrieval {
            Retrieval::Gated { few, .. } => Some(few),
            _ => None,
        },
    },
    Row {
        name: "span",
        help: "directions that tell what has been seen",
        source: "CausalMem scripts, `FOSS_K_MAX`",
        range: COUNT,
        field: |r| span(r).map(|span| as_value(&mut span.directions)),
    },
    Row {
        name: "span-decay",
        help: "what a unit leaves of how much the directions were used before it",
        source: "CausalMem scripts, `FOSS_DECAY`",
        range: SHARE,
        field: |r| span(r).map(|span| as_value(&mut span.decay)),
    },
    Row {
        name: "span-new",
        help: "directions that a unit may bring",
        source: "CausalMem scripts, `FOSS_MAX_NEW_BASIS`",
        range: COUNT,
        field: |r| span(r).map(|span| as_value(&mut span.new)),
    },
    Row {
        name: "thin",
        help: "what becomes of the oldest units where there is no room for more, step by step with \
               slashes between, the last one again and again: `tokens` (half of a unit's), `frames` \
               (one of two), `sketch` (a mean token, then one for two); `none`: they are dropped",
        source: "ours",
        range: ANY,
        field: |r| if r.store { Some(&mut r.thin.rungs) } else { None },
    },
    Row {
        name: "thin-whole",
        help: "share of what is held that is not thinned",
        source: "ours",
        range: SHARE,
        field: |r| if r.store { Some(&mut r.thin.whole) } else { None },
    },
    Row {
        name: "similarity",
        help: "how a question is compared with a unit: `dot` (released codes) or `cosine` (papers)",
        source: "ReKV, StreamKV",
        range: ANY,
        field: |r| match r.retrieval {
            Retrieval::Best { .. } | Retrieval::Consensus { .. } => Some(&mut r.similarity),
            _ => None,
        },
    },
    Row {
        name: "reduce",
        help: "what is taken out before the language model sees it: `nothing`, `frames` (alike \
               neighbours of a segment become one), `patches` (as they were one frame before) or \
               `peaks` (all but the frames that differ most from the one before)",
        source: "StreamMem §4.1, CacheFlow §4.4, ReTaKe §4.5",
        range: ANY,
        field: |r| Some(&mut r.reduce),
    },
    Row {
        name: "alike",
        help: "cosine of co-located tokens from which frames or patches count as alike",
        source: "StreamMem §4.1, CacheFlow §4.4",
        range: (-1.0, 1.0),
        field: |r| match &mut r.reduce {
            Reduce::Frames { alike } | Reduce::Patches { alike } => Some(alike),
            _ => None,
        },
    },
    Row {
        name: "peak-ratio",
        help: "fraction of a segment's frames that stays, peaks of change first",
        source: "ReTaKe §4.5, DPSelect; the value is a guess",
        range: SHARE,
        field: |r| match &mut r.reduce {
            Reduce::Peaks { keep } => Some(keep),
            _ => None,
        },
    },
    Row {
        name: "pack-frames",
        help: "frames' worth of tokens of a unit that is packed across frames",
        source: "CacheFlow §4.4, `B`",
        range: COUNT,
        field: |r| match &mut r.cut {
            Cut::Pack { frames } => Some(frames),
            _ => None,
        },
    },
    Row {
        name: "grain-frames",
        help: "frames' worth of tokens of a piece, by grain, fine to coarse with slashes between",
        source: "MuKV §1.3: 49, 196, 784 tokens of 196 a frame",
        range: (1e-4, 4096.0),
        field: |r| grains(r).map(|grains| as_value(&mut grains.frames)),
    },
    Row {
        name: "grain-keep",
        help: "fraction of a piece's tokens that is kept, by grain; where that is none, all are",
        source: "MuKV §1.6, shell scripts",
        range: SHARE,
        field: |r| grains(r).map(|grains| as_value(&mut grains.keep)),
    },
    Row {
        name: "grain-attention",
        help: "weight of the attention received against how quickly keys change, by grain",
        source: "MuKV §1.4, alpha",
        range: SHARE,
        field: |r| grains(r).map(|grains| as_value(&mut grains.attention)),
    },
    Row {
        name: "grain-retrieve",
        help: "pieces in the context of an answer, by grain",
        source: "MuKV §1.6",
        range: COUNT,
        field: |r| grains(r).map(|grains| as_value(&mut grains.retrieve)),
    },
    Row {
        name: "grain-alike",
        help: "cosine of keys above which the less important of two tokens of a piece goes; 1: \
               none goes",
        source: "MuKV §1.5, 0.9",
        range: SHARE,
        field: |r| if r.grains.is_empty() { None } else { Some(&mut r.grain_alike) },
    },
    Row {
        name: "lean",
        help: "how much the finer grains lean on what the coarsest found",
        source: "MuKV §1.7, alpha_r = beta_r",
        range: SHARE,
        field: |r| match &mut r.retrieval {
            Retrieval::Grains { lean, .. } => Some(lean),
            _ => None,
        },
    },
    Row {
        name: "lean-top",
        help: "best coarse pieces that the finer grains lean on",
        source: "MuKV §1.7, `top_n`",
        range: COUNT,
        field: |r| match &mut r.retrieval {
            Retrieval::Grains { top, .. } => Some(top),
            _ => None,
        },
    },
    Row {
        name: "page",
        help: "resident tokens that are retrieved together",
        source: "LiveVLM §4.3, PaR",
        range: COUNT,
        field: |r| match &mut r.retrieval {
            Retrieval::Pages { tokens, .. } => Some(tokens),
            _ => None,
        },
    },
    Row {
        name: "page-share",
        help: "fraction of the pages that an answer sees",
        source: "LiveVLM §4.3, PaR",
        range: SHARE,
        field: |r| match &mut r.retrieval {
            Retrieval::Pages { share, .. } => Some(share),
            _ => None,
        },
    },
    Row {
        name: "page-recent",
        help: "frames' worth of newest tokens that an answer sees in any case",
        source: "LiveVLM §4.3, FIFO; the value is a guess",
        range: COUNT_OR_NONE,
        field: |r| match &mut r.retrieval {
            Retrieval::Pages { recent, .. } => Some(recent),
            _ => None,
        },
    },
    Row {
        name: "changed-window",
        help: "units before the one at hand of which new tokens see what changed",
        source: "MemStream §3.3; the value is guess G3",
        range: COUNT,
        field: |r| changed(r).map(|rule| as_value(&mut rule.units)),
    },
    Row {
        name: "changed-keep",
        help: "fraction of a unit's tokens that later ones see: those least like the unit before",
        source: "MemStream §3.3, `k`; the value is guess G7",
        range: SHARE,
        field: |r| changed(r).map(|rule| as_value(&mut rule.keep)),
    },
    Row {
        name: "changed-pairs",
        help: "compare units in pairs, the first of each whole",
        source: "MemStream §3.3; guess G9",
        range: ANY,
        field: |r| changed(r).map(|rule| as_value(&mut rule.pairs)),
    },
    Row {
        name: "changed-representative",
        help: "represent units by the mean of their changed keys instead of all",
        source: "MemStream §3.3; guess G11",
        range: ANY,
        field: |r| match r.sees {
            Sees::Changed(_) => Some(&mut r.changed_representative),
            _ => None,
        },
    },
    Row {
        name: "experts",
        help: "who ranks units: `internal` (the model's own keys), `external` (a text-image \
               model) or `both`, fused by rank",
        source: "MemStream §3.3, ReKV's external retrieval §3.2",
        range: ANY,
        field: |r| match r.retrieval {
            Retrieval::Best { .. } => Some(&mut r.expert),
            _ => None,
        },
    },
    Row {
        name: "rrf-k",
        help: "constant of the rank fusion: a ranking gives a unit 1 / (k + rank)",
        source: "MemStream §3.3; the value is guess G13",
        range: (0.0, 1e6),
        field: |r| match &mut r.expert {
            Expert::Both { kappa } => Some(kappa),
            _ => None,
        },
    },
    Row {
        name: EXTERNAL_MODEL,
        help: "Hugging Face folder of the text-image model (SigLIP or CLIP), or `hf:owner/name`",
        source: "MemStream §3.3; guess G12",
        range: ANY,
        field: |r| match r.retrieval {
            Retrieval::Best { .. } => Some(&mut r.external_model),
            _ => None,
        },
    },
];

fn grains(recipe: &mut Recipe) -> Option<&mut Grains> {
    Some(&mut recipe.grains).filter(|grains| !grains.is_empty())
}

fn changed(recipe: &mut Recipe) -> Option<&mut Sparse> {
    match &mut recipe.sees {
        Sees::Changed(rule) => Some(rule),
        _ => None,
    }
}

fn temperature(rule: &mut BudgetRule) -> Option<&mut dyn Value> {
    match rule {
        BudgetRule::Stretched { temperature } => Some(temperature),
        BudgetRule::Threshold => None,
    }
}

fn tiers(recipe: &mut Recipe) -> Option<&mut Tiers> {
    match &mut recipe.older {
        Older::Tiers(tiers) => Some(tiers),
        Older::Stays | Older::Span(_) => None,
    }
}

fn bank(recipe: &mut Recipe) -> Option<&mut Bank> {
    tiers(recipe)?.bank.as_mut()
}

fn span(recipe: &mut Recipe) -> Option<&mut Span> {
    match &mut recipe.older {
        Older::Span(span) => Some(span),
        Older::Stays | Older::Tiers(_) => None,
    }
}
