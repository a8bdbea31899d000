// SPDX-License-Identifier: MPL-2.0
//! One layer's blocks, each with what it is ranked by.

use std::collections::VecDeque;
use std::ops::Range;

use candle_core::{DType, Tensor};

use super::block::Block;
use super::index::MeanKeys;
use crate::error::{EngineError, Result};
use crate::memory::unit::Geometry;
use crate::snapshot::{Reader, Snapshot};

/// Blocks in stream order, each with the mean key `[Hk * d]` that it is found by.
#[derive(Debug, Default)]
pub struct Blocks {
    blocks: VecDeque<Block>,
    /// A row a block.
    mean_keys: MeanKeys,
}

impl Blocks {
    /// These blocks with a mean key each.
    pub fn of(blocks: Vec<Block>, mean_keys: MeanKeys) -> Self {
        debug_assert_eq!(blocks.len(), mean_keys.len(), "a row a block");
        Self { blocks: blocks.into(), mean_keys }
    }

    /// Takes in others behind these, as `store` makes them.
    ///
    /// # Errors
    /// What `store` or the computation fails with; none of them is in then.
    pub fn append(
        &mut self,
        others: Self,
        store: impl FnOnce(Vec<Block>) -> Result<Vec<Block>>,
    ) -> Result<()> {
        let blocks = store(others.blocks.into())?;
        self.mean_keys.append(&others.mean_keys)?;
        self.blocks.extend(blocks);
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

    /// The units of the blocks, if they follow each other without a gap.
    pub fn run(&self) -> Option<Range<u64>> {
        let (Some(first), Some(last)) = (self.blocks.front(), self.blocks.back()) else {
            return Some(0..0);
        };
        // They ascend, so two of them tell.
        let run = first.unit..last.unit + 1;
        (run.end - run.start == self.blocks.len() as u64).then_some(run)
    }

    /// Where a unit's block is.
    pub fn position(&self, unit: u64) -> Option<usize> {
        self.blocks.binary_search_by_key(&unit, |block| block.unit).ok()
    }

    /// The mean keys, a row a block.
    pub fn mean_keys(&self) -> &MeanKeys {
        &self.mean_keys
    }

    /// Other mean keys for the blocks from `index` on.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn set_mean_keys(&mut self, index: usize, mean_keys: &MeanKeys) -> Result<()> {
        self.mean_keys.set(index, mean_keys)
    }

    /// Another block in the place of one, found by the same.
    pub fn replace(&mut self, index: usize, block: Block) {
        if let Some(own) = self.blocks.get_mut(index) {
            *own = block;
        }
    }

    /// Drops the oldest `count`.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn drop_front(&mut self, count: usize) -> Result<()> {
        let count = count.min(self.blocks.len());
        self.blocks.drain(..count);
        if self.blocks.capacity() > 4 * self.blocks.len() {
            self.blocks.shrink_to(2 * self.blocks.len());
        }
        self.mean_keys.drop_front(count)
    }

    /// # Errors
    /// What the computation fails with.
    pub fn drop_unit(&mut self, unit: u64) -> Result<()> {
        match self.position(unit) {
            // It is the oldest almost always.
            Some(0) => self.drop_front(1),
            Some(_) => self.retain(|_, block| block.unit != unit),
            None => Ok(()),
        }
    }

    /// Keeps those for which `keep` holds, by their index.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn retain(&mut self, mut keep: impl FnMut(usize, &Block) -> bool) -> Result<()> {
        let blocks = self.blocks.iter().enumerate();
        let kept: Vec<usize> =
            blocks.filter(|(index, block)| keep(*index, block)).map(|(index, _)| index).collect();
        if kept.len() == self.blocks.len() {
            return Ok(());
        }
        self.mean_keys = self.mean_keys.kept(&kept)?;
        self.blocks = kept.iter().filter_map(|&index| self.blocks.get(index).cloned()).collect();
        Ok(())
    }

    /// Which units there are and what they are found by.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn save(&self, into: &mut Snapshot) -> Result<()> {
        into.value(self.blocks.iter().map(|block| block.unit).collect::<Vec<_>>());
        self.mean_keys.save(into)
    }

    /// Bytes in memory, wherever keys and values lie.
    pub fn bytes(&self) -> u64 {
        let block = MeanKeys::bytes_of_a_row(self.mean_keys.dim()) + size_of::<Block>();
        // Growing by doubling, the arrays have room for half as many more.
        (self.blocks.len() * block * 3 / 2) as u64
    }
}

/// What blocks are found by, of which it is not known yet whether they are all there.
pub struct Found {
    units: Vec<u64>,
    mean_keys: Tensor,
}

impl Found {
    /// # Errors
    /// What is wrong with the file, or what the computation fails with.
    pub fn restored(from: &mut Reader, geometry: &Geometry) -> Result<Self> {
        let units: Vec<u64> = from.value()?;
        let mean_keys = from.tensor(&geometry.device)?;
        if mean_keys.dtype() != DType::F32 || mean_keys.dims2()?.0 != units.len() {
            return Err(from.damage("mean keys of another model"));
        }
        Ok(Self { units, mean_keys })
    }

