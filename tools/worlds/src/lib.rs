// SPDX-License-Identifier: MPL-2.0
//! What the seeded worlds share: seeds, random numbers, what a camera does to a picture, the
//! resize of the processors, and how questions are drawn and written down.

mod asking;
mod canvas;
mod resize;
mod rng;
pub mod seeds;

pub use asking::{
    Question, QuestionKind, QuestionOptions, StreamLine, When, Wording, write_questions,
};
pub use canvas::{Camera, Canvas, Rgb, luma, mix, span};
pub use resize::resize;
pub use rng::{Rng, derive};
