// SPDX-License-Identifier: MPL-2.0
//! How the decoder looks at the resident cache: frames that come in beside it, and prompts that
//! ask it what matters and leave nothing behind.

use candle_core::Tensor;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::VideoMemory;
use crate::memory::attend::UNBOUNDED;
use crate::memory::evict::Scores;
use crate::memory::recipe::{Heads, Probe};
use crate::memory::resident::{Layer, Places, Row, at_time, place, rotate};
use crate::memory::store::Kv;
use crate::model::attention::{self, Stage, Visible};
use crate::model::decoder::Attend;
use crate::model::rope::{Positions, Rope};

/// Prefix and resident tokens of one layer, ready to be looked at.
struct Past {
    kv: Option<Kv>,
    /// Tokens of the prefix.
    prefix: usize,
}

impl VideoMemory {
    /// The places that newcomers take behind what a layer holds. `stream`: their places in the
    /// stream.
    fn newcomers(&self, layer: &Layer, rows: &[Row]) -> Vec<Row> {
        let Some(first) = rows.first() else { return Vec::new() };
        let end = layer.end().unwrap_or(first.place.t);
        let start = match self.places {
            Places::Lazy { .. } | Places::Scaled => end,
            // A summary may stand behind the last frame.
            _ => first.place.t.max(end),
        };
        let shift = |row: &Row| {
            let t = start + (row.place.t - first.place.t);
            Row { place: at_time(row.place, t, self.layout), ..*row }
        };
        rows.iter().map(shift).collect()
    }

    fn past(&self, at: usize, layer: &Layer, held: &[Positions]) -> Result<Past> {
        let prefix = self.layers.get(at).and_then(|store| store.prefix.as_ref());
        let tokens = prefix.map_or(Ok(0), Kv::tokens)?;
        let mut parts = Vec::new();
        if let Some(kv) = prefix {
            let k = self.rope.rotate(&kv.k, &Positions::run(0, tokens))?;
            parts.push(Kv { k, v: kv.v.clone() });
        }
        if let Some(kv) = layer.kv() {
            parts.push(Kv { k: rotate(&self.rope, &kv.k, held)?, v: kv.v.clone() });
        }
        let kv = match parts.len() {
            0 => None,
            1 => parts.pop(),
            _ => {
                let keys: Vec<&Tensor> = parts.iter().map(|kv| &kv.k).collect();
                let values: Vec<&Tensor> = parts.iter().map(|kv| &kv.v).collect();
                Some(Kv { k: Tensor::cat(&keys, 1)?, v: Tensor::cat(&values, 1)? })
            }
        };
        Ok(Past { kv, prefix: tokens })
    }
}

/// What one layer made of the newcomers.
#[derive(Clone, Debug)]
pub struct Grown {
    /// Un-rotated keys and values.
    pub raw: Kv,
    /// One list for all heads, or one per KV head, scored if the probe saw them.
    pub rows: Vec<Vec<Row>>,
    /// What every row, old ones first, received from the probe.
    pub received: Option<Scores>,
}

/// Frames come in: they see the prefix, everything resident, and each other up to themselves.
pub struct Grow<'a> {
    memory: &'a VideoMemory,
    resident: &'a [Layer],
    /// The newcomers with their places in the stream.
    rows: &'a [Row],
    /// Rows of frames that differ most from their neighbours.
    pivots: &'a [bool],
    cancel: &'a Cancel,
    layers: Vec<Grown>,
}

impl<'a> Grow<'a> {
    pub fn new(
        memory: &'a VideoMemory,
        resident: &'a [Layer],
        rows: &'a [Row],
        pivots: &'a [bool],
        cancel: &'a Cancel,
    ) -> Self {
        Self { memory, resident, rows, pivots, cancel, layers: Vec::new() }
    }

    pub fn into_layers(self) -> Vec<Grown> {
        self.layers
    }

    /// What the probe says, if it is one that rides along with the frames.
    fn probe(
        &self,
        raw: (&Tensor, &Tensor),
        rotated: (&Tensor, &Tensor),
        past: &Past,
    ) -> Result<(Option<Scores>, Option<Scores>)> {
        let Some(recipe) = &self.memory.residency else { return Ok((None, None)) };
        let heads = recipe.heads;
        let (scale, n) = (self.memory.geometry.scale, raw.0.dim(1)?);
        match &recipe.probe {
            Probe::Itself => {
                // Not causal, without positions, over the newcomers alone (ReTaKe §4.5).
                let mut own = received(raw.0, raw.1, Visible::All, scale, heads)?;
                for list in &mut own {
                    let pivots = list.iter_mut().zip(self.pivots).filter(|(_, pivot)| **pivot);
                    pivots.for_each(|(score, _)| *score = 1.0);
                }
                Ok((None, Some(own)))
            }
            Probe::Newest { units } => {
                let rows = (units * self.memory.geometry.unit_tokens).clamp(1, n);
                let q = rotated.0.narrow(1, n - rows, rows)?.contiguous()?;
                let (keys, before) = match &past.kv {
                    Some(kv) => (Tensor::cat(&[&kv.k, rotated.1], 1)?, kv.tokens()?),
                    None => (rotated.1.clone(), 0),
                };
                let visible = Visible::Window { offset: before + n - rows, width: UNBOUNDED };
                let mut all = received(&q, &keys, visible, scale, heads)?;
                all.iter_mut().for_each(|list| {
                    list.drain(..past.prefix);
                });
                Ok((Some(all), None))
            }
            Probe::Turn | Probe::Words { .. } => Ok((None, None)),
        }
    }
}

