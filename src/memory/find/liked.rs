// SPDX-License-Identifier: MPL-2.0
//! What all layers together make of the units.

use super::ids::Ids;
use crate::memory::weigh::select::Choice;

/// Units in stream order, and how much the layers like each of them.
#[derive(Clone, Debug, Default)]
pub struct Liked {
    pub units: Ids,
    pub scores: Vec<f32>,
}

impl Liked {
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// The units, in stream order, that a choice of `count` takes.
    pub fn chosen(&self, choice: Choice, count: usize) -> Vec<u64> {
        let chosen = choice.of(&self.scores, count).into_iter();
        chosen.filter_map(|index| self.units.get(index)).collect()
    }

    /// Without this one.
    pub fn remove(&mut self, unit: u64) {
        if let Some(index) = self.units.position(unit) {
            self.units.remove(index);
            self.scores.remove(index);
        }
    }
}
