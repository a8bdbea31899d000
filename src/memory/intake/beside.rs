// SPDX-License-Identifier: MPL-2.0
//! The way in beside the resident cache: frames see the prefix, everything resident, and each other
//! up to themselves, as many at a time as the cache has room for (InfiniPot-V, StreamMem, HERMES,
//! LiveVLM, ReTaKe).

use std::collections::BTreeSet;

use candle_core::Tensor;

use super::before::{Before, WayIn};
use super::encoded::Encoded;
use super::frames::Segment;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::keep::place::{at_time, place};
use crate::memory::keep::shrink::{room, shrunk};
use crate::memory::keep::{Held, Layer, in_sight, read_scores, received};
use crate::memory::kv::{Kv, joined, rotate};
use crate::memory::recipe::{Places, Probe, Retrieval};
use crate::memory::unit::{Row, UNBOUNDED};
use crate::model::attention::{self, Stage, Visible};
use crate::model::decoder::{Attend, Decoder};
use crate::model::rope::{Positions, Rope};

/// A pass each time that the cache is full.
pub struct Beside;

impl WayIn for Beside {
    fn encode(
        &self,
        before: Before<'_>,
        segment: &Segment,
        decoder: &Decoder,
        cancel: &Cancel,
    ) -> Result<Encoded> {
        let held = before.held;
        let inputs = before.inputs(segment)?;
        let lengths = inputs.lengths()?;
        let peaks: BTreeSet<u64> =
            segment.frames.iter().filter(|f| f.peak).map(|f| f.frames.start).collect();
        let mut resident = held.resident.unwrap_or(&[]).to_vec();
        let mut raw: Vec<Vec<Kv>> = vec![Vec::new(); resident.len()];
        let mut from = 0;
        while from < lengths.len() {
            let to = from + room(held, &resident, &lengths[from..]);
            let (units, lengths) = (&inputs.units[from..to], &lengths[from..to]);
            let embeds = Tensor::cat(&inputs.tokens[from..to], 0)?;
            from = to;
            let rows = before.rows_of(units, lengths);
            let pivots: Vec<bool> = units
                .iter()
                .zip(lengths)
                .flat_map(|(unit, &n)| vec![peaks.contains(&unit.frames.start); n])
                .collect();
            let shown = shown(held, &resident)?;
            let new = || InBeside::new(held, &shown, &rows, &pivots, cancel);
            let pass = before.pass(decoder, &embeds, cancel, new)?;
            let grown = pass.into_layers()?;
            let mut received = Vec::with_capacity(grown.len());
            for ((layer, raw), grown) in resident.iter_mut().zip(&mut raw).zip(grown) {
                let all = layer.with(&grown.raw, &grown.rows)?;
                if let Some(own) = grown.received {
                    received.push(of_all(own, all.tokens())?);
                }
                *layer = all;
                raw.push(grown.raw);
            }
            let received = (!received.is_empty()).then_some(received);
            resident = shrunk(held, resident, received, &before.prompts.probes, decoder, cancel)?;
        }
        let mut fresh = Vec::with_capacity(raw.len());
        for parts in &raw {
            fresh.extend(joined(&parts.iter().collect::<Vec<_>>())?.map(|raw| (raw, None)));
        }
        let kept = inputs.kept(held.recipe)?;
        let encoded = Encoded::cut(held, inputs.units, fresh)?;
        Ok(Encoded { resident: Some(resident), inputs: kept, ..encoded })
    }
}

/// What newcomers see of these layers. Where answers see the newest units by themselves, that is as much
/// of the past as answers see of it behind them (DSCache encodes a frame when it leaves the newest ones).
fn shown(held: Held<'_>, layers: &[Layer]) -> Result<Vec<Layer>> {
    let (Retrieval::Fresh { units: fresh }, Some(recipe)) =
        (&held.recipe.retrieval, &held.recipe.resident)
    else {
        return Ok(layers.to_vec());
    };
    let past = recipe.cap.saturating_sub(*fresh);
    let newest = |layer: &Layer| {
        let units: BTreeSet<u64> = layer.lists().iter().flatten().map(|row| row.unit).collect();
        let hidden = units.len().saturating_sub(past);
        let from = units.iter().nth(hidden).copied().unwrap_or(u64::MAX);
        layer.filtered(|row| row.unit >= from)
    };
    layers.iter().map(newest).collect()
}

