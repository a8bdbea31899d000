// SPDX-License-Identifier: MPL-2.0
//! A method is data: its name stands here, in one table, and nowhere else. Everything downstream
//! sees the parts it is composed of.
//!
//! `streamkv` and `rekv` follow the released code, `streamkv-paper` the published text; where the
//! two differ is listed in `docs/methods.md`.

use std::fmt::Display;
use std::str::FromStr;

use crate::error::{EngineError, Result};
use crate::memory::budget::BudgetRule;
use crate::memory::score::Similarity;
use crate::memory::segment::Cut;
use crate::model::VideoLlm;

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

/// An option of a recipe, for `method-options`, `--set` and the help texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipeOption {
    pub name: &'static str,
    /// Its value in the recipe at hand.
    pub value: String,
    pub help: &'static str,
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
            if recipe.has(&key) {
                recipe.set(&key, &value)?;
            } else if !OPTION_NAMES.contains(&key.as_str()) {
                return Err(unknown_option(&key));
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
        if !OPTION_NAMES.contains(&key) {
            return Err(unknown_option(key));
        }
        if !self.has(key) {
            return Err(EngineError::Option {
                key: key.into(),
                reason: format!("method `{}` has no such part", self.name),
            });
        }
        self.assign(key, value.trim())
    }

    /// Every option that this recipe has, with its value.
    pub fn options(&self) -> Vec<RecipeOption> {
        OPTION_NAMES
            .iter()
            .zip(OPTION_HELP)
            .filter_map(|(&name, help)| {
                self.value(name).map(|value| RecipeOption { name, value, help })
            })
            .collect()
    }

    fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// The value of an option, or `None` if this recipe lacks the part it belongs to.
    fn value(&self, key: &str) -> Option<String> {
        let rule = |rule: &BudgetRule| match rule {
            BudgetRule::Stretched { temperature } => Some(temperature.to_string()),
            BudgetRule::Threshold => None,
        };
        match (key, &self.cut, &self.compression, &self.retrieval) {
            ("segment-threshold", Cut::Semantic { threshold, .. }, ..) => {
                Some(threshold.to_string())
            }
            ("segment-min", Cut::Semantic { min, .. }, ..) => Some(min.to_string()),
            ("segment-max", Cut::Semantic { max, .. }, ..) => Some(max.to_string()),
            ("segment-close-at-max", Cut::Semantic { close_at_max, .. }, ..) => {
                Some(close_at_max.to_string())
            }
            ("segment-seconds", Cut::Semantic { seconds, .. }, ..) => Some(seconds.to_string()),
            ("segment-frames", Cut::Uniform { frames }, ..) => Some(frames.to_string()),
            ("segment-frames", Cut::Semantic { .. }, ..) => Some("0".into()),
            ("summary", Cut::Semantic { .. } | Cut::Uniform { .. }, ..) => {
                Some(self.summary.to_string())
            }
            ("window", ..) => self.window.map(|tokens| tokens.to_string()),
            ("keep-ratio", _, Some(c), _) => Some(c.keep_ratio.to_string()),
            ("keep-temperature", _, Some(c), _) => rule(&c.rule),
            ("guidance", _, Some(c), _) => Some(c.guidance.clone()),
            ("retrieve", .., Retrieval::Best { units, .. }) => Some(units.to_string()),
            ("retrieve", .., Retrieval::All { last: Some(last) }) => Some(last.to_string()),
            ("retrieve-max", .., Retrieval::Best { most, .. }) => Some(most.to_string()),
            ("retrieve-temperature", .., Retrieval::Best { rule: r, .. }) => rule(r),
            ("recent", .., Retrieval::Best { recent, .. }) => Some(recent.to_string()),
            ("chunk", .., Retrieval::Best { chunk, .. }) => Some(chunk.to_string()),
            ("similarity", .., Retrieval::Best { .. }) => Some(
                match self.similarity {
                    Similarity::Dot => "dot",
                    Similarity::Cosine => "cosine",
                }
                .into(),
            ),
            ("compat", ..) => Some(self.compat.to_string()),
            _ => None,
        }
    }

    fn assign(&mut self, key: &str, text: &str) -> Result<()> {
        let recipe = self;
        match (key, &mut recipe.cut, &mut recipe.compression, &mut recipe.retrieval) {
            ("segment-threshold", Cut::Semantic { threshold, .. }, ..) => {
                *threshold = number(key, text, -2.0, 2.0)?;
            }
            ("segment-min", Cut::Semantic { min, .. }, ..) => *min = number(key, text, 1, 4096)?,
            ("segment-max", Cut::Semantic { max, .. }, ..) => *max = number(key, text, 1, 4096)?,
            ("segment-close-at-max", Cut::Semantic { close_at_max, .. }, ..) => {
                *close_at_max = number(key, text, false, true)?;
            }
            ("segment-seconds", Cut::Semantic { seconds, .. }, ..) => {
                *seconds = number(key, text, 0.0, f64::INFINITY)?;
            }
            ("segment-frames", cut, ..) => {
                let frames = number(key, text, 0, 4096)?;
                if frames > 0 {
                    *cut = Cut::Uniform { frames };
                }
            }
            ("summary", ..) => recipe.summary = number(key, text, false, true)?,
            ("window", ..) => recipe.window = Some(number(key, text, 1, 1 << 24)?),
            ("keep-ratio", _, Some(c), _) => c.keep_ratio = number(key, text, 0.0, 1.0)?,
            ("keep-temperature", _, Some(c), _) => {
                c.rule = BudgetRule::Stretched { temperature: number(key, text, 0.0, 1.0)? };
            }
            ("guidance", _, Some(c), _) => c.guidance = text.into(),
            ("retrieve", .., Retrieval::Best { units, .. }) => {
                *units = number(key, text, 1, 4096)?;
            }
            ("retrieve", .., Retrieval::All { last }) => *last = Some(number(key, text, 1, 4096)?),
            ("retrieve-max", .., Retrieval::Best { most, .. }) => {
                *most = number(key, text, 1, 4096)?;
            }
            ("retrieve-temperature", .., Retrieval::Best { rule, .. }) => {
                *rule = BudgetRule::Stretched { temperature: number(key, text, 0.0, 1.0)? };
            }
            ("recent", .., Retrieval::Best { recent, .. }) => {
                *recent = number(key, text, 0, 4096)?;
            }
            ("chunk", .., Retrieval::Best { chunk, .. }) => *chunk = number(key, text, 1, 4096)?,
            ("similarity", ..) => {
                recipe.similarity = match text {
                    "dot" => Similarity::Dot,
                    "cosine" => Similarity::Cosine,
                    _ => return Err(bad_value(key, text, "`dot` or `cosine`")),
                }
            }
            ("compat", ..) => recipe.compat = number(key, text, false, true)?,
            _ => return Err(unknown_option(key)),
        }
        Ok(())
    }
}

