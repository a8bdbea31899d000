// SPDX-License-Identifier: MPL-2.0
//! The SigLIP vision tower, read out where LLaVA-OneVision reads it: the hidden states of chosen
//! layers, before `post_layernorm`.

use candle_core::Tensor;
use candle_nn::{Activation, LayerNorm, Module, VarBuilder};

use crate::cancel::Cancel;
use crate::error::Result;
use crate::model::attention::{self, Stage, Visible};
use crate::model::checkpoint::SiglipConfig;
use crate::model::linear::{Linear, activated, linear};

struct Attention {
    /// To queries, keys and values, side by side.
    qkv: Linear,
    out: Linear,
    heads: usize,
    head_dim: usize,
}

impl Attention {
    fn new(cfg: &SiglipConfig, vb: VarBuilder) -> candle_core::Result<Self> {
        let linear = |name| linear(cfg.hidden_size, cfg.hidden_size, vb.pp(name));
        Ok(Self {
            qkv: Linear::joined(&[linear("q_proj")?, linear("k_proj")?, linear("v_proj")?])?,
            out: linear("out_proj")?,
            heads: cfg.heads,
            head_dim: cfg.hidden_size / cfg.heads,
        })
    }

    /// `x` is `[f * n, D]`: every frame attends to itself. Frames and heads are one axis to the
    /// attention kernel, so a batch keeps all threads busy.
    fn forward(&self, x: &Tensor, frames: usize) -> Result<Tensor> {
        let (rows, width) = x.dims2()?;
        let patches = rows / frames;
        let qkv = self.qkv.forward(x)?.reshape((frames, patches, 3, self.heads, self.head_dim))?;
        // [3, f, H, n, d].
        let qkv = qkv.permute((2, 0, 3, 1, 4))?.contiguous()?;
        let part = |i| qkv.get(i)?.reshape((frames * self.heads, patches, self.head_dim));
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let stage = Stage { q: &q, k: &k, v: &v, visible: Visible::All };
        let context = attention::attend(&[stage], 1.0 / (self.head_dim as f64).sqrt())?;
        let context = context
            .reshape((frames, self.heads, patches, self.head_dim))?
            .transpose(1, 2)?
            .reshape((rows, width))?;
        Ok(self.out.forward(&context)?)
    }
}

struct Block {
    norm1: LayerNorm,
    attention: Attention,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    act: Activation,
}

impl Block {
    fn new(cfg: &SiglipConfig, vb: VarBuilder) -> candle_core::Result<Self> {
        let norm = |name| candle_nn::layer_norm(cfg.hidden_size, cfg.layer_norm_eps, vb.pp(name));
        let mlp = vb.pp("mlp");
        Ok(Self {
            norm1: norm("layer_norm1")?,
            attention: Attention::new(cfg, vb.pp("self_attn"))?,
            norm2: norm("layer_norm2")?,
            fc1: linear(cfg.hidden_size, cfg.intermediate_size, mlp.pp("fc1"))?,
            fc2: linear(cfg.intermediate_size, cfg.hidden_size, mlp.pp("fc2"))?,
            act: cfg.act,
        })
    }

    fn forward(&self, x: &Tensor, frames: usize) -> Result<Tensor> {
        let h = self.attention.forward(&self.norm1.forward(x)?, frames)?;
        let x = (x + h)?;
        let h = activated(&self.fc1, &self.norm2.forward(&x)?, self.act)?;
        Ok((x + self.fc2.forward(&h)?)?)
    }
}

/// The patch embedding: a convolution whose stride is its size, which is one product over the
/// patches (candle's convolution has no bf16 on the CPU).
struct Patches {
    linear: Linear,
    grid: usize,
    side: usize,
}

impl Patches {
    fn new(cfg: &SiglipConfig, vb: VarBuilder) -> candle_core::Result<Self> {
        let (width, side) = (cfg.hidden_size, cfg.patch_size);
        let weight = vb.get((width, 3, side, side), "weight")?;
        let weight = weight.reshape((width, 3 * side * side))?;
        let linear = Linear::new(weight, Some(vb.get(width, "bias")?));
        Ok(Self { linear, grid: cfg.grid(), side })
    }
}

impl Module for Patches {
    /// `[f * g * g, D]` of pixels `[f, 3, S, S]`; pixels beyond the last whole patch are dropped.
    fn forward(&self, pixels: &Tensor) -> candle_core::Result<Tensor> {
        let (frames, (grid, side)) = (pixels.dim(0)?, (self.grid, self.side));
        let pixels = pixels.narrow(2, 0, grid * side)?.narrow(3, 0, grid * side)?;
        let patches = pixels
            .contiguous()?
            .reshape(&[frames, 3, grid, side, grid, side])?
            .permute(vec![0, 2, 4, 1, 3, 5])?
            .reshape((frames * grid * grid, 3 * side * side))?;
        self.linear.forward(&patches)
    }
}

/// The tower up to the last layer that is read out.
pub struct Siglip {
    patches: Patches,
    positions: Tensor,
    blocks: Vec<Block>,
    /// Which hidden states are read; 0 is the embedding output.
    read: Vec<usize>,
}

impl Siglip {
    pub(crate) fn new(
        cfg: &SiglipConfig,
        read: &[usize],
        vb: VarBuilder,
    ) -> candle_core::Result<Self> {
        let embeddings = vb.pp("embeddings");
        let positions = embeddings
            .pp("position_embedding")
            .get((cfg.grid() * cfg.grid(), cfg.hidden_size), "weight")?
            .to_dtype(vb.dtype())?;
        let needed = read.iter().copied().max().unwrap_or(0);
        let blocks = (0..needed)
            .map(|i| Block::new(cfg, vb.pp("encoder").pp("layers").pp(i)))
            .collect::<candle_core::Result<_>>()?;
        Ok(Self {
            patches: Patches::new(cfg, embeddings.pp("patch_embedding"))?,
            positions,
            blocks,
            read: read.to_vec(),
        })
    }

    /// Features `[f, g * g, D * layers read]` of pixels `[f, 3, S, S]`, patches in row-major order.
    pub fn forward(&self, pixels: &Tensor, cancel: &Cancel) -> Result<Tensor> {
        let frames = pixels.dim(0)?;
        let (patches, width) = self.positions.dims2()?;
        let x = self.patches.forward(pixels)?.reshape((frames, patches, width))?;
        let x = x.broadcast_add(&self.positions)?;
        let mut x = x.reshape((frames * patches, width))?;
        let mut features = vec![None; self.read.len()];
        for layer in 0..=self.blocks.len() {
            for (feature, _) in features.iter_mut().zip(&self.read).filter(|(_, l)| **l == layer) {
                *feature = Some(x.clone());
            }
            if let Some(block) = self.blocks.get(layer) {
                cancel.check()?;
                x = block.forward(&x, frames)?;
            }
        }
        let features = Tensor::cat(&features.into_iter().flatten().collect::<Vec<_>>(), 1)?;
        let width = features.dim(1)?;
        Ok(features.reshape((frames, patches, width))?)
    }

    /// Patches per frame, `g * g`.
    pub fn patches(&self) -> usize {
        self.positions.dims()[0]
    }
}
