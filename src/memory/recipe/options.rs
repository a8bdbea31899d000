// SPDX-License-Identifier: MPL-2.0
//! The options of a recipe: one row each with its name, what it means, where it comes from, its
//! range, and the field that it reads and sets. `method-options`, `--set`, the texts of
//! `gst-inspect-1.0` and the table in `docs/methods.md` all come from here.

use crate::error::{EngineError, Result};
use crate::memory::budget::BudgetRule;
use crate::memory::grains::Grains;
use crate::memory::recipe::{
    Expert, HERMES_GLOBAL, HERMES_LOCAL, Heads, Keeps, Leave, Pick, Probe, Recipe, Retrieval,
    Scope, Sees, Signal,
};
use crate::memory::reduce::Reduce;
use crate::memory::resident::Places;
use crate::memory::score::Similarity;
use crate::memory::segment::Cut;
use crate::memory::sparse::Sparse;

/// An option with its value in a recipe at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipeOption {
    pub name: &'static str,
    pub value: String,
    /// What it does, with its unit.
    pub help: &'static str,
    /// Paper, section or released code that it follows.
    pub source: &'static str,
}

/// A row of the table.
pub(super) struct Row {
    name: &'static str,
    help: &'static str,
    source: &'static str,
    /// For numbers: the least and the largest.
    range: (f64, f64),
    /// The field, or `None` if a recipe lacks the part that it belongs to.
    field: for<'a> fn(&'a mut Recipe) -> Option<&'a mut dyn Value>,
}

const ANY: (f64, f64) = (0.0, 0.0);
const SHARE: (f64, f64) = (0.0, 1.0);
/// Frames, units.
const COUNT: (f64, f64) = (1.0, 4096.0);
/// `max_position_embeddings` of the published checkpoints less HERMES's 1024.
pub(super) const DEFAULT_LIMIT: usize = 32_768 - 1024;
const COUNT_OR_NONE: (f64, f64) = (0.0, 4096.0);

/// The one option that names another model.
pub(super) const EXTERNAL_MODEL: &str = "external-model";

/// The table.
static ROWS: &[Row] = &[
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
            Retrieval::Grains { .. } | Retrieval::Pages { .. } => None,
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

fn as_value(value: &mut impl Value) -> &mut dyn Value {
    value
}

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

/// The row of an option.
///
/// # Errors
/// [`EngineError::Option`] with the known names.
pub(super) fn named(name: &str) -> Result<&'static Row> {
    ROWS.iter().find(|row| row.name == name).ok_or_else(|| {
        let known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        let reason = format!("no such option; known options: {}", known.join(", "));
        EngineError::Option { key: name.into(), reason }
    })
}

/// What a recipe has of the table.
pub(super) fn of(recipe: &Recipe) -> Vec<RecipeOption> {
    ROWS.iter().filter_map(|row| row.of(recipe)).collect()
}

/// The whole table, each row with the values that it has in these recipes: the commonest one, then
/// the others with the names of their methods.
pub(super) fn all(recipes: &[Recipe]) -> Vec<RecipeOption> {
    ROWS.iter().filter_map(|row| row.among(recipes)).collect()
}

/// Values longer than this are the prompts of the papers.
const LONGEST_SHOWN: usize = 40;

impl Row {
    pub fn of(&self, recipe: &Recipe) -> Option<RecipeOption> {
        let value = (self.field)(&mut recipe.clone())?.show();
        Some(RecipeOption { name: self.name, value, help: self.help, source: self.source })
    }

