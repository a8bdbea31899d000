// SPDX-License-Identifier: MPL-2.0
//! Whether the picture changes: the rule by which StreamKV cuts a stream (§3.1), for whoever wants to hear
//! of it, whatever the method.

use crate::error::Result;
use crate::memory::recipe::{Cut, Recipe};
use crate::memory::weigh::score::cosine;
use crate::model::VideoLlm;

/// Compares each unit with the one before it, by the means of their tokens. The first one is a change.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// The cosine at or below which two are different pictures; `None`: nobody wants to hear of it.
    threshold: Option<f32>,
    last: Vec<f32>,
    total: u64,
}

impl Changes {
    /// Begins to look, with the method's own threshold or the one that `streamkv` has with this model.
    ///
    /// # Errors
    /// As [`Recipe::for_model`].
    pub fn watch(&mut self, recipe: &Recipe, model: &VideoLlm) -> Result<()> {
        if self.threshold.is_none() {
            let streamkv = Recipe::for_model("streamkv", model)?;
            let threshold = |recipe: &Recipe| match recipe.cut {
                Cut::Semantic { threshold, .. } => Some(threshold),
                _ => None,
            };
            self.threshold = threshold(recipe).or_else(|| threshold(&streamkv));
        }
        Ok(())
    }

    pub fn are_watched(&self) -> bool {
        self.threshold.is_some()
    }

    /// How many there have been.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The mean token of the last unit.
    pub fn last(&self) -> &[f32] {
        &self.last
    }

    /// Goes on from there.
    pub fn resume(&mut self, last: Vec<f32>, total: u64) {
        (self.last, self.total) = (last, total);
    }

    /// Takes in the mean token of the next unit.
    pub fn see(&mut self, mean: &[f32]) {
        let Some(threshold) = self.threshold else { return };
        if self.last.len() != mean.len() || cosine(&self.last, mean) <= threshold {
            self.total += 1;
        }
        self.last = mean.to_vec();
    }

    /// What comes next is a change.
    pub fn forget(&mut self) {
        self.last.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_compared_with_the_one_before_it() {
        let mut changes = Changes { threshold: Some(0.9), ..Changes::default() };
        let mut totals = Vec::new();
        // A turn of ten degrees at a time is no change, however far it goes.
        for degrees in [0.0f32, 1.0, 10.0, 20.0, 30.0, 90.0, 90.0, 91.0, 0.0] {
            changes.see(&[degrees.to_radians().cos(), degrees.to_radians().sin()]);
            totals.push(changes.total());
        }
        assert_eq!(totals, [1, 1, 1, 1, 1, 2, 2, 2, 3]);
        changes.forget();
        changes.see(&[1.0, 0.0]);
        assert_eq!(changes.total(), 4);
    }

    #[test]
    fn nobody_is_told_who_does_not_watch() {
        let mut changes = Changes::default();
        changes.see(&[1.0]);
        assert_eq!((changes.total(), changes.are_watched()), (0, false));
    }
}
