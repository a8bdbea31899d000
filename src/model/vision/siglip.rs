// SPDX-License-Identifier: MPL-2.0
//! The SigLIP vision tower, read out where LLaVA-OneVision reads it: the hidden states of chosen
//! layers, before `post_layernorm`.

use candle_core::Tensor;
use candle_nn::{
    Activation, Conv2d, Conv2dConfig, Embedding, LayerNorm, Linear, Module, VarBuilder,
};

use crate::cancel::Cancel;
use crate::error::Result;
use crate::model::attention::{self, Stage, Visible};
use crate::model::checkpoint::VisionConfig;

struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    heads: usize,
    head_dim: usize,
}

impl Attention {
    fn new(cfg: &VisionConfig, vb: VarBuilder) -> candle_core::Result<Self> {
        let linear = |name| candle_nn::linear(cfg.hidden_size, cfg.hidden_size, vb.pp(name));
        Ok(Self {
            q: linear("q_proj")?,
            k: linear("k_proj")?,
            v: linear("v_proj")?,
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
        let split = |x: Tensor| {
            x.reshape((frames, patches, self.heads, self.head_dim))?
                .transpose(1, 2)?
                .contiguous()?
                .reshape((frames * self.heads, patches, self.head_dim))
        };
        let q = split(self.q.forward(x)?)?;
        let k = split(self.k.forward(x)?)?;
        let v = split(self.v.forward(x)?)?;
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
    fn new(cfg: &VisionConfig, vb: VarBuilder) -> candle_core::Result<Self> {
        let norm = |name| candle_nn::layer_norm(cfg.hidden_size, cfg.layer_norm_eps, vb.pp(name));
        let mlp = vb.pp("mlp");
        Ok(Self {
            norm1: norm("layer_norm1")?,
            attention: Attention::new(cfg, vb.pp("self_attn"))?,
            norm2: norm("layer_norm2")?,
            fc1: candle_nn::linear(cfg.hidden_size, cfg.intermediate_size, mlp.pp("fc1"))?,
            fc2: candle_nn::linear(cfg.intermediate_size, cfg.hidden_size, mlp.pp("fc2"))?,
            act: cfg.act,
        })
    }

    fn forward(&self, x: &Tensor, frames: usize) -> Result<Tensor> {
        let h = self.attention.forward(&self.norm1.forward(x)?, frames)?;
        let x = (x + h)?;
        let h = self.act.forward(&self.fc1.forward(&self.norm2.forward(&x)?)?)?;
        Ok((x + self.fc2.forward(&h)?)?)
    }
}

/// The tower up to the last layer that is read out.
pub struct Siglip {
    patches: Conv2d,
    positions: Tensor,
    blocks: Vec<Block>,
    /// Which hidden states are read; 0 is the embedding output.
    read: Vec<usize>,
}

impl Siglip {
    pub(crate) fn new(
        cfg: &VisionConfig,
        read: &[usize],
        vb: VarBuilder,
    ) -> candle_core::Result<Self> {
        let embeddings = vb.pp("embeddings");
        let conv = Conv2dConfig { stride: cfg.patch_size, ..Default::default() };
        let grid = cfg.grid();
        let positions: Embedding = candle_nn::embedding(
            grid * grid,
            cfg.hidden_size,
            embeddings.pp("position_embedding"),
        )?;
        let needed = read.iter().copied().max().unwrap_or(0);
        let blocks = (0..needed)
            .map(|i| Block::new(cfg, vb.pp("encoder").pp("layers").pp(i)))
            .collect::<candle_core::Result<_>>()?;
        Ok(Self {
            patches: candle_nn::conv2d(
                3,
                cfg.hidden_size,
                cfg.patch_size,
                conv,
                embeddings.pp("patch_embedding"),
            )?,
            positions: positions.embeddings().clone(),
            blocks,
            read: read.to_vec(),
        })
    }

    /// Features `[f, g * g, D * layers read]` of pixels `[f, 3, S, S]`, patches in row-major order.
    pub fn forward(&self, pixels: &Tensor, cancel: &Cancel) -> Result<Tensor> {
        let frames = pixels.dim(0)?;
        let x = self.patches.forward(pixels)?.flatten_from(2)?.transpose(1, 2)?;
        let x = x.contiguous()?.broadcast_add(&self.positions)?;
        let (_, patches, width) = x.dims3()?;
        let mut x = x.reshape((frames * patches, width))?;
        let mut states = Vec::with_capacity(self.blocks.len() + 1);
        for block in &self.blocks {
            cancel.check()?;
            let next = block.forward(&x, frames)?;
            states.push(std::mem::replace(&mut x, next));
        }
        states.push(x);
        let read: Vec<_> = self.read.iter().filter_map(|&i| states.get(i)).collect();
        let features = Tensor::cat(&read, 1)?;
        let width = features.dim(1)?;
        Ok(features.reshape((frames, patches, width))?)
    }

    /// Patches per frame, `g * g`.
    pub fn patches(&self) -> usize {
        self.positions.dims()[0]
    }
}
