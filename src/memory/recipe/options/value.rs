// SPDX-License-Identifier: MPL-2.0
//! Values of options as text: how a field is shown and read.

use super::super::parts::{Cut, Expert, Keeps, Places, Questions, Reduce, Rung, Rungs, Similarity};
use super::super::prompts::{HERMES_GLOBAL, HERMES_LOCAL};
use super::super::resident::{Heads, Leave, Pick, Probe, Scope, Signal};
use super::super::table::DEFAULT_LIMIT;

/// A field that can be shown and read; reading fails with what would have been right.
pub trait Value {
    fn show(&self) -> String;
    fn read(&mut self, text: &str, range: (f64, f64)) -> Outcome;
}

pub type Outcome = std::result::Result<(), String>;

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

choice! { Rung:
    "tokens" => Self::Tokens, Self::Tokens;
    "frames" => Self::Frames, Self::Frames;
    "sketch" => Self::Sketch, Self::Sketch;
}

/// With slashes between, as many as are wanted.
impl Value for Rungs {
    fn show(&self) -> String {
        match self.0.is_empty() {
            true => NO_RUNG.into(),
            false => self.0.iter().map(Value::show).collect::<Vec<_>>().join("/"),
        }
    }

    fn read(&mut self, text: &str, range: (f64, f64)) -> Outcome {
        if text == NO_RUNG {
            self.0.clear();
            return Ok(());
        }
        let step = |part: &str| {
            let mut rung = Rung::Tokens;
            rung.read(part.trim(), range).map(|()| rung)
        };
        let right = |why| format!("`{NO_RUNG}`, or steps with / between, each {why}");
        self.0 = text.split('/').map(step).collect::<Result<_, _>>().map_err(right)?;
        Ok(())
    }
}

const NO_RUNG: &str = "none";

/// With slashes between, at least one.
impl Value for Questions {
    fn show(&self) -> String {
        self.0.join("/")
    }

    fn read(&mut self, text: &str, _: (f64, f64)) -> Outcome {
        let questions: Vec<String> = text.split('/').map(|one| one.trim().to_owned()).collect();
        if questions.iter().any(String::is_empty) {
            return Err("one question or more, with / between".into());
        }
        self.0 = questions;
        Ok(())
    }
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
