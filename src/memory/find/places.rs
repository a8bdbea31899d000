// SPDX-License-Identifier: MPL-2.0
//! From what a question may look at to what it sees: prefix, resident tokens and retrieved units of
//! one layer in one piece, keys turned where they stand.
//!
//! Where that is, the recipe says ([`Places`]). Mostly they are put side by side behind the prefix
//! as if the stream had consisted of nothing else (ReKV 3.2); how "side by side" looks is the
//! model's [`Layout`](crate::model::rope::Layout): the positions 0..n, or a time each and the
//! picture kept.

use std::collections::BTreeSet;

use super::view::View;
use crate::error::Result;
use crate::memory::keep::Layer;
use crate::memory::keep::place::place;
use crate::memory::keep::resident::stream_order;
use crate::memory::kv::{Kv, gather, joined, rotate};
use crate::memory::recipe::{Order, Places};
use crate::memory::store::{Block, Stretch, gathered, stretches, turned};
use crate::memory::unit::{Row, Unit, Words};
use crate::model::rope::{Kept, Positions};

/// What one layer sees in front of a question.
#[derive(Clone, Debug)]
pub struct Context {
    /// Keys rotated where they stand.
    pub kv: Kv,
    /// Tokens in front of the first unit.
    pub prefix: usize,
    /// Whose tokens follow, in order: units with their numbers of tokens. One list for all heads,
    /// or one per KV head.
    pub owners: Vec<Vec<(u64, usize)>>,
    /// The position of the question's first token.
    pub next: usize,
}

impl Context {
    pub fn tokens(&self) -> usize {
        let video = self.owners.first().into_iter().flatten().map(|(_, tokens)| tokens);
        self.prefix + video.sum::<usize>()
    }

    /// Ids of the units of which some head sees something: in the order in which they stand, or
    /// ascending where heads differ.
    pub fn units(&self) -> Vec<u64> {
        match &self.owners[..] {
            [units] => units.iter().map(|&(unit, _)| unit).collect(),
            lists => {
                let all: BTreeSet<u64> = lists.iter().flatten().map(|&(unit, _)| unit).collect();
                all.into_iter().collect()
            }
        }
    }
}