const OPTION_NAMES: [&str; 18] = [
    "segment-threshold",
    "segment-min",
    "segment-max",
    "segment-close-at-max",
    "segment-seconds",
    "segment-frames",
    "summary",
    "window",
    "keep-ratio",
    "keep-temperature",
    "guidance",
    "retrieve",
    "retrieve-max",
    "retrieve-temperature",
    "recent",
    "chunk",
    "similarity",
    "compat",
];

const OPTION_HELP: [&str; 18] = [
    "cosine of neighbouring frames at or below which a segment ends (StreamKV 3.1)",
    "frames within which a segment does not end (StreamKV 3.1)",
    "frames beyond which the most alike neighbours of a segment are merged (StreamKV 3.1)",
    "close a segment that is full instead of merging in it",
    "seconds of stream time after which a segment closes even if nothing changes",
    "frames of a segment of fixed length; 0: cut where the picture changes",
    "append each segment's mean frame and keep it (StreamKV 3.2)",
    "tokens a new token sees while the stream is encoded (ReKV 3.1, n_local)",
    "fraction of a segment's frames that each layer keeps, on average (StreamKV, compression_ratio)",
    "how far layers may differ in what they keep; 0: not at all (StreamKV, compress_temp)",
    "prompt that says what to keep of a segment (StreamKV 3.3)",
    "units in the context of an answer, per layer and on average (ReKV 3.2, retrieve_size)",
    "units in the context of an answer, at most per layer",
    "how far layers may differ in what they retrieve; 0: not at all (StreamKV, retrieve_temp)",
    "newest units that are always retrieved (StreamKV, retrieve_local)",
    "neighbouring units that are ranked together (ReKV, retrieve_chunk_size)",
    "`dot` (released codes) or `cosine` (papers)",
    "reproduce the reference's f16 boundary rounding and its double-counted sinks",
];

fn number<T: FromStr + PartialOrd + Display>(key: &str, text: &str, low: T, high: T) -> Result<T> {
    match text.parse::<T>() {
        Ok(value) if value >= low && value <= high => Ok(value),
        _ => Err(bad_value(key, text, &format!("a value in {low}..={high}"))),
    }
}

fn bad_value(key: &str, text: &str, right: &str) -> EngineError {
    EngineError::Option { key: key.into(), reason: format!("`{text}` is not {right}") }
}

fn unknown_option(key: &str) -> EngineError {
    EngineError::Option {
        key: key.into(),
        reason: format!("no such option; known options: {}", OPTION_NAMES.join(", ")),
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
