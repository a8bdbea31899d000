// SPDX-License-Identifier: MPL-2.0
//! Of pictures that were found, the tokens that stand out are read, and the newest pictures whole. What is
//! at a place in most of them says little that one of them would not say: a camera's wall, its street.
//! What stands out are the tokens least like what is usually at their place, so that in the same context
//! there is something of many more pictures.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use super::reread::Found;
use crate::error::Result;
use crate::memory::kv::{index, pick, read};
use crate::memory::unit::{Unit, offset};
use crate::memory::weigh::select::top;

/// Leaves so many tokens of these units, ascending, of which the last `whole` stay as they are; `[n, C]`
/// each, words included. Of what has nothing that stands out nothing is left.
///
/// # Errors
/// What the computation fails with.
pub fn outstanding(found: Found, whole: usize, tokens: usize) -> Result<Found> {
    let lengths: Vec<usize> =
        found.iter().map(|(_, input)| input.dim(0)).collect::<candle_core::Result<_>>()?;
    if lengths.iter().sum::<usize>() <= tokens {
        return Ok(found);
    }
    let older = found.len().saturating_sub(whole);
    let words: usize = found.iter().take(older).map(|(unit, _)| unit.words.tokens()).sum();
    let newest: usize = lengths.iter().skip(older).sum();
    let room = tokens.saturating_sub(newest + words);
    let mut kept = chosen(&found, &lengths, older, room)?;
    let mut left = Vec::with_capacity(found.len());
    for (at, (unit, input)) in found.into_iter().enumerate() {
        if at >= older {
            left.push((unit, input));
            continue;
        }
        let Some(picture) = kept.remove(&at) else { continue };
        let of = input.dim(0)? - unit.words.tokens();
        let rows = index(&unit.words.with(&picture, of), input.device())?;
        let patches = picture.iter().map(|&token| unit.patch(token)).collect();
        left.push((Unit { patches: Some(patches), ..unit }, pick(&input, &rows, 0)?));
    }
    Ok(left)
}

/// Of the first `older` units the `room` tokens of their pictures that stand out most among all.
fn chosen(
    found: &[(Unit, Tensor)],
    lengths: &[usize],
    older: usize,
    room: usize,
) -> Result<BTreeMap<usize, Vec<usize>>> {
    let (mut pictures, mut places, mut from) = (Vec::new(), Vec::new(), Vec::new());
    for (at, ((unit, input), n)) in found.iter().zip(lengths).enumerate() {
        let n = n.saturating_sub(unit.words.tokens());
        if n == 0 {
            continue;
        }
        pictures.push(input.narrow(0, unit.words.front, n)?);
        places.extend((0..n).map(|row| offset(unit.patch(row)) as u32));
        from.extend((0..n).map(|row| (at, row)));
    }
    let Some(first) = pictures.first() else { return Ok(BTreeMap::new()) };
    let (device, channels) = (first.device().clone(), first.dim(1)?);
    let all = Tensor::cat(&pictures, 0)?.to_dtype(DType::F32)?;
    let length = all.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(f64::from(f32::MIN_POSITIVE))?;
    let all = all.broadcast_div(&length)?;
    let patches = places.iter().max().map_or(0, |&last| last as usize + 1);
    let places = Tensor::new(places, &device)?;
    // The direction of the sum is that of the mean.
    let usual = Tensor::zeros((patches, channels), DType::F32, &device)?;
    let usual = usual.index_add(&places, &all, 0)?;
    let length = usual.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(f64::from(f32::MIN_POSITIVE))?;
    let usual = usual.broadcast_div(&length)?.index_select(&places, 0)?;
    let unlike: Vec<f32> = read(&(all * usual)?.sum(1)?)?.iter().map(|alike| -alike).collect();
    let end = from.partition_point(|&(at, _)| at < older);
    let mut kept: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for at in top(unlike.get(..end).unwrap_or_default(), room) {
        if let Some(&(unit, row)) = from.get(at) {
            kept.entry(unit).or_default().push(row);
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::Device;

    use super::*;
    use crate::memory::unit::{Kind, Words};

    /// A picture of three patches with a word in front and one behind: a wall and, at a patch, something
    /// else.
    fn picture(id: u64, other: Option<usize>) -> (Unit, Tensor) {
        let unit = Unit {
            id,
            kind: Kind::Frame,
            segment: id,
            frames: id..id + 1,
            start: id as f64,
            end: id as f64,
            told: id as f64,
            at: 0,
            time: id as f64,
            patches: None,
            words: Words { front: 1, behind: 1 },
            embedding: None,
        };
        let token =
            |at: usize| if Some(at) == other { [0.0, 1.0f32] } else { [1.0, 0.01 * at as f32] };
        let rows = [[9.0, id as f32], token(0), token(1), token(2), [8.0, id as f32]];
        (unit, Tensor::new(&rows, &Device::Cpu).unwrap())
    }

    fn rows(input: &Tensor) -> Vec<Vec<f32>> {
        input.to_vec2().unwrap()
    }

    #[test]
    fn what_is_not_the_wall_is_read_and_the_newest_whole() {
        let found =
            || vec![picture(0, None), picture(1, Some(2)), picture(2, None), picture(3, None)];
        // The newest, the words of the others, and one token.
        let left = outstanding(found(), 1, 5 + 3 * 2 + 1).unwrap();
        let ids: Vec<u64> = left.iter().map(|(unit, _)| unit.id).collect();
        assert_eq!(ids, [1, 3]);
        assert_eq!(left[0].0.patches, Some(Arc::from([2])));
        assert_eq!(rows(&left[0].1), [[9.0, 1.0], [0.0, 1.0], [8.0, 1.0]]);
        assert_eq!((&left[1].0.patches, rows(&left[1].1).len()), (&None, 5));
        // Again, of what has holes already.
        let again = outstanding(left, 1, 5 + 3).unwrap();
        assert_eq!(again[0].0.patches, Some(Arc::from([2])));
        // Where there is room for everything everything is read.
        assert_eq!(outstanding(found(), 1, 20).unwrap().len(), 4);
        let all = outstanding(found(), 0, 19).unwrap();
        let tokens: usize = all.iter().map(|(_, input)| input.dim(0).unwrap()).sum();
        assert_eq!(tokens, 19);
        // Too little for words.
        assert_eq!(outstanding(found(), 1, 6).unwrap().len(), 1);
        assert_eq!(outstanding(Vec::new(), 1, 6).unwrap().len(), 0);
    }
}
