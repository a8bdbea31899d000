// SPDX-License-Identifier: MPL-2.0
//! The vision tower of Qwen2.5-VL. Most layers attend within windows of the picture, a few within
//! the whole unit, none beyond it: units do not see each other, so encoding them one by one equals
//! encoding a video at once.
//!
//! Inside, tokens are ordered window by window. Which window comes first is of no consequence, so
//! windows of one size lie side by side (a picture has at most four sizes: full ones, those cut
//! off at the right, at the bottom, and at the corner) and each size is one call of the attention.

use std::ops::Range;

use candle_core::Tensor;
use candle_nn::{Activation, Module, RmsNorm, VarBuilder};

use super::config::Config;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::model::gate::gated;
use crate::model::linear::{Linear, linear};
use crate::model::picture::Picture;
use crate::model::rope::{Place, Positions, Rope};
use crate::model::vision::merged::embedding;
use crate::model::vision::patched;
use crate::model::vision::turned::{Attention, How, THETA, Windows};

/// Not in the config: transformers fixes it.
const NORM_EPS: f64 = 1e-6;

/// The tower's order of a unit's tokens, and what it needs to know about it.
#[derive(Debug)]
struct Order {
    /// Tokens, numbered row by row, in the tower's order.
    tokens: Vec<u32>,
    windows: Vec<Windows>,
    /// Of the patches, in the tower's order.
    positions: Positions,
}

impl Order {
    /// `side` tokens by `side` make a window; `merge` patches by `merge` make a token.
    fn new(picture: &Picture, side: usize, merge: usize) -> Self {
        let bands = |n: usize| {
            let full = n - n % side;
            [(0..full, side), (full..n, n - full)].into_iter().filter(|(band, _)| !band.is_empty())
        };
        let mut tokens = Vec::with_capacity(picture.tokens());
        let mut windows = Vec::new();
        for (rows, height) in bands(picture.rows) {
            for (cols, width) in bands(picture.cols) {
                let before = tokens.len();
                for top in rows.clone().step_by(height) {
                    for left in cols.clone().step_by(width) {
                        tokens.extend(cells(top..top + height, left..left + width, picture.cols));
                    }
                }
                let size = height * width;
                let count = (tokens.len() - before) / size;
                windows.push(Windows { patches: size * merge * merge, count });
            }
        }
        let places = tokens.iter().flat_map(|&token| {
            let (row, col) = (token as usize / picture.cols, token as usize % picture.cols);
            cells(0..merge, 0..merge, merge).map(move |part| {
                let (y, x) = (part as usize / merge, part as usize % merge);
                Place { t: 0, h: row * merge + y, w: col * merge + x }
            })
        });
        let positions = Positions::listed(places.collect());
        Self { positions, windows, tokens }
    }

    /// Where each token of the picture is in the tower's order.
    fn back(&self) -> Vec<u32> {
        let mut back = vec![0; self.tokens.len()];
        for (place, &token) in (0u32..).zip(&self.tokens) {
            back[token as usize] = place;
        }
        back
    }
}

/// The numbers of a rectangle of cells, row by row, where a row has `cols` of them.
fn cells(rows: Range<usize>, across: Range<usize>, cols: usize) -> impl Iterator<Item = u32> {
    rows.flat_map(move |row| across.clone().map(move |col| (row * cols + col) as u32))
}

struct Block {
    norm1: RmsNorm,
    attention: Attention,
    norm2: RmsNorm,
    gate_up: Linear,
    down: Linear,
    act: Activation,
}

impl Block {
    fn new(cfg: &Config, vb: VarBuilder) -> candle_core::Result<Self> {
        let norm = |name| candle_nn::rms_norm(cfg.hidden_size, NORM_EPS, vb.pp(name));
        let (hidden, inner, mlp) = (cfg.hidden_size, cfg.intermediate_size, vb.pp("mlp"));
        Ok(Self {
            norm1: norm("norm1")?,
            attention: Attention::new(cfg.hidden_size, cfg.heads, vb.pp("attn"))?,
            norm2: norm("norm2")?,
            gate_up: Linear::joined(&[
                linear(hidden, inner, mlp.pp("gate_proj"))?,
                linear(hidden, inner, mlp.pp("up_proj"))?,
            ])?,
            down: linear(inner, hidden, mlp.pp("down_proj"))?,
            act: cfg.act,
        })
    }

    fn forward(&self, x: &Tensor, units: usize, rope: &Rope, how: &How) -> Result<Tensor> {
        let h = self.attention.forward(&self.norm1.forward(x)?, units, rope, how)?;
        let x = (x + h)?;
        let h = gated(&self.gate_up.forward(&self.norm2.forward(&x)?)?, self.act)?;
        Ok((x + self.down.forward(&h)?)?)
    }
}

/// Neighbouring patches become one token of the decoder's width.
struct Merger {
    norm: RmsNorm,
    linear_1: Linear,
    linear_2: Linear,
}

