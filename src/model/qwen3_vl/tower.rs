// SPDX-License-Identifier: MPL-2.0
//! The vision tower of Qwen3-VL. All layers attend within a whole unit and none beyond it. Patches know
//! their place twice: from a learned table, stretched over the picture and added, and by turning.

use candle_core::{DType, Tensor};
use candle_nn::{Activation, VarBuilder};

use super::config::Config;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::model::linear::{Linear, activated};
use crate::model::picture::Picture;
use crate::model::rope::{Positions, Rope};
use crate::model::vision::merged::{Activated, Block, Merger, Names, embedding};
use crate::model::vision::patched;
use crate::model::vision::turned::{How, THETA, Windows, places};

const NAMES: Names = ["linear_fc1", "linear_fc2"];

/// Patch embedding, layers, the merger behind the last and those of DeepStack.
pub struct Tower {
    embed: Linear,
    /// `[side * side, D]`.
    table: Tensor,
    rope: Rope,
    blocks: Vec<Block>,
    merger: Merger,
    deep: Vec<Merger>,
    cfg: Config,
}

impl Tower {
    pub fn new(cfg: &Config, vb: VarBuilder) -> Result<Self> {
        let (cells, sizes) = (cfg.cells(), cfg.sizes);
        let act: Activated = match cfg.exact_gelu {
            true => |layer, x| activated(layer, x, Activation::Gelu),
            false => |layer, x| activated(layer, x, Activation::GeluPytorchTanh),
        };
        let blocks = (0..cfg.layers).map(|i| Block::new(sizes, NAMES, act, vb.pp("blocks").pp(i)));
        let shape = (sizes.hidden, cells.merge * cells.merge, cfg.out_hidden_size);
        let merger = |behind, vb: VarBuilder| {
            Merger::new(shape, behind, vb.pp("norm"), NAMES.map(|name| vb.pp(name)))
        };
        let list = vb.pp("deepstack_merger_list");
        let deep = (0..cfg.deep_layers.len()).map(|i| merger(true, list.pp(i)));
        let patch = (sizes.hidden, cells.frames_per_unit, cells.patch_size);
        let table = (cfg.positions * cfg.positions, sizes.hidden);
        Ok(Self {
            embed: embedding(patch, true, vb.pp("patch_embed").pp("proj"))?,
            table: vb.pp("pos_embed").get(table, "weight")?.to_dtype(vb.dtype())?,
            rope: Rope::axial(sizes.hidden / sizes.heads, THETA, vb.device())?,
            blocks: blocks.collect::<candle_core::Result<_>>()?,
            merger: merger(false, vb.pp("merger"))?,
            deep: deep.collect::<candle_core::Result<_>>()?,
            cfg: cfg.clone(),
        })
    }
}

impl patched::Tower for Tower {
    fn vectors(&self) -> usize {
        1 + self.deep.len()
    }

    /// Features `[u, n, D * vectors]` of patches `[u * n, 3 * T * p * p]`, token by token, row by row:
    /// what the last layer makes of each, then what those of DeepStack do.
    fn forward(&self, pixels: &Tensor, picture: &Picture, cancel: &Cancel) -> Result<Tensor> {
        let merge = self.cfg.cells().merge;
        let patches = picture.tokens() * merge * merge;
        let units = pixels.dim(0)? / patches;
        let places = places(picture.rows, picture.cols, merge);
        let (height, width) = (picture.rows * merge, picture.cols * merge);
        let table = self.stretched(height, width, places.iter().map(|place| (place.h, place.w)))?;
        let positions = Positions::listed(places);
        let windows = [Windows { patches, count: 1 }];
        let how = How { positions: &positions, windows: &windows };
        let x = candle_nn::Module::forward(&self.embed, pixels)?;
        let x = x.reshape((units, patches, ()))?.broadcast_add(&table)?;
        let mut x = x.flatten(0, 1)?;
        let mut deep = Vec::with_capacity(self.deep.len());
        for (layer, block) in self.blocks.iter().enumerate() {
            cancel.check()?;
            x = block.forward(&x, units, &self.rope, &how)?;
            if self.cfg.deep_layers.contains(&layer) {
                deep.push(x.clone());
            }
        }
        deep.insert(0, x);
        Ok(Tensor::cat(&deep, 1)?.reshape((units, patches, ()))?)
    }

    fn merge(&self, features: &Tensor) -> Result<Tensor> {
        let width = self.cfg.sizes.hidden;
        let mergers = std::iter::once(&self.merger).chain(&self.deep).enumerate();
        let tokens =
            mergers.map(|(at, merger)| merger.forward(&features.narrow(2, at * width, width)?));
        Ok(Tensor::cat(&tokens.collect::<Result<Vec<_>>>()?, 2)?)
    }
}

impl Tower {
    /// The position table `[n, D]` stretched over a picture of so many patches, read at these rows and
    /// columns: corners meet corners, between entries it is linear.
    fn stretched(
        &self,
        height: usize,
        width: usize,
        at: impl Iterator<Item = (usize, usize)>,
    ) -> Result<Tensor> {
        let side = self.cfg.positions;
        let on = |n: usize| -> Vec<(u32, u32, f32)> { (0..n).map(|i| tap(i, n, side)).collect() };
        let (rows, columns) = (on(height), on(width));
        let (mut entries, mut weights) = (Vec::new(), Vec::new());
        for (row, column) in at {
            let (top, bottom, down) = rows[row];
            let (left, right, across) = columns[column];
            for (row, of_row) in [(top, 1.0 - down), (bottom, down)] {
                for (column, of_column) in [(left, 1.0 - across), (right, across)] {
                    entries.push(row * side as u32 + column);
                    weights.push(of_row * of_column);
                }
            }
        }
        let (n, device) = (weights.len() / 4, self.table.device());
        let entries = Tensor::from_vec(entries, 4 * n, device)?;
        let weights = Tensor::from_vec(weights, (n, 4, 1), device)?;
        let corners = self.table.index_select(&entries, 0)?.to_dtype(DType::F32)?;
        let sum = corners.reshape((n, 4, ()))?.broadcast_mul(&weights)?.sum(1)?;
        Ok(sum.to_dtype(self.table.dtype())?)
    }
}

/// Between which entries of `side` the place `i` of `n` lies, and how far from the first.
fn tap(i: usize, n: usize, side: usize) -> (u32, u32, f32) {
    let place = match n {
        0 | 1 => 0.0,
        _ => i as f32 * ((side - 1) as f32 / (n - 1) as f32),
    };
    let first = (place as usize).min(side - 1);
    (first as u32, (first + 1).min(side - 1) as u32, place - first as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_meet_corners_and_a_table_as_large_as_the_picture_is_itself() {
        assert_eq!(tap(0, 5, 48), (0, 1, 0.0));
        assert_eq!(tap(4, 5, 48).0, 47);
        for i in 0..48 {
            let (first, _, share) = tap(i, 48, 48);
            assert_eq!((first as usize, share), (i, 0.0));
        }
        assert_eq!(tap(1, 3, 6), (2, 3, 0.5));
        assert_eq!(tap(0, 1, 6), (0, 1, 0.0));
    }
}
