// SPDX-License-Identifier: MPL-2.0
//! A question that is confined to a stretch of the stream: what lies outside is not there for it.

use std::collections::HashSet;

use super::view::View;
use crate::error::Result;
use crate::memory::keep::Layer;
use crate::memory::unit::{Kind, RESIDUE, Row, Unit};

/// What of a memory lies within a stretch.
#[derive(Clone, Debug)]
pub struct Within {
    units: HashSet<u64>,
    /// Of what is resident; empty where nothing is.
    resident: Vec<Layer>,
}

impl Within {
    /// Of what a question may look at, from one second of the stream to another. A frame lies within if
    /// any of the time that it stands for does; what stands for several pictures, if all of it does. What
    /// tokens that are gone have left behind lies nowhere. Where each KV head holds tokens of its own, each
    /// gives as many as the one that has fewest: the newest.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn of(view: View<'_>, (from, to): (f64, f64)) -> Result<Self> {
        // Patches of further pictures in one unit count on.
        let picture = view.held.geometry.picture_tokens;
        let is_one = |unit: &Unit| {
            let patches = unit.patches.iter().flat_map(|patches| patches.iter());
            unit.kind == Kind::Frame && patches.into_iter().all(|&patch| (patch as usize) < picture)
        };
        let fits = |unit: &&Unit| match is_one(unit) {
            true => unit.start <= to && unit.end >= from,
            false => unit.start >= from && unit.end <= to,
        };
        let open = view.branch.map_or(&[][..], |branch| &branch.units);
        let units: HashSet<u64> =
            view.units.iter().chain(open).filter(fits).map(|unit| unit.id).collect();
        let inside = |row: &Row| row.patch != RESIDUE && units.contains(&row.unit);
        let mut resident = Vec::new();
        for layer in (0..view.held.geometry.layers).map_while(|layer| view.resident(layer)) {
            let list = |rows: &Vec<Row>| -> Vec<usize> {
                (0..rows.len()).filter(|&i| rows.get(i).is_some_and(inside)).collect()
            };
            let mut lists: Vec<Vec<usize>> = layer.lists().iter().map(list).collect();
            let fewest = lists.iter().map(Vec::len).min().unwrap_or(0);
            lists.iter_mut().for_each(|list| drop(list.drain(..list.len() - fewest)));
            resident.push(layer.keep(&lists)?);
        }
        Ok(Self { units, resident })
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