impl Attend for Grow<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.cancel.check()?;
        let memory = self.memory;
        let held = &self.resident[layer];
        let fresh = memory.newcomers(held, self.rows);
        let prefix = memory.prefix_tokens();
        let old = held.tokens();
        let lists: Vec<Vec<Row>> = match held.lists() {
            [] => vec![fresh.clone()],
            lists => lists.iter().map(|rows| [&rows[..], &fresh].concat()).collect(),
        };
        let placed: Vec<Positions> = lists
            .iter()
            .map(|rows| place(rows, memory.places, memory.layout, prefix).positions)
            .collect();
        let (before, here): (Vec<_>, Vec<_>) = placed.iter().map(|all| split(all, old)).unzip();
        let past = memory.past(layer, held, &before)?;
        let q_here = rotate_queries(&memory.rope, q, &here)?;
        let k_here = rotate(&memory.rope, k, &here)?;
        let mut stages = Vec::with_capacity(2);
        if let Some(Kv { k, v }) = &past.kv {
            stages.push(Stage { q: &q_here, k, v, visible: Visible::All });
        }
        let visible = Visible::Window { offset: 0, width: UNBOUNDED };
        stages.push(Stage { q: &q_here, k: &k_here, v, visible });
        let context = attention::attend(&stages, memory.geometry.scale)?;

        let (received, own) = self.probe((q, k), (&q_here, &k_here), &past)?;
        let rows = match own {
            Some(own) => own.iter().map(|scores| scored(&fresh, scores)).collect(),
            None => vec![fresh],
        };
        self.layers.push(Grown { raw: Kv { k: k.clone(), v: v.clone() }, rows, received });
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

/// What every key receives: the mean over all heads, or per KV head over its query heads.
fn received(q: &Tensor, k: &Tensor, visible: Visible, scale: f64, heads: Heads) -> Result<Scores> {
    match heads {
        Heads::Shared => Ok(vec![attention::attention_mass(q, k, visible, scale)?]),
        Heads::Own => {
            let (kv_heads, group) = (k.dim(0)?, q.dim(0)? / k.dim(0)?);
            let one = |head: usize| {
                let q = q.narrow(0, head * group, group)?.contiguous()?;
                let k = k.narrow(0, head, 1)?;
                attention::attention_mass(&q, &k, visible, scale)
            };
            (0..kv_heads).map(one).collect()
        }
    }
}

/// A prompt behind everything resident: notes what each row receives, and is gone.
pub struct Ask<'a> {
    memory: &'a VideoMemory,
    resident: &'a [Layer],
    heads: Heads,
    cancel: &'a Cancel,
    layers: Vec<Scores>,
}

impl<'a> Ask<'a> {
    pub fn new(
        memory: &'a VideoMemory,
        resident: &'a [Layer],
        heads: Heads,
        cancel: &'a Cancel,
    ) -> Self {
        Self { memory, resident, heads, cancel, layers: Vec::new() }
    }

    /// Per layer what the resident rows received.
    pub fn into_layers(self) -> Vec<Scores> {
        self.layers
    }
}

impl Attend for Ask<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.cancel.check()?;
        let (memory, held) = (self.memory, &self.resident[layer]);
        let prefix = memory.prefix_tokens();
        let placed: Vec<_> = held
            .lists()
            .iter()
            .map(|rows| place(rows, memory.places, memory.layout, prefix))
            .collect();
        let next = placed.iter().map(|placed| placed.next).max().unwrap_or(prefix);
        let held_at: Vec<Positions> = placed.into_iter().map(|placed| placed.positions).collect();
        let past = memory.past(layer, held, &held_at)?;
        let here = Positions::run(next, q.dim(1)?);
        let (q, k) = (memory.rope.rotate(q, &here)?, memory.rope.rotate(k, &here)?);
        let scale = memory.geometry.scale;
        let own = Visible::Window { offset: 0, width: UNBOUNDED };
        let mut stages = vec![Stage { q: &q, k: &k, v, visible: own }];
        if let Some(Kv { k, v }) = &past.kv {
            stages.insert(0, Stage { q: &q, k, v, visible: Visible::All });
        }
        let context = attention::attend(&stages, scale)?;
        let (keys, before) = match &past.kv {
            Some(past) => (Tensor::cat(&[&past.k, &k], 1)?, past.tokens()?),
            None => (k.clone(), 0),
        };
        let visible = Visible::Window { offset: before, width: UNBOUNDED };
        let mut all = received(&q, &keys, visible, scale, self.heads)?;
        for list in &mut all {
            list.truncate(before);
            list.drain(..past.prefix);
        }
        self.layers.push(all);
        Ok(context)
    }
}
