// SPDX-License-Identifier: MPL-2.0
//! The attention of Qwen's vision towers: queries and keys turned by height and width, each patch seeing
//! those of its window.

use candle_core::Tensor;
use candle_nn::{Module, VarBuilder};

use crate::error::Result;
use crate::model::attention::{self, Stage, Visible};
use crate::model::linear::{Linear, linear};
use crate::model::rope::{Place, Positions, Rope};

/// The base of the towers' RoPE. Not in the config: transformers fixes it.
pub const THETA: f64 = 1e4;

/// Windows of one size, side by side in the tower's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Patches of one window.
    pub patches: usize,
    pub count: usize,
}

/// Projections around one attention: `[u * n, D]` to heads and back.
pub struct Attention {
    qkv: Linear,
    proj: Linear,
    heads: usize,
    head_dim: usize,
}

impl Attention {
    pub fn new(width: usize, heads: usize, vb: VarBuilder) -> candle_core::Result<Self> {
        Ok(Self {
            qkv: linear(width, 3 * width, vb.pp("qkv"))?,
            proj: linear(width, width, vb.pp("proj"))?,
            heads,
            head_dim: width / heads,
        })
    }

    /// `x` is `[u * n, D]`. Units, heads and windows are one axis to the attention kernel.
    pub fn forward(&self, x: &Tensor, units: usize, rope: &Rope, how: &How) -> Result<Tensor> {
        let (rows, width) = x.dims2()?;
        let patches = rows / units;
        let qkv = self.qkv.forward(x)?.reshape((units, patches, 3, self.heads, self.head_dim))?;
        let part = |i| {
            let part = qkv.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous()?;
            part.reshape((units * self.heads, patches, self.head_dim))
        };
        let q = rope.rotate(&part(0)?, how.positions)?;
        let k = rope.rotate(&part(1)?, how.positions)?;
        let v = part(2)?;
        let mut contexts = Vec::with_capacity(how.windows.len());
        let mut start = 0;
        for Windows { patches, count } in how.windows {
            let len = patches * count;
            let split = |t: &Tensor| {
                t.narrow(1, start, len)?.contiguous()?.reshape((
                    units * self.heads * count,
                    *patches,
                    self.head_dim,
                ))
            };
            let (q, k, v) = (split(&q)?, split(&k)?, split(&v)?);
            let stage = Stage { q: &q, k: &k, v: &v, visible: Visible::All };
            let context = attention::attend(&[stage], 1.0 / (self.head_dim as f64).sqrt())?;
            contexts.push(context.reshape((units * self.heads, len, self.head_dim))?);
            start += len;
        }
        let context = Tensor::cat(&contexts, 1)?
            .reshape((units, self.heads, patches, self.head_dim))?
            .transpose(1, 2)?
            .reshape((rows, width))?;
        Ok(self.proj.forward(&context)?)
    }
}

/// What a layer's attention is bound to.
pub struct How<'a> {
    pub positions: &'a Positions,
    pub windows: &'a [Windows],
}

/// Where the patches of a picture of `rows` x `cols` tokens stand, token by token, row by row, and in
/// each token the same.
pub fn places(rows: usize, cols: usize, merge: usize) -> Vec<Place> {
    let token = |at: usize| {
        (0..merge * merge).map(move |part| Place {
            t: 0,
            h: at / cols * merge + part / merge,
            w: at % cols * merge + part % merge,
        })
    };
    (0..rows * cols).flat_map(token).collect()
}
