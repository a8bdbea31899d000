// SPDX-License-Identifier: MPL-2.0
//! What is kept: in sight the resident cache, and how it shrinks; to be retrieved what is stored, and how
//! it gets thinner with age.
//!
//! [`Held`] is what every look at the memory starts from, the way in and the way out alike.

mod ages;
pub mod evict;
mod held;
mod ladder;
mod older;
pub mod place;
mod probe;
pub mod resident;
mod residue;
pub mod shrink;
pub mod stored;
mod thin;
pub mod words;

pub use ages::Age;
pub use held::Held;
pub use probe::{in_sight, read_scores, received};
pub use resident::{Layer, Residue};
pub use stored::Stored;
