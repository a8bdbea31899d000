// SPDX-License-Identifier: MPL-2.0
//! All that a stream's memory holds to be retrieved, and how it stays within its bounds.

use std::collections::{BTreeSet, VecDeque};

use candle_core::Tensor;

use super::ladder::{Ladder, Standing};
use super::older::Tidy;
use super::resident::Layer;
use super::thin::{Contents, thin};
use crate::error::Result;
use crate::memory::recipe::{Keeps, Recipe};
use crate::memory::store::{Besides, Block, LayerStore, Store, StoreOptions};
use crate::memory::unit::{Geometry, Unit, Units};
use crate::snapshot::{Reader, Snapshot};

/// Of so many units one climbs at a time: what a choice goes by is read once for all that do.
const UNITS_OF_A_STEP: usize = 64;

pub struct Stored {
    pub layers: Vec<LayerStore>,
    /// What entered the decoder, in stream order, if that is what is kept.
    pub inputs: VecDeque<Block>,
    /// Where the blocks of all layers lie, and behind the last layer the inputs.
    pub tiers: Store,
    /// Units that some layer may still hold, by ascending id.
    pub units: Units,
    ladder: Ladder,
    tidy: Tidy,
}

/// A unit's blocks are of a size, or one is its input and the others, together, are less.
pub fn tiers(options: StoreOptions, geometry: &Geometry, keeps: Keeps) -> Store {
    let (places, of_a_size) = match keeps {
        Keeps::KeysAndValues => (geometry.layers, geometry.layers),
        Keeps::Inputs => (geometry.layers + 1, 2),
    };
    let store = Store::new(options, places, of_a_size, geometry.device.clone());
    if geometry.on_device { store.pooled() } else { store }
}

impl Stored {
    pub fn new(geometry: &Geometry, recipe: &Recipe) -> Self {
        Self {
            layers: (0..geometry.layers).map(|_| LayerStore::new(recipe.window)).collect(),
            inputs: VecDeque::new(),
            tiers: tiers(StoreOptions::default(), geometry, recipe.keeps),
            units: Units::default(),
            ladder: Ladder::default(),
            tidy: Tidy::default(),
        }
    }

    /// How often a unit has been thinned.
    pub fn height(&self, unit: u64) -> usize {
        self.ladder.height(unit)
    }

