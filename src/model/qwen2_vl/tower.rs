// SPDX-License-Identifier: MPL-2.0
//! The vision tower of Qwen2-VL. All layers attend within a whole unit and none beyond it.

use candle_core::Tensor;
use candle_nn::{Module, VarBuilder};

use super::config::Config;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::model::linear::Linear;
use crate::model::picture::Picture;
use crate::model::rope::{Positions, Rope};
use crate::model::vision::merged::{Block, Merger, embedding};
use crate::model::vision::patched;
use crate::model::vision::turned::{How, THETA, Windows, places};

/// Patch embedding, layers and merger.
pub struct Tower {
    embed: Linear,
    rope: Rope,
    blocks: Vec<Block>,
    merger: Merger,
    merge: usize,
}

impl Tower {
    pub fn new(cfg: &Config, vb: VarBuilder) -> Result<Self> {
        let (cells, sizes) = (cfg.cells(), cfg.sizes);
        let blocks = (0..cfg.layers)
            .map(|i| Block::new(sizes, ["fc1", "fc2"], quick_gelu, vb.pp("blocks").pp(i)));
        let shape = (sizes.hidden, cells.merge * cells.merge, cfg.out_hidden_size);
        let (merger, patch) =
            (vb.pp("merger"), (sizes.hidden, cells.frames_per_unit, cells.patch_size));
        let linears = ["0", "2"].map(|name| merger.pp("mlp").pp(name));
        Ok(Self {
            embed: embedding(patch, false, vb.pp("patch_embed").pp("proj"))?,
            rope: Rope::axial(sizes.hidden / sizes.heads, THETA, vb.device())?,
            blocks: blocks.collect::<candle_core::Result<_>>()?,
            merger: Merger::new(shape, false, merger.pp("ln_q"), linears)?,
            merge: cells.merge,
        })
    }
}

impl patched::Tower for Tower {
    /// Features `[u, n, D]` of patches `[u * n, 3 * T * p * p]`, token by token, row by row.
    fn forward(&self, pixels: &Tensor, picture: &Picture, cancel: &Cancel) -> Result<Tensor> {
        let patches = picture.tokens() * self.merge * self.merge;
        let units = pixels.dim(0)? / patches;
        let positions = Positions::listed(places(picture.rows, picture.cols, self.merge));
        let windows = [Windows { patches, count: 1 }];
        let how = How { positions: &positions, windows: &windows };
        let mut x = self.embed.forward(pixels)?;
        for block in &self.blocks {
            cancel.check()?;
            x = block.forward(&x, units, &self.rope, &how)?;
        }
        Ok(x.reshape((units, patches, ()))?)
    }

    fn merge(&self, features: &Tensor) -> Result<Tensor> {
        self.merger.forward(features)
    }
}

/// A layer's output times the logistic function of 1.702 times it.
fn quick_gelu(layer: &Linear, x: &Tensor) -> candle_core::Result<Tensor> {
    let x = layer.forward(x)?;
    &x * candle_nn::ops::sigmoid(&(&x * 1.702)?)?
}
