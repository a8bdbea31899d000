// SPDX-License-Identifier: MPL-2.0
//! InternViT with its class token, whose layers scale what they add, and the projector that makes a token
//! of neighbouring patches.

use candle_core::Tensor;
use candle_nn::{Activation, LayerNorm, Module, VarBuilder};

use super::config::Config;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::model::attention::{self, Stage, Visible};
use crate::model::linear::{Linear, activated, linear, linear_b};
use crate::model::vision::squares::SquarePatches;

struct Block {
    norm1: LayerNorm,
    /// To queries, keys and values, side by side.
    qkv: Linear,
    out: Linear,
    /// What is added is scaled by this, `[D]`, number by number.
    scale1: Tensor,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    scale2: Tensor,
    act: Activation,
    heads: usize,
}

impl Block {
    fn new(cfg: &Config, vb: VarBuilder) -> candle_core::Result<Self> {
        let (hidden, inner) = (cfg.hidden_size, cfg.intermediate_size);
        let norm = |name| candle_nn::layer_norm(hidden, cfg.layer_norm_eps, vb.pp(name));
        let (attention, mlp) = (vb.pp("attention"), vb.pp("mlp"));
        let part = |name| linear_b(hidden, hidden, cfg.attention_bias, attention.pp(name));
        Ok(Self {
            norm1: norm("layernorm_before")?,
            qkv: Linear::joined(&[part("q_proj")?, part("k_proj")?, part("v_proj")?])?,
            out: linear(hidden, hidden, attention.pp("projection_layer"))?,
            scale1: vb.get(hidden, "lambda_1")?,
            norm2: norm("layernorm_after")?,
            fc1: linear(hidden, inner, mlp.pp("fc1"))?,
            fc2: linear(inner, hidden, mlp.pp("fc2"))?,
            scale2: vb.get(hidden, "lambda_2")?,
            act: cfg.act,
            heads: cfg.heads,
        })
    }

    /// `x` is `[f * n, D]`: every frame attends to itself.
    fn forward(&self, x: &Tensor, frames: usize) -> Result<Tensor> {
        let h = self.attend(&self.norm1.forward(x)?, frames)?;
        let x = (x + h.broadcast_mul(&self.scale1)?)?;
        let h = activated(&self.fc1, &self.norm2.forward(&x)?, self.act)?;
        Ok((x + self.fc2.forward(&h)?.broadcast_mul(&self.scale2)?)?)
    }

    fn attend(&self, x: &Tensor, frames: usize) -> Result<Tensor> {
        let (rows, width) = x.dims2()?;
        let (patches, dim) = (rows / frames, width / self.heads);
        let qkv = self.qkv.forward(x)?.reshape((frames, patches, 3, self.heads, dim))?;
        // [3, f, H, n, d].
        let qkv = qkv.permute((2, 0, 3, 1, 4))?.contiguous()?;
        let part = |i| qkv.get(i)?.reshape((frames * self.heads, patches, dim));
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let stage = Stage { q: &q, k: &k, v: &v, visible: Visible::All };
        let context = attention::attend(&[stage], 1.0 / (dim as f64).sqrt())?;
        let context = context
            .reshape((frames, self.heads, patches, dim))?
            .transpose(1, 2)?
            .reshape((rows, width))?;
        Ok(self.out.forward(&context)?)
    }
}

pub struct Tower {
    patches: SquarePatches,
    /// `[1, 1, D]`.
    class: Tensor,
    /// `[1, 1 + g * g, D]`.
    positions: Tensor,
    blocks: Vec<Block>,
    norm: Option<LayerNorm>,
}

impl Tower {
    pub fn new(cfg: &Config, vb: VarBuilder) -> Result<Self> {
        let (embeddings, width, grid) = (vb.pp("embeddings"), cfg.hidden_size, cfg.grid());
        let blocks = (0..cfg.layers).map(|i| Block::new(cfg, vb.pp("encoder").pp("layer").pp(i)));
        let norm = || candle_nn::layer_norm(width, cfg.layer_norm_eps, vb.pp("layernorm"));
        let positions = embeddings.get((1, 1 + grid * grid, width), "position_embeddings")?;
        Ok(Self {
            patches: SquarePatches::new(
                (width, grid, cfg.patch_size),
                embeddings.pp("patch_embeddings").pp("projection"),
            )?,
            class: embeddings.get((1, 1, width), "cls_token")?.to_dtype(vb.dtype())?,
            positions: positions.to_dtype(vb.dtype())?,
            blocks: blocks.collect::<candle_core::Result<_>>()?,
            norm: if cfg.last_norm { Some(norm()?) } else { None },
        })
    }

    /// Patches of a frame, `g * g`.
    pub fn patches(&self) -> usize {
        self.patches.grid * self.patches.grid
    }

    /// Features `[f, g * g, D]` of pixels `[f, 3, S, S]`, patches in row-major order.
    pub fn forward(&self, pixels: &Tensor, cancel: &Cancel) -> Result<Tensor> {
        let (frames, patches) = (pixels.dim(0)?, self.patches());
        let x = self.patches.forward(pixels)?.reshape((frames, patches, ()))?;
        let width = x.dim(2)?;
        let class = self.class.broadcast_as((frames, 1, width))?;
        let x = Tensor::cat(&[&class.contiguous()?, &x], 1)?.broadcast_add(&self.positions)?;
        let mut x = x.reshape((frames * (1 + patches), width))?;
        for block in &self.blocks {
            cancel.check()?;
            x = block.forward(&x, frames)?;
        }
        if let Some(norm) = &self.norm {
            x = norm.forward(&x)?;
        }
        Ok(x.reshape((frames, 1 + patches, width))?.narrow(1, 1, patches)?.contiguous()?)
    }
}

/// Not in the config: torch's default.
const PROJECTOR_EPS: f64 = 1e-5;

pub struct Projector {
    norm: LayerNorm,
    linear_1: Linear,
    act: Activation,
    linear_2: Linear,
    /// Tokens along a side, and patches along a side of one.
    side: usize,
    merge: usize,
}

impl Projector {
    pub fn new(cfg: &Config, vb: VarBuilder) -> Result<Self> {
        let (input, hidden) = (cfg.hidden_size * cfg.merge * cfg.merge, cfg.out_hidden_size);
        Ok(Self {
            norm: candle_nn::layer_norm(input, PROJECTOR_EPS, vb.pp("layer_norm"))?,
            linear_1: linear(input, hidden, vb.pp("linear_1"))?,
            act: cfg.projector_act,
            linear_2: linear(hidden, hidden, vb.pp("linear_2"))?,
            side: cfg.grid() / cfg.merge,
            merge: cfg.merge,
        })
    }

    /// Rows of tokens of a frame, and columns.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Frame tokens `[f, M, C]` of features `[f, g * g, D]`: the patches of each side by side.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let (frames, _, width) = features.dims3()?;
        let (side, merge) = (self.side, self.merge);
        let x = features
            .reshape(vec![frames, side, merge, side, merge, width])?
            .permute(vec![0, 1, 3, 2, 4, 5])?
            .reshape((frames * side * side, merge * merge * width))?;
        let x = activated(&self.linear_1, &self.norm.forward(&x)?, self.act)?;
        Ok(self.linear_2.forward(&x)?.reshape((frames, side * side, ()))?)
    }
}
