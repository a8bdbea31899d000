// SPDX-License-Identifier: MPL-2.0
//! What a question may look at: a memory and, for a question about the present, the branch that holds
//! the open segment.

use std::collections::{HashMap, VecDeque};

use crate::memory::intake::Encoded;
use crate::memory::keep::{Held, Layer};
use crate::memory::store::Block;
use crate::memory::unit::{RESIDUE, Row, Unit};

#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub held: Held<'a>,
    /// What entered the decoder, in stream order, if that is kept.
    pub inputs: &'a VecDeque<Block>,
    /// By ascending id.
    pub units: &'a VecDeque<Unit>,
    pub branch: Option<&'a Encoded>,
}

impl<'a> View<'a> {
    /// A layer's blocks in stream order, less those that are lost.
    pub fn blocks(&self, layer: usize) -> impl Iterator<Item = &'a Block> {
        let stored = self.held.layers.get(layer).into_iter().flat_map(|l| l.blocks.iter());
        let stored = stored.filter(|block| !block.is_lost());
        let branch = self.branch.and_then(|branch| branch.layers.get(layer));
        stored.chain(branch.into_iter().flat_map(|l| l.blocks.iter()))
    }

    /// The blocks that a question may want: all but those of which every token is resident.
    pub fn candidates(&self, layer: usize) -> impl Iterator<Item = &'a Block> {
        let lists = self.resident(layer).map_or(&[][..], Layer::lists);
        let mut held: HashMap<u64, usize> = HashMap::new();
        if let [rows] = lists {
            let own = rows.iter().filter(|row| row.patch != RESIDUE);
            own.for_each(|row| *held.entry(row.unit).or_default() += 1);
        }
        self.blocks(layer)
            .filter(move |block| held.get(&block.unit).is_none_or(|&held| block.tokens() > held))
    }

    /// What a layer holds without being asked for it.
    pub fn resident(&self, layer: usize) -> Option<&'a Layer> {
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
        let stored = self.units.binary_search_by_key(&id, |unit| unit.id);
        match stored {
            Ok(index) => self.units.get(index),
            Err(_) => self.branch?.units.iter().find(|unit| unit.id == id),
        }
    }

    /// Where the `n` tokens of a unit come from.
    pub fn rows(&self, unit: u64, n: usize) -> Vec<Row> {
        self.unit(unit).map_or_else(Vec::new, |unit| self.held.rows_of(unit, n))
    }
}
