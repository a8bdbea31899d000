// SPDX-License-Identifier: MPL-2.0
//! Blocks, one unit's tokens in one layer each, and the store that says where they lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Device;
use parking_lot::Mutex;
use rayon::prelude::*;

use super::codec::{self, Codec, Packed};
use super::options::{StoreOptions, StoreStats};
use super::pool::Stretch;
use super::tier::{Besides, Key, Restored, Source, Tiers};
use crate::error::{EngineError, Result};
use crate::memory::kv::Kv;
use crate::snapshot::{Reader, Snapshot};

/// A stream's blocks in their tiers.
#[derive(Clone, Debug)]
pub struct Store(Arc<Mutex<Tiers>>);

impl Store {
    /// For blocks of `layers` layers, of which a unit has one each; together they are about as large
    /// as `of_a_size` of the one that comes first.
    pub fn new(options: StoreOptions, layers: usize, of_a_size: usize, device: Device) -> Self {
        Self(Arc::new(Mutex::new(Tiers::new(options, layers, of_a_size, device))))
    }

    /// An empty store whose blocks lie in pools, a layer's in one each.
    pub fn pooled(self) -> Self {
        self.0.lock().pool();
        self
    }

    /// Takes blocks of a layer in. Those that are parts of the same are copied at once.
    ///
    /// # Errors
    /// What the computation fails with; a tier that fails is a [warning](Self::take_warnings).
    pub fn put(&self, layer: usize, blocks: Vec<Block>) -> Result<Vec<Block>> {
        let loose = blocks.iter().filter_map(|block| match &block.slot {
            Slot::Loose(stretch) => Some((block.unit, Stretch::clone(stretch))),
            Slot::Stored(_) => None,
        });
        let mut stored = self.0.lock().put_all(layer, loose.collect())?.into_iter();
        let store = |block: Block| match block.slot {
            Slot::Stored(_) => block,
            Slot::Loose(_) => match stored.next() {
                Some((key, lost)) => {
                    let handle = Handle { store: self.clone(), key, lost };
                    Block { slot: Slot::Stored(Arc::new(handle)), ..block }
                }
                None => block,
            },
        };
        Ok(blocks.into_iter().map(store).collect())
    }

    /// Keys and values that stay as long as the layer and are gathered along with its blocks.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn hold(&self, layer: usize, kv: Kv) -> Result<Stretch> {
        self.0.lock().hold(layer, kv)
    }

    /// Brings every tier within its budget, given how many bytes the device holds besides. What is
    /// returned is a unit that has to be dropped first.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn settle(&self, besides: Besides) -> Result<Option<u64>> {
        self.0.lock().settle(besides)
    }

    /// Whether all that counts against a bound is in memory and not on a disk.
    pub fn is_in_memory(&self) -> bool {
        !self.0.lock().has_disk()
    }

    /// Bytes by which the device is beyond its budget, all that could be moved being moved.
    pub fn excess(&self, besides: Besides) -> u64 {
        self.0.lock().excess(besides)
    }

    /// Says, as a warning and once, that the device's budget cannot be kept, where so many units are
    /// held.
    pub fn tell_least(&self, besides: Besides, units: usize) {
        self.0.lock().tell_least(besides, units);
    }

    pub fn stats(&self) -> StoreStats {
        self.0.lock().stats()
    }

    /// Every block's unit and bytes, in stream order.
    pub fn each(&self, look: &mut dyn FnMut(u64, u64)) {
        self.0.lock().each(look);
    }

    /// The codec, once the first block is in.
    pub fn codec(&self) -> Option<Codec> {
        self.0.lock().codec()
    }

    /// Whether a block was lost since the last [`forget_lost`](Self::forget_lost).
    pub fn has_lost(&self) -> bool {
        self.0.lock().has_lost()
    }

    /// Says that nobody holds on to lost blocks any more.
    pub fn forget_lost(&self) {
        self.0.lock().forget_lost();
    }

    /// What went wrong with a tier since the last call; the memory is smaller for it, and whole.
    pub fn take_warnings(&self) -> Vec<EngineError> {
        self.0.lock().take_warnings()
    }

    /// Every block, and the tier that it lies in.
    pub fn save(&self, into: &mut Snapshot) {
        self.0.lock().save(into);
    }

    /// The blocks that were saved, each with its layer, in stream order.
    ///
    /// # Errors
    /// What is wrong with the file, or what the computation fails with.
    pub fn restore(&self, from: &mut Reader) -> Result<Vec<(usize, Block)>> {
        let restored = self.0.lock().restore(from)?;
        let block = |Restored { layer, tokens, key, lost }| {
            let handle = Handle { store: self.clone(), key, lost };
            let (unit, _) = key;
            (layer, Block { unit, tokens, slot: Slot::Stored(Arc::new(handle)) })
        };
        Ok(restored.into_iter().map(block).collect())
    }

    /// Where the keys and values of a layer's blocks are to be had, `None` of those that are lost. Those
    /// that lie below are decoded, and go to the device together.
    fn load(&self, keys: &[Key]) -> Result<Vec<Option<Stretch>>> {
        let mut found = vec![None; keys.len()];
        let mut packed: Vec<(usize, Arc<Packed>)> = Vec::new();
        let mut decoded: Vec<(usize, Kv)> = Vec::new();
        for (at, &key) in keys.iter().enumerate() {
            // Decoding takes a while: not under the lock.
            let source = self.0.lock().find(key);
            match source {
                None => {}
                Some(Source::Ready(stretch)) => found[at] = Some(stretch),
                Some(Source::Host(block)) => packed.push((at, block)),
                Some(Source::Disk(place)) => {
                    match place.read(|bytes| codec::decode(place.form, bytes)) {
                        Ok(kv) => decoded.extend(kv?.map(|kv| (at, kv))),
                        Err(damage) => self.0.lock().lose(key, &place, damage),
                    }
                }
            }
        }
        let here = packed
            .par_iter()
            .map(|(at, block)| Ok(codec::decode(block.form, &block.bytes)?.map(|kv| (*at, kv))));
        decoded.extend(here.collect::<Result<Vec<_>>>()?.into_iter().flatten());
        decoded.sort_by_key(|(at, _)| *at);
        let (places, copies): (Vec<usize>, Vec<(Key, Kv)>) =
            decoded.into_iter().map(|(at, kv)| (at, (keys[at], kv))).unzip();
        let copies = self.0.lock().keep_decoded(copies)?;
        for (at, copy) in places.into_iter().zip(copies) {
            found[at] = Some(copy);
        }
        Ok(found)
    }
}

