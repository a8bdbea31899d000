// SPDX-License-Identifier: MPL-2.0
//! What is kept in sight: the resident cache, and how it shrinks.
//!
//! [`Held`] is what every look at the memory starts from, the way in and the way out alike.

pub mod evict;
mod held;
pub mod place;
mod probe;
pub mod resident;
mod residue;
pub mod shrink;
pub mod words;

pub use held::Held;
pub use probe::{in_sight, read_scores, received};
pub use resident::{Layer, Residue};
