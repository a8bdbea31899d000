// SPDX-License-Identifier: MPL-2.0
//! The way in: how a stretch of stream becomes keys and values.
//!
//! ```text
//! frames --reduce, segment--> Segment --a way in: one pass of the decoder--> Encoded --guide--> less
//! ```
//!
//! What new tokens see of what came before them is what the ways differ in. Each is a file with its
//! [`Attend`](crate::model::decoder::Attend) and with what is cut of the pass: [`window`] (the newest
//! tokens), [`beside`] (the resident cache), [`changed`] (what changed in the newest units),
//! [`pieces`] (nothing but the prefix) and [`unread`] (no pass before a question comes).

pub mod before;
pub mod behind;
pub mod beside;
pub mod changed;
pub mod encoded;
pub mod frames;
pub mod guide;
pub mod pieces;
pub mod reduce;
pub mod segment;
pub mod unread;
pub mod window;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::recipe::{Recipe, Sees};
use crate::model::decoder::Decoder;

pub use before::{Around, Before, Prompts, Teller, WayIn};
pub use behind::Behind;
pub use changed::InChanged;
pub use encoded::{Encoded, EncodedLayer};
pub use frames::{FrameTokens, Segment};
pub use guide::Guide;
pub use pieces::InPieces;
pub use segment::Segmenter;
pub use window::InWindow;

/// The way in that a recipe takes.
fn way_in(recipe: &Recipe) -> Box<dyn WayIn> {
    match recipe.sees {
        Sees::Resident if recipe.resident.is_some() => Box::new(beside::Beside),
        _ if !recipe.grains.is_empty() => Box::new(pieces::Pieces),
        Sees::Changed(rule) => Box::new(changed::Changed(rule)),
        Sees::Nothing => Box::new(unread::Unread),
        Sees::Window | Sees::Prefix | Sees::Resident => Box::new(window::Windowed),
    }
}

/// Runs a segment through the decoder as the next piece of the stream and drops what the compression
/// does not keep.
///
/// # Errors
/// [`Cancelled`](crate::EngineError::Cancelled), or what the computation fails with.
pub fn encode(
    before: Before<'_>,
    segment: &Segment,
    decoder: &Decoder,
    cancel: &Cancel,
) -> Result<Encoded> {
    let mut encoded = way_in(before.held.recipe).encode(before, segment, decoder, cancel)?;
    if let (Some(compression), Some(guidance)) =
        (&before.held.recipe.compression, &before.prompts.guidance)
    {
        guide::compress(&mut encoded, before.held, compression, guidance, decoder, cancel)?;
    }
    Ok(encoded)
}
