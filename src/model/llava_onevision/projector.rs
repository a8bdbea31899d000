// SPDX-License-Identifier: MPL-2.0
//! From vision features to frame tokens: two linear layers on every patch, then a bilinear
//! reduction of the patch grid to half its side, rounded up (LLaVA-OneVision's video pooling).

use candle_core::{DType, Device, Tensor};
use candle_nn::{Activation, Module, VarBuilder};

use super::config::Config;
use crate::error::Result;
use crate::model::linear::{Linear, linear_b};

/// The multi-modal projector with its pooling.
pub struct Projector {
    linear_1: Linear,
    act: Activation,
    linear_2: Linear,
    /// Side of the pooled grid.
    out: usize,
    /// `[out * out, g * g]`: every pooled token as a weighted sum of patches.
    pooling: Tensor,
}

impl Projector {
    pub(crate) fn new(cfg: &Config, vb: VarBuilder) -> candle_core::Result<Self> {
        let input = cfg.tower.hidden_size * cfg.feature_layers.len();
        let hidden = cfg.out_hidden_size;
        let linear = |i, o, name| linear_b(i, o, cfg.projector_bias, vb.pp(name));
        Ok(Self {
            linear_1: linear(input, hidden, "linear_1")?,
            act: cfg.projector_act,
            linear_2: linear(hidden, hidden, "linear_2")?,
            out: cfg.tower.grid().div_ceil(2),
            pooling: pooling(cfg.tower.grid(), vb.device())?.to_dtype(vb.dtype())?,
        })
    }

    /// Rows of tokens of a frame, and columns.
    pub fn side(&self) -> usize {
        self.out
    }

    /// Frame tokens `[f, M, C]` of features `[f, g * g, D]`.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let (frames, patches, width) = features.dims3()?;
        self.pool(&self.project(&features.reshape((frames * patches, width))?)?, frames)
    }

    /// Patches `[n, C]` of features `[n, D]`.
    pub(super) fn project(&self, features: &Tensor) -> Result<Tensor> {
        Ok(self.linear_2.forward(&self.act.forward(&self.linear_1.forward(features)?)?)?)
    }

    /// Frame tokens `[f, M, C]` of patches `[f * g * g, C]`.
    pub(super) fn pool(&self, x: &Tensor, frames: usize) -> Result<Tensor> {
        let (rows, hidden) = x.dims2()?;
        let patches = rows / frames;
        // One product over all frames: frames move into the columns.
        let x = x.reshape((frames, patches, hidden))?.transpose(0, 1)?;
        let x = x.reshape((patches, frames * hidden))?;
        let pooled = self.pooling.matmul(&x)?;
        let tokens = self.out * self.out;
        Ok(pooled.reshape((tokens, frames, hidden))?.transpose(0, 1)?.contiguous()?)
    }
}

/// The matrix `[out * out, g * g]` of a bilinear resize of a g x g grid to out = ceil(g / 2) with
/// half-pixel centres and no antialiasing, as torch's `F.interpolate` does it.
fn pooling(grid: usize, device: &Device) -> candle_core::Result<Tensor> {
    let out = grid.div_ceil(2);
    let axis: Vec<Vec<f32>> = (0..out)
        .map(|i| {
            let source = ((i as f32 + 0.5) * (grid as f32 / out as f32) - 0.5).max(0.0);
            let first = (source as usize).min(grid - 1);
            let second = (first + 1).min(grid - 1);
            let share = source - first as f32;
            let mut weights = vec![0.0; grid];
            weights[first] += 1.0 - share;
            weights[second] += share;
            weights
        })
        .collect();
    let mut matrix = Vec::with_capacity(out * out * grid * grid);
    for row in &axis {
        for column in &axis {
            matrix.extend(row.iter().flat_map(|r| column.iter().map(move |c| r * c)));
        }
    }
    Tensor::from_vec(matrix, (out * out, grid * grid), device)?.to_dtype(DType::F32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_grids_pool_to_the_mean_of_four() {
        let matrix: Vec<Vec<f32>> = pooling(4, &Device::Cpu).unwrap().to_vec2().unwrap();
        assert_eq!(matrix.len(), 4);
        for (row, first) in matrix.iter().zip([0, 2, 8, 10]) {
            for (j, &weight) in row.iter().enumerate() {
                let inside = [first, first + 1, first + 4, first + 5].contains(&j);
                assert_eq!(weight, if inside { 0.25 } else { 0.0 });
            }
        }
    }

    #[test]
    fn odd_grids_round_up_and_every_token_is_an_average() {
        for grid in [1, 3, 5, 27] {
            let matrix: Vec<Vec<f32>> = pooling(grid, &Device::Cpu).unwrap().to_vec2().unwrap();
            assert_eq!(matrix.len(), grid.div_ceil(2).pow(2));
            for row in matrix {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            }
        }
    }
}
