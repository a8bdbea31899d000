// SPDX-License-Identifier: MPL-2.0
//! A method is data: its name stands here, in one table, and nowhere else. Everything downstream
//! sees the parts it is composed of.
//!
//! `streamkv` and `rekv` follow the released code, `streamkv-paper` the published text; where the
//! two differ is listed in `docs/methods.md`.

mod options;

use std::path::Path;

use crate::error::{EngineError, Result};
use crate::memory::budget::BudgetRule;
use crate::memory::grains::{Grain, Grains};
use crate::memory::position::Order;
use crate::memory::reduce::Reduce;
use crate::memory::resident::Places;
use crate::memory::score::Similarity;
use crate::memory::segment::Cut;
use crate::memory::sparse::Sparse;
use crate::model::VideoLlm;
use options::EXTERNAL_MODEL;
pub use options::RecipeOption;

/// StreamKV's guidance prompt, as released.
const STREAMKV_GUIDANCE: &str = "For this event segment in the video, please prioritize retaining \
the following visual information:1)Key objects, people, and their attributes, and any changes or \
transitions during the event.2)Major actions, state transitions, and interactions (e.g., who/what \
is doing what, when, and where), including the precise timing of key moments.3)On-screen text, \
numbers, and all visible cues (such as labels, scores, timer, signs, etc.).4)Causal relationships, \
outcome(s), anomalies, and salient shifts within the segment (e.g., cause-effect chains, rare or \
surprising events, turning points).5)Counts and spatial arrangements of important objects or \
people, as well as layout details that may support summarization, prediction, or sequential \
reasoning in later queries.6)Any misleading, ambiguous, or easily confused visual \
clues\u{2014}ensure enough context is preserved to distinguish the current event state from similar \
past/future states.";

/// ReKV's system message, as released.
const REKV_SYSTEM: &str = "You are a helpful assistant.";

/// StreamKV's system message, as released.
const STREAMKV_SYSTEM: &str = "You are a helpful assistant. Please actively track and remember \
current objects, actions, on-screen texts/numbers, temporal changes, and any anomalies. Focus on \
capturing key visual clues, filtering misleading or outdated context, and keep in mind prior key \
events to support sequential and time-critical queries or proactive outputs throughout the \
streaming video.";

/// HERMES's pseudo-queries, as released.
const HERMES_LOCAL: &str = "Describe the current scene in detail, focusing on specific objects, \
fine-grained actions, and spatial relationships.";
const HERMES_GLOBAL: &str = "Summarize the video narrative, identifying main characters, key \
events, timeline changes, and the overall theme.";

/// Fewer candidates than this many per layer never fill a context; more would not fit it.
const MOST_RETRIEVED: usize = 128;

/// What is dropped from a closed segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Compression {
    /// Fraction of a segment's frames that is kept, in 0..=1.
    pub keep_ratio: f64,
    pub rule: BudgetRule,
    /// The prompt whose mean query says what matters; never stored.
    pub guidance: String,
}

/// What an answer looks at.
#[derive(Clone, Debug, PartialEq)]
pub enum Retrieval {
    /// Everything stored, or its last `last` units.
    All { last: Option<usize> },
    /// The best units of each layer, and the newest ones in any case.
    Best {
        /// Mean number of units a layer.
        units: usize,
        /// No layer takes more than this.
        most: usize,
        /// How many of the newest units are always among them.
        recent: usize,
        /// Neighbours that are ranked together.
        chunk: usize,
        /// The fraction of its score that a unit lends to its neighbours.
        spread: f64,
        /// All layers look at the same units: those that they like best together.
        agree: bool,
        rule: BudgetRule,
    },
    /// The same units for all layers: what the first and the last layer agree on (CacheFlow §4.4).
    Consensus { units: usize },
    /// Of every grain its best pieces, the same for all layers; the finer ones lean on what the
    /// coarsest found (MuKV §1.7).
    Grains {
        /// How much they lean, 0..=1.
        lean: f64,
        /// How many of the best coarse pieces they lean on.
        top: usize,
    },
    /// Of what is resident the best pages of each layer, and the newest tokens (LiveVLM §4.3).
    Pages {
        /// Tokens of a page.
        tokens: usize,
        /// Fraction of the pages that is taken.
        share: f64,
        /// Frames' worth of newest tokens that are always taken.
        recent: usize,
    },
}

