// SPDX-License-Identifier: MPL-2.0
//! Rows of several tensors one behind the other, on the CPU: each is read once and written once, turned
//! on the way if they are keys, by all threads.

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor};
use rayon::prelude::*;

/// Cosines and sines `[n, d / 2]` of the rows' places, contiguous.
#[derive(Clone, Copy)]
pub struct Turns<'a> {
    pub cos: &'a Tensor,
    pub sin: &'a Tensor,
}

/// Some rows of one head on their way.
struct Piece<'a> {
    from: &'a [f32],
    /// Elements between two rows there.
    stride: usize,
    /// Whose place is whose: the first row's number.
    first: usize,
    to: &'a mut [f32],
}

/// `[H, n, d]` of parts `[H, n_i, d]`, with every row turned by its place if there are `turns`. `None` where
/// the parts are not f32 on the CPU with dense rows.
///
/// # Errors
/// What making the tensor fails with.
pub fn joined(parts: &[&Tensor], turns: Option<Turns>) -> Result<Option<Tensor>> {
    let Some(first) = parts.first() else { return Ok(None) };
    let Ok((heads, _, dim)) = first.dims3() else { return Ok(None) };
    let fits = |part: &&Tensor| {
        let shape = part.dims3().is_ok_and(|(h, _, d)| (h, d) == (heads, dim));
        shape && part.dtype() == DType::F32 && part.device().is_cpu() && part.stride()[2] == 1
    };
    if dim == 0 || !parts.iter().all(fits) {
        return Ok(None);
    }
    let lengths: Vec<usize> = parts.iter().map(|part| part.dims()[1]).collect();
    let rows: usize = lengths.iter().sum();
    let held: Vec<_> = parts.iter().map(|part| part.storage_and_layout()).collect();
    let mut all = vec![0f32; heads * rows * dim];
    let mut pieces = Vec::with_capacity(heads * parts.len());
    let mut rest = all.as_mut_slice();
    for head in 0..heads {
        let mut first = 0;
        for ((storage, layout), &length) in held.iter().zip(&lengths) {
            let (to, behind) = rest.split_at_mut(length * dim);
            rest = behind;
            if length == 0 {
                continue;
            }
            let Storage::Cpu(CpuStorage::F32(values)) = &**storage else { return Ok(None) };
            let start = layout.start_offset() + head * layout.stride()[0];
            let stride = layout.stride()[1];
            let from = &values[start..start + (length - 1) * stride + dim];
            pieces.push(Piece { from, stride, first, to });
            first += length;
        }
    }
    match turns {
        None => pieces.into_par_iter().for_each(|piece| piece.copy(dim)),
        Some(Turns { cos, sin }) => {
            let ((cos, of_cos), (sin, of_sin)) =
                (cos.storage_and_layout(), sin.storage_and_layout());
            let (Some(cos), Some(sin)) = (floats(&cos, of_cos), floats(&sin, of_sin)) else {
                return Ok(None);
            };
            if [cos.len(), sin.len()] != [rows * (dim / 2); 2] {
                return Ok(None);
            }
            pieces.into_par_iter().for_each(|piece| piece.turn(dim, cos, sin));
        }
    }
    Tensor::from_vec(all, (heads, rows, dim), first.device()).map(Some)
}

/// The numbers of a contiguous tensor.
fn floats<'a>(storage: &'a Storage, layout: &Layout) -> Option<&'a [f32]> {
    let (start, end) = layout.contiguous_offsets()?;
    match storage {
        Storage::Cpu(CpuStorage::F32(values)) => values.get(start..end),
        _ => None,
    }
}

impl Piece<'_> {
    fn copy(self, dim: usize) {
        if self.stride == dim {
            return self.to.copy_from_slice(self.from);
        }
        for (to, from) in self.to.chunks_exact_mut(dim).zip(self.from.chunks(self.stride)) {
            to.copy_from_slice(&from[..dim]);
        }
    }

    fn turn(self, dim: usize, cos: &[f32], sin: &[f32]) {
        let half = dim / 2;
        let tables =
            cos[self.first * half..].chunks(half).zip(sin[self.first * half..].chunks(half));
        let rows = self.to.chunks_exact_mut(dim).zip(self.from.chunks(self.stride));
        for ((to, from), (cos, sin)) in rows.zip(tables) {
            let (low, high) = from[..dim].split_at(half);
            let (to_low, to_high) = to.split_at_mut(half);
            // As `candle_nn::rotary_emb::rope` has it, to the last bit.
            for ((((to, &a), &b), &cos), &sin) in
                to_low.iter_mut().zip(low).zip(high).zip(cos).zip(sin)
            {
                *to = a * cos - b * sin;
            }
            for ((((to, &a), &b), &cos), &sin) in
                to_high.iter_mut().zip(low).zip(high).zip(cos).zip(sin)
            {
                *to = a * sin + b * cos;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn parts_lie_one_behind_the_other_whatever_they_are_views_of() {
        let random =
            |shape: (usize, usize, usize)| Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
        let (whole, wide) = (random((3, 9, 8)), random((3, 4, 16)));
        let parts = [
            whole.narrow(1, 2, 5).unwrap(),
            random((3, 2, 8)),
            wide.narrow(2, 8, 8).unwrap(),
            whole.narrow(1, 0, 0).unwrap(),
            random((4, 3, 8)).transpose(0, 1).unwrap(),
        ];
        let parts: Vec<&Tensor> = parts.iter().collect();
        let expected = Tensor::cat(&parts, 1).unwrap();
        let values = |t: &Tensor| t.to_vec3::<f32>().unwrap();
        let found = joined(&parts, None).unwrap().unwrap();
        assert_eq!(values(&found), values(&expected));

        let n = expected.dims()[1];
        let (cos, sin) =
            (random((1, n, 4)).squeeze(0).unwrap(), random((1, n, 4)).squeeze(0).unwrap());
        let found = joined(&parts, Some(Turns { cos: &cos, sin: &sin })).unwrap().unwrap();
        let x = expected.contiguous().unwrap().unsqueeze(0).unwrap();
        let expected = candle_nn::rotary_emb::rope(&x, &cos, &sin).unwrap().squeeze(0).unwrap();
        assert_eq!(values(&found), values(&expected));
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let x = Tensor::zeros((2, 3, 4), DType::F32, &Device::Cpu).unwrap();
        let half = x.to_dtype(DType::F16).unwrap();
        let across =
            Tensor::zeros((2, 4, 3), DType::F32, &Device::Cpu).unwrap().transpose(1, 2).unwrap();
        let other = Tensor::zeros((3, 3, 4), DType::F32, &Device::Cpu).unwrap();
        for odd in [&half, &across, &other] {
            assert!(joined(&[&x, odd], None).unwrap().is_none());
        }
        assert!(joined(&[], None).unwrap().is_none());
        let cos = Tensor::zeros((5, 2), DType::F32, &Device::Cpu).unwrap();
        let turns = Turns { cos: &cos, sin: &cos };
        assert!(joined(&[&x], Some(turns)).unwrap().is_none(), "two places too many");
    }
}
