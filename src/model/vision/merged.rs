// SPDX-License-Identifier: MPL-2.0
//! What the towers of Qwen2-VL and Qwen3-VL have in common: layers of LayerNorm, full attention within a
//! unit and a feed-forward part without a gate, and mergers that make a token of neighbouring patches.

use candle_core::Tensor;
use candle_nn::{LayerNorm, Module, VarBuilder};

use super::turned::{Attention, How};
use crate::error::Result;
use crate::model::linear::{Linear, linear};
use crate::model::rope::Rope;

/// Not in the config: transformers fixes it.
const NORM_EPS: f64 = 1e-6;

/// What an activation makes of a layer's output.
pub type Activated = fn(&Linear, &Tensor) -> candle_core::Result<Tensor>;

/// The names of two linear layers, one behind the other.
pub type Names = [&'static str; 2];

/// The sizes of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub hidden: usize,
    pub inner: usize,
    pub heads: usize,
}

pub struct Block {
    norm1: LayerNorm,
    attention: Attention,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    act: Activated,
}

impl Block {
    pub fn new(
        Sizes { hidden, inner, heads }: Sizes,
        names: Names,
        act: Activated,
        vb: VarBuilder,
    ) -> candle_core::Result<Self> {
        let norm = |name| candle_nn::layer_norm(hidden, NORM_EPS, vb.pp(name));
        let mlp = vb.pp("mlp");
        Ok(Self {
            norm1: norm("norm1")?,
            attention: Attention::new(hidden, heads, vb.pp("attn"))?,
            norm2: norm("norm2")?,
            fc1: linear(hidden, inner, mlp.pp(names[0]))?,
            fc2: linear(inner, hidden, mlp.pp(names[1]))?,
            act,
        })
    }

    /// `x` is `[u * n, D]`.
    pub fn forward(&self, x: &Tensor, units: usize, rope: &Rope, how: &How) -> Result<Tensor> {
        let h = self.attention.forward(&self.norm1.forward(x)?, units, rope, how)?;
        let x = (x + h)?;
        let h = (self.act)(&self.fc1, &self.norm2.forward(&x)?)?;
        Ok((x + self.fc2.forward(&h)?)?)
    }
}

/// Neighbouring patches become one token of the decoder's width.
pub struct Merger {
    norm: LayerNorm,
    /// The norm is over a token's patches together, not over each.
    behind: bool,
    linear_1: Linear,
    linear_2: Linear,
    /// Patches of a token.
    parts: usize,
}

impl Merger {
    /// `hidden` numbers a patch, `parts` patches a token, `out` numbers a token; `behind`: the norm
    /// comes when the patches are side by side. `norm` and `linear` name its weights.
    pub fn new(
        (hidden, parts, out): (usize, usize, usize),
        behind: bool,
        norm: VarBuilder,
        linears: [VarBuilder; 2],
    ) -> candle_core::Result<Self> {
        let [first, second] = linears;
        let inner = hidden * parts;
        Ok(Self {
            norm: candle_nn::layer_norm(if behind { inner } else { hidden }, NORM_EPS, norm)?,
            behind,
            linear_1: linear(inner, inner, first)?,
            linear_2: linear(inner, out, second)?,
            parts,
        })
    }

    /// Unit tokens `[u, M, C]` of features `[u, n, D]`, patches of a token side by side.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let (units, patches, width) = features.dims3()?;
        let x = features.contiguous()?;
        let x = if self.behind { x } else { self.norm.forward(&x)? };
        let x = x.reshape((units * patches / self.parts, self.parts * width))?;
        let x = if self.behind { self.norm.forward(&x)? } else { x };
        let x = self.linear_2.forward(&self.linear_1.forward(&x)?.gelu_erf()?)?;
        Ok(x.reshape((units, patches / self.parts, ()))?)
    }
}

/// The patch embedding: a convolution whose stride is its size, which is one product over patches
/// `[u * n, 3 * T * p * p]`. `frames`, `side`: of a patch.
pub fn embedding(
    (hidden, frames, side): (usize, usize, usize),
    bias: bool,
    vb: VarBuilder,
) -> candle_core::Result<Linear> {
    let weight = vb.get((hidden, 3, frames, side, side), "weight")?;
    let weight = weight.reshape((hidden, 3 * frames * side * side))?;
    Ok(Linear::new(weight, if bias { Some(vb.get(hidden, "bias")?) } else { None }))
}
