// SPDX-License-Identifier: MPL-2.0
//! What a segment comes in behind, and what every way in has in common.

use std::fmt;
use std::sync::Arc;

use candle_core::Tensor;

use super::encoded::Encoded;
use super::frames::Segment;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::keep::shrink::shrunk;
use crate::memory::keep::{Held, Layer};
use crate::memory::kv::{Kv, filed};
use crate::memory::recipe::{Keeps, Recipe};
use crate::memory::store::Block;
use crate::memory::unit::{Clock, Kind, Row, Unit, Words};
use crate::model::decoder::{Attend, Decoder};
use crate::model::rope::Positions;
use crate::model::vision::Moment;

/// The embedded prompts of a recipe, `[n, C]` each; what they leave is numbers.
#[derive(Clone, Debug, Default)]
pub struct Prompts {
    /// Ask the resident cache what matters; as [`Recipe::probes`](crate::Recipe::probes) names them.
    pub probes: Vec<Tensor>,
    /// Says what to keep of a segment, where the recipe compresses.
    pub guidance: Option<Tensor>,
    /// Asked of every unit when it comes; as
    /// [`Recipe::pseudo_questions`](crate::Recipe::pseudo_questions) has them.
    pub bank: Vec<Tensor>,
    /// [A question that asks for nothing](crate::memory::find::trust::ANY), where the recipe compares with it.
    pub any: Option<Tensor>,
    /// Tells what stands around a unit's picture, where the model has words there.
    pub teller: Option<Teller>,
}

/// Words in front of a unit's picture and behind it, `[n, C]` each and as wide as its tokens.
pub type Around = [Tensor; 2];

/// Makes the words around a unit's picture.
#[derive(Clone)]
pub struct Teller(pub Arc<dyn Fn(Moment) -> Result<Around> + Send + Sync>);

impl Teller {
    /// # Errors
    /// What the computation fails with.
    pub fn around(&self, moment: Moment) -> Result<Around> {
        (self.0)(moment)
    }
}

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Teller")
    }
}

/// The memory as a segment finds it.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    pub held: Held<'a>,
    pub prompts: &'a Prompts,
    /// Tokens encoded so far, prefix included.
    pub seen: usize,
    /// Places that the video takes so far.
    pub taken: usize,
    /// What time it is in the stream.
    pub clock: Clock,
    /// The id of the next unit.
    pub next_unit: u64,
    /// The number of this segment.
    pub segment: u64,
    /// Whether a question waits for it: then it waits for no other stream's pass.
    pub at_once: bool,
}

/// A way in: one pass of the decoder, or several, over what is new, and what it leaves. The memory
/// itself does not change.
pub trait WayIn {
    /// # Errors
    /// [`Cancelled`](crate::EngineError::Cancelled), or what the computation fails with.
    fn encode(
        &self,
        before: Before<'_>,
        segment: &Segment,
        decoder: &Decoder,
        cancel: &Cancel,
    ) -> Result<Encoded>;
}

/// Units with what enters the decoder of each, `[M, C]`.
pub struct Inputs {
    pub units: Vec<Unit>,
    pub tokens: Vec<Tensor>,
}

impl Inputs {
    /// All of it in one piece.
    pub fn embeds(&self) -> Result<Tensor> {
        Ok(Tensor::cat(&self.tokens, 0)?)
    }

    /// What the store keeps of it, unit by unit, if it keeps that.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn kept(&self, recipe: &Recipe) -> Result<Vec<Block>> {
        if !recipe.store || recipe.keeps == Keeps::KeysAndValues {
            return Ok(Vec::new());
        }
        let (filed, mut start) = (filed(&self.embeds()?)?, 0);
        let pairs = self.units.iter().zip(self.lengths()?);
        let parts = pairs.map(|(unit, n)| {
            start += n;
            Block::part(unit.id, &filed, start - n, n)
        });
        Ok(parts.collect())
    }

    /// Tokens of each unit.
    pub fn lengths(&self) -> Result<Vec<usize>> {
        Ok(self.tokens.iter().map(|tokens| tokens.dim(0)).collect::<candle_core::Result<_>>()?)
    }
}