    /// Tidies up what is held behind units that have just come. `bank`: the recipe's pseudo-questions,
    /// `[m, C]` each.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn tidy(
        &mut self,
        (recipe, bank): (&Recipe, &[Tensor]),
        fresh: &[u64],
        geometry: &Geometry,
    ) -> Result<()> {
        let Self { layers, inputs, tiers, units, tidy, .. } = self;
        tidy.up((&recipe.older, bank), fresh, Contents { layers, inputs, tiers, units }, geometry)
    }

    /// How much the newest units usually have to do with a pseudo-question; `None` where none is asked.
    pub fn usual(&self) -> Option<f32> {
        self.tidy.usual()
    }

    /// All that is held to be retrieved, and what new tokens see.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn save(&self, into: &mut Snapshot) -> Result<()> {
        let units: Vec<Unit> = self.units.iter().cloned().collect();
        into.value((units, self.ladder.clone(), self.tidy.clone()));
        for layer in &self.layers {
            layer.save(into)?;
        }
        self.tiers.save(into);
        Ok(())
    }

    /// Takes in what was saved, holding nothing yet but what stands before the video.
    ///
    /// # Errors
    /// What is wrong with the file, or what the computation fails with.
    pub fn restore(&mut self, from: &mut Reader, geometry: &Geometry) -> Result<()> {
        let (units, ladder, tidy): (Vec<Unit>, Ladder, Tidy) = from.value()?;
        self.units.extend(units);
        (self.ladder, self.tidy) = (ladder, tidy);
        let mut found = Vec::with_capacity(self.layers.len());
        for layer in &mut self.layers {
            found.push(layer.restore(from, geometry)?);
        }
        let mut blocks: Vec<Vec<Block>> = vec![Vec::new(); self.layers.len() + 1];
        for (layer, block) in self.tiers.restore(from)? {
            if let Some(own) = blocks.get_mut(layer) {
                own.push(block);
            }
        }
        self.inputs.extend(blocks.pop().unwrap_or_default());
        for ((layer, found), blocks) in self.layers.iter_mut().zip(found).zip(blocks) {
            layer.blocks = found.of(blocks, geometry.on_device).map_err(|fault| match fault {
                Some(fault) => fault,
                None => from.damage("blocks without what they are found by"),
            })?;
        }
        Ok(())
    }

    /// Drops the oldest units of every layer down to the newest `count`.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn keep_last(&mut self, count: usize, resident: Option<&[Layer]>) -> Result<()> {
        for layer in &mut self.layers {
            let surplus = layer.blocks.len().saturating_sub(count);
            layer.blocks.drop_front(surplus)?;
        }
        self.inputs.drain(..self.inputs.len().saturating_sub(count));
        self.forget_lost_units(resident);
        Ok(())
    }

    /// Moves blocks between the tiers until each is within its budget. Where there is no room the oldest
    /// units get thinner, and are dropped, in all layers alike, once they are as thin as can be or where
    /// they lie on a disk.
    ///
    /// # Errors
    /// What the computation fails with; a tier that fails is a warning.
    pub fn settle(
        &mut self,
        geometry: &Geometry,
        recipe: &Recipe,
        resident: Option<&[Layer]>,
    ) -> Result<()> {
        if self.tiers.has_lost() {
            self.drop_lost()?;
        }
        let mut dropped = None;
        while let Some(unit) = self.tiers.settle(self.besides(resident))?
            && self.units.len() > 1
        {
            if self.tiers.is_in_memory() && self.thin(geometry, recipe, resident)? {
                continue;
            }
            if dropped.replace(unit) == Some(unit) {
                break;
            }
            self.drop_unit(unit)?;
            if resident.is_none_or(|layers| !in_sight(layers).contains(&unit)) {
                self.units.remove(unit);
            }
        }
        Ok(())
    }

    /// Thins the oldest by a few steps; whether there were any to take.
    fn thin(
        &mut self,
        geometry: &Geometry,
        recipe: &Recipe,
        resident: Option<&[Layer]>,
    ) -> Result<bool> {
        if recipe.thin.rungs.0.is_empty() {
            return Ok(false);
        }
        // Of some units only what is resident may be left.
        let layers = self.layers.iter().filter(|_| resident.is_some());
        let blocks = layers.flat_map(|layer| layer.blocks.iter()).chain(&self.inputs);
        let held: BTreeSet<u64> = blocks.map(|block| block.unit).collect();
        let units: Vec<Standing<'_>> = self
            .units
            .iter()
            .filter(|unit| resident.is_none() || held.contains(&unit.id))
            .map(|unit| (unit, geometry.length(unit) - unit.words.tokens()))
            .collect();
        let steps = (units.len() / UNITS_OF_A_STEP).max(1);
        let (becomes, taken) = self.ladder.climb(&units, &recipe.thin, steps);
        let seen = resident.map(in_sight).unwrap_or_default();
        let Self { layers, inputs, tiers, units, .. } = self;
        let contents = Contents { layers, inputs, tiers, units };
        thin(contents, becomes, geometry, recipe.keeps, &seen)?;
        Ok(taken > 0)
    }

    fn drop_unit(&mut self, unit: u64) -> Result<()> {
        for layer in &mut self.layers {
            layer.blocks.drop_unit(unit)?;
        }
        if let Ok(at) = self.inputs.binary_search_by_key(&unit, |input| input.unit) {
            self.inputs.remove(at);
        }
        Ok(())
    }

    /// Drops what a damaged or missing file has taken.
    fn drop_lost(&mut self) -> Result<()> {
        for layer in &mut self.layers {
            layer.blocks.retain(|_, block| !block.is_lost())?;
        }
        for lost in self.inputs.iter().filter(|input| input.is_lost()) {
            for layer in &mut self.layers {
                layer.blocks.drop_unit(lost.unit)?;
            }
        }
        self.inputs.retain(|input| !input.is_lost());
        self.tiers.forget_lost();
        Ok(())
    }

    /// Forgets the units of which nothing is held.
    pub fn forget_lost_units(&mut self, resident: Option<&[Layer]>) {
        let oldest = self.layers.iter().filter_map(|layer| layer.blocks.front()).chain(
            // Where no layer has anything to find a unit by.
            self.inputs.front().filter(|_| self.layers.iter().all(|l| l.blocks.is_empty())),
        );
        let oldest = oldest.map(|block| block.unit).min();
        if let Some(layers) = resident {
            let held = in_sight(layers);
            let stored = |id: u64| oldest.is_some_and(|oldest| oldest <= id);
            self.units.retain(|unit| held.contains(&unit) || stored(unit));
            return;
        }
        let is_older = |unit| oldest.is_none_or(|oldest| unit < oldest);
        while self.inputs.front().is_some_and(|input| is_older(input.unit)) {
            self.inputs.pop_front();
        }
        self.units.drop_below(oldest.unwrap_or(u64::MAX));
    }

    /// Bytes that always lie on the device.
    pub fn besides(&self, resident: Option<&[Layer]>) -> Besides {
        let windows: u64 = self.layers.iter().map(LayerStore::fixed_bytes).sum();
        let resident: u64 = resident.into_iter().flatten().map(Layer::bytes).sum();
        let mean_keys: u64 = self.layers.iter().map(|layer| layer.blocks.bytes()).sum();
        let inputs = self.inputs.len() as u64 * size_of::<Block>() as u64;
        Besides { fixed: windows + resident, index: mean_keys + inputs + self.units.bytes() }
    }
}

/// Units of which something is resident.
fn in_sight(layers: &[Layer]) -> BTreeSet<u64> {
    layers.iter().flat_map(Layer::lists).flatten().map(|row| row.unit).collect()
}
