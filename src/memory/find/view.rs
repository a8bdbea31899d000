// SPDX-License-Identifier: MPL-2.0
//! What a question may look at: a memory and, for a question about the present, the branch that holds
//! the open segment.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};

use super::ids::Ids;
use super::within::Within;
use crate::error::Result;
use crate::memory::intake::Encoded;
use crate::memory::keep::{Held, Layer};
use crate::memory::kv::read;
use crate::memory::recipe::Similarity;
use crate::memory::store::{Block, Blocks, Keys, Store};
use crate::memory::unit::{Kind, RESIDUE, Row, Unit, Units};
use crate::memory::weigh::score::{MeanQuery, Unread};

#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub held: Held<'a>,
    /// What entered the decoder, in stream order, if that is kept.
    pub inputs: &'a VecDeque<Block>,
    pub units: &'a Units,
    pub branch: Option<&'a Encoded>,
    /// Where the blocks lie; `None`: all are at hand.
    pub tiers: Option<&'a Store>,
    /// What the question is confined to; `None`: nothing.
    pub within: Option<&'a Within>,
    /// How much the newest units usually have to do with a pseudo-question, where some are asked.
    pub usual: Option<f32>,
}

/// What a layer has to offer a question: its blocks in stream order.
#[derive(Clone, Debug)]
pub struct Candidates<'a> {
    stored: Option<&'a Blocks>,
    /// Which of the stored ones; `None`: all.
    kept: Option<Vec<usize>>,
    /// The open segment's.
    open: Option<&'a Blocks>,
    open_kept: Option<Vec<usize>>,
}

impl<'a> Candidates<'a> {
    fn parts(&self) -> [(Option<&'a Blocks>, Option<&[usize]>); 2] {
        [(self.stored, self.kept.as_deref()), (self.open, self.open_kept.as_deref())]
    }

    /// Something of each block, a list for all those of a part.
    fn gathered<T: Clone>(&self, of: impl Fn(&'a Blocks) -> Vec<T>) -> Vec<T> {
        self.merged(self.parts().map(|(blocks, _)| blocks.map_or(Vec::new(), &of)))
    }

    /// Of lists for all blocks of each part, what is of those that are candidates.
    fn merged<T: Clone>(&self, lists: [Vec<T>; 2]) -> Vec<T> {
        let mut all = Vec::new();
        for ((_, kept), values) in self.parts().into_iter().zip(lists) {
            match kept {
                None if all.is_empty() => all = values,
                None => all.extend(values),
                Some(kept) => {
                    all.extend(kept.iter().filter_map(|&index| values.get(index)).cloned());
                }
            }
        }
        all
    }

    pub fn len(&self) -> usize {
        let count = |(blocks, kept): (Option<&Blocks>, Option<&[usize]>)| {
            kept.map_or_else(|| blocks.map_or(0, Blocks::len), <[usize]>::len)
        };
        self.parts().into_iter().map(count).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn units(&self) -> Vec<u64> {
        self.ids().to_vec()
    }

    /// Their units; no block is looked at where they follow each other without a gap.
    pub fn ids(&self) -> Ids {
        let run = |(blocks, kept): (Option<&Blocks>, Option<&[usize]>)| match kept {
            None => blocks.map_or(Some(0..0), Blocks::run),
            Some(_) => None,
        };
        match self.parts().map(run) {
            [Some(run), Some(none)] | [Some(none), Some(run)] if none.is_empty() => Ids::Run(run),
            [Some(first), Some(then)] if first.end == then.start => Ids::Run(first.start..then.end),
            _ => {
                Ids::Listed(self.gathered(|blocks| blocks.iter().map(|block| block.unit).collect()))
            }
        }
    }

    pub fn blocks(&self) -> Vec<&'a Block> {
        self.gathered(|blocks| blocks.iter().collect())
    }

    /// Mean keys, `[Hk * d]` each, all read together.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn mean_keys(&self) -> Result<Vec<Cow<'a, [f32]>>> {
        let rows = |blocks: &'a Blocks| -> Result<Vec<Cow<'a, [f32]>>> {
            let dim = blocks.mean_keys().dim().max(1);
            Ok(match blocks.mean_keys().keys()? {
                Keys::Host(keys) => keys.each().map(Cow::Borrowed).collect(),
                Keys::Device(keys) => {
                    read(&keys)?.chunks_exact(dim).map(|key| key.to_vec().into()).collect()
                }
            })
        };
        let [stored, open] = self.parts().map(|(blocks, _)| blocks.map_or(Ok(Vec::new()), rows));
        Ok(self.merged([stored?, open?]))
    }

    /// How well each fits a question: one product over the layer's mean keys.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn scores(&self, query: &MeanQuery, similarity: Similarity) -> Result<Vec<f32>> {
        Ok(scores(&[(self.clone(), query)], similarity)?.pop().unwrap_or_default())
    }

