// SPDX-License-Identifier: MPL-2.0
//! Blocks, one unit's tokens in one layer each, and the store that says where they lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Device;
use parking_lot::Mutex;

use super::codec::{self, Codec};
use super::options::{StoreOptions, StoreStats};
use super::tier::{Besides, Key, Source, Tiers};
use crate::error::{EngineError, Result};
use crate::memory::kv::Kv;

/// A stream's blocks in their tiers.
#[derive(Clone, Debug)]
pub struct Store(Arc<Mutex<Tiers>>);

impl Store {
    /// For blocks of `layers` layers, of which a unit has one each; together they are about as large
    /// as `of_a_size` of the one that comes first.
    pub fn new(options: StoreOptions, layers: usize, of_a_size: usize, device: Device) -> Self {
        Self(Arc::new(Mutex::new(Tiers::new(options, layers, of_a_size, device))))
    }

    /// Takes a block of a layer in.
    ///
    /// # Errors
    /// What the computation fails with; a tier that fails is a [warning](Self::take_warnings).
    pub fn put(&self, layer: usize, block: Block) -> Result<Block> {
        let Slot::Loose(kv) = &block.slot else { return Ok(block) };
        let (key, lost) = self.0.lock().put(layer, block.unit, kv.detached()?)?;
        let handle = Handle { store: self.clone(), key, lost };
        Ok(Block { slot: Slot::Stored(Arc::new(handle)), ..block })
    }

    /// Brings every tier within its budget, given how many bytes the device holds besides. What is
    /// returned is a unit that has to be dropped first.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn settle(&self, besides: Besides) -> Result<Option<u64>> {
        self.0.lock().settle(besides)
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

    fn load(&self, key: Key) -> Result<Option<Kv>> {
        let mut tiers = self.0.lock();
        let device = tiers.device().clone();
        let found = tiers.find(key);
        // Decoding takes a while.
        drop(tiers);
        let kv = match found {
            None => return Ok(None),
            Some(Source::Ready(kv)) => return Ok(Some(kv)),
            Some(Source::Host(packed)) => codec::decode(packed.form, &packed.bytes, &device)?,
            Some(Source::Disk(place)) => {
                match place.read(|bytes| codec::decode(place.form, bytes, &device)) {
                    Ok(kv) => kv?,
                    Err(damage) => {
                        self.0.lock().lose(key, &place, damage);
                        None
                    }
                }
            }
        };
        if let Some(kv) = &kv {
            self.0.lock().keep_copy(key, kv.clone());
        }
        Ok(kv)
    }
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
    Loose(Kv),
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
        Ok(Self { unit, tokens: kv.tokens()?, slot: Slot::Loose(kv) })
    }

    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Keys before RoPE, and values. `None` if they are lost.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn load(&self) -> Result<Option<Kv>> {
        match &self.slot {
            Slot::Loose(kv) => Ok(Some(kv.clone())),
            Slot::Stored(handle) => handle.store.load(handle.key),
        }
    }

    /// Whether its keys and values cannot be had any more.
    pub fn is_lost(&self) -> bool {
        match &self.slot {
            Slot::Loose(_) => false,
            Slot::Stored(handle) => handle.lost.load(Ordering::Relaxed),
        }
    }
}
