// SPDX-License-Identifier: MPL-2.0
//! What the seeded worlds share: seeds, random numbers, what a camera does to a picture, and the
//! resize of the processors.

mod canvas;
mod resize;
mod rng;
pub mod seeds;

pub use canvas::{Camera, Canvas, Rgb, luma, mix, span};
pub use resize::resize;
pub use rng::{Rng, derive};
