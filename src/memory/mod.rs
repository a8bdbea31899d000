// SPDX-License-Identifier: MPL-2.0
//! What is kept of a stream: per-layer blocks of un-rotated keys and values with provenance, the
//! local window that new frames see, and the ways in and out.
//!
//! | room | subject |
//! |---|---|
//! | [`recipe`] | what a method *is*: plain data |
//! | [`mod@unit`], [`kv`] | the nouns: units and where they come from, keys and values |
//! | [`store`] | where blocks lie: windows, tiers, codecs |
//! | [`weigh`] | what matters: scores, budgets, choices |
//! | [`keep`] | the resident cache and how it shrinks |
//! | [`intake`] | how a stretch of stream becomes keys and values |
//! | [`find`] | from a question to one context a layer |
//! | [`answer`] | the answer behind its contexts |
//!
//! Imports run down this list's dependencies only, and nothing imports this file.

pub mod answer;
pub mod find;
#[cfg(test)]
mod forms;
#[cfg(test)]
mod golden;
pub mod intake;
pub mod keep;
pub mod kv;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod lines;
pub mod recipe;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
pub mod unit;
#[cfg(test)]
mod ways;
pub mod weigh;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use candle_core::Tensor;

use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::memory::find::View;
use crate::memory::intake::{Before, Encoded, InWindow, Prompts, Segment};
use crate::memory::keep::{Held, Layer};
use crate::memory::recipe::{Keeps, Recipe, Retrieval, Sees};
use crate::memory::store::{Besides, Block, LayerStore, Store, StoreOptions, StoreStats};
use crate::memory::unit::{Clock, Geometry, Kind, Unit, Units};
use crate::model::VideoLlm;
use crate::model::decoder::Decoder;
use crate::model::kernels;
use crate::model::rope::{Layout, Positions};
use crate::model::vision::Moment;

/// The memory of one stream.
///
/// The way in is [`encode`](Self::encode), which reads the memory and returns an [`Encoded`] piece of
/// stream, and [`commit`](Self::commit), which takes it in. A question about the open segment encodes
/// it and does not commit: that is the temporary branch. The way out is a [`View`].
pub struct VideoMemory {
    geometry: Geometry,
    recipe: Recipe,
    prompts: Prompts,
    layers: Vec<LayerStore>,
    /// The resident cache, a layer each, if the recipe has one.
    resident: Option<Vec<Layer>>,
    /// What entered the decoder, in stream order, if that is what is kept.
    inputs: VecDeque<Block>,
    /// Where the blocks of all layers lie, and behind the last layer the inputs.
    tiers: Store,
    /// Units that some layer may still hold, by ascending id.
    units: Units,
    next_unit: u64,
    next_segment: u64,
    /// Tokens encoded so far, prefix included.
    seen: usize,
    /// Places that the video takes so far.
    taken: usize,
    clock: Clock,
}

/// A unit's blocks are of a size, or one is its input and the others, together, are less.
fn store(options: StoreOptions, geometry: &Geometry, keeps: Keeps) -> Store {
    let (places, of_a_size) = match keeps {
        Keeps::KeysAndValues => (geometry.layers, geometry.layers),
        Keeps::Inputs => (geometry.layers + 1, 2),
    };
    let store = Store::new(options, places, of_a_size, geometry.device.clone());
    if geometry.on_device { store.pooled() } else { store }
}

impl VideoMemory {
    /// An empty memory for a model's decoder. What its units look like, the stream's first frame
    /// tells; see [`lay_out`](Self::lay_out).
    pub fn for_model(model: &VideoLlm, recipe: &Recipe) -> Self {
        let decoder = model.decoder();
        let geometry = Geometry {
            layers: decoder.layers(),
            heads: decoder.heads(),
            kv_heads: decoder.kv_heads(),
            head_dim: decoder.head_dim(),
            scale: decoder.scale(),
            dtype: model.dtype(),
            device: model.device().clone(),
            on_device: kernels::stays_on(model.device()),
            rope: Arc::clone(decoder.rope()),
            unit_tokens: 1,
            picture_tokens: 1,
            unit_seconds: 1.0,
            layout: Layout::Run,
        };
        Self::new(geometry, recipe)
    }

    pub fn new(geometry: Geometry, recipe: &Recipe) -> Self {
        let layers = (0..geometry.layers).map(|_| LayerStore::new(recipe.window)).collect();
        let resident = recipe.resident.as_ref().map(|_| vec![Layer::default(); geometry.layers]);
        Self {
            tiers: store(StoreOptions::default(), &geometry, recipe.keeps),
            geometry,
            recipe: recipe.clone(),
            prompts: Prompts::default(),
            layers,
            resident,
            inputs: VecDeque::new(),
            units: Units::default(),
            next_unit: 0,
            next_segment: 0,
            seen: 0,
            taken: 0,
            clock: Clock::default(),
        }
    }

