// SPDX-License-Identifier: MPL-2.0
//! The options of a recipe: one row each with its name, what it means, where it comes from, its
//! range, and the field that it reads and sets. `method-options`, `--set`, the texts of
//! `gst-inspect-1.0` and the table in `docs/methods.md` all come from here.

use crate::error::{EngineError, Result};
use crate::memory::budget::BudgetRule;
use crate::memory::recipe::{Recipe, Retrieval};
use crate::memory::score::Similarity;
use crate::memory::segment::Cut;

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
/// Frames, units, neighbours.
const COUNT: (f64, f64) = (1.0, 4096.0);
const COUNT_OR_NONE: (f64, f64) = (0.0, 4096.0);

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
        help: "frames of a segment of fixed length; 0: cut where the picture changes",
        source: "StreamKV, `uniform`",
        range: COUNT_OR_NONE,
        field: |r| match &mut r.cut {
            Cut::Never => None,
            cut => Some(cut),
        },
    },
    Row {
        name: "summary",
        help: "append each segment's mean frame and keep it",
        source: "StreamKV §3.2",
        range: ANY,
        field: |r| if r.cut == Cut::Never { None } else { Some(&mut r.summary) },
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
            Retrieval::Best { units, .. } => Some(units),
            Retrieval::All { last } => last.as_mut().map(as_value),
        },
    },
    Row {
        name: "retrieve-max",
        help: "units in the context of an answer, at most per layer",
        source: "StreamKV code",
        range: COUNT,
        field: |r| match &mut r.retrieval {
            Retrieval::Best { most, .. } => Some(most),
            Retrieval::All { .. } => None,
        },
    },
    Row {
        name: "retrieve-temperature",
        help: "how far layers may differ in what they retrieve; 0: not at all",
        source: "StreamKV code, `retrieve_temp`",
        range: SHARE,
        field: |r| match &mut r.retrieval {
            Retrieval::Best { rule, .. } => temperature(rule),
            Retrieval::All { .. } => None,
        },
    },
    Row {
        name: "recent",
        help: "newest units that are always retrieved",
        source: "StreamKV code, `retrieve_local`",
        range: COUNT_OR_NONE,
        field: |r| match &mut r.retrieval {
            Retrieval::Best { recent, .. } => Some(recent),
            Retrieval::All { .. } => None,
        },
    },
    Row {
        name: "chunk",
        help: "neighbouring units that are ranked together",
        source: "ReKV, `retrieve_chunk_size`",
        range: COUNT,
        field: |r| match &mut r.retrieval {
            Retrieval::Best { chunk, .. } => Some(chunk),
            Retrieval::All { .. } => None,
        },
    },
    Row {
        name: "neighbours",
        help: "units on either side that come with a unit that was found, within `retrieve`",
        source: "ours",
        range: COUNT_OR_NONE,
        field: |r| match &mut r.retrieval {
            Retrieval::Best { neighbours, .. } => Some(neighbours),
            Retrieval::All { .. } => None,
        },
    },
    Row {
        name: "similarity",
        help: "how a question is compared with a unit: `dot` (released codes) or `cosine` (papers)",
        source: "ReKV, StreamKV",
        range: ANY,
        field: |r| match r.retrieval {
            Retrieval::Best { .. } => Some(&mut r.similarity),
            Retrieval::All { .. } => None,
        },
    },
    Row {
        name: "compat",
        help: "reproduce the reference's f16 boundary rounding and its double-counted sinks",
        source: "released code",
        range: ANY,
        field: |r| Some(&mut r.compat),
    },
];

fn as_value(value: &mut impl Value) -> &mut dyn Value {
    value
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

/// The whole table, each row with its value in the first of these recipes that has it.
pub(super) fn all(recipes: &[Recipe]) -> Vec<RecipeOption> {
    ROWS.iter().filter_map(|row| recipes.iter().find_map(|recipe| row.of(recipe))).collect()
}

impl Row {
    pub fn of(&self, recipe: &Recipe) -> Option<RecipeOption> {
        let value = (self.field)(&mut recipe.clone())?.show();
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

impl Value for Similarity {
    fn show(&self) -> String {
        match self {
            Self::Dot => "dot",
            Self::Cosine => "cosine",
        }
        .into()
    }

    fn read(&mut self, text: &str, _: (f64, f64)) -> Outcome {
        *self = match text {
            "dot" => Self::Dot,
            "cosine" => Self::Cosine,
            _ => return Err("`dot` or `cosine`".into()),
        };
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