impl Merger {
    fn new(cfg: &Config, vb: VarBuilder) -> candle_core::Result<Self> {
        let inner = cfg.hidden_size * cfg.merge * cfg.merge;
        let mlp = vb.pp("mlp");
        Ok(Self {
            norm: candle_nn::rms_norm(cfg.hidden_size, NORM_EPS, vb.pp("ln_q"))?,
            linear_1: linear(inner, inner, mlp.pp(0))?,
            linear_2: linear(inner, cfg.out_hidden_size, mlp.pp(2))?,
        })
    }
}

/// Patch embedding, layers and merger.
pub struct Tower {
    /// A convolution whose stride is its size: one product over the patches.
    embed: Linear,
    rope: Rope,
    blocks: Vec<Block>,
    merger: Merger,
    cfg: Config,
}

impl Tower {
    pub fn new(cfg: &Config, vb: VarBuilder) -> Result<Self> {
        let patch = (cfg.hidden_size, cfg.frames_per_unit, cfg.patch_size);
        let blocks = (0..cfg.layers).map(|i| Block::new(cfg, vb.pp("blocks").pp(i)));
        Ok(Self {
            embed: embedding(patch, false, vb.pp("patch_embed").pp("proj"))?,
            rope: Rope::axial(cfg.hidden_size / cfg.heads, THETA, vb.device())?,
            blocks: blocks.collect::<candle_core::Result<_>>()?,
            merger: Merger::new(cfg, vb.pp("merger"))?,
            cfg: cfg.clone(),
        })
    }
}

impl patched::Tower for Tower {
    /// Features `[u, n, D]` of patches `[u * n, 3 * T * p * p]`, which come and go token by token,
    /// row by row.
    fn forward(&self, pixels: &Tensor, picture: &Picture, cancel: &Cancel) -> Result<Tensor> {
        let (merge, width) = (self.cfg.merge, self.cfg.hidden_size);
        let (tokens, patches) = (picture.tokens(), picture.tokens() * merge * merge);
        let units = pixels.dim(0)? / patches;
        let order = Order::new(picture, self.cfg.window, merge);
        let reorder = |x: &Tensor, order: Vec<u32>| {
            let order = Tensor::from_vec(order, tokens, x.device())?;
            let x = x.reshape((units, tokens, merge * merge * width))?.index_select(&order, 1)?;
            x.reshape((units * patches, width))
        };
        let everything = [Windows { patches, count: 1 }];
        let mut x = reorder(&self.embed.forward(pixels)?, order.tokens.clone())?;
        for (layer, block) in self.blocks.iter().enumerate() {
            cancel.check()?;
            let full = self.cfg.full_layers.contains(&layer);
            let windows = if full { &everything[..] } else { &order.windows };
            let how = How { positions: &order.positions, windows };
            x = block.forward(&x, units, &self.rope, &how)?;
        }
        Ok(reorder(&x, order.back())?.reshape((units, patches, width))?)
    }

    fn merge(&self, features: &Tensor) -> Result<Tensor> {
        let (units, patches, width) = features.dims3()?;
        let parts = self.cfg.merge * self.cfg.merge;
        let x = self.merger.norm.forward(features)?;
        let x = x.reshape((units * patches / parts, parts * width))?;
        let x = self.merger.linear_2.forward(&self.merger.linear_1.forward(&x)?.gelu_erf()?)?;
        Ok(x.reshape((units, patches / parts, ()))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(rows: usize, cols: usize, side: usize) -> Order {
        Order::new(&Picture { rows, cols, width: 1, height: 1 }, side, 2)
    }

    #[test]
    fn windows_of_one_size_lie_side_by_side() {
        let order = order(3, 5, 2);
        assert_eq!(
            order.tokens,
            [
                0, 1, 5, 6, 2, 3, 7, 8, /* right */ 4, 9, /* bottom */ 10, 11, 12, 13,
                /* corner */ 14
            ]
        );
        let sizes: Vec<_> = order.windows.iter().map(|w| (w.patches, w.count)).collect();
        assert_eq!(sizes, [(16, 2), (8, 1), (8, 2), (4, 1)]);
        let back = order.back();
        let restored: Vec<u32> = back.iter().map(|&i| order.tokens[i as usize]).collect();
        assert_eq!(restored, (0..15).collect::<Vec<u32>>());
    }

    #[test]
    fn a_picture_of_whole_windows_has_one_size_and_a_small_one_is_one_window() {
        assert_eq!(order(4, 6, 2).windows, [Windows { patches: 16, count: 6 }]);
        assert_eq!(order(1, 2, 4).windows, [Windows { patches: 8, count: 1 }]);
    }

    #[test]
    fn patches_know_their_place_in_the_picture() {
        let places = order(2, 2, 1).positions.places();
        let of_token_3: Vec<_> = places[12..].iter().map(|p| (p.h, p.w)).collect();
        assert_eq!(of_token_3, [(2, 2), (2, 3), (3, 2), (3, 3)]);
    }
}
