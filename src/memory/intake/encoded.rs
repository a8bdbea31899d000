// SPDX-License-Identifier: MPL-2.0
//! What comes out of a way in: a piece of stream that the decoder has seen but the memory does not
//! hold.

use crate::error::Result;
use crate::memory::keep::{Held, Layer};
use crate::memory::kv::{Kv, gists, representatives};
use crate::memory::recipe::Keeps;
use crate::memory::store::{Block, Blocks, ChangedWindow, MeanKeys};
use crate::memory::unit::{Geometry, Unit};

#[derive(Debug, Default)]
pub struct Encoded {
    pub units: Vec<Unit>,
    /// Tokens by which the window moves on.
    pub tokens: usize,
    /// Places that it takes in the stream.
    pub taken: usize,
    pub layers: Vec<EncodedLayer>,
    /// The resident cache with this piece in it.
    pub resident: Option<Vec<Layer>>,
    /// What entered the decoder, unit by unit, if that is what is kept.
    pub inputs: Vec<Block>,
}

/// One layer of it.
#[derive(Debug, Default)]
pub struct EncodedLayer {
    /// Parts of `whole`, or their gists.
    pub blocks: Blocks,
    /// Keys rotated at their place in the stream, for the window; compression spares them.
    pub window: Option<Kv>,
    /// The window of changed keys behind it.
    pub changed: Option<ChangedWindow>,
    /// All un-rotated keys and values, for the guidance prompt.
    pub whole: Option<Kv>,
}

impl Encoded {
    /// Cuts what a pass left into blocks. `fresh`: per layer the un-rotated keys and values of these
    /// units, one behind the other, and the same with keys rotated where there is a window for them.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn cut(held: Held<'_>, units: Vec<Unit>, fresh: Vec<(Kv, Option<Kv>)>) -> Result<Self> {
        let geometry = held.geometry;
        let mut layers = Vec::with_capacity(fresh.len());
        let lengths: Vec<usize> = units.iter().map(|unit| geometry.length(unit)).collect();
        let ones = vec![1; units.len()];
        for (raw, rotated) in fresh {
            let blocks = match (held.recipe.store, held.recipe.keeps) {
                (false, _) => Blocks::default(),
                // The newest are found without being asked for.
                _ if held.recipe.is_fresh() => Blocks::default(),
                (true, Keeps::KeysAndValues) => cut(geometry, &units, &raw, &lengths)?,
                (true, Keeps::Inputs) => cut(geometry, &units, &gists(&raw, &lengths)?, &ones)?,
            };
            layers.push(EncodedLayer { blocks, window: rotated, changed: None, whole: Some(raw) });
        }
        let tokens = units.iter().map(|unit| geometry.passed(unit)).sum();
        let taken = units.iter().map(|unit| geometry.steps(unit)).sum();
        Ok(Self { units, tokens, taken, layers, resident: None, inputs: Vec::new() })
    }
}

/// Blocks of these lengths, one behind the other in `raw`, with their mean keys.
fn cut(geometry: &Geometry, units: &[Unit], raw: &Kv, lengths: &[usize]) -> Result<Blocks> {
    let mut start = 0;
    let mut blocks = Vec::with_capacity(units.len());
    for (unit, &len) in units.iter().zip(lengths) {
        blocks.push(Block::part(unit.id, raw, start, len));
        start += len;
    }
    let mean_keys = representatives(&raw.k, lengths)?;
    Ok(Blocks::of(blocks, MeanKeys::of(mean_keys, geometry.on_device)?))
}