    fn among(&self, recipes: &[Recipe]) -> Option<RecipeOption> {
        let mut values: Vec<(String, Vec<&str>)> = Vec::new();
        for recipe in recipes {
            let Some(RecipeOption { mut value, .. }) = self.of(recipe) else { continue };
            if value.is_empty() {
                value = "none".into();
            } else if value.len() > LONGEST_SHOWN {
                value = "the released prompt".into();
            }
            match values.iter_mut().find(|(known, _)| *known == value) {
                Some((_, methods)) => methods.push(recipe.name),
                None => values.push((value, vec![recipe.name])),
            }
        }
        // Stable, so that of equally common ones the first method's leads.
        values.sort_by_key(|(_, methods)| std::cmp::Reverse(methods.len()));
        let mut values = values.into_iter();
        let (commonest, _) = values.next()?;
        let others = values.map(|(value, methods)| format!("; {} {value}", methods.join(", ")));
        let value = commonest + &others.collect::<String>();
        Some(RecipeOption { name: self.name, value, help: self.help, source: self.source })
    }

    pub fn set(&self, recipe: &mut Recipe, text: &str) -> Result<()> {
        let name = recipe.name;
        let outcome = match (self.field)(recipe) {
            Some(field) => {
                field.read(text, self.range).map_err(|right| format!("`{text}` is not {right}"))
            }
            None => Err(format!("method `{name}` has no such part")),
        };
        outcome.map_err(|reason| EngineError::Option { key: self.name.into(), reason })
    }
}

/// A field that can be shown and read; reading fails with what would have been right.
trait Value {
    fn show(&self) -> String;
    fn read(&mut self, text: &str, range: (f64, f64)) -> Outcome;
}

type Outcome = std::result::Result<(), String>;

fn in_range((low, high): (f64, f64)) -> String {
    format!("a value in {low}..={high}")
}

impl Value for usize {
    fn show(&self) -> String {
        self.to_string()
    }

    fn read(&mut self, text: &str, range: (f64, f64)) -> Outcome {
        let value: usize = text.parse().map_err(|_| in_range(range))?;
        let fits = (range.0..=range.1).contains(&(value as f64));
        *self = fits.then_some(value).ok_or_else(|| in_range(range))?;
        Ok(())
    }
}

impl Value for f64 {
    fn show(&self) -> String {
        self.to_string()
    }

    fn read(&mut self, text: &str, range: (f64, f64)) -> Outcome {
        let value: f64 = text.parse().map_err(|_| in_range(range))?;
        let fits = (range.0..=range.1).contains(&value);
        *self = fits.then_some(value).ok_or_else(|| in_range(range))?;
        Ok(())
    }
}

impl Value for f32 {
    fn show(&self) -> String {
        self.to_string()
    }

    fn read(&mut self, text: &str, range: (f64, f64)) -> Outcome {
        let mut value = f64::from(*self);
        value.read(text, range)?;
        *self = value as f32;
        Ok(())
    }
}

impl Value for bool {
    fn show(&self) -> String {
        self.to_string()
    }

    fn read(&mut self, text: &str, _: (f64, f64)) -> Outcome {
        *self = text.parse().map_err(|_| "`true` or `false`".to_owned())?;
        Ok(())
    }
}

impl Value for String {
    fn show(&self) -> String {
        self.clone()
    }

    fn read(&mut self, text: &str, _: (f64, f64)) -> Outcome {
        *self = text.to_owned();
        Ok(())
    }
}

/// A field with a few named values. Naming the value that it has changes nothing, so what goes
/// with that value stays.
macro_rules! choice {
    ($type:ty: $($name:literal => $pattern:pat, $value:expr;)+) => {
        impl Value for $type {
            fn show(&self) -> String {
                match self { $($pattern => $name),+ }.into()
            }

            fn read(&mut self, text: &str, _: (f64, f64)) -> Outcome {
                if self.show() == text {
                    return Ok(());
                }
                *self = match text {
                    $($name => $value,)+
                    _ => return Err(format!("one of {}", [$($name),+].join(", "))),
                };
                Ok(())
            }
        }
    };
}

choice! { Keeps:
    "kv" => Self::KeysAndValues, Self::KeysAndValues;
    "inputs" => Self::Inputs, Self::Inputs;
}