/// Where the keys and values of a layer's blocks lie; `None` of those that are lost.
///
/// # Errors
/// What the computation fails with.
pub fn stretches(blocks: &[&Block]) -> Result<Vec<Option<Stretch>>> {
    let handle = |block: &&Block| match &block.slot {
        Slot::Loose(_) => None,
        Slot::Stored(handle) => Some(Arc::clone(handle)),
    };
    let stored: Vec<Arc<Handle>> = blocks.iter().filter_map(handle).collect();
    let keys: Vec<Key> = stored.iter().map(|handle| handle.key).collect();
    let mut loaded = match stored.first() {
        Some(handle) => handle.store.load(&keys)?.into_iter(),
        None => Vec::new().into_iter(),
    };
    let found = blocks.iter().map(|block| match &block.slot {
        Slot::Loose(stretch) => Some(Stretch::clone(stretch)),
        Slot::Stored(_) => loaded.next().flatten(),
    });
    Ok(found.collect())
}

/// One unit's tokens in one layer. Whoever wants its keys and values asks for them with
/// [`load`](Self::load), once they are chosen: the store decides where they lie until then.
#[derive(Clone, Debug)]
pub struct Block {
    pub unit: u64,
    tokens: usize,
    slot: Slot,
}

#[derive(Clone, Debug)]
enum Slot {
    /// Not in a store; may be part of something larger.
    Loose(Arc<Stretch>),
    Stored(Arc<Handle>),
}

/// A block's place in the store, which forgets it when the last of these goes.
#[derive(Debug)]
struct Handle {
    store: Store,
    key: Key,
    lost: Arc<AtomicBool>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.store.0.lock().forget(self.key);
    }
}

impl Block {
    /// A block that is not stored yet. `kv`, keys before RoPE (a block gets its position when it
    /// is used), may be part of something larger.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn new(unit: u64, kv: Kv) -> Result<Self> {
        let whole = Stretch::whole(kv)?;
        Ok(Self { unit, tokens: whole.tokens(), slot: Slot::Loose(Arc::new(whole)) })
    }

    /// A block that is not stored yet: tokens `start..start + tokens` of these.
    pub fn part(unit: u64, of: &Kv, start: usize, tokens: usize) -> Self {
        Self { unit, tokens, slot: Slot::Loose(Arc::new(Stretch::part(of, start, tokens))) }
    }

    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Keys before RoPE, and values. `None` if they are lost.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn load(&self) -> Result<Option<Kv>> {
        self.stretch()?.map(Stretch::into_kv).transpose()
    }

    /// The same where they lie.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn stretch(&self) -> Result<Option<Stretch>> {
        Ok(stretches(&[self])?.pop().flatten())
    }

    /// Whether its keys and values cannot be had any more.
    pub fn is_lost(&self) -> bool {
        match &self.slot {
            Slot::Loose(_) => false,
            Slot::Stored(handle) => handle.lost.load(Ordering::Relaxed),
        }
    }
}