/// What all rows of a layer received, `[lists, n]`, `received` being of its last ones: nobody saw the
/// others.
fn of_all(received: Tensor, n: usize) -> Result<Tensor> {
    let (lists, own) = received.dims2()?;
    if own >= n {
        return Ok(received);
    }
    let none = Tensor::zeros((lists, n - own), received.dtype(), received.device())?;
    Ok(Tensor::cat(&[&none, &received], 1)?)
}

/// The places that newcomers take behind what a layer holds. `rows`: their places in the stream.
fn newcomers(held: Held<'_>, layer: &Layer, rows: &[Row]) -> Vec<Row> {
    let Some(first) = rows.first() else { return Vec::new() };
    let own = first.place.t;
    let start = match held.recipe.places {
        Places::Lazy { .. } | Places::Scaled => own.saturating_add_signed(-layer.moved() as isize),
        // A summary may stand behind the last frame.
        _ => own.max(layer.residue_end().unwrap_or(own)),
    };
    let shift = |row: &Row| {
        let t = start + (row.place.t - first.place.t);
        Row { place: at_time(row.place, t, held.geometry.layout), ..*row }
    };
    rows.iter().map(shift).collect()
}

/// What one layer made of the newcomers.
#[derive(Clone, Debug)]
pub struct Grown {
    /// Un-rotated keys and values.
    pub raw: Kv,
    /// One list for all heads, or one per KV head, scored if the probe saw them.
    pub rows: Vec<Vec<Row>>,
    /// What every row, old ones first, received from the probe, `[lists, n]`; not read yet.
    pub received: Option<Tensor>,
    /// What the newcomers received from themselves, `[lists, n]`, if that is to stay with them.
    own: Option<Tensor>,
}

/// Frames come in: they see the prefix, everything resident, and each other up to themselves.
pub struct InBeside<'a> {
    held: Held<'a>,
    resident: &'a [Layer],
    /// The newcomers with their places in the stream.
    rows: &'a [Row],
    /// Rows of frames that differ most from their neighbours.
    pivots: &'a [bool],
    cancel: &'a Cancel,
    layers: Vec<Grown>,
}

impl<'a> InBeside<'a> {
    pub fn new(
        held: Held<'a>,
        resident: &'a [Layer],
        rows: &'a [Row],
        pivots: &'a [bool],
        cancel: &'a Cancel,
    ) -> Self {
        Self { held, resident, rows, pivots, cancel, layers: Vec::new() }
    }

