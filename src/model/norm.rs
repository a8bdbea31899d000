// SPDX-License-Identifier: MPL-2.0
//! RMSNorm, alone and fused with the residual sum in front of it.

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};

use super::kernels;

/// `x / sqrt(mean(x^2) + eps) * weight` along the last axis.
pub struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    pub fn new(width: usize, eps: f64, vb: VarBuilder) -> Result<Self> {
        Ok(Self { weight: vb.get_with_hints(width, "weight", Init::Const(1.0))?, eps })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::rms_norm(&x.contiguous()?, &self.weight, self.eps as f32)
    }

    /// The sum of `x` and `h`, both `[n, C]`, and its norm: on a device in one pass.
    pub fn after_sum(&self, x: &Tensor, h: &Tensor) -> Result<(Tensor, Tensor)> {
        if let Some(kernels) = kernels::on(x.device())
            && let Some(both) = kernels.add_norm(x, h, &self.weight, self.eps)?
        {
            return Ok(both);
        }
        let sum = (x + h)?;
        let normed = self.forward(&sum)?;
        Ok((sum, normed))
    }
}
