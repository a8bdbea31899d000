// SPDX-License-Identifier: MPL-2.0
//! The wall: what cameras show, what is true now, and what was, for people who watch them.
//!
//! Imports go only downwards: `web`, `brokers` and `cluster` know `hub`, `history`, `picture` and `cameras`,
//! and those know `config`.
#![warn(missing_docs)]

mod backoff;
pub mod brokers;
pub mod cameras;
pub mod cluster;
pub mod config;
pub mod history;
pub mod hub;
pub mod picture;
mod reload;
mod wall;
pub mod web;

pub use reload::HangUp;
pub use wall::{Wall, WallError};