    /// The layers, with scored rows where newcomers were seen only now: all layers' in one read.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn into_layers(mut self) -> Result<Vec<Grown>> {
        let own: Vec<Tensor> = self.layers.iter().filter_map(|layer| layer.own.clone()).collect();
        let mut scores = read_scores(&own)?.into_iter();
        for layer in self.layers.iter_mut().filter(|layer| layer.own.is_some()) {
            let mut lists = scores.next().unwrap_or_default();
            for list in &mut lists {
                let pivots = list.iter_mut().zip(self.pivots).filter(|(_, pivot)| **pivot);
                pivots.for_each(|(score, _)| *score = 1.0);
            }
            if let [rows] = &layer.rows[..] {
                layer.rows = lists.iter().map(|scores| scored(rows, scores)).collect();
            }
        }
        Ok(self.layers)
    }

    /// What the probe says, if it is one that rides along with the frames.
    fn probe(
        &self,
        raw: (&Tensor, &Tensor),
        rotated: (&Tensor, &Tensor),
        past: Option<&Kv>,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(recipe) = &self.held.recipe.resident else { return Ok((None, None)) };
        let heads = recipe.heads;
        let (scale, n) = (self.held.geometry.scale, raw.0.dim(1)?);
        match &recipe.probe {
            Probe::Itself => {
                // Not causal, without positions, over the newcomers alone (ReTaKe §4.5).
                let own = received(raw.0, raw.1, Visible::All, scale, heads)?;
                Ok((None, Some(own)))
            }
            Probe::Newest { units } => {
                let rows = (units * self.held.geometry.unit_tokens).clamp(1, n);
                let q = rotated.0.narrow(1, n - rows, rows)?.contiguous()?;
                let (keys, before) = match past {
                    Some(kv) => (Tensor::cat(&[&kv.k, rotated.1], 1)?, kv.tokens()?),
                    None => (rotated.1.clone(), 0),
                };
                let visible = Visible::Window { offset: before + n - rows, width: UNBOUNDED };
                let prefix = self.held.prefix_tokens();
                let all = received(&q, &keys, visible, scale, heads)?;
                Ok((Some(all.narrow(1, prefix, before + n - prefix)?), None))
            }
            Probe::Turn | Probe::Words { .. } => Ok((None, None)),
        }
    }
}

impl Attend for InBeside<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.cancel.check()?;
        let (held, resident) = (self.held, &self.resident[layer]);
        let (rope, layout) = (&held.geometry.rope, held.geometry.layout);
        let fresh = newcomers(held, resident, self.rows);
        let prefix = held.prefix_tokens();
        let old = resident.tokens();
        let lists: Vec<Vec<Row>> = match resident.lists() {
            [] => vec![fresh.clone()],
            lists => lists.iter().map(|rows| [&rows[..], &fresh].concat()).collect(),
        };
        let placed: Vec<Positions> = lists
            .iter()
            .map(|rows| place(rows, held.recipe.places, layout, prefix).positions)
            .collect();
        let (before, here): (Vec<_>, Vec<_>) = placed.iter().map(|all| split(all, old)).unzip();
        let past = in_sight(held, layer, resident, &before)?;
        let q_here = rotate_queries(rope, q, &here)?;
        let k_here = rotate(rope, k, &here)?;
        let mut stages = Vec::with_capacity(2);
        if let Some(Kv { k, v }) = &past {
            stages.push(Stage { q: &q_here, k, v, visible: Visible::All });
        }
        let visible = Visible::Window { offset: 0, width: UNBOUNDED };
        stages.push(Stage { q: &q_here, k: &k_here, v, visible });
        let context = attention::attend(&stages, held.geometry.scale)?;

        let (received, own) = self.probe((q, k), (&q_here, &k_here), past.as_ref())?;
        let raw = Kv { k: k.clone(), v: v.clone() };
        self.layers.push(Grown { raw, rows: vec![fresh], received, own });
        Ok(context)
    }
}

fn scored(rows: &[Row], scores: &[f32]) -> Vec<Row> {
    rows.iter().zip(scores).map(|(&row, &score)| Row { score, ..row }).collect()
}

/// The first `n` positions, and the rest.
fn split(all: &Positions, n: usize) -> (Positions, Positions) {
    let mut places = all.places();
    let rest = places.split_off(n);
    (Positions::listed(places), Positions::listed(rest))
}

/// Query heads stand where the keys of their KV head stand.
fn rotate_queries(rope: &Rope, q: &Tensor, at: &[Positions]) -> Result<Tensor> {
    let [_, _, ..] = at else { return rotate(rope, q, at) };
    let group = q.dim(0)? / at.len();
    let heads = at.iter().enumerate();
    let heads: Vec<Tensor> = heads
        .map(|(head, at)| rope.rotate(&q.narrow(0, head * group, group)?, at))
        .collect::<Result<_>>()?;
    Ok(Tensor::cat(&heads, 0)?)
}
