// SPDX-License-Identifier: MPL-2.0
//! How much is remembered and where, and what came of it.

use std::path::PathBuf;
use std::sync::Arc;

use super::codec::Codec;
use crate::model::MemoryShare;

/// Bytes that each tier may hold; `None`: no bound of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// The oldest units are forgotten, or leave for the host where that is wanted.
    pub device: Option<u64>,
    /// `None`: what is encoded goes to disk at once or, without one, counts as the device's.
    pub host: Option<u64>,
    pub disk: Option<u64>,
}

/// How much is remembered, where and how exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// `None`: the model's own format or, where the device and a lower tier are bounded, the finest
    /// with which an hour at one frame a second fits (`q4` at least).
    pub codec: Option<Codec>,
    /// Newest tokens of each layer that a codec which is not exact leaves alone.
    pub residual: usize,
    pub budget: Budget,
    /// Where the budget says nothing of the device: a part of what the machine has.
    pub share: Option<Arc<MemoryShare>>,
    /// Where segment files go, in a folder of the stream's own; `None`: nowhere.
    pub disk_path: Option<PathBuf>,
}

impl StoreOptions {
    /// KIVI's residual length.
    pub const DEFAULT_RESIDUAL: usize = 128;

    /// Bytes that the device may hold at this moment; `None`: without a bound.
    pub fn device(&self) -> Option<u64> {
        self.budget.device.or_else(|| self.share.as_ref().map(|share| share.bytes()))
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            codec: None,
            residual: Self::DEFAULT_RESIDUAL,
            budget: Budget::default(),
            share: None,
            disk_path: None,
        }
    }
}

/// What the tiers hold and how often they were asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes.
    pub device: u64,
    /// Bytes that the device may hold; 0: without a bound.
    pub limit: u64,
    pub host: u64,
    /// Bytes of the segment files.
    pub disk: u64,
    /// Blocks: one unit in one layer.
    pub blocks: u64,
    /// Blocks that a question wanted and found on the device.
    pub hits: u64,
    /// Blocks that a question wanted and that were decoded from the host or the disk.
    pub loads: u64,
    /// Of the device's bytes those that are no keys, values or inputs: mean keys, where units come
    /// from, what a block takes besides its values.
    pub overhead: u64,
    /// Bytes that the device has set aside for blocks and that hold none; not among the device's.
    pub reserved: u64,
    /// Blocks lost to missing or damaged files.
    pub lost: u64,
}

impl StoreStats {
    /// All tiers together.
    pub fn bytes(&self) -> u64 {
        self.device + self.host + self.disk
    }

    /// Bytes of keys, values and inputs in all tiers.
    pub fn values(&self) -> u64 {
        self.bytes() - self.overhead
    }
}