/// What is stored of a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keeps {
    /// Its keys and values in every layer.
    #[default]
    KeysAndValues,
    /// What entered the decoder, and of every layer the mean key and the mean value to find it by.
    /// What is found is encoded again, as if it were all there had been.
    Inputs,
}

/// What new tokens see of what came before them. The prefix they see in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Sees {
    /// The newest tokens, as many as the recipe's window has.
    #[default]
    Window,
    /// Nothing else.
    Prefix,
    /// The resident cache.
    Resident,
    /// What changed in the newest units.
    Changed(Sparse),
}

/// Who ranks units.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Expert {
    /// The language model's own keys and queries.
    #[default]
    Internal,
    /// An outside text-image model.
    External,
    /// Both, fused by their ranks: each gives a unit `1 / (kappa + rank)`.
    Both { kappa: f64 },
}

/// A bounded cache that every answer sees whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Resident {
    /// Frames' worth of tokens that a layer holds at most.
    pub cap: usize,
    /// What is left when it shrinks, as a fraction of the cap. Below 1 it shrinks when it is full,
    /// else when it is more than full.
    pub floor: f64,
    /// Frames of the whole video where that is known, else 0: the last shrinking then leaves just
    /// room for the rest (InfiniPot-V's released code).
    pub total: usize,
    /// By what rows are ranked.
    pub signal: Signal,
    /// The share of the budget that `signal` spends; `then` spends the rest.
    pub share: f64,
    pub then: Signal,
    /// The newest fraction of what is held that stays in any case.
    pub recent: f64,
    pub heads: Heads,
    /// Blend with recency by depth, and lean on the next layer (HERMES).
    pub by_depth: bool,
    pub pick: Pick,
    pub scope: Scope,
    pub leave: Leave,
    pub probe: Probe,
    /// Smooth value norms over picture and time, by quarters of the depth.
    pub pooling: bool,
}

impl Resident {
    /// To how many tokens a layer has to shrink that holds `held` tokens after `seen` have come in,
    /// `unit` to a frame; `None`: it may stay as it is.
    pub fn shrink_to(&self, held: usize, seen: usize, unit: usize) -> Option<usize> {
        let cap = self.cap * unit;
        let floor = ((self.cap as f64 * self.floor).round() as usize).max(1) * unit;
        let full = if floor < cap { held >= cap } else { held > cap };
        if !full {
            return None;
        }
        if self.total == 0 {
            return Some(floor);
        }
        let rest = (self.total * unit).saturating_sub(seen);
        let target = if floor + rest >= cap { floor } else { cap - rest };
        (target < held).then_some(target)
    }

    /// Whether a prompt has to be run to rank rows.
    pub(super) fn asks(&self) -> bool {
        let listens = self.signal == Signal::Attention
            || (self.share < 1.0 && self.then == Signal::Attention);
        listens && matches!(self.probe, Probe::Turn | Probe::Words { .. })
    }
}

/// What says that a row matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The attention that it receives from the probe.
    Attention,
    /// How little its key resembles those of the same patch in the recent frames (TaR).
    Novelty,
    /// The length of its value (VaN).
    ValueNorm,
    /// How new it is.
    Recency,
}

/// Whose attention counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// The words between a question and its answer (StreamMem).
    Turn,
    /// Prompts that ask for details in shallow layers, for the whole in deep ones and for both
    /// between (HERMES).
    Words { local: String, global: String },
    /// The newest frames (LiveVLM).
    Newest { units: usize },
    /// The frames of a step among themselves (ReTaKe).
    Itself,
}

/// Whether a layer's KV heads hold the same rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heads {
    Shared,
    Own,
}

/// How rows are chosen by their scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pick {
    Top,
    /// Best first, as long as the stretch of stream that a row lies in has room.
    Buckets {
        /// Rows per stretch.
        size: usize,
        /// The share of the budget that goes by score alone.
        free: f64,
    },
    /// At equal distances, whatever the scores.
    Evenly,
}

/// What competes for the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything held.
    Whole,
    /// What came with one step; each step keeps the same fraction.
    Step,
}

/// What is left of rows that go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    Nothing,
    /// A weighted mean of each new frame (StreamMem).
    Prototypes,
    /// In deep layers, the mean of all that goes (HERMES).
    Summary,
}

