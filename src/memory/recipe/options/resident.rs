// SPDX-License-Identifier: MPL-2.0
//! The options of a resident cache, and of where tokens stand.

use super::super::parts::Places;
use super::super::resident::{Pick, Probe};
use super::row::{ANY, COUNT, Row, SHARE};

pub static ROWS: &[Row] = &[
    Row {
        name: "cap",
        help: "frames' worth of tokens that stay resident in a layer, at most",
        source: "InfiniPot-V §2.3, `B`; other methods §4: M, B",
        range: COUNT,
        field: |r| Some(&mut r.resident.as_mut()?.cap),
    },
    Row {
        name: "floor",
        help: "what is left when the resident cache shrinks, as a fraction of `cap`; 1: it shrinks \
               when it is more than full",
        source: "InfiniPot-V §2.3, `Cf / B`",
        range: SHARE,
        field: |r| Some(&mut r.resident.as_mut()?.floor),
    },
    Row {
        name: "cap-prefix",
        help: "whether the tokens in front of the video count when it is asked if the cap is reached",
        source: "HERMES code, `kv_size`",
        range: ANY,
        field: |r| Some(&mut r.resident.as_mut()?.prefix_counts),
    },
    Row {
        name: "total",
        help: "frames of the whole video, for the last shrinking; 0: not known, a stream",
        source: "InfiniPot-V code",
        range: (0.0, (1 << 24) as f64),
        field: |r| Some(&mut r.resident.as_mut()?.total),
    },
    Row {
        name: "signal",
        help: "what says which resident tokens stay: `attention` (from `probe`), `novelty` (TaR), \
               `value-norm` (VaN) or `recency`",
        source: "other methods §6.2",
        range: ANY,
        field: |r| Some(&mut r.resident.as_mut()?.signal),
    },
    Row {
        name: "signal-share",
        help: "share of the budget that `signal` spends; the rest goes by `signal-then`",
        source: "InfiniPot-V §2.4, `tar_ratio`",
        range: SHARE,
        field: |r| Some(&mut r.resident.as_mut()?.share),
    },
    Row {
        name: "signal-then",
        help: "what spends the rest; one of those of `signal`",
        source: "InfiniPot-V §2.4",
        range: ANY,
        field: |r| Some(&mut r.resident.as_mut()?.then),
    },
    Row {
        name: "resident-recent",
        help: "newest fraction of the resident tokens that stays in any case",
        source: "InfiniPot-V §2.4, `query_ratio`",
        range: SHARE,
        field: |r| Some(&mut r.resident.as_mut()?.recent),
    },
    Row {
        name: "heads",
        help: "whether the KV heads of a layer keep the same tokens: `shared` or `own`",
        source: "other methods §6.1",
        range: ANY,
        field: |r| Some(&mut r.resident.as_mut()?.heads),
    },
    Row {
        name: "by-depth",
        help: "shallow layers keep what is new, deep ones what gets attention, each leaning on the \
               next",
        source: "HERMES §4.2",
        range: ANY,
        field: |r| Some(&mut r.resident.as_mut()?.by_depth),
    },
    Row {
        name: "pick",
        help: "how tokens are chosen by their scores: `top`, `buckets` (spread over the stream) or \
               `evenly` (scores ignored)",
        source: "other methods §4.3; InfiniPot-V's baselines",
        range: ANY,
        field: |r| Some(&mut r.resident.as_mut()?.pick),
    },
    Row {
        name: "bucket",
        help: "tokens that each stretch of the stream may keep",
        source: "LiveVLM §4.3, `b`",
        range: COUNT,
        field: |r| match &mut r.resident.as_mut()?.pick {
            Pick::Buckets { size, .. } => Some(size),
            _ => None,
        },
    },
    Row {
        name: "bucket-free",
        help: "share of the budget that goes by score before the stretches count",
        source: "LiveVLM §4.3, `R`; the value is a guess",
        range: SHARE,
        field: |r| match &mut r.resident.as_mut()?.pick {
            Pick::Buckets { free, .. } => Some(free),
            _ => None,
        },
    },
    Row {
        name: "scope",
        help: "what competes for the budget: `whole` (all that is resident) or `step` (what came \
               together; each keeps the same fraction)",
        source: "ReTaKe §4.5",
        range: ANY,
        field: |r| Some(&mut r.resident.as_mut()?.scope),
    },
    Row {
        name: "leave",
        help: "what is left of tokens that go: `nothing`, `prototypes` (a mean of each new frame) \
               or `summary` (one mean, in deep layers)",
        source: "StreamMem §4.1, HERMES §4.2",
        range: ANY,
        field: |r| Some(&mut r.resident.as_mut()?.leave),
    },
    Row {
        name: "probe",
        help: "whose attention counts: `turn` (the words before an answer), `words` (the two \
               prompts below), `newest` (frames) or `itself` (the frames that came together)",
        source: "other methods §4.1-4.5",
        range: ANY,
        field: |r| Some(&mut r.resident.as_mut()?.probe),
    },
    Row {
        name: "probe-local",
        help: "prompt whose attention counts in shallow layers",
        source: "HERMES §4.2",
        range: ANY,
        field: |r| match &mut r.resident.as_mut()?.probe {
            Probe::Words { local, .. } => Some(local),
            _ => None,
        },
    },
    Row {
        name: "probe-global",
        help: "prompt whose attention counts in deep layers",
        source: "HERMES §4.2",
        range: ANY,
        field: |r| match &mut r.resident.as_mut()?.probe {
            Probe::Words { global, .. } => Some(global),
            _ => None,
        },
    },
    Row {
        name: "probe-frames",
        help: "newest frames whose attention counts",
        source: "LiveVLM §4.3, `r`; the value is a guess",
        range: COUNT,
        field: |r| match &mut r.resident.as_mut()?.probe {
            Probe::Newest { units } => Some(units),
            _ => None,
        },
    },
    Row {
        name: "pooling",
        help: "smooth value norms over picture and time, by quarters of the depth",
        source: "InfiniPot-V §2.5",
        range: ANY,
        field: |r| Some(&mut r.resident.as_mut()?.pooling),
    },
    Row {
        name: "positions",
        help: "where tokens stand when they are looked at: `packed` (side by side), `kept` (as in \
               the stream), `lazy` (kept until `position-limit`, then packed), `scaled` (time \
               squeezed with what goes) or `local` (every unit right behind the prefix)",
        source: "other methods §6.2",
        range: ANY,
        field: |r| Some(&mut r.places),
    },
    Row {
        name: "position-limit",
        help: "largest position before resident tokens are packed",
        source: "HERMES §4.2, `max_position_embeddings - 1024`",
        range: (1.0, (1 << 24) as f64),
        field: |r| match &mut r.places {
            Places::Lazy { limit } => Some(limit),
            _ => None,
        },
    },
    Row {
        name: "compat",
        help: "reproduce the reference: f16 boundary rounding and double-counted sinks (ReKV, \
               StreamKV), slots instead of patches and rotated keys (InfiniPot-V)",
        source: "released code",
        range: ANY,
        field: |r| Some(&mut r.compat),
    },
];
