// SPDX-License-Identifier: MPL-2.0
//! Contiguous repacking: whatever was retrieved is put side by side behind the prefix, as if the
//! stream had consisted of nothing else (ReKV 3.2). How "side by side" looks is the model's
//! [`Layout`](crate::model::rope::Layout): the positions 0..n, or a time each and the picture kept.

use candle_core::Tensor;

use crate::error::Result;
use crate::memory::VideoMemory;
use crate::memory::store::{Block, Kv};
use crate::model::rope::{Kept, Positions};

/// What one layer sees in front of a question.
#[derive(Clone, Debug)]
pub struct Context {
    /// Keys rotated where they stand.
    pub kv: Kv,
    /// Tokens in front of the first unit.
    pub prefix: usize,
    /// The units behind it in order, with their numbers of tokens.
    pub units: Vec<(u64, usize)>,
    /// The position of the question's first token.
    pub next: usize,
    /// Behind every position in it; see [`Placed`](crate::model::rope::Placed).
    pub end: usize,
}

impl Context {
    pub fn tokens(&self) -> usize {
        self.prefix + self.units.iter().map(|(_, tokens)| tokens).sum::<usize>()
    }
}

impl VideoMemory {
    /// Packs a layer's prefix and some blocks, less those that turn out to be lost. `None` if there
    /// is nothing to pack.
    pub(crate) fn pack(&self, layer: usize, blocks: &[&Block]) -> Result<Option<Context>> {
        let prefix = self.layers.get(layer).and_then(|store| store.prefix.as_ref());
        let mut parts: Vec<Kv> = prefix.cloned().into_iter().collect();
        let mut units = Vec::with_capacity(blocks.len());
        for block in blocks {
            if let Some(kv) = block.load()? {
                units.push((block.unit, kv.tokens()?));
                parts.push(kv);
            }
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let keys: Vec<&Tensor> = parts.iter().map(|kv| &kv.k).collect();
        let values: Vec<&Tensor> = parts.iter().map(|kv| &kv.v).collect();
        let prefix = prefix.map_or(Ok(0), Kv::tokens)?;
        let placed = self.layout.packed(prefix, units.iter().map(|&(_, n)| Kept::All(n)));
        let positions = Positions::run(0, prefix).then(&placed.positions);
        Ok(Some(Context {
            kv: Kv {
                k: self.rope.rotate(&Tensor::cat(&keys, 1)?, &positions)?,
                v: Tensor::cat(&values, 1)?,
            },
            prefix,
            units,
            next: placed.next,
            end: placed.end,
        }))
    }
}
