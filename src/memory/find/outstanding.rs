// SPDX-License-Identifier: MPL-2.0
//! Of pictures that were found, the tokens that stand out are read, and the newest pictures whole. What is
//! at a place in most of them says little that one of them would not say: a camera's wall, its street.
//! What stands out are the tokens least like what is usually at their place, so that in the same context
//! there is something of many more pictures.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use crate::error::Result;
use crate::memory::kv::read;
use crate::memory::unit::{Unit, offset};
use crate::memory::weigh::select::top;

/// Leaves so many tokens of these units, ascending, of which the last `whole` stay as they are; `[n, C]`
/// each, words included. Of what has nothing that stands out nothing is left.
///
/// # Errors
/// What the computation fails with.
pub fn outstanding(
    found: Vec<(Unit, Tensor)>,
    whole: usize,
    tokens: usize,
) -> Result<Vec<(Unit, Tensor)>> {
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
        let front = unit.words.front;
        let behind = lengths.get(at).copied().unwrap_or(0) - unit.words.behind;
        let rows: Vec<u32> = (0..front)
            .chain(picture.iter().map(|row| front + row))
            .chain(behind..behind + unit.words.behind)
            .map(|row| row as u32)
            .collect();
        let rows = Tensor::new(rows, input.device())?;
        let patches = picture.iter().map(|&row| patch(&unit, row)).collect();
        left.push((Unit { patches: Some(patches), ..unit }, input.index_select(&rows, 0)?));
    }
    Ok(left)
}

/// Which patch a token of a unit's picture is.
fn patch(unit: &Unit, row: usize) -> u32 {
    let own = unit.patches.as_ref().and_then(|patches| patches.get(row).copied());
    own.unwrap_or(row as u32)
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
        places.extend((0..n).map(|row| offset(patch(unit, row)) as u32));
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
