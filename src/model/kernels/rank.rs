// SPDX-License-Identifier: MPL-2.0
//! The best of many scores, without reading the others.

use candle_core::{DType, Result, Tensor};

use super::launch::Arg;
use super::{Kernels, count};

impl Kernels {
    /// Where the `k` best of `scores` `[n]` in f32 are, best first, and of equals the first: the only
    /// numbers that are read. `None` where no kernel fits.
    pub fn best(&self, scores: &Tensor, k: usize) -> Result<Option<Vec<usize>>> {
        let (Some(top), Some(merge)) =
            (self.only("top_k", DType::F32), self.only("top_k_merge", DType::F32))
        else {
            return Ok(None);
        };
        let n = scores.elem_count();
        let k = k.min(n);
        if k == 0 {
            return Ok(Some(Vec::new()));
        }
        // A block must leave out some of what it looks at, or nothing is won by another.
        if 2 * k > top.constant("BN").min(merge.constant("BN")) {
            return Ok(None);
        }
        let scores = scores.contiguous()?;
        let blocks = n.div_ceil(top.constant("BN"));
        let mut keys = self.output(blocks * k, DType::I64)?;
        let sizes = |n: usize| -> Result<[Arg<'static>; 2]> {
            Ok([Arg::I32(count(n)?), Arg::I32(count(k)?)])
        };
        let [all, few] = sizes(n)?;
        self.launch(top, [blocks, 1, 1], &[Arg::Read(&scores), Arg::Write(&keys), all, few])?;
        while keys.elem_count() > k {
            let n = keys.elem_count();
            let blocks = n.div_ceil(merge.constant("BN"));
            let fewer = self.output(blocks * k, DType::I64)?;
            let [all, few] = sizes(n)?;
            let args = [Arg::Read(&keys), Arg::Write(&fewer), all, few];
            self.launch(merge, [blocks, 1, 1], &args)?;
            keys = fewer;
        }
        // The low half of a key is what is left of all ones without the index.
        let index = |key: i64| (!key as u32) as usize;
        Ok(Some(keys.to_vec1::<i64>()?.into_iter().map(index).filter(|&i| i < n).collect()))
    }

    /// Where the `k` best of each row of `scores` `[rows, n]` in f32 are: `[rows, k]` in u32,
    /// ascending. `None` where no kernel fits.
    pub fn chosen(&self, scores: &Tensor, k: usize) -> Result<Option<Tensor>> {
        let (Some(rank), Some(chosen)) =
            (self.only("rank", DType::F32), self.only("chosen", DType::F32))
        else {
            return Ok(None);
        };
        let (rows, n) = scores.dims2()?;
        let k = k.min(n);
        let scores = scores.contiguous()?;
        let ranks = self.output((rows, n), DType::I32)?;
        let blocks = [n.div_ceil(rank.constant("BN")), rows, 1];
        let args = [Arg::Read(&scores), Arg::Write(&ranks), Arg::I32(count(n)?)];
        self.launch(rank, blocks, &args)?;
        // As the rows of a gather are counted; below 2^31 the bits are the same.
        let places = self.output((rows, k), DType::U32)?;
        if k > 0 {
            let sizes = [Arg::I32(count(n)?), Arg::I32(count(k)?)];
            let args = [Arg::Read(&ranks), Arg::Write(&places), sizes[0], sizes[1]];
            self.launch(chosen, [n.div_ceil(chosen.constant("BN")), rows, 1], &args)?;
        }
        Ok(Some(places))
    }
}
