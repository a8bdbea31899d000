// SPDX-License-Identifier: MPL-2.0
//! A question that is confined to a stretch of the stream: what lies outside is not there for it.

use std::collections::HashSet;

use crate::memory::keep::Layer;

/// What of a memory lies within a stretch.
#[derive(Clone, Debug)]
pub struct Within {
    units: HashSet<u64>,
    /// Of what is resident; empty where nothing is.
    resident: Vec<Layer>,
}

impl Within {
    /// These units, and this of each layer's resident tokens.
    pub fn new(units: HashSet<u64>, resident: Vec<Layer>) -> Self {
        Self { units, resident }
    }

    /// Whether nothing does.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    pub fn has(&self, unit: u64) -> bool {
        self.units.contains(&unit)
    }

    /// What of a layer's resident tokens does.
    pub fn resident(&self, layer: usize) -> Option<&Layer> {
        self.resident.get(layer)
    }
}