/// A composition of the memory's parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    pub(super) name: &'static str,
    /// What is taken out before anything is encoded.
    pub reduce: Reduce,
    pub cut: Cut,
    /// Append each segment's mean frame and keep it.
    pub summary: bool,
    /// Tokens that a new token sees, itself included; `None`: all of them.
    pub window: Option<usize>,
    /// Questions and answers keep to the window too, with the prefix as sinks (ReKV's code); else
    /// they see their whole context (StreamKV's).
    pub windowed_answers: bool,
    pub sees: Sees,
    /// Keep units to be retrieved.
    pub store: bool,
    pub keeps: Keeps,
    /// A bounded cache beside the store, or instead of it.
    pub resident: Option<Resident>,
    /// Where tokens stand when they are looked at.
    pub places: Places,
    /// In which order retrieved units stand.
    pub order: Order,
    /// Cut the same tokens into pieces of these sizes, each encoded alone; none: whole frames.
    pub grains: Grains,
    /// Cosine of keys above which one of two tokens of a piece goes; 1: none goes.
    pub grain_alike: f64,
    /// Represent units by the mean of their changed keys instead of all.
    pub changed_representative: bool,
    pub expert: Expert,
    /// Folder of the outside text-image model.
    pub external_model: String,
    pub compression: Option<Compression>,
    pub retrieval: Retrieval,
    pub similarity: Similarity,
    /// Reproduce the reference's rounding of boundary features and its double-counted sinks.
    pub compat: bool,
    /// System message of the `rekv` prompt style.
    pub system: &'static str,
}

/// The table. One row a method.
fn table() -> Vec<Recipe> {
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
            recent: 8,
            chunk: 1,
            spread: 0.0,
            agree: false,
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
            recent: 0,
            chunk: 1,
            spread: 0.0,
            agree: false,
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
            recent: 0,
            chunk: 1,
            spread: 0.0,
            agree: false,
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
            by_depth: true,
            leave: Leave::Summary,
            probe: Probe::Words { local: HERMES_LOCAL.into(), global: HERMES_GLOBAL.into() },
            ..resident
        }),
        places: Places::Lazy { limit: options::DEFAULT_LIMIT },
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
            recent: 4,
            chunk: 1,
            spread: 0.8,
            agree: true,
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
        sliding_window,
        uniform,
        full,
    ]
}

/// A prompt that a recipe needs embedded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbePrompt {
    /// What stands between a question and its answer.
    Turn,
    Words(String),
}

