// SPDX-License-Identifier: MPL-2.0
//! Keys and values of a run of tokens, and what is made of them without asking what they mean:
//! joined, gathered, turned, averaged.

use candle_core::{DType, Device, Shape, Tensor};

use crate::error::Result;
use crate::model::kernels;
use crate::model::rope::{Positions, Rope};
use crate::model::side_by_side;

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
            Ok(Some(Kv { k: concat(&keys)?, v: concat(&values)? }))
        }
    }
}

/// Tensors `[H, n_i, d]` one behind the other, `[H, n, d]`.
///
/// # Errors
/// What the computation fails with.
pub fn concat(parts: &[&Tensor]) -> Result<Tensor> {
    match side_by_side::joined(parts, None)? {
        Some(all) => Ok(all),
        None => Ok(Tensor::cat(parts, 1)?),
    }
}

/// Places in a list as a tensor `[n]`, to [`pick`] by.
///
/// # Errors
/// What the computation fails with.
pub fn index(places: &[usize], device: &Device) -> Result<Tensor> {
    let places: Vec<u32> = places.iter().map(|&i| i as u32).collect();
    let n = places.len();
    Ok(Tensor::from_vec(places, n, if n > 0 { device } else { &Device::Cpu })?)
}

/// Nothing, in that shape. It lies on the host: other devices have no room for nothing.
///
/// # Errors
/// What the computation fails with.
pub fn nothing(shape: impl Into<Shape>) -> Result<Tensor> {
    Ok(Tensor::zeros(shape, DType::F32, &Device::Cpu)?)
}

/// What lies along an axis at these places, in their order.
///
/// # Errors
/// What the computation fails with.
pub fn pick(tensor: &Tensor, places: &Tensor, axis: usize) -> Result<Tensor> {
    if places.elem_count() == 0 {
        // No kernel is started for nothing, and no room made.
        let mut shape = tensor.dims().to_vec();
        shape.iter_mut().skip(axis).take(1).for_each(|len| *len = 0);
        return Ok(tensor.contiguous()?.flatten_all()?.narrow(0, 0, 0)?.reshape(shape)?);
    }
    Ok(tensor.contiguous()?.index_select(places, axis)?)
}

/// Rows of keys and values by index: one list for all heads, or one per KV head, all of one length.
///
/// # Errors
/// What the computation fails with.
pub fn gather(kv: &Kv, lists: &[Vec<usize>]) -> Result<Kv> {
    let (heads, n, dim) = kv.k.dims3()?;
    if let [list] = lists {
        return rows(kv, list);
    }
    // The heads behind one another, so that it is one gather for all.
    let list = lists.iter().enumerate();
    let list = list.flat_map(|(head, list)| list.iter().map(move |i| head * n + i));
    let flat = |tensor: &Tensor| tensor.contiguous()?.reshape((1, heads * n, dim));
    let flat = Kv { k: flat(&kv.k)?, v: flat(&kv.v)? };
    let Kv { k, v } = rows(&flat, &list.collect::<Vec<_>>())?;
    let kept = lists.first().map_or(0, Vec::len);
    Ok(Kv { k: k.reshape((heads, kept, dim))?, v: v.reshape((heads, kept, dim))? })
}

