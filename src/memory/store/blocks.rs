// SPDX-License-Identifier: MPL-2.0
//! One layer's blocks, and the array that a question ranks them by.

use std::collections::VecDeque;

use super::block::Block;
use crate::error::Result;

/// Blocks in stream order, each with the mean key `[Hk * d]` that it is found by. The mean keys lie
/// one behind the other in an array that grows by appending, so ranking is one product over it.
#[derive(Debug, Default)]
pub struct Blocks {
    blocks: VecDeque<Block>,
    /// `[gone + blocks, dim]`.
    mean_keys: Vec<f32>,
    /// Rows at the front whose blocks are gone.
    gone: usize,
    /// `Hk * d`; known from the first block on.
    dim: usize,
}

impl Blocks {
    /// Takes a block in behind the others. Every mean key of a layer is as long as its first.
    pub fn push(&mut self, block: Block, mean_key: &[f32]) {
        if self.mean_keys.is_empty() {
            self.dim = mean_key.len();
        }
        debug_assert_eq!(mean_key.len(), self.dim, "one model, one width");
        self.blocks.push_back(block);
        self.mean_keys.extend_from_slice(mean_key);
    }

    /// Takes in others behind these, each as `store` makes it.
    ///
    /// # Errors
    /// What `store` fails with; the blocks before that one are in.
    pub fn append(
        &mut self,
        others: Self,
        mut store: impl FnMut(Block) -> Result<Block>,
    ) -> Result<()> {
        for (index, block) in others.blocks.iter().enumerate() {
            self.push(store(block.clone())?, others.mean_key(index));
        }
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Block> + Clone {
        self.blocks.iter()
    }

    pub fn get(&self, index: usize) -> Option<&Block> {
        self.blocks.get(index)
    }

    pub fn front(&self) -> Option<&Block> {
        self.blocks.front()
    }

    /// Where a unit's block is.
    pub fn position(&self, unit: u64) -> Option<usize> {
        self.blocks.binary_search_by_key(&unit, |block| block.unit).ok()
    }

    /// All mean keys, `[blocks, Hk * d]`.
    pub fn mean_keys(&self) -> &[f32] {
        self.mean_keys.get(self.gone * self.dim..).unwrap_or(&[])
    }

    /// One block's mean key; empty if there is no such block.
    pub fn mean_key(&self, index: usize) -> &[f32] {
        let row = (self.gone + index) * self.dim;
        self.mean_keys.get(row..row + self.dim).unwrap_or(&[])
    }

    /// Another mean key of the same length for a block.
    pub fn set_mean_key(&mut self, index: usize, mean_key: &[f32]) {
        let row = (self.gone + index) * self.dim;
        if let Some(own) = self.mean_keys.get_mut(row..row + self.dim) {
            own.copy_from_slice(mean_key);
        }
    }

    /// Drops the oldest `count`.
    pub fn drop_front(&mut self, count: usize) {
        let count = count.min(self.blocks.len());
        self.blocks.drain(..count);
        self.gone += count;
        // Once in a while, so that dropping costs the same however many there are.
        if self.gone > self.blocks.len() {
            self.mean_keys.drain(..self.gone * self.dim);
            self.mean_keys.shrink_to(2 * self.mean_keys.len());
            self.blocks.shrink_to(2 * self.blocks.len());
            self.gone = 0;
        }
    }

    pub fn drop_unit(&mut self, unit: u64) {
        match self.position(unit) {
            // It is the oldest almost always.
            Some(0) => self.drop_front(1),
            Some(_) => self.retain(|_, block| block.unit != unit),
            None => {}
        }
    }

    /// Keeps those for which `keep` holds, by their index.
    pub fn retain(&mut self, mut keep: impl FnMut(usize, &Block) -> bool) {
        let mut kept = Self { dim: self.dim, ..Self::default() };
        for (index, block) in self.blocks.iter().enumerate() {
            if keep(index, block) {
                kept.push(block.clone(), self.mean_key(index));
            }
        }
        *self = kept;
    }

    /// Bytes in memory, wherever keys and values lie.
    pub fn bytes(&self) -> u64 {
        let block = self.dim * size_of::<f32>() + size_of::<Block>();
        // Growing by doubling, the arrays have room for half as many more.
        (self.blocks.len() * block * 3 / 2) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::kv::Kv;
    use crate::memory::testing::random_tensor;

    fn blocks(units: std::ops::Range<u64>) -> Blocks {
        let mut blocks = Blocks::default();
        for unit in units {
            let kv = Kv { k: random_tensor(unit, (1, 1, 2)), v: random_tensor(unit, (1, 1, 2)) };
            blocks.push(Block::new(unit, kv).unwrap(), &[unit as f32, 1.0]);
        }
        blocks
    }

    fn check(blocks: &Blocks, units: &[u64]) {
        let found: Vec<u64> = blocks.iter().map(|block| block.unit).collect();
        assert_eq!(found, units);
        let keys: Vec<f32> = units.iter().flat_map(|&unit| [unit as f32, 1.0]).collect();
        assert_eq!(blocks.mean_keys(), keys);
        for (index, &unit) in units.iter().enumerate() {
            assert_eq!(blocks.position(unit), Some(index));
            assert_eq!(blocks.mean_key(index), [unit as f32, 1.0]);
        }
    }

    #[test]
    fn each_block_keeps_its_key_whatever_goes() {
        let mut held = blocks(0..9);
        held.drop_front(2);
        check(&held, &[2, 3, 4, 5, 6, 7, 8]);
        held.drop_unit(2);
        held.drop_unit(5);
        held.drop_unit(99);
        check(&held, &[3, 4, 6, 7, 8]);
        held.retain(|index, _| index % 2 == 0);
        check(&held, &[3, 6, 8]);
        held.append(blocks(9..11), Ok).unwrap();
        check(&held, &[3, 6, 8, 9, 10]);
        held.drop_front(5);
        check(&held, &[]);
        assert_eq!(held.bytes(), 0);
    }

    #[test]
    fn what_is_dropped_makes_room_in_time() {
        let mut held = blocks(0..4);
        for unit in 4..1000 {
            held.push(blocks(unit..unit + 1).get(0).unwrap().clone(), &[unit as f32, 1.0]);
            held.drop_front(1);
            assert!(held.mean_keys.len() <= 2 * 2 * 5);
        }
        check(&held, &[996, 997, 998, 999]);
    }
}