impl Recipe {
    /// Names of all methods, for help texts.
    pub fn names() -> &'static [&'static str] {
        &[
            "auto",
            "streamkv",
            "streamkv-paper",
            "rekv",
            "mukv",
            "infinipot-v",
            "memstream",
            "streammem",
            "hermes",
            "livevlm",
            "cacheflow",
            "retake",
            "sliding-window",
            "uniform",
            "full",
        ]
    }

    /// The method with its published defaults.
    ///
    /// # Errors
    /// [`EngineError::UnknownMethod`] with the known ones.
    pub fn named(name: &str) -> Result<Self> {
        table().into_iter().find(|recipe| recipe.name == name).ok_or_else(|| {
            EngineError::UnknownMethod { name: name.into(), known: Self::names().join(", ") }
        })
    }

    /// The method with the values that the model's folder recommends (`streamkvqa.json`).
    ///
    /// A recommendation tunes the parts a method has and never adds one, so `full` stays full. The
    /// path of another model is meant from this model's folder.
    ///
    /// # Errors
    /// As [`Recipe::named`] and [`Recipe::set`].
    pub fn for_model(name: &str, model: &VideoLlm) -> Result<Self> {
        let mut recipe = Self::named(name)?;
        let recommended = model.recommendations();
        let own = recommended.recipes.get(name).into_iter().flatten();
        for (key, value) in recommended.recipe.iter().chain(own) {
            let mut value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let key = key.replace('_', "-");
            if key == EXTERNAL_MODEL {
                value = recommended.model(&value).display().to_string();
            }
            let option = options::named(&key)?;
            if option.of(&recipe).is_some() {
                recipe.set(&key, &value)?;
            }
        }
        Ok(recipe)
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Overrides one field by its option name, e.g. `set("retrieve", "16")`.
    ///
    /// # Errors
    /// [`EngineError::Option`] for a name that no method has, one that this method does not have,
    /// or a value out of range.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        options::named(key)?.set(self, value.trim())
    }

    /// Sets what the method holds or looks at to so many frames' worth of tokens: the cap of its
    /// resident cache if it has one, else the units it retrieves. `false` if it has no such bound.
    pub fn set_budget(&mut self, frames: usize) -> bool {
        let frames = frames.max(1);
        match (&mut self.resident, &mut self.retrieval) {
            (Some(resident), _) => resident.cap = frames,
            (
                None,
                Retrieval::All { last: Some(units) }
                | Retrieval::Best { units, .. }
                | Retrieval::Consensus { units },
            ) => *units = frames,
            (None, Retrieval::Grains { .. }) => {
                // Each grain's share stays; a piece counts with what is kept of it.
                let cost = |g: &Grain| g.retrieve as f64 * g.frames * g.keep;
                let all: f64 = self.grains.iter().map(|grain| cost(&grain)).sum();
                let scale = frames as f64 / all.max(f64::MIN_POSITIVE);
                for count in &mut self.grains.retrieve {
                    *count = ((*count as f64 * scale) as usize).max(1);
                }
            }
            (None, Retrieval::All { last: None } | Retrieval::Pages { .. }) => return false,
        }
        true
    }

    /// The folder of the text-image model that ranks units, if one does.
    ///
    /// # Errors
    /// [`EngineError::Option`] if one does and the recipe does not say which.
    pub fn outside_expert(&self) -> Result<Option<&Path>> {
        match (self.expert, self.external_model.as_str()) {
            (Expert::Internal, _) => Ok(None),
            (_, "") => Err(EngineError::Option {
                key: EXTERNAL_MODEL.into(),
                reason: format!(
                    "method `{}` ranks with a text-image model too; set external-model to the \
                     folder of a SigLIP or CLIP checkpoint, or experts=internal to do without",
                    self.name()
                ),
            }),
            (_, folder) => Ok(Some(Path::new(folder))),
        }
    }

    /// The prompts whose attention says what stays resident, in the order of the depths they are
    /// for.
    pub fn probes(&self) -> Vec<ProbePrompt> {
        let Some(resident) = self.resident.as_ref().filter(|resident| resident.asks()) else {
            return Vec::new();
        };
        match &resident.probe {
            Probe::Turn => vec![ProbePrompt::Turn],
            Probe::Words { local, global } => vec![
                ProbePrompt::Words(local.clone()),
                ProbePrompt::Words(format!("{local}; {global}")),
                ProbePrompt::Words(global.clone()),
            ],
            Probe::Newest { .. } | Probe::Itself => Vec::new(),
        }
    }

    /// Every option that some method has, with its values in all that have it: "64; auto 16".
    pub fn all_options() -> Vec<RecipeOption> {
        options::all(&table())
    }

    /// Every option that this recipe has, with its value.
    pub fn options(&self) -> Vec<RecipeOption> {
        options::of(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_row_and_every_row_a_name() {
        let rows: Vec<_> = table().iter().map(Recipe::name).collect();
        assert_eq!(rows, Recipe::names());
    }

    #[test]
    fn every_option_can_be_set_to_the_value_it_has() {
        for mut recipe in table() {
            let before = recipe.clone();
            for option in before.options() {
                recipe.set(option.name, &option.value).unwrap();
            }
            assert_eq!(recipe, before);
        }
    }

    #[test]
    fn wrong_names_and_values_say_what_would_be_right() {
        let message = Recipe::named("strimkv").unwrap_err().to_string();
        assert!(message.contains("strimkv") && message.contains("streamkv, streamkv-paper"));
        let mut rekv = Recipe::named("rekv").unwrap();
        let message = rekv.set("retreive", "3").unwrap_err().to_string();
        assert!(message.contains("`retreive`") && message.contains("retrieve-max"), "{message}");
        let message = rekv.set("guidance", "x").unwrap_err().to_string();
        assert!(message.contains("`rekv` has no such part"), "{message}");
        let message = rekv.set("retrieve", "many").unwrap_err().to_string();
        assert!(message.contains("`many` is not a value in 1..=4096"), "{message}");
        assert!(rekv.set("retrieve", "0").is_err());
    }
}
