// SPDX-License-Identifier: MPL-2.0
//! What stands between the products of a layer, each in one pass over memory.

use candle_core::{DType, Result, Tensor};

use super::launch::Arg;
use super::table::Variant;
use super::{ALIGNED, Kernels, count, suits};

/// Blocks of a pass over everything: enough to read as fast as memory allows.
const PASSES: usize = 528;

impl Kernels {
    /// The sum of `x` and `h`, both `[n, C]`, and its RMSNorm times `weight` `[C]`. `None` where no
    /// kernel fits.
    pub fn add_norm(
        &self,
        x: &Tensor,
        h: &Tensor,
        weight: &Tensor,
        eps: f64,
    ) -> Result<Option<(Tensor, Tensor)>> {
        let (rows, width) = x.dims2()?;
        let wide_enough =
            |v: &Variant| Some(v.constant("BN")).filter(|&n| n >= width && suits(width));
        let Some(variant) = self.variant("add_norm", x.dtype(), wide_enough) else {
            return Ok(None);
        };
        let (x, h) = (whole(x)?, whole(h)?);
        let sum = self.output((rows, width), x.dtype())?;
        let normed = self.output((rows, width), x.dtype())?;
        let row = Arg::I64(width as i64);
        let args = [
            Arg::Read(&x),
            Arg::Read(&h),
            Arg::Read(weight),
            Arg::Write(&sum),
            Arg::Write(&normed),
            Arg::F32(eps as f32),
            row,
            row,
            Arg::I32(count(width)?),
        ];
        self.launch(variant, [rows, 1, 1], &args)?;
        Ok(Some((sum, normed)))
    }

    /// `silu(x[.., ..I]) * x[.., I..]` of `[n, 2 I]`. `None` where no kernel fits.
    pub fn silu_mul(&self, x: &Tensor) -> Result<Option<Tensor>> {
        let (rows, width) = x.dims2()?;
        let inner = width / 2;
        let Some(variant) = self.only("silu_mul", x.dtype()).filter(|_| suits(inner)) else {
            return Ok(None);
        };
        let x = whole(x)?;
        let y = self.output((rows, inner), x.dtype())?;
        let args = [Arg::Read(&x), Arg::Write(&y), Arg::I64(width as i64), Arg::I32(count(inner)?)];
        self.launch(variant, [rows, inner.div_ceil(variant.constant("BN")), 1], &args)?;
        Ok(Some(y))
    }

    /// GELU of `x + bias`, by the hyperbolic tangent or exactly. `None` where no kernel fits.
    pub fn bias_gelu(&self, x: &Tensor, bias: &Tensor, tanh: bool) -> Result<Option<Tensor>> {
        let of_kind = |v: &Variant| {
            let of_kind = v.constants.get("TANH") == Some(&i64::from(tanh));
            (of_kind && suits(bias.elem_count())).then_some(())
        };
        let Some(variant) = self.variant("bias_gelu", x.dtype(), of_kind) else { return Ok(None) };
        let (x, width) = (whole(x)?, bias.elem_count());
        let n = x.elem_count();
        let y = self.output(x.shape().clone(), x.dtype())?;
        let args = [
            Arg::Read(&x),
            Arg::Read(bias),
            Arg::Write(&y),
            Arg::I32(count(n)?),
            Arg::I32(count(width)?),
        ];
        self.launch(variant, [n.div_ceil(variant.constant("BN")), 1, 1], &args)?;
        Ok(Some(y))
    }

    /// Sets `flag`, one i32, where anything in `x` is not finite, and leaves it alone else. Whether
    /// there is a kernel for that.
    pub fn note_not_finite(&self, x: &Tensor, flag: &Tensor) -> Result<bool> {
        let Some(variant) = self.only("not_finite", x.dtype()) else { return Ok(false) };
        let x = whole(x)?;
        let n = x.elem_count();
        let blocks = n.div_ceil(variant.constant("BN")).min(PASSES);
        let args = [Arg::Read(&x), Arg::Write(flag), Arg::I64(n as i64)];
        self.launch(variant, [blocks, 1, 1], &args)?;
        Ok(true)
    }

    /// A flag that is not set.
    pub fn flag(&self) -> Result<Tensor> {
        Tensor::zeros(1, DType::I32, &self.device)
    }
}

/// One behind the other, from where kernels want them to begin.
fn whole(x: &Tensor) -> Result<Tensor> {
    let start = x.layout().start_offset() * x.dtype().size_in_bytes();
    match x.is_contiguous() && start.is_multiple_of(ALIGNED) {
        true => Ok(x.clone()),
        false => x.force_contiguous(),
    }
}