    /// These blocks, in stream order, each with what it is found by. What had been lost when it was
    /// saved is not among them.
    ///
    /// # Errors
    /// `None` if there is a block that nothing finds, or what the computation fails with.
    pub fn of(
        self,
        blocks: Vec<Block>,
        on_device: bool,
    ) -> std::result::Result<Blocks, Option<EngineError>> {
        let ascends = self.units.is_sorted_by(|a, b| a < b) && blocks.is_sorted_by_key(|b| b.unit);
        let places = blocks.iter().map(|block| self.units.binary_search(&block.unit).ok());
        let places: Vec<usize> = places.collect::<Option<_>>().filter(|_| ascends).ok_or(None)?;
        if blocks.is_empty() {
            return Ok(Blocks::default());
        }
        let all = MeanKeys::of(self.mean_keys, on_device)?;
        let mean_keys = if places.len() == all.len() { all } else { all.kept(&places)? };
        Ok(Blocks::of(blocks, mean_keys))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::super::index::Keys;
    use super::*;
    use crate::memory::kv::Kv;
    use crate::memory::testing::random_tensor;

    fn blocks(units: std::ops::Range<u64>, on_device: bool) -> Blocks {
        let rows: Vec<f32> = units.clone().flat_map(|unit| [unit as f32, 1.0]).collect();
        let rows = Tensor::from_vec(rows, (units.clone().count(), 2), &Device::Cpu).unwrap();
        let block = |unit| {
            let kv = Kv { k: random_tensor(unit, (1, 1, 2)), v: random_tensor(unit, (1, 1, 2)) };
            Block::new(unit, kv).unwrap()
        };
        Blocks::of(units.map(block).collect(), MeanKeys::of(rows, on_device).unwrap())
    }

    fn check(blocks: &Blocks, units: &[u64]) {
        let found: Vec<u64> = blocks.iter().map(|block| block.unit).collect();
        assert_eq!(found, units);
        let gaps = units.windows(2).any(|pair| pair[0] + 1 < pair[1]);
        assert_eq!(blocks.run().map(Iterator::collect), (!gaps).then(|| units.to_vec()));
        let keys: Vec<f32> = units.iter().flat_map(|&unit| [unit as f32, 1.0]).collect();
        assert_eq!(blocks.mean_keys().read().unwrap(), keys);
        for (index, &unit) in units.iter().enumerate() {
            assert_eq!(blocks.position(unit), Some(index));
        }
    }

    #[test]
    fn each_block_keeps_its_key_whatever_goes() {
        for on_device in [false, true] {
            let mut held = blocks(0..9, on_device);
            held.drop_front(2).unwrap();
            check(&held, &[2, 3, 4, 5, 6, 7, 8]);
            held.drop_unit(2).unwrap();
            held.drop_unit(5).unwrap();
            held.drop_unit(99).unwrap();
            check(&held, &[3, 4, 6, 7, 8]);
            held.retain(|index, _| index % 2 == 0).unwrap();
            check(&held, &[3, 6, 8]);
            held.append(blocks(9..11, on_device), Ok).unwrap();
            check(&held, &[3, 6, 8, 9, 10]);
            let other = MeanKeys::listed(vec![-1.0, 7.0], 2);
            held.set_mean_keys(3, &other).unwrap();
            assert_eq!(held.mean_keys().read().unwrap()[4..], [8.0, 1.0, -1.0, 7.0, 10.0, 1.0]);
            held.drop_front(5).unwrap();
            check(&held, &[]);
            assert_eq!(held.bytes(), 0);
            held.append(blocks(20..23, on_device), Ok).unwrap();
            check(&held, &[20, 21, 22]);
        }
    }

    #[test]
    fn what_is_dropped_makes_room_in_time() {
        for on_device in [false, true] {
            let mut held = blocks(0..4, on_device);
            for unit in 4..1000 {
                held.append(blocks(unit..unit + 1, on_device), Ok).unwrap();
                held.drop_front(1).unwrap();
                assert!(held.mean_keys.room() <= 4 * 5, "{}", held.mean_keys.room());
            }
            check(&held, &[996, 997, 998, 999]);
            assert_eq!(matches!(held.mean_keys.keys().unwrap(), Keys::Device(_)), on_device);
        }
    }

    #[test]
    fn an_array_that_grows_is_seldom_copied() {
        let mut held = blocks(0..1, true);
        let mut rooms = vec![held.mean_keys.room()];
        for unit in 1..1000 {
            held.append(blocks(unit..unit + 1, true), Ok).unwrap();
            rooms.push(held.mean_keys.room());
        }
        rooms.dedup();
        assert!(rooms.len() <= 12, "{rooms:?}");
        check(&held, &(0..1000).collect::<Vec<_>>());
    }
}