choice! { Similarity:
    "dot" => Self::Dot, Self::Dot;
    "cosine" => Self::Cosine, Self::Cosine;
}

choice! { Signal:
    "attention" => Self::Attention, Self::Attention;
    "novelty" => Self::Novelty, Self::Novelty;
    "value-norm" => Self::ValueNorm, Self::ValueNorm;
    "recency" => Self::Recency, Self::Recency;
}

choice! { Heads:
    "shared" => Self::Shared, Self::Shared;
    "own" => Self::Own, Self::Own;
}

choice! { Pick:
    "top" => Self::Top, Self::Top;
    "buckets" => Self::Buckets { .. }, Self::Buckets { size: 1, free: 0.25 };
    "evenly" => Self::Evenly, Self::Evenly;
}

choice! { Scope:
    "whole" => Self::Whole, Self::Whole;
    "step" => Self::Step, Self::Step;
}

choice! { Leave:
    "nothing" => Self::Nothing, Self::Nothing;
    "prototypes" => Self::Prototypes, Self::Prototypes;
    "summary" => Self::Summary, Self::Summary;
}

choice! { Probe:
    "turn" => Self::Turn, Self::Turn;
    "words" => Self::Words { .. },
        Self::Words { local: HERMES_LOCAL.into(), global: HERMES_GLOBAL.into() };
    "newest" => Self::Newest { .. }, Self::Newest { units: 1 };
    "itself" => Self::Itself, Self::Itself;
}

choice! { Places:
    "packed" => Self::Packed, Self::Packed;
    "kept" => Self::Kept, Self::Kept;
    "lazy" => Self::Lazy { .. }, Self::Lazy { limit: DEFAULT_LIMIT };
    "scaled" => Self::Scaled, Self::Scaled;
    "local" => Self::Local, Self::Local;
}

choice! { Reduce:
    "nothing" => Self::Nothing, Self::Nothing;
    "frames" => Self::Frames { .. }, Self::Frames { alike: 0.95 };
    "patches" => Self::Patches { .. }, Self::Patches { alike: 0.5 };
    "peaks" => Self::Peaks { .. }, Self::Peaks { keep: 1.0 };
}

choice! { Expert:
    "internal" => Self::Internal, Self::Internal;
    "external" => Self::External, Self::External;
    "both" => Self::Both { .. }, Self::Both { kappa: 60.0 };
}

/// With slashes between, as many as there are.
impl<T: Value + Clone> Value for Vec<T> {
    fn show(&self) -> String {
        self.iter().map(Value::show).collect::<Vec<_>>().join("/")
    }

    fn read(&mut self, text: &str, range: (f64, f64)) -> Outcome {
        let right = || format!("{} values of {}..={} with / between", self.len(), range.0, range.1);
        let mut new = self.clone();
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() != new.len() {
            return Err(right());
        }
        for (value, part) in new.iter_mut().zip(parts) {
            value.read(part.trim(), range).map_err(|_| right())?;
        }
        *self = new;
        Ok(())
    }
}

/// As the length of segments; a length of 0 leaves any other cut as it is.
impl Value for Cut {
    fn show(&self) -> String {
        match self {
            Self::Uniform { frames } => frames.to_string(),
            _ => "0".into(),
        }
    }

    fn read(&mut self, text: &str, range: (f64, f64)) -> Outcome {
        let mut frames = 0;
        frames.read(text, range)?;
        if frames > 0 {
            *self = Self::Uniform { frames };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_row_belongs_to_some_method() {
        for (at, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..at].iter().all(|other| other.name != row.name), "{}", row.name);
            let used =
                Recipe::names().iter().any(|name| row.of(&Recipe::named(name).unwrap()).is_some());
            assert!(used, "no method has {}", row.name);
            assert!(!row.help.is_empty() && !row.source.is_empty(), "{}", row.name);
        }
    }
}
