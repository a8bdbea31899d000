// SPDX-License-Identifier: MPL-2.0
//! Where keys and values lie: the local window, and the blocks that answers are drawn from, in up
//! to three tiers.
//!
//! | tier | holds | bounded by |
//! |---|---|---|
//! | device | windows, prefix, the newest blocks as they were computed, decoded copies of others | `max-memory` |
//! | host | encoded blocks | `max-host-memory` |
//! | disk | encoded blocks in segment files | `max-disk`, `disk-path` |
//!
//! Each tier counts what lies in it and nothing else. On a CPU, device and host are the same memory:
//! there the first bounds what is held decoded, the second what is held encoded. Without a budget
//! of its own and without a disk, the host tier counts against `max-memory`.
//!
//! Without a lower tier, and with a codec that is exact, nothing is encoded and the device is all
//! there is. Keys are never rotated here, and representatives always stay in memory, so ranking
//! touches no tier; what is chosen is then fetched block by block.

mod block;
mod blocks;
mod coarse;
pub mod codec;
mod disk;
mod index;
mod layer;
mod options;
mod pool;
mod rows;
#[cfg(test)]
mod tests;
mod tier;
mod window;

pub use block::{Block, Store, stretches};
pub use blocks::Blocks;
pub use index::{Keys, MeanKeys};
pub use layer::LayerStore;
pub use options::{Budget, StoreOptions, StoreStats};
pub use pool::{Stretch, gathered, turned};
pub use rows::PIECE;
pub use tier::Besides;
#[cfg(test)]
pub use tier::RECORD;
pub use window::{ChangedWindow, Tail, Window};
