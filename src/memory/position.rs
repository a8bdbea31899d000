// SPDX-License-Identifier: MPL-2.0
//! Contiguous repacking: whatever was retrieved is put side by side behind the prefix and gets the
//! positions 0..n, as if the stream had consisted of nothing else (ReKV 3.2).

use candle_core::Tensor;

use crate::error::Result;
use crate::memory::store::{Block, Kv};
use crate::model::rope::{Positions, Rope};

/// What one layer sees in front of a question.
#[derive(Clone, Debug)]
pub struct Context {
    /// Keys rotated at 0..n.
    pub kv: Kv,
    /// Tokens in front of the first unit.
    pub prefix: usize,
    /// The units behind it in order, with their numbers of tokens.
    pub units: Vec<(u64, usize)>,
}

impl Context {
    pub fn tokens(&self) -> usize {
        self.prefix + self.units.iter().map(|(_, tokens)| tokens).sum::<usize>()
    }
}

/// Packs prefix and blocks. `None` if there is nothing to pack.
pub fn pack(prefix: Option<&Kv>, blocks: &[&Block], rope: &Rope) -> Result<Option<Context>> {
    let parts: Vec<&Kv> = prefix.into_iter().chain(blocks.iter().map(|block| &block.kv)).collect();
    if parts.is_empty() {
        return Ok(None);
    }
    let keys: Vec<&Tensor> = parts.iter().map(|kv| &kv.k).collect();
    let values: Vec<&Tensor> = parts.iter().map(|kv| &kv.v).collect();
    let keys = Tensor::cat(&keys, 1)?;
    let k = rope.rotate(&keys, &Positions::run(0, keys.dim(1)?))?;
    let units = blocks.iter().map(|block| Ok((block.unit, block.kv.tokens()?)));
    Ok(Some(Context {
        kv: Kv { k, v: Tensor::cat(&values, 1)? },
        prefix: prefix.map_or(Ok(0), Kv::tokens)?,
        units: units.collect::<Result<_>>()?,
    }))
}
