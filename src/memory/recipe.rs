// SPDX-License-Identifier: MPL-2.0
//! A method is data: its name stands here, in one table, and nowhere else. Everything downstream
//! sees the parts it is composed of.
//!
//! `streamkv` and `rekv` follow the released code, `streamkv-paper` the published text; where the
//! two differ is listed in `docs/methods.md`.

mod options;

use crate::error::{EngineError, Result};
use crate::memory::budget::BudgetRule;
use crate::memory::score::Similarity;
use crate::memory::segment::Cut;
use crate::model::VideoLlm;
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
        /// Neighbours on either side that come with a unit that was found, within the budget.
        neighbours: usize,
        rule: BudgetRule,
    },
}

/// A composition of the memory's parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    name: &'static str,
    pub cut: Cut,
    /// Append each segment's mean frame and keep it.
    pub summary: bool,
    /// Tokens that a new token sees, itself included; `None`: all of them.
    pub window: Option<usize>,
    /// Questions and answers keep to the window too, with the prefix as sinks (ReKV's code); else
    /// they see their whole context (StreamKV's).
    pub windowed_answers: bool,
    pub compression: Option<Compression>,
    pub retrieval: Retrieval,
    pub similarity: Similarity,
    /// Reproduce the reference's rounding of boundary features and its double-counted sinks.
    pub compat: bool,
    /// System message of the `rekv` prompt style.
    pub system: &'static str,
}

/// The table. One row a method.
fn table() -> [Recipe; 5] {
    let streamkv = Recipe {
        name: "streamkv",
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
            neighbours: 0,
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
            neighbours: 0,
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
            neighbours: 0,
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
    [streamkv, streamkv_paper, rekv, sliding_window, full]
}

impl Recipe {
    /// Names of all methods, for help texts.
    pub fn names() -> &'static [&'static str] {
        &["streamkv", "streamkv-paper", "rekv", "sliding-window", "full"]
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
    /// A recommendation tunes the parts a method has and never adds one, so `full` stays full.
    ///
    /// # Errors
    /// As [`Recipe::named`] and [`Recipe::set`].
    pub fn for_model(name: &str, model: &VideoLlm) -> Result<Self> {
        let mut recipe = Self::named(name)?;
        for (key, value) in &model.recommendations().recipe {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let key = key.replace('_', "-");
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

    /// Every option that some method has, with its value in the first one that has it.
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