    /// An empty memory's blocks will be kept that way.
    pub fn store_in(&mut self, options: StoreOptions) {
        self.tiers = store(options, &self.geometry, self.recipe.keeps);
    }

    /// Says what the units of this stream look like, before the first of them is encoded.
    /// `picture_tokens`: of a unit's picture; `seconds`: of stream time that a unit stands for where
    /// frames come regularly.
    ///
    /// # Errors
    /// What telling the words around a unit fails with.
    pub fn lay_out(&mut self, picture_tokens: usize, seconds: f64, layout: Layout) -> Result<()> {
        let words = match &self.prompts.teller {
            Some(teller) => {
                let [front, behind] = teller.around(Moment { frame: 0, seconds: 0.0 })?;
                front.dim(0)? + behind.dim(0)?
            }
            None => 0,
        };
        self.geometry.picture_tokens = picture_tokens;
        self.geometry.unit_tokens = picture_tokens + words;
        self.geometry.unit_seconds = seconds;
        self.geometry.layout = match layout {
            Layout::Lines { rows, cols, .. } => Layout::Lines { rows, cols, words },
            Layout::Run | Layout::Grid { .. } => layout,
        };
        Ok(())
    }

    /// The embedded prompts that the recipe needs.
    pub fn set_prompts(&mut self, prompts: Prompts) {
        self.prompts = prompts;
    }

    /// Runs the tokens before the video, `[n, C]`, and keeps them as every context's first part.
    ///
    /// # Errors
    /// [`EngineError::Cancelled`], or what the computation fails with.
    pub fn open(&mut self, decoder: &Decoder, prefix: &Tensor, cancel: &Cancel) -> Result<()> {
        let here = Positions::run(0, prefix.dim(0)?);
        let mut pass = InWindow::new(self.before(), here, cancel);
        decoder.forward(prefix, &mut pass)?;
        let fresh = pass.into_layers();
        self.seen += prefix.dim(0)?;
        for (at, (layer, (raw, rotated))) in self.layers.iter_mut().zip(fresh).enumerate() {
            if self.recipe.sees == Sees::Window {
                layer.window.append(&rotated)?;
            }
            layer.open(self.tiers.hold(at, raw)?)?;
        }
        Ok(())
    }

    /// Runs a segment through the decoder as the next piece of the stream and drops what the
    /// compression does not keep. The memory itself does not change.
    ///
    /// # Errors
    /// [`EngineError::Cancelled`], or what the computation fails with.
    pub fn encode(&self, decoder: &Decoder, segment: &Segment, cancel: &Cancel) -> Result<Encoded> {
        intake::encode(self.before(), segment, decoder, cancel)
    }