    /// The same of at least the best `k`; of others, minus infinity or what they have.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn scores_of_best(
        &self,
        query: &MeanQuery,
        similarity: Similarity,
        k: usize,
    ) -> Result<Vec<f32>> {
        // Among fewer, others are the best.
        if self.kept.is_some() || self.open_kept.is_some() {
            return self.scores(query, similarity);
        }
        let of = |blocks: Option<&Blocks>| match blocks {
            Some(blocks) => query.scores_of_best(blocks.mean_keys(), similarity, k),
            None => Ok(Unread::Host(Vec::new())),
        };
        let mut found = Unread::read_all(vec![of(self.stored)?, of(self.open)?])?.into_iter();
        let mut next = || found.next().unwrap_or_default();
        Ok(self.merged([next(), next()]))
    }

    /// The block at this index among these.
    pub fn at(&self, mut index: usize) -> Option<&'a Block> {
        for (blocks, kept) in self.parts() {
            let Some(blocks) = blocks else { continue };
            let len = kept.map_or(blocks.len(), <[usize]>::len);
            if index < len {
                return blocks.get(kept.map_or(Some(index), |kept| kept.get(index).copied())?);
            }
            index -= len;
        }
        None
    }

    /// The block of a unit, if it is among these.
    pub fn block(&self, unit: u64) -> Option<&'a Block> {
        let find = |(blocks, kept): (Option<&'a Blocks>, Option<&[usize]>)| {
            let (blocks, index) = blocks.and_then(|b| Some((b, b.position(unit)?)))?;
            let among = kept.is_none_or(|kept| kept.binary_search(&index).is_ok());
            blocks.get(index).filter(|_| among)
        };
        self.parts().into_iter().find_map(find)
    }
}

