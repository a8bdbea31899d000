// SPDX-License-Identifier: MPL-2.0
//! Of pictures that were found, the tokens that stand out are read, and the newest pictures whole. What is
//! at a place in most of them says little that one of them would not say: a camera's wall, its street. And
//! what was there in the picture before says nothing again: a thing that stays. What stands out are the tokens
//! least like either, so that in the same context there is something of many more pictures.
//!
//! The first of the two is ours; the second, likeness to the picture before around the same place, is what
//! FluxMem drops by (2603.02096, §3.2), here among what was found.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use super::reread::Found;
use crate::error::Result;
use crate::memory::kv::{index, pick, read};
use crate::memory::unit::{Unit, offset};
use crate::memory::weigh::select::top;

/// Leaves so many tokens of these units, ascending, of which the last `whole` stay as they are; `[n, C]`
/// each, words included, in a grid of so many columns. Of what has nothing that stands out nothing is left.
///
/// # Errors
/// What the computation fails with.
pub fn outstanding(found: Found, whole: usize, tokens: usize, columns: u32) -> Result<Found> {
    let lengths: Vec<usize> =
        found.iter().map(|(_, input)| input.dim(0)).collect::<candle_core::Result<_>>()?;
    if lengths.iter().sum::<usize>() <= tokens {
        return Ok(found);
    }
    let older = found.len().saturating_sub(whole);
    let words: usize = found.iter().take(older).map(|(unit, _)| unit.words.tokens()).sum();
    let newest: usize = lengths.iter().skip(older).sum();
    let room = tokens.saturating_sub(newest + words);
    let mut kept = chosen(&found, &lengths, older, room, columns)?;
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

/// Of the first `older` units the `room` tokens of their pictures that stand out most, from all and from the
/// picture before.
fn chosen(
    found: &[(Unit, Tensor)],
    lengths: &[usize],
    older: usize,
    room: usize,
    columns: u32,
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
    let before = before(&all, &from, &places, columns)?;
    let places = Tensor::new(places, &device)?;
    // The direction of the sum is that of the mean.
    let usual = Tensor::zeros((patches, channels), DType::F32, &device)?;
    let usual = usual.index_add(&places, &all, 0)?;
    let length = usual.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(f64::from(f32::MIN_POSITIVE))?;
    let usual = usual.broadcast_div(&length)?.index_select(&places, 0)?;
    let usual = read(&(&all * usual)?.sum(1)?)?;
    let unlike: Vec<f32> =
        usual.iter().zip(before).map(|(usual, before)| 1.0 - usual.max(before)).collect();
    let end = from.partition_point(|&(at, _)| at < older);
    let mut kept: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for at in top(unlike.get(..end).unwrap_or_default(), room) {
        if let Some(&(unit, row)) = from.get(at) {
            kept.entry(unit).or_default().push(row);
        }
    }
    Ok(kept)
}

/// How alike each token of `all`, `[N, C]` of length one, is to the one most like it around its place in the
/// picture before; 0 where there is none. `from`: of which picture each is, ascending.
fn before(all: &Tensor, from: &[(usize, usize)], places: &[u32], columns: u32) -> Result<Vec<f32>> {
    /// Below any likeness: there is nothing to be like.
    const NOTHING: f32 = -2.0;
    let columns = i64::from(columns.max(1));
    let cells = places.iter().max().map_or(0, |&last| last as usize + 1);
    let around = (-1..=1).flat_map(|y| (-1..=1).map(move |x| (y, x)));
    let mut most = Tensor::full(NOTHING, places.len(), all.device())?;
    for (y, x) in around {
        let (mut last, mut here) = (vec![None; cells], vec![None; cells]);
        let (mut rows, mut known) = (Vec::new(), Vec::new());
        let mut picture = None;
        for (row, (&(of, _), &place)) in (0u32..).zip(from.iter().zip(places)) {
            if picture.replace(of) != Some(of) {
                std::mem::swap(&mut last, &mut here);
                here.fill(None);
            }
            if let Some(cell) = here.get_mut(place as usize) {
                *cell = Some(row);
            }
            let place = i64::from(place);
            let (down, right) = (place / columns + y, place % columns + x);
            let near = usize::try_from(down * columns + right).ok();
            let near = near.filter(|_| (0..columns).contains(&right));
            let near = near.and_then(|near| last.get(near).copied().flatten());
            rows.push(near.unwrap_or(row));
            known.push(if near.is_some() { 0.0 } else { NOTHING });
        }
        let near = all.index_select(&Tensor::new(rows, all.device())?, 0)?;
        let alike = ((all * near)?.sum(1)? + Tensor::new(known, all.device())?)?;
        most = most.maximum(&alike)?;
    }
    let known = |alike: f32| if alike < -1.5 { 0.0 } else { alike };
    Ok(read(&most)?.into_iter().map(known).collect())
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
    fn what_stays_is_read_once_and_what_moves_on_a_patch_is_no_news() {
        // Something comes, stays, moves on by a patch, and is gone: in the first it is news, and in none behind.
        let other = [None, Some(0), Some(0), Some(1), None, None];
        let found = (0..).zip(other).map(|(id, other)| picture(id, other)).collect();
        let left = outstanding(found, 0, 6 * 2 + 1, 3).unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].0.id, &left[0].0.patches), (1, &Some(Arc::from([0]))));
        // Two columns apart, it has gone elsewhere.
        let found =
            vec![picture(0, Some(0)), picture(1, Some(2)), picture(2, None), picture(3, None)];
        let ids = |left: Found| left.iter().map(|(unit, _)| unit.id).collect::<Vec<_>>();
        assert_eq!(ids(outstanding(found, 0, 4 * 2 + 2, 3).unwrap()), [0, 1]);
    }

    #[test]
    fn what_is_not_the_wall_is_read_and_the_newest_whole() {
        let found =
            || vec![picture(0, None), picture(1, Some(2)), picture(2, None), picture(3, None)];
        // The newest, the words of the others, and one token.
        let left = outstanding(found(), 1, 5 + 3 * 2 + 1, 3).unwrap();
        let ids: Vec<u64> = left.iter().map(|(unit, _)| unit.id).collect();
        assert_eq!(ids, [1, 3]);
        assert_eq!(left[0].0.patches, Some(Arc::from([2])));
        assert_eq!(rows(&left[0].1), [[9.0, 1.0], [0.0, 1.0], [8.0, 1.0]]);
        assert_eq!((&left[1].0.patches, rows(&left[1].1).len()), (&None, 5));
        // Again, of what has holes already.
        let again = outstanding(left, 1, 5 + 3, 3).unwrap();
        assert_eq!(again[0].0.patches, Some(Arc::from([2])));
        // Where there is room for everything everything is read.
        assert_eq!(outstanding(found(), 1, 20, 3).unwrap().len(), 4);
        let all = outstanding(found(), 0, 19, 3).unwrap();
        let tokens: usize = all.iter().map(|(_, input)| input.dim(0).unwrap()).sum();
        assert_eq!(tokens, 19);
        // Too little for words.
        assert_eq!(outstanding(found(), 1, 6, 3).unwrap().len(), 1);
        assert_eq!(outstanding(Vec::new(), 1, 6, 3).unwrap().len(), 0);
    }
}
