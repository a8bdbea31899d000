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
mod saved;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
pub mod unit;
#[cfg(test)]
mod ways;
pub mod weigh;

use std::collections::BTreeSet;
use std::sync::Arc;

use candle_core::Tensor;

use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::memory::find::View;
use crate::memory::intake::{Before, Encoded, InWindow, Prompts, Segment};
use crate::memory::keep::stored::{Stored, tiers};
use crate::memory::keep::{Age, Held, Layer};
use crate::memory::recipe::{Recipe, Retrieval, Sees};
use crate::memory::store::{Besides, StoreOptions, StoreStats};
use crate::memory::unit::{Clock, Geometry, Kind, Unit};
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
    stored: Stored,
    /// The resident cache, a layer each, if the recipe has one.
    resident: Option<Vec<Layer>>,
    next_unit: u64,
    next_segment: u64,
    /// Tokens encoded so far, prefix included.
    seen: usize,
    /// Places that the video takes so far.
    taken: usize,
    clock: Clock,
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
        let resident = recipe.resident.as_ref().map(|_| vec![Layer::default(); geometry.layers]);
        Self {
            stored: Stored::new(&geometry, recipe),
            geometry,
            recipe: recipe.clone(),
            prompts: Prompts::default(),
            resident,
            next_unit: 0,
            next_segment: 0,
            seen: 0,
            taken: 0,
            clock: Clock::default(),
        }
    }

    /// An empty memory's blocks will be kept that way.
    pub fn store_in(&mut self, options: StoreOptions) {
        self.stored.tiers = tiers(options, &self.geometry, self.recipe.keeps);
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

    pub fn prompts(&self) -> &Prompts {
        &self.prompts
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
        let Stored { layers, tiers, .. } = &mut self.stored;
        for (at, (layer, (raw, rotated))) in layers.iter_mut().zip(fresh).enumerate() {
            if self.recipe.sees == Sees::Window {
                layer.window.append(&rotated)?;
            }
            layer.open(tiers.hold(at, raw)?)?;
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
        // A compression may have dropped units from all layers.
        let all = self.recipe.is_fresh();
        let entered = encoded.inputs.into_iter();
        let entered = entered.filter(|input| all || held.contains(&input.unit));
        let Stored { layers, tiers, inputs, .. } = &mut self.stored;
        inputs.extend(tiers.put(layers.len(), entered.collect())?);
        for (index, (layer, fresh)) in layers.iter_mut().zip(encoded.layers).enumerate() {
            if let Some(window) = &fresh.window {
                layer.window.append(window)?;
            }
            if let Some(changed) = fresh.changed {
                layer.changed = changed;
            }
            layer.blocks.append(fresh.blocks, |blocks| tiers.put(index, blocks))?;
        }
        for unit in encoded.units.iter().filter(|unit| unit.kind == Kind::Frame) {
            self.clock.tick(unit.start, self.geometry.unit_seconds);
        }
        self.seen += encoded.tokens;
        self.taken += encoded.taken;
        self.next_segment += 1;
        self.next_unit += encoded.units.len() as u64;
        let fresh: Vec<u64> = encoded.units.iter().map(|unit| unit.id).collect();
        self.stored.units.extend(encoded.units);
        self.stored.tidy((&self.recipe, &self.prompts.bank), &fresh, &self.geometry)?;
        if encoded.resident.is_some() {
            self.resident = encoded.resident;
            self.stored.forget_lost_units(self.resident.as_deref());
        }
        if let Retrieval::All { last: Some(last) } | Retrieval::Fresh { units: last } =
            self.recipe.retrieval
        {
            self.stored.keep_last(last, self.resident.as_deref())?;
        }
        Ok(())
    }

    /// Says that the newest frame stands for all frames up to number `frames`, until that second of the
    /// stream.
    pub fn lengthen(&mut self, frames: u64, end: f64) {
        self.stored.units.lengthen(frames, end);
    }

    /// Brings every tier within its budget: the oldest units get thinner, and at last are dropped.
    ///
    /// # Errors
    /// What the computation fails with; a tier that fails is a [warning](Self::take_warnings).
    pub fn settle(&mut self) -> Result<()> {
        self.stored.settle(&self.geometry, &self.recipe, self.resident.as_deref())?;
        self.shrink_resident()?;
        self.stored.forget_lost_units(self.resident.as_deref());
        self.stored.tiers.tell_least(self.besides(), self.stored.units.len());
        Ok(())
    }

    /// What the device is over its budget when no unit is left to go is the resident cache's, whose
    /// oldest tokens go.
    fn shrink_resident(&mut self) -> Result<()> {
        loop {
            let over = self.stored.tiers.excess(self.besides());
            let Some(layers) = self.resident.as_mut().filter(|_| over > 0) else { return Ok(()) };
            if !keep::shrink::drop_oldest(layers, over)? {
                return Ok(());
            }
        }
    }

    /// Bytes that always lie on the device.
    fn besides(&self) -> Besides {
        self.stored.besides(self.resident.as_deref())
    }

    /// What every look at the memory starts from.
    pub fn held(&self) -> Held<'_> {
        Held {
            geometry: &self.geometry,
            recipe: &self.recipe,
            layers: &self.stored.layers,
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
        let Stored { inputs, tiers, units, .. } = &self.stored;
        let (held, tiers) = (self.held(), Some(tiers));
        View { held, inputs, units, branch, tiers, within: None, usual: self.stored.usual() }
    }

    /// What lies in each tier; with the device counts all that is in memory of a stream: windows,
    /// prefix, resident cache, mean keys and where units come from.
    pub fn store_stats(&self) -> StoreStats {
        let (blocks, Besides { fixed, index }) = (self.stored.tiers.stats(), self.besides());
        StoreStats {
            device: blocks.device + fixed + index,
            overhead: blocks.overhead + index,
            ..blocks
        }
    }

    /// What is held by age, the newest first. Walks over all that is held.
    pub fn ages(&self) -> Vec<Age> {
        self.stored.ages(self.resident.as_deref())
    }

    /// What went wrong with a tier since the last call.
    pub fn take_warnings(&self) -> Vec<EngineError> {
        self.stored.tiers.take_warnings()
    }

    /// Units that at least one layer may still hold.
    pub fn units(&self) -> impl ExactSizeIterator<Item = &Unit> + DoubleEndedIterator {
        self.stored.units.iter()
    }

    pub fn segments(&self) -> u64 {
        self.next_segment
    }
}