impl View<'_> {
    /// One layer's prefix, what is resident, and some blocks, less those that turn out to be lost.
    /// `None` if that is nothing.
    ///
    /// Of a unit that is retrieved whole, the resident remains are left out, so that nothing is
    /// seen twice; where every head keeps remains of its own they stay.
    pub fn pack(&self, layer: usize, blocks: &[&Block]) -> Result<Option<Context>> {
        self.pack_beside(layer, self.resident(layer), blocks)
    }

    /// The prefix alone.
    pub fn pack_nothing(&self, layer: usize) -> Result<Option<Context>> {
        self.pack_beside(layer, None, &[])
    }

    /// [`pack`](Self::pack) with something else resident.
    pub fn pack_beside(
        &self,
        layer: usize,
        resident: Option<&Layer>,
        blocks: &[&Block],
    ) -> Result<Option<Context>> {
        let (geometry, recipe) = (self.held.geometry, self.held.recipe);
        let resident = resident.filter(|resident| resident.tokens() > 0);
        let whole = |block: &&Block| self.unit(block.unit).is_none_or(|u| u.patches.is_none());
        if resident.is_none() && recipe.places == Places::Packed && blocks.iter().all(whole) {
            return self.pack_units(layer, blocks);
        }
        let mut loaded = Vec::with_capacity(blocks.len());
        for (block, stretch) in blocks.iter().zip(stretches(blocks)?) {
            loaded.extend(stretch.map(|stretch| (block.unit, stretch)));
        }
        let retrieved: BTreeSet<u64> = loaded.iter().map(|(unit, _)| *unit).collect();
        let resident = resident
            .map(|resident| resident.filtered(|row| !retrieved.contains(&row.unit)))
            .transpose()?;
        let kept = resident.iter().filter_map(Layer::kv).cloned().map(Stretch::whole);
        let mut parts: Vec<Stretch> = kept.collect::<Result<_>>()?;
        parts.extend(loaded.iter().map(|(_, stretch)| stretch.clone()));
        let mut lists = match &resident {
            Some(resident) => resident.lists().to_vec(),
            None => vec![Vec::new()],
        };
        for (unit, stretch) in &loaded {
            let rows = self.rows(*unit, stretch.tokens());
            lists.iter_mut().for_each(|list| list.extend_from_slice(&rows));
        }
        let prefix = self.held.prefix_tokens();
        let mut video = gathered(&parts, geometry.on_device)?;
        if recipe.order == Order::Stream {
            let orders: Vec<Vec<usize>> = lists.iter().map(|rows| stream_order(rows)).collect();
            for (rows, order) in lists.iter_mut().zip(&orders) {
                *rows = order.iter().map(|&i| rows[i]).collect();
            }
            let sorted = |order: &Vec<usize>| order.windows(2).all(|pair| pair[0] < pair[1]);
            if let (Some(kv), false) = (&video, orders.iter().all(sorted)) {
                video = Some(gather(kv, &orders)?);
            }
        }
        let placed: Vec<_> =
            lists.iter().map(|rows| place(rows, recipe.places, geometry.layout, prefix)).collect();
        let next = placed.iter().map(|placed| placed.next).max().unwrap_or(prefix);
        let before = self.held.prefix_in_place(layer)?;
        let behind = match video {
            Some(kv) => {
                let at: Vec<Positions> =
                    placed.into_iter().map(|placed| placed.positions).collect();
                Some(Kv { k: rotate(&geometry.rope, &kv.k, &at)?, v: kv.v })
            }
            None => None,
        };
        let parts: Vec<&Kv> = before.iter().chain(&behind).collect();
        let owners = lists.iter().map(|rows| owners(rows)).collect();
        Ok(joined(&parts)?.map(|kv| Context { kv, prefix, owners, next }))
    }

    /// The plain case: whole units side by side.
    fn pack_units(&self, layer: usize, blocks: &[&Block]) -> Result<Option<Context>> {
        let geometry = self.held.geometry;
        let prefix = self.held.prefix(layer);
        let mut parts: Vec<Stretch> = self.held.opening(layer).cloned().into_iter().collect();
        let mut units = Vec::with_capacity(blocks.len());
        let mut times = Vec::with_capacity(blocks.len());
        let mut words = Vec::with_capacity(blocks.len());
        let mut before: Option<(&Unit, f64)> = None;
        for (block, stretch) in blocks.iter().zip(stretches(blocks)?) {
            let Some(stretch) = stretch else { continue };
            let unit = self.unit(block.unit);
            let time = match (before, unit) {
                (Some((last, time)), Some(unit)) => time + unit.behind(last),
                _ => times.last().map_or(0.0, |time| time + 1.0),
            };
            before = unit.map(|unit| (unit, time)).or(before);
            times.push(time);
            units.push((block.unit, stretch.tokens()));
            words.push(unit.map_or_else(Words::default, |unit| unit.words.of(stretch.tokens())));
            parts.push(stretch);
        }
        let prefix = prefix.map_or(Ok(0), Kv::tokens)?;
        let kept = units.iter().zip(words).map(|(&(_, n), Words { front, behind })| {
            Kept::all(n.saturating_sub(front + behind)).within(front, behind)
        });
        let placed = geometry.layout.timed(prefix, times.into_iter().zip(kept));
        let positions = Positions::run(0, prefix).then(&placed.positions);
        let kv = turned(&parts, geometry.on_device, &geometry.rope, &positions)?;
        Ok(kv.map(|kv| Context { kv, prefix, owners: vec![units], next: placed.next }))
    }

    /// Everything that every layer holds, or its last `last` units.
    pub fn pack_all(&self, last: Option<usize>) -> Result<Vec<Option<Context>>> {
        (0..self.held.geometry.layers)
            .map(|layer| {
                let blocks = self.candidates(layer).blocks();
                let from = last.map_or(0, |last| blocks.len().saturating_sub(last));
                self.pack(layer, &blocks[from..])
            })
            .collect()
    }

    /// The same units for every layer, in this order or in the stream's.
    pub fn pack_shared(&self, units: &[u64]) -> Result<Vec<Option<Context>>> {
        let mut units = units.to_vec();
        if self.held.recipe.order == Order::Stream {
            units.sort_unstable();
        }
        (0..self.held.geometry.layers)
            .map(|layer| {
                let offered = self.candidates(layer);
                let blocks: Vec<&Block> =
                    units.iter().filter_map(|&unit| offered.block(unit)).collect();
                self.pack(layer, &blocks)
            })
            .collect()
    }
}

fn owners(rows: &[Row]) -> Vec<(u64, usize)> {
    rows.chunk_by(|a, b| a.unit == b.unit).map(|rows| (rows[0].unit, rows.len())).collect()
}
