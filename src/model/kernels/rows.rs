// SPDX-License-Identifier: MPL-2.0
//! Rows of keys and values: turned where they stand, gathered from where they lie, averaged.

use candle_core::{DType, Result, Tensor};

use super::launch::Arg;
use super::table::Variant;
use super::{Kernels, count, dense, strides, suits};

/// Where rows stand, as the kernels know it.
#[derive(Clone, Copy, Debug)]
pub enum Standing<'a> {
    /// At `start, start + 1, ..`.
    Run { start: usize },
    /// All at one place.
    At(usize),
    /// Row by row, `[n]` in i32.
    Listed(&'a Tensor),
    /// Row by row on three axes, `[3, n]` in i32; which of them turns each pair of channels, `[d / 2]`
    /// in i32.
    OnAxes { places: &'a Tensor, axes: &'a Tensor },
}

/// Cosines and sines `[positions, d / 2]` in f32.
#[derive(Clone, Copy, Debug)]
pub struct Turns<'a> {
    pub cos: &'a Tensor,
    pub sin: &'a Tensor,
}

impl Kernels {
    /// `[H, n, d]` with every row turned by its place; contiguous. `None` where no kernel fits.
    pub fn rotate(&self, x: &Tensor, turns: Turns<'_>, at: Standing<'_>) -> Result<Option<Tensor>> {
        self.turned(x, None, x.dim(1)?, turns, at)
    }

    /// Chosen rows of a pool, turned: `pool` is any `[H, .., d]` of which row `i` lies `from[i]`
    /// elements (i64) behind the first of its head.
    pub fn gather_rotated(
        &self,
        pool: &Tensor,
        from: &Tensor,
        turns: Turns<'_>,
        at: Standing<'_>,
    ) -> Result<Option<Tensor>> {
        self.turned(pool, Some(from), from.elem_count(), turns, at)
    }

    fn turned(
        &self,
        x: &Tensor,
        from: Option<&Tensor>,
        n: usize,
        turns: Turns<'_>,
        at: Standing<'_>,
    ) -> Result<Option<Tensor>> {
        let (heads, _, dim) = x.dims3()?;
        let kernel = if from.is_some() { "gather_rotate" } else { "rotate" };
        let (mode, start, places, axes) = match at {
            Standing::Run { start } => (0, start, None, None),
            Standing::At(place) => (1, place, None, None),
            Standing::Listed(places) => (2, 0, Some(places), None),
            Standing::OnAxes { places, axes } => (3, 0, Some(places), Some(axes)),
        };
        let of_mode = |v: &Variant| {
            v.of_heads(dim).filter(|_| suits(dim) && v.constants.get("MODE") == Some(&mode))
        };
        let Some(variant) = self.variant(kernel, x.dtype(), of_mode) else { return Ok(None) };
        let y = self.output((heads, n, dim), x.dtype())?;
        let x = dense(x)?;
        let ([x_head, x_row], [y_head, y_row]) = (strides(&x)?, strides(&y)?);
        let mut args = vec![Arg::Read(&x), Arg::Write(&y)];
        args.extend(from.map(Arg::Read));
        args.extend([
            Arg::Read(turns.cos),
            Arg::Read(turns.sin),
            // Where it is not read, any address will do.
            Arg::Read(places.unwrap_or(turns.cos)),
            Arg::Read(axes.unwrap_or(turns.cos)),
            x_head,
            x_row,
            y_head,
            y_row,
            Arg::I32(count(n)?),
            Arg::I32(count(dim)?),
            Arg::I32(count(places.map_or(Ok(0), |places| places.dim(candle_core::D::Minus1))?)?),
            Arg::I32(count(start)?),
        ]);
        self.launch(variant, [n.div_ceil(variant.constant("BR")), heads, 1], &args)?;
        Ok(Some(y))
    }

    /// Chosen rows of a pool as they are, `[H, n, d]`; see [`gather_rotated`](Self::gather_rotated).
    pub fn gather(&self, pool: &Tensor, from: &Tensor) -> Result<Option<Tensor>> {
        let (heads, _, dim) = pool.dims3()?;
        let found =
            self.variant("gather", pool.dtype(), |v| v.of_heads(dim).filter(|_| suits(dim)));
        let Some(variant) = found else { return Ok(None) };
        let n = from.elem_count();
        let y = self.output((heads, n, dim), pool.dtype())?;
        let pool = dense(pool)?;
        let ([x_head, _], [y_head, y_row]) = (strides(&pool)?, strides(&y)?);
        let args = [
            Arg::Read(&pool),
            Arg::Write(&y),
            Arg::Read(from),
            x_head,
            y_head,
            y_row,
            Arg::I32(count(n)?),
            Arg::I32(count(dim)?),
        ];
        self.launch(variant, [n.div_ceil(variant.constant("BR")), heads, 1], &args)?;
        Ok(Some(y))
    }

    /// The mean of each run of rows of keys `[Hk, n, d]`: `[runs, Hk * d]` in f32. `None` where no
    /// kernel fits.
    pub fn mean_keys(&self, keys: &Tensor, lengths: &[usize]) -> Result<Option<Tensor>> {
        let (heads, n, dim) = keys.dims3()?;
        let found =
            self.variant("mean_keys", keys.dtype(), |v| v.of_heads(dim).filter(|_| suits(dim)));
        let Some(variant) = found.filter(|_| lengths.iter().sum::<usize>() <= n) else {
            return Ok(None);
        };
        let mut starts = vec![0i32];
        let mut start = 0;
        for length in lengths {
            start += length;
            starts.push(count(start)?);
        }
        let starts = Tensor::from_vec(starts, lengths.len() + 1, keys.device())?;
        let means = self.output((lengths.len(), heads * dim), DType::F32)?;
        let keys = dense(keys)?;
        let [k_head, k_row] = strides(&keys)?;
        let args = [
            Arg::Read(&keys),
            Arg::Write(&means),
            Arg::Read(&starts),
            k_head,
            k_row,
            Arg::I32(count(heads)?),
            Arg::I32(count(dim)?),
        ];
        self.launch(variant, [lengths.len(), heads, 1], &args)?;
        Ok(Some(means))
    }
}
