// SPDX-License-Identifier: MPL-2.0
//! Looking at what a config claims before it is used: every fault names the file, the field and
//! what was expected there.

use std::path::Path;

use candle_nn::Activation;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{EngineError, Result};

/// Beyond these a number is a damaged file, not a model; products of them stay far from overflow.
pub const MAX_WIDTH: usize = 1 << 17;
pub const MAX_LAYERS: usize = 1024;
pub const MAX_VOCAB: usize = 1 << 24;
pub const MAX_POSITIONS: usize = 1 << 30;
/// The pooling matrix has the fourth power of this many elements, over 4.
pub const MAX_GRID: usize = 64;

/// One number, or height and width.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
pub enum Sides {
    One(usize),
    Two([usize; 2]),
}

/// Reports what is wrong with one file.
pub struct Checker<'a>(pub &'a Path);

impl Checker<'_> {
    pub fn fault<T>(&self, reason: String) -> Result<T> {
        Err(EngineError::Checkpoint { path: self.0.to_owned(), reason })
    }

    /// Reads one object of the file; a field that is missing or of another type is named.
    pub fn parse<T: DeserializeOwned>(&self, name: &str, json: Value) -> Result<T> {
        serde_json::from_value(json).or_else(|e| self.fault(format!("`{name}`: {e}")))
    }

    pub fn within(&self, name: &str, value: usize, max: usize) -> Result<usize> {
        if (1..=max).contains(&value) {
            return Ok(value);
        }
        self.fault(format!("`{name}` is {value}; expected 1 to {max}"))
    }

    /// The width of a tower is shared out evenly among its heads.
    pub fn whole_heads(&self, tower: &str, hidden_size: usize, heads: usize) -> Result<()> {
        if hidden_size.is_multiple_of(heads) {
            return Ok(());
        }
        self.fault(format!(
            "`{tower}.hidden_size` {hidden_size} is no multiple of `num_attention_heads` {heads}"
        ))
    }

    pub fn positive(&self, name: &str, value: f64) -> Result<f64> {
        if value.is_finite() && value > 0.0 {
            return Ok(value);
        }
        self.fault(format!("`{name}` is {value}; expected a positive number"))
    }

    pub fn activation(&self, name: &str, value: &str) -> Result<Activation> {
        // candle's serde names are the ones transformers uses, with the same meaning.
        let parsed = serde_json::from_value(serde_json::Value::String(value.to_lowercase()));
        match parsed {
            Ok(act) => Ok(act),
            Err(_) => self.fault(format!("`{name}` is `{value}`, an activation not known here")),
        }
    }

    pub fn square(&self, name: &str, sides: Sides, max: usize) -> Result<usize> {
        match sides {
            Sides::One(side) => self.within(name, side, max),
            Sides::Two([height, width]) if height == width => self.within(name, height, max),
            Sides::Two([height, width]) => {
                self.fault(format!("`{name}` is {height}x{width}; only squares are supported"))
            }
        }
    }
}
