// SPDX-License-Identifier: MPL-2.0
//! The patches of square pictures.

use candle_core::Tensor;
use candle_nn::{Module, VarBuilder};

use crate::model::linear::Linear;

/// The patch embedding: a convolution whose stride is its size, which is one product over the
/// patches (candle's convolution has no bf16 on the CPU).
pub struct SquarePatches {
    pub linear: Linear,
    /// Patches along a side.
    pub grid: usize,
    /// Pixels along a side of one.
    pub side: usize,
}

impl SquarePatches {
    /// `hidden` numbers a patch, `grid` patches a side of `side` pixels each.
    pub fn new(
        (hidden, grid, side): (usize, usize, usize),
        vb: VarBuilder,
    ) -> candle_core::Result<Self> {
        let weight = vb.get((hidden, 3, side, side), "weight")?;
        let weight = weight.reshape((hidden, 3 * side * side))?;
        let linear = Linear::new(weight, Some(vb.get(hidden, "bias")?));
        Ok(Self { linear, grid, side })
    }
}

impl Module for SquarePatches {
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
