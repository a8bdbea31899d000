// SPDX-License-Identifier: MPL-2.0
//! Keys and values of a run of tokens, and what is made of them without asking what they mean:
//! joined, gathered, turned, averaged.

use candle_core::{DType, Device, Tensor};

use crate::error::Result;
use crate::model::rope::{Positions, Rope};

/// Keys and values of a run of tokens of one layer, both `[Hk, n, d]`.
#[derive(Clone, Debug)]
pub struct Kv {
    pub k: Tensor,
    pub v: Tensor,
}

impl Kv {
    pub fn tokens(&self) -> Result<usize> {
        Ok(self.k.dim(1)?)
    }

    /// Tokens `start..start + len`, in the same storage.
    pub fn part(&self, start: usize, len: usize) -> Result<Self> {
        Ok(Self { k: self.k.narrow(1, start, len)?, v: self.v.narrow(1, start, len)? })
    }

    /// The same in storage of its own, so that dropping what it was a part of frees that.
    pub fn detached(&self) -> Result<Self> {
        Ok(Self { k: self.k.force_contiguous()?, v: self.v.force_contiguous()? })
    }

    /// What two tensors take besides their values: shapes, strides, locks, counts.
    pub const OVERHEAD: u64 = 2 * 264;

    /// Bytes in memory, values and all.
    pub fn footprint(&self) -> u64 {
        self.bytes() + Self::OVERHEAD
    }

    /// Bytes of the values.
    pub fn bytes(&self) -> u64 {
        [&self.k, &self.v].iter().map(|t| (t.elem_count() * t.dtype().size_in_bytes()) as u64).sum()
    }
}

/// Keys and values one behind the other; `None` of nothing.
pub fn joined(parts: &[&Kv]) -> Result<Option<Kv>> {
    match parts {
        [] => Ok(None),
        [one] => Ok(Some((*one).clone())),
        _ => {
            let keys: Vec<&Tensor> = parts.iter().map(|kv| &kv.k).collect();
            let values: Vec<&Tensor> = parts.iter().map(|kv| &kv.v).collect();
            Ok(Some(Kv { k: Tensor::cat(&keys, 1)?, v: Tensor::cat(&values, 1)? }))
        }
    }
}

/// Rows of keys and values by index: one list for all heads, or one per KV head.
pub fn gather(kv: &Kv, lists: &[Vec<usize>]) -> Result<Kv> {
    let pick = |tensor: &Tensor, list: &[usize]| -> Result<Tensor> {
        let index: Vec<u32> = list.iter().map(|&i| i as u32).collect();
        let index = Tensor::from_vec(index, list.len(), &Device::Cpu)?;
        Ok(tensor.contiguous()?.index_select(&index.to_device(tensor.device())?, 1)?)
    };
    let each = |tensor: &Tensor| -> Result<Tensor> {
        match lists {
            [list] => pick(tensor, list),
            _ => {
                let heads = lists.iter().enumerate();
                let heads: Vec<Tensor> = heads
                    .map(|(head, list)| pick(&tensor.narrow(0, head, 1)?, list))
                    .collect::<Result<_>>()?;
                Ok(Tensor::cat(&heads, 0)?)
            }
        }
    };
    Ok(Kv { k: each(&kv.k)?, v: each(&kv.v)? })
}

/// Rotates keys whose heads may stand at different places.
pub fn rotate(rope: &Rope, keys: &Tensor, positions: &[Positions]) -> Result<Tensor> {
    match positions {
        [one] => rope.rotate(keys, one),
        _ => {
            let heads = positions.iter().enumerate();
            let heads: Vec<Tensor> = heads
                .map(|(head, at)| rope.rotate(&keys.narrow(0, head, 1)?, at))
                .collect::<Result<_>>()?;
            Ok(Tensor::cat(&heads, 0)?)
        }
    }
}

/// Mean key of a unit, `[Hk * d]`, from its un-rotated keys `[Hk, n, d]`.
pub fn representative(keys: &Tensor) -> Result<Vec<f32>> {
    Ok(keys.to_dtype(DType::F32)?.mean(1)?.flatten_all()?.to_vec1()?)
}

/// The mean over the heads of keys `[Hk, n, d]`, as `[n * d]`.
pub fn mean_heads(keys: &Tensor) -> Result<Vec<f32>> {
    Ok(keys.to_dtype(DType::F32)?.mean(0)?.flatten_all()?.to_vec1()?)
}

/// Keys `[Hk, n, d]` token by token, heads side by side.
pub fn by_token(keys: &Tensor) -> Result<Vec<f32>> {
    let keys = keys.to_dtype(DType::F32)?.transpose(0, 1)?.contiguous()?;
    Ok(keys.flatten_all()?.to_vec1()?)
}

/// One token for many, both `[Hk, 1, d]`: the mean of their keys before RoPE, and of their values.
pub fn gist(kv: &Kv) -> Result<Kv> {
    let mean = |x: &Tensor| -> Result<Tensor> {
        Ok(x.to_dtype(DType::F32)?.mean_keepdim(1)?.to_dtype(x.dtype())?)
    };
    Ok(Kv { k: mean(&kv.k)?, v: mean(&kv.v)? })
}

/// A unit's input `[M, C]` as the store holds things: half of its channels each, `[1, M, C / 2]`.
pub fn filed(input: &Tensor) -> Result<Kv> {
    let (_, channels) = input.dims2()?;
    let half = channels / 2;
    let part = |start, len| input.narrow(1, start, len)?.unsqueeze(0);
    Ok(Kv { k: part(0, half)?, v: part(half, channels - half)? })
}

/// The input `[M, C]` again.
pub fn unfiled(kv: &Kv) -> Result<Tensor> {
    Ok(Tensor::cat(&[&kv.k, &kv.v], 2)?.squeeze(0)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::testing::random_tensor;

    #[test]
    fn a_detached_part_does_not_hold_on_to_the_whole() {
        let whole = Kv { k: random_tensor(1, (2, 10, 8)), v: random_tensor(2, (2, 10, 8)) };
        let part = whole.part(2, 3).unwrap().detached().unwrap();
        let values = |t: &Tensor| t.to_vec3::<f32>().unwrap();
        assert_eq!(values(&part.k), values(&whole.k.narrow(1, 2, 3).unwrap()));
        assert_eq!(part.k.layout().start_offset(), 0);
        assert_eq!(part.bytes(), 2 * 2 * 3 * 8 * 4);
    }

    #[test]
    fn an_input_comes_back_from_the_store_as_it_was() {
        let input = random_tensor(1, (3, 8));
        let kv = filed(&input).unwrap();
        assert_eq!((kv.k.dims(), kv.v.dims()), (&[1, 3, 4][..], &[1, 3, 4][..]));
        let values = |t: &Tensor| t.to_vec2::<f32>().unwrap();
        assert_eq!(values(&unfiled(&kv).unwrap()), values(&input));
    }

    #[test]
    fn a_gist_is_one_token_with_the_mean_of_all() {
        let kv = Kv { k: random_tensor(1, (2, 3, 4)), v: random_tensor(2, (2, 3, 4)) };
        let gist = gist(&kv).unwrap();
        assert_eq!((gist.k.dims(), gist.v.dims()), (&[2, 1, 4][..], &[2, 1, 4][..]));
        let all = kv.v.to_vec3::<f32>().unwrap();
        let mean = (all[1][0][2] + all[1][1][2] + all[1][2][2]) / 3.0;
        assert!((gist.v.to_vec3::<f32>().unwrap()[1][0][2] - mean).abs() < 1e-6);
    }
}