/// Rows of keys and values by index, in their order, the same of all heads: one gather each.
///
/// # Errors
/// What the computation fails with.
pub fn rows(kv: &Kv, list: &[usize]) -> Result<Kv> {
    let (k, v) = (kv.k.contiguous()?, kv.v.contiguous()?);
    let (device, dim) = (k.device(), k.dim(2)?);
    let alike = k.dims() == v.dims();
    if let Some(kernels) = kernels::on(device).filter(|_| !list.is_empty() && alike) {
        let from: Vec<i64> = list.iter().map(|&row| (row * dim) as i64).collect();
        let from = Tensor::from_vec(from, list.len(), device)?;
        if let (Some(k), Some(v)) = (kernels.gather(&k, &from)?, kernels.gather(&v, &from)?) {
            return Ok(Kv { k, v });
        }
    }
    let rows = index(list, device)?;
    Ok(Kv { k: pick(&k, &rows, 1)?, v: pick(&v, &rows, 1)? })
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

/// Mean keys `[units, Hk * d]`, f32, of units of these lengths that lie one behind the other in
/// un-rotated keys `[Hk, n, d]`.
///
/// # Errors
/// What the computation fails with.
pub fn representatives(keys: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    let (heads, _, dim) = keys.dims3()?;
    if let Some(kernels) = kernels::on(keys.device()).filter(|_| !lengths.is_empty())
        && let Some(means) = kernels.mean_keys(keys, lengths)?
    {
        return Ok(means);
    }
    let mut start = 0;
    let mut runs = Vec::new();
    for run in lengths.chunk_by(|a, b| a == b) {
        let (units, n) = (run.len(), run.first().copied().unwrap_or(0));
        let own = keys.narrow(1, start, units * n)?.to_dtype(DType::F32)?.contiguous()?;
        let means = own.reshape((heads, units, n, dim))?.mean(2)?;
        runs.push(means.transpose(0, 1)?.reshape((units, heads * dim))?);
        start += units * n;
    }
    match runs.is_empty() {
        true => nothing((0, heads * dim)),
        false => Ok(Tensor::cat(&runs, 0)?),
    }
}

/// A tensor's numbers on the host, as f32.
///
/// # Errors
/// What the computation fails with.
pub fn read(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(alone(&tensor.to_dtype(DType::F32)?)?.flatten_all()?.to_vec1()?)
}

/// The same in storage of its own where it is to be read from a device: reading takes all of a storage,
/// whatever part of it is wanted.
fn alone(tensor: &Tensor) -> candle_core::Result<Tensor> {
    if tensor.device().is_cpu() { Ok(tensor.clone()) } else { tensor.force_contiguous() }
}

/// The numbers of several tensors of one device on the host, in one read.
///
/// # Errors
/// What the computation fails with.
pub fn read_all(tensors: &[Tensor]) -> Result<Vec<Vec<f32>>> {
    let flat = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.flatten_all();
    let filled = tensors.iter().filter(|tensor| tensor.elem_count() > 0);
    let filled: Vec<Tensor> = filled.map(flat).collect::<candle_core::Result<_>>()?;
    let all = match filled.is_empty() {
        true => Vec::new(),
        false => alone(&Tensor::cat(&filled, 0)?)?.to_vec1()?,
    };
    let mut rest = all.as_slice();
    let mut parts = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let (part, behind) = rest.split_at_checked(tensor.elem_count()).unwrap_or((rest, &[]));
        parts.push(part.to_vec());
        rest = behind;
    }
    Ok(parts)
}

/// The mean over the heads of keys `[Hk, n, d]`, as `[n, d]` in f32.
pub fn mean_heads(keys: &Tensor) -> Result<Tensor> {
    Ok(keys.to_dtype(DType::F32)?.mean(0)?)
}

/// Keys `[Hk, n, d]` token by token, heads side by side.
pub fn by_token(keys: &Tensor) -> Result<Vec<f32>> {
    let keys = keys.to_dtype(DType::F32)?.transpose(0, 1)?.contiguous()?;
    Ok(keys.flatten_all()?.to_vec1()?)
}

/// How alike the keys of each token are in two lists `[Hk, n, d]`, all heads together: cosines `[n]`, 0
/// where a key has no direction.
///
/// # Errors
/// What the computation fails with.
pub fn token_cosines(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, b) = (a.to_dtype(DType::F32)?, b.to_dtype(DType::F32)?);
    let sum = |products: Tensor| products.sum(2)?.sum(0);
    // So that what is equal is exactly 1, and no more alike than what else is equal.
    let lengths = (sum(a.sqr()?)? * sum(b.sqr()?)?)?.sqrt()?;
    Ok((sum((&a * &b)?)? / lengths.maximum(f64::from(f32::MIN_POSITIVE))?)?)
}

/// Indices `[k]` of the `k` highest of scores `[n]`, ascending; of equal scores the earlier one wins.
///
/// # Errors
/// What the computation fails with.
pub fn best(scores: &Tensor, k: usize) -> Result<Tensor> {
    if let Some(kernels) = kernels::on(scores.device())
        && let Some(best) = kernels.chosen(&scores.unsqueeze(0)?, k)?
    {
        return Ok(best.squeeze(0)?);
    }
    let order = scores.contiguous()?.arg_sort_last_dim(false)?;
    let best = order.narrow(0, 0, k.min(scores.dim(0)?))?.contiguous()?;
    Ok(best.sort_last_dim(true)?.0)
}