/// How well the candidates of several layers fit what each layer asks, all in one read.
///
/// # Errors
/// What the computation fails with.
pub fn scores(
    asked: &[(Candidates<'_>, &MeanQuery)],
    similarity: Similarity,
) -> Result<Vec<Vec<f32>>> {
    let mut unread = Vec::with_capacity(2 * asked.len());
    for (offered, query) in asked {
        for (blocks, _) in offered.parts() {
            unread.push(match blocks {
                Some(blocks) => query.scores(blocks.mean_keys(), similarity)?,
                None => Unread::Host(Vec::new()),
            });
        }
    }
    let mut found = Unread::read_all(unread)?.into_iter();
    let mut next = || found.next().unwrap_or_default();
    Ok(asked.iter().map(|(offered, _)| offered.merged([next(), next()])).collect())
}

impl<'a> View<'a> {
    /// What of it lies between two seconds of the stream. A frame lies within if
    /// any of the time that it stands for does; what stands for several pictures, if all of it does. What
    /// tokens that are gone have left behind lies nowhere. Where each KV head holds tokens of its own, each
    /// gives as many as the one that has fewest: the newest.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn between(&self, (from, to): (f64, f64)) -> Result<Within> {
        // Patches of further pictures in one unit count on.
        let picture = self.held.geometry.picture_tokens;
        let is_one = |unit: &Unit| {
            let patches = unit.patches.iter().flat_map(|patches| patches.iter());
            unit.kind == Kind::Frame && patches.into_iter().all(|&patch| (patch as usize) < picture)
        };
        let fits = |unit: &&Unit| match is_one(unit) {
            true => unit.start <= to && unit.end >= from,
            false => unit.start >= from && unit.end <= to,
        };
        let open = self.branch.map_or(&[][..], |branch| &branch.units);
        let units: HashSet<u64> =
            self.units.iter().chain(open).filter(fits).map(|unit| unit.id).collect();
        let inside = |row: &Row| row.patch != RESIDUE && units.contains(&row.unit);
        let mut resident = Vec::new();
        for layer in (0..self.held.geometry.layers).map_while(|layer| self.resident(layer)) {
            let list = |rows: &Vec<Row>| -> Vec<usize> {
                (0..rows.len()).filter(|&i| rows.get(i).is_some_and(inside)).collect()
            };
            let mut lists: Vec<Vec<usize>> = layer.lists().iter().map(list).collect();
            let fewest = lists.iter().map(Vec::len).min().unwrap_or(0);
            lists.iter_mut().for_each(|list| drop(list.drain(..list.len() - fewest)));
            resident.push(layer.keep(&lists)?);
        }
        Ok(Within::new(units, resident))
    }

    /// A layer's blocks in stream order, less those that are lost.
    pub fn blocks(&self, layer: usize) -> Candidates<'a> {
        self.offered(layer, |_| true)
    }

    /// The blocks that a question may want: all but those of which every token is resident.
    pub fn candidates(&self, layer: usize) -> Candidates<'a> {
        let lists = self.resident(layer).map_or(&[][..], Layer::lists);
        let mut held: HashMap<u64, usize> = HashMap::new();
        if let [rows] = lists {
            let own = rows.iter().filter(|row| row.patch != RESIDUE);
            own.for_each(|row| *held.entry(row.unit).or_default() += 1);
        }
        match held.is_empty() {
            true => self.blocks(layer),
            false => self.offered(layer, |block| {
                held.get(&block.unit).is_none_or(|&held| block.tokens() > held)
            }),
        }
    }

    /// Blocks for which `wanted` holds, less those that are lost. They are looked at one by one only
    /// where they have to be.
    fn offered(&self, layer: usize, wanted: impl Fn(&Block) -> bool) -> Candidates<'a> {
        let (resident, lost) =
            (self.held.resident.is_some(), self.tiers.is_some_and(Store::has_lost));
        let stored = self.held.layers.get(layer).map(|layer| &layer.blocks);
        let open = self.branch.and_then(|branch| branch.layers.get(layer));
        let open = open.map(|layer| &layer.blocks);
        let kept = |blocks: Option<&Blocks>| {
            let blocks = blocks.filter(|_| resident || lost || self.within.is_some())?;
            let fits = |(_, block): &(usize, &Block)| {
                let within = self.within.is_none_or(|within| within.has(block.unit));
                within && !block.is_lost() && wanted(block)
            };
            let kept = blocks.iter().enumerate().filter(fits);
            Some(kept.map(|(index, _)| index).collect())
        };
        Candidates { stored, kept: kept(stored), open, open_kept: kept(open) }
    }

    /// What a layer holds without being asked for it.
    pub fn resident(&self, layer: usize) -> Option<&'a Layer> {
        if let Some(within) = self.within {
            return within.resident(layer);
        }
        let branch = self.branch.and_then(|branch| branch.resident.as_ref()?.get(layer));
        branch.or_else(|| self.held.resident_at(layer))
    }

    /// What entered the decoder as this unit, if the memory keeps that.
    pub fn input(&self, unit: u64) -> Option<&'a Block> {
        match self.inputs.binary_search_by_key(&unit, |input| input.unit) {
            Ok(index) => self.inputs.get(index),
            Err(_) => self.branch?.inputs.iter().find(|input| input.unit == unit),
        }
    }

    pub fn unit(&self, id: u64) -> Option<&'a Unit> {
        let open = || self.branch?.units.iter().find(|unit| unit.id == id);
        self.units.get(id).or_else(open)
    }

    /// Where the `n` tokens of a unit come from.
    pub fn rows(&self, unit: u64, n: usize) -> Vec<Row> {
        self.unit(unit).map_or_else(Vec::new, |unit| self.held.rows_of(unit, n))
    }
}
