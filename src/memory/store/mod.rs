// SPDX-License-Identifier: MPL-2.0
//! Where keys and values lie: the local window, and the blocks that answers are drawn from.

mod window;

use std::collections::VecDeque;

use candle_core::Tensor;

use crate::error::Result;
use crate::memory::score::representative;

pub use window::{Tail, Window};

/// Keys and values of a run of tokens of one layer, both `[Hk, n, d]`.
#[derive(Clone, Debug)]
pub struct Kv {
    pub k: Tensor,
    pub v: Tensor,
}

impl Kv {
    pub fn tokens(&self) -> Result<usize> {
        Ok(self.k.dim(1)?)
    }

    /// Tokens `start..start + len`, in the same storage.
    pub fn part(&self, start: usize, len: usize) -> Result<Self> {
        Ok(Self { k: self.k.narrow(1, start, len)?, v: self.v.narrow(1, start, len)? })
    }

    /// The same in storage of its own, so that dropping what it was a part of frees that.
    pub fn detached(&self) -> Result<Self> {
        Ok(Self { k: self.k.force_contiguous()?, v: self.v.force_contiguous()? })
    }

    pub fn bytes(&self) -> u64 {
        [&self.k, &self.v].iter().map(|t| (t.elem_count() * t.dtype().size_in_bytes()) as u64).sum()
    }
}

/// One unit's tokens in one layer. Whoever wants its keys and values asks for them with
/// [`load`](Self::load), once they are chosen: the store decides where they lie until then.
#[derive(Clone, Debug)]
pub struct Block {
    pub unit: u64,
    /// Mean key, `[Hk * d]`; always in memory.
    pub representative: Vec<f32>,
    tokens: usize,
    kv: Kv,
}

impl Block {
    /// A block that is not stored yet. `kv`, keys before RoPE (a block gets its position when it
    /// is used), may be part of something larger.
    pub fn new(unit: u64, kv: Kv) -> Result<Self> {
        Ok(Self { unit, representative: representative(&kv.k)?, tokens: kv.tokens()?, kv })
    }

    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Keys before RoPE, and values. `None` if they are lost.
    pub fn load(&self) -> Result<Option<Kv>> {
        Ok(Some(self.kv.clone()))
    }

    /// The block as it is stored.
    pub fn stored(self) -> Result<Self> {
        Ok(Self { kv: self.kv.detached()?, ..self })
    }

    pub fn bytes(&self) -> u64 {
        self.kv.bytes()
    }
}

/// What one layer holds.
#[derive(Debug)]
pub struct LayerStore {
    /// The tokens before the video, un-rotated: first part of every context, and attention sinks
    /// once the window has moved past them.
    pub prefix: Option<Kv>,
    pub window: Window,
    /// In stream order.
    pub blocks: VecDeque<Block>,
}

impl LayerStore {
    pub fn bytes(&self) -> u64 {
        self.blocks.iter().map(Block::bytes).sum::<u64>()
            + self.prefix.as_ref().map_or(0, Kv::bytes)
            + self.window.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::testing::random_tensor;

    #[test]
    fn a_detached_part_does_not_hold_on_to_the_whole() {
        let whole = Kv { k: random_tensor(1, (2, 6, 4)), v: random_tensor(2, (2, 6, 4)) };
        let part = whole.part(2, 3).unwrap().detached().unwrap();
        let values = |t: &Tensor| t.to_vec3::<f32>().unwrap();
        assert_eq!(values(&part.k), values(&whole.k.narrow(1, 2, 3).unwrap()));
        assert_eq!(part.k.layout().start_offset(), 0);
        assert_eq!(part.bytes(), 2 * 2 * 3 * 4 * 4);
    }
}