/// One token for each of the units of these lengths, both `[Hk, units, d]`: the mean of their keys
/// before RoPE, and of their values.
///
/// # Errors
/// What the computation fails with.
pub fn gists(kv: &Kv, lengths: &[usize]) -> Result<Kv> {
    let mean = |x: &Tensor| -> Result<Tensor> {
        let (heads, _, dim) = x.dims3()?;
        let means = representatives(x, lengths)?.reshape((lengths.len(), heads, dim))?;
        Ok(means.transpose(0, 1)?.contiguous()?.to_dtype(x.dtype())?)
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
        let kv = Kv { k: random_tensor(1, (2, 5, 4)), v: random_tensor(2, (2, 5, 4)) };
        for lengths in [&[3, 2][..], &[3, 1, 1], &[1, 2, 2]] {
            let gists = gists(&kv, lengths).unwrap();
            let shape = [2, lengths.len(), 4];
            assert_eq!((gists.k.dims(), gists.v.dims()), (&shape[..], &shape[..]));
            let all = kv.v.to_vec3::<f32>().unwrap();
            let mean = all[1][..lengths[0]].iter().map(|row| row[2]).sum::<f32>();
            let found = gists.v.to_vec3::<f32>().unwrap()[1][0][2];
            assert!((found - mean / lengths[0] as f32).abs() < 1e-6);
        }
    }

    #[test]
    fn mean_keys_are_those_of_each_unit_alone_whatever_their_lengths() {
        let keys = random_tensor(3, (2, 12, 4));
        for lengths in [&[4, 4, 4][..], &[3, 4, 4, 1], &[12], &[]] {
            let found = representatives(&keys, lengths).unwrap();
            assert_eq!(found.dims(), [lengths.len(), 8]);
            let mut start = 0;
            for (unit, &n) in lengths.iter().enumerate() {
                let alone = keys.narrow(1, start, n).unwrap().mean(1).unwrap();
                assert_eq!(read(&found.get(unit).unwrap()).unwrap(), read(&alone).unwrap());
                start += n;
            }
        }
    }

    #[test]
    fn the_best_are_in_order_and_of_equals_the_first_comes_first() {
        let best = |scores: &[f32], k| -> Vec<u32> {
            best(&Tensor::new(scores, &Device::Cpu).unwrap(), k).unwrap().to_vec1().unwrap()
        };
        assert_eq!(best(&[1.0, 3.0, 2.0, 3.0], 3), [1, 2, 3]);
        assert_eq!(best(&[5.0, 5.0, 5.0], 2), [0, 1]);
        assert_eq!(best(&[1.0, -2.0], 5), [0, 1]);
    }

    #[test]
    fn tokens_are_compared_over_all_heads() {
        let (a, b) = (random_tensor(1, (2, 3, 4)), random_tensor(2, (2, 3, 4)));
        let b =
            Tensor::cat(&[&b.narrow(1, 0, 2).unwrap(), &a.narrow(1, 2, 1).unwrap()], 1).unwrap();
        let found = read(&token_cosines(&a, &b).unwrap()).unwrap();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let (a, b) = (by_token(&a).unwrap(), by_token(&b).unwrap());
        for ((a, b), found) in a.chunks(8).zip(b.chunks(8)).zip(&found) {
            assert!((dot(a, b) / (dot(a, a) * dot(b, b)).sqrt() - found).abs() < 1e-6);
        }
        assert_eq!(found[2], 1.0);
        let none = Tensor::zeros((2, 3, 4), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(read(&token_cosines(&none, &none).unwrap()).unwrap(), [0.0; 3]);
    }

    #[test]
    fn what_is_read_together_is_what_is_read_alone() {
        let tensors = [random_tensor(1, (2, 3)), random_tensor(2, (0, 4)), random_tensor(3, 5)];
        let alone: Vec<_> = tensors.iter().map(|tensor| read(tensor).unwrap()).collect();
        assert_eq!(read_all(&tensors).unwrap(), alone);
        assert!(read_all(&[]).unwrap().is_empty());
    }
}