    /// The same for a question, which waits for no other stream.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_at_once(
        &self,
        decoder: &Decoder,
        segment: &Segment,
        cancel: &Cancel,
    ) -> Result<Encoded> {
        intake::encode(Before { at_once: true, ..self.before() }, segment, decoder, cancel)
    }

    /// Takes in a piece of stream that [`encode`](Self::encode) made from this memory's present
    /// state.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn commit(&mut self, encoded: Encoded) -> Result<()> {
        let held: BTreeSet<u64> =
            encoded.layers.iter().flat_map(|layer| layer.blocks.iter()).map(|b| b.unit).collect();
        let inputs = encoded.inputs.into_iter().filter(|input| held.contains(&input.unit));
        self.inputs.extend(self.tiers.put(self.layers.len(), inputs.collect())?);
        for (index, (layer, fresh)) in self.layers.iter_mut().zip(encoded.layers).enumerate() {
            if let Some(window) = &fresh.window {
                layer.window.append(window)?;
            }
            if let Some(changed) = fresh.changed {
                layer.changed = changed;
            }
            layer.blocks.append(fresh.blocks, |blocks| self.tiers.put(index, blocks))?;
        }
        for unit in encoded.units.iter().filter(|unit| unit.kind == Kind::Frame) {
            self.clock.tick(unit.start, self.geometry.unit_seconds);
        }
        self.seen += encoded.tokens;
        self.taken += encoded.taken;
        self.next_segment += 1;
        self.next_unit += encoded.units.len() as u64;
        self.units.extend(encoded.units);
        if encoded.resident.is_some() {
            self.resident = encoded.resident;
            self.forget_lost_units();
        }
        if let Retrieval::All { last: Some(last) } = self.recipe.retrieval {
            self.keep_last(last)?;
        }
        Ok(())
    }

    /// Says that the newest frame stands for all frames up to number `frames`, until that second of the
    /// stream.
    pub fn lengthen(&mut self, frames: u64, end: f64) {
        self.units.lengthen(frames, end);
    }

    /// Drops the oldest units of every layer down to the newest `count`.
    fn keep_last(&mut self, count: usize) -> Result<()> {
        for layer in &mut self.layers {
            let surplus = layer.blocks.len().saturating_sub(count);
            layer.blocks.drop_front(surplus)?;
        }
        self.forget_lost_units();
        Ok(())
    }

    /// Moves blocks between the tiers until each is within its budget, and drops units, the oldest
    /// first and in all layers alike, until that is so or one unit is left.
    ///
    /// # Errors
    /// What the computation fails with; a tier that fails is a [warning](Self::take_warnings).
    pub fn settle(&mut self) -> Result<()> {
        if self.tiers.has_lost() {
            self.drop_lost()?;
        }
        let mut dropped = None;
        while let Some(unit) = self.tiers.settle(self.besides())?
            && self.units.len() > 1
            && dropped.replace(unit) != Some(unit)
        {
            for layer in &mut self.layers {
                layer.blocks.drop_unit(unit)?;
            }
            if let Ok(at) = self.inputs.binary_search_by_key(&unit, |input| input.unit) {
                self.inputs.remove(at);
            }
            self.units.remove(unit);
        }
        self.shrink_resident()?;
        self.forget_lost_units();
        self.tiers.tell_least(self.besides(), self.units.len());
        Ok(())
    }

    /// What the device is over its budget when no unit is left to go is the resident cache's, whose
    /// oldest tokens go.
    fn shrink_resident(&mut self) -> Result<()> {
        loop {
            let over = self.tiers.excess(self.besides());
            let Some(layers) = self.resident.as_mut().filter(|_| over > 0) else { return Ok(()) };
            if !keep::shrink::drop_oldest(layers, over)? {
                return Ok(());
            }
        }
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

    fn forget_lost_units(&mut self) {
        let oldest = self.layers.iter().filter_map(|l| l.blocks.front()).map(|b| b.unit).min();
        if let Some(layers) = &self.resident {
            let rows = layers.iter().flat_map(Layer::lists).flatten().map(|row| row.unit);
            let held: BTreeSet<u64> = rows.collect();
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
    fn besides(&self) -> Besides {
        let windows: u64 = self.layers.iter().map(LayerStore::fixed_bytes).sum();
        let resident: u64 = self.resident.iter().flatten().map(Layer::bytes).sum();
        let mean_keys: u64 = self.layers.iter().map(|layer| layer.blocks.bytes()).sum();
        let inputs = self.inputs.len() as u64 * size_of::<Block>() as u64;
        Besides { fixed: windows + resident, index: mean_keys + inputs + self.units.bytes() }
    }

    /// What every look at the memory starts from.
    pub fn held(&self) -> Held<'_> {
        Held {
            geometry: &self.geometry,
            recipe: &self.recipe,
            layers: &self.layers,
            resident: self.resident.as_deref(),
        }
    }

    /// The memory as the next segment finds it.
    fn before(&self) -> Before<'_> {
        Before {
            held: self.held(),
            prompts: &self.prompts,
            seen: self.seen,
            taken: self.taken,
            clock: self.clock,
            next_unit: self.next_unit,
            segment: self.next_segment,
            at_once: false,
        }
    }

    /// What a question may look at; `branch`: the open segment, encoded and not committed.
    pub fn view<'a>(&'a self, branch: Option<&'a Encoded>) -> View<'a> {
        let (held, tiers) = (self.held(), Some(&self.tiers));
        View { held, inputs: &self.inputs, units: &self.units, branch, tiers, within: None }
    }

    /// What lies in each tier; with the device counts all that is in memory of a stream: windows,
    /// prefix, resident cache, mean keys and where units come from.
    pub fn store_stats(&self) -> StoreStats {
        let (blocks, Besides { fixed, index }) = (self.tiers.stats(), self.besides());
        StoreStats {
            device: blocks.device + fixed + index,
            overhead: blocks.overhead + index,
            ..blocks
        }
    }

    /// What went wrong with a tier since the last call.
    pub fn take_warnings(&self) -> Vec<EngineError> {
        self.tiers.take_warnings()
    }

    /// Units that at least one layer may still hold.
    pub fn units(&self) -> impl ExactSizeIterator<Item = &Unit> + DoubleEndedIterator {
        self.units.iter()
    }

    pub fn segments(&self) -> u64 {
        self.next_segment
    }
}