impl Before<'_> {
    /// What has attended to a pass of the decoder over what is new, which may be one with other
    /// streams'; see [`Decoder::forward_together`].
    ///
    /// # Errors
    /// [`Cancelled`](crate::EngineError::Cancelled), or what the computation fails with.
    pub fn pass<A: Attend>(
        &self,
        decoder: &Decoder,
        embeds: &Tensor,
        cancel: &Cancel,
        new: impl Fn() -> A,
    ) -> Result<A> {
        if self.at_once {
            let mut pass = new();
            decoder.forward(embeds, &mut pass)?;
            return Ok(pass);
        }
        Ok(decoder.forward_together(embeds, cancel, new)?.0)
    }

    /// Where these inputs stand in the stream.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn positions(&self, inputs: &Inputs) -> Result<Positions> {
        let (prefix, lengths) = (self.held.prefix_tokens(), inputs.lengths()?);
        Ok(self.held.geometry.positions(prefix, &inputs.units, &lengths))
    }

    /// The segment's units, the summary behind them where the recipe has one.
    pub fn inputs(&self, segment: &Segment) -> Result<Inputs> {
        let mut tokens: Vec<Tensor> = segment.frames.iter().map(|f| f.tokens.clone()).collect();
        let mean = if self.held.recipe.summary { segment.summary()? } else { None };
        let mut units = self.name_units(segment, mean.is_some());
        tokens.extend(mean);
        for (unit, tokens) in units.iter_mut().zip(&mut tokens) {
            (*tokens, unit.words) = self.worded(tokens, unit.frames.start, unit.told)?;
        }
        let geometry = self.held.geometry;
        let (mut at, mut clock, mut time) = (self.taken, self.clock, 0.0);
        for unit in &mut units {
            (unit.at, at) = (at, at + geometry.steps(unit));
            time = match unit.kind {
                // The mean of a segment has no time of its own: it stands where the segment ends.
                Kind::Summary => time + 1.0,
                _ => clock.tick(unit.start, geometry.unit_seconds),
            };
            unit.time = time;
        }
        Ok(Inputs { units, tokens })
    }

    /// The tokens of a unit with the words around them.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn worded(&self, tokens: &Tensor, frame: u64, seconds: f64) -> Result<(Tensor, Words)> {
        let Some(teller) = &self.prompts.teller else {
            return Ok((tokens.clone(), Words::default()));
        };
        let [front, behind] = teller.around(Moment { frame, seconds })?;
        let words = Words { front: front.dim(0)?, behind: behind.dim(0)? };
        Ok((Tensor::cat(&[&front, tokens, &behind], 0)?, words))
    }

    fn name_units(&self, segment: &Segment, summary: bool) -> Vec<Unit> {
        let mut units: Vec<Unit> = (self.next_unit..)
            .zip(&segment.frames)
            .map(|(id, frame)| Unit {
                id,
                kind: Kind::Frame,
                segment: self.segment,
                frames: frame.frames.clone(),
                start: frame.start,
                end: frame.end,
                told: frame.told,
                at: 0,
                time: 0.0,
                patches: frame.patches.clone(),
                words: Words::default(),
                embedding: frame.embedding.clone(),
            })
            .collect();
        if let (true, Some(first), Some(last)) = (summary, units.first(), units.last()) {
            let summary = Unit {
                id: last.id + 1,
                kind: Kind::Summary,
                segment: self.segment,
                frames: first.frames.start..last.frames.end,
                start: first.start,
                end: last.end,
                told: (first.told + last.told) / 2.0,
                at: 0,
                time: 0.0,
                patches: None,
                words: Words::default(),
                embedding: None,
            };
            units.push(summary);
        }
        units
    }

    /// Where the tokens of these units come from and where they stand in the stream.
    pub fn rows_of(&self, units: &[Unit], lengths: &[usize]) -> Vec<Row> {
        units.iter().zip(lengths).flat_map(|(unit, &n)| self.held.rows_of(unit, n)).collect()
    }

    /// The resident cache with what came in by another way than beside it. `raw`: per layer the
    /// un-rotated keys and values of all inputs.
    pub fn grown(
        &self,
        inputs: &Inputs,
        raw: &[&Kv],
        decoder: &Decoder,
        cancel: &Cancel,
    ) -> Result<Option<Vec<Layer>>> {
        let Some(resident) = self.held.resident else { return Ok(None) };
        let rows = self.rows_of(&inputs.units, &inputs.lengths()?);
        let layers = resident.iter().zip(raw);
        let layers = layers.map(|(layer, raw)| layer.with(raw, std::slice::from_ref(&rows)));
        let layers = layers.collect::<Result<_>>()?;
        Ok(Some(shrunk(self.held, layers, None, &self.prompts.probes, decoder, cancel)?))
    }
}
