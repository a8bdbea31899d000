// SPDX-License-Identifier: MPL-2.0
//! The newest units, encoded at question time behind the prefix alone, and put behind the past if there
//! is one: what is remembered does not show in how the present is seen (DSCache). Without a past that is
//! all there is (SimpleStream).

use super::places::Context;
use super::reread::{Found, read};
use super::view::View;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::keep::Layer;
use crate::memory::kv::unfiled;
use crate::memory::store::Block;
use crate::model::decoder::Decoder;

/// Every layer's context: prefix, what is resident, and the newest `count` units seen anew. What is
/// resident of these is left out.
///
/// # Errors
/// [`Cancelled`](crate::EngineError::Cancelled), or what the computation fails with.
pub fn newest(
    view: View<'_>,
    count: usize,
    decoder: &Decoder,
    cancel: &Cancel,
) -> Result<Vec<Option<Context>>> {
    let found = gather(view, count)?;
    let layers = 0..view.held.geometry.layers;
    let past: Option<Vec<Layer>> = layers.map(|at| view.resident(at).cloned()).collect();
    read(view, found, (past, 0), decoder, cancel)
}

/// The newest `count` units with what would enter the decoder, oldest first. Where some are lost, older ones
/// take their place.
///
/// # Errors
/// What the computation fails with.
pub fn gather(view: View<'_>, count: usize) -> Result<Found> {
    let open = view.branch.map_or(&[][..], |branch| &branch.inputs);
    let within = |block: &&Block| view.within.is_none_or(|within| within.has(block.unit));
    let held: Vec<&Block> = view.inputs.iter().chain(open).filter(within).collect();
    let mut found = Vec::with_capacity(count.min(held.len()));
    for block in held.into_iter().rev() {
        if found.len() == count {
            break;
        }
        if let (Some(unit), Some(input)) = (view.unit(block.unit), block.load()?) {
            found.push((unit.clone(), unfiled(&input)?));
        }
    }
    found.reverse();
    Ok(found)
}
