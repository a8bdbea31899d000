// SPDX-License-Identifier: MPL-2.0
//! Redundancy that goes before the language model sees it: alike frames merged (StreamMem §4.1),
//! alike patches dropped (CacheFlow §4.4), frames that are no peak of change dropped (ReTaKe's
//! DPSelect, §4.5). All three look at the cosines of co-located tokens of neighbouring frames.

use candle_core::Tensor;

use super::frames::FrameTokens;
use crate::error::Result;
use crate::memory::kv::{nothing, read, read_all, token_cosines};
use crate::memory::weigh::score::row_cosines;
use crate::memory::weigh::select::top;

/// Cosines of co-located tokens of two frames of one size, else none. `on_device`: they are computed
/// where the tokens are.
pub fn cosines(a: &Tensor, b: &Tensor, on_device: bool) -> Result<Vec<f32>> {
    match on_device {
        _ if a.dims() != b.dims() => Ok(Vec::new()),
        true => read(&cosines_there(a, b)?),
        false => Ok(row_cosines(&read(a)?, &read(b)?, a.dim(1)?.max(1))),
    }
}

/// The same as a tensor `[n]`.
pub fn cosines_there(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match a.dims() == b.dims() {
        true => token_cosines(&a.unsqueeze(0)?, &b.unsqueeze(0)?),
        false => nothing(0),
    }
}

/// Of tokens `[M, C]` the first so many numbers each; `None`: all.
pub fn first_of(tokens: &Tensor, width: Option<usize>) -> Result<Tensor> {
    Ok(match width {
        Some(width) if width < tokens.dim(1)? => tokens.narrow(1, 0, width)?.contiguous()?,
        _ => tokens.clone(),
    })
}

fn mean(x: &[f32]) -> f32 {
    x.iter().sum::<f32>() / x.len().max(1) as f32
}

/// Merges runs of alike neighbours into their mean.
pub fn merge_alike(
    frames: Vec<FrameTokens>,
    alike: f64,
    compared: Option<usize>,
    on_device: bool,
) -> Result<Vec<FrameTokens>> {
    let mut merged: Vec<(FrameTokens, usize)> = Vec::with_capacity(frames.len());
    for frame in frames {
        if let Some((open, count)) = merged.last_mut() {
            let (a, b) = (first_of(&open.tokens, compared)?, first_of(&frame.tokens, compared)?);
            let cosines = cosines(&a, &b, on_device)?;
            if !cosines.is_empty() && f64::from(mean(&cosines)) > alike {
                let n = *count as f64;
                open.tokens = (((&open.tokens * n)? + &frame.tokens)? / (n + 1.0))?;
                open.frames.end = frame.frames.end;
                open.end = frame.end;
                open.told = (open.start + open.end) / 2.0;
                *count += 1;
                continue;
            }
        }
        merged.push((frame, 1));
    }
    Ok(merged.into_iter().map(|(frame, _)| frame).collect())
}

/// The frame without the patches that are as they were in the whole frame before it, by their
/// [`cosines`].
pub fn drop_alike(frame: FrameTokens, cosines: &[f32], alike: f64) -> Result<FrameTokens> {
    let mut kept: Vec<u32> =
        (0..cosines.len() as u32).filter(|&i| f64::from(cosines[i as usize]) < alike).collect();
    if cosines.is_empty() || kept.len() == cosines.len() {
        return Ok(frame);
    }
    if kept.is_empty() {
        let least = (0..cosines.len()).min_by(|&a, &b| cosines[a].total_cmp(&cosines[b]));
        kept = least.into_iter().map(|i| i as u32).collect();
    }
    let index = Tensor::from_slice(&kept, kept.len(), frame.tokens.device())?;
    let tokens = frame.tokens.index_select(&index, 0)?;
    Ok(FrameTokens { tokens, patches: Some(kept.into()), mean: None, ..frame })
}

/// Keeps the fraction `keep` of the frames: local maxima of change first, then by change; and says
/// which of them are such peaks.
pub fn peaks(
    frames: Vec<FrameTokens>,
    keep: f64,
    compared: Option<usize>,
    on_device: bool,
) -> Result<Vec<FrameTokens>> {
    let n = frames.len();
    let seen = frames.iter().map(|frame| first_of(&frame.tokens, compared));
    let seen = seen.collect::<Result<Vec<_>>>()?;
    let pairs = seen.windows(2).map(|pair| (&pair[0], &pair[1]));
    let cosines: Vec<Vec<f32>> = match on_device {
        true => {
            let there = pairs.map(|(a, b)| cosines_there(a, b)).collect::<Result<Vec<_>>>()?;
            read_all(&there)?
        }
        false => pairs.map(|(a, b)| cosines(a, b, false)).collect::<Result<_>>()?,
    };
    let after_first = cosines.iter().map(|cosines| 1.0 - mean(cosines));
    let change: Vec<f32> = std::iter::once(1.0).chain(after_first).take(n).collect();
    let peak = |i: usize| {
        let beyond =
            |j: Option<usize>| j.and_then(|j| change.get(j)).is_none_or(|other| change[i] > *other);
        beyond(i.checked_sub(1)) && beyond(Some(i + 1))
    };
    let peaks: Vec<bool> = (0..n).map(peak).collect();
    let ranks: Vec<f32> = (0..n).map(|i| change[i] + if peaks[i] { 2.0 } else { 0.0 }).collect();
    let count = ((n as f64 * keep).ceil() as usize).clamp(1, n.max(1));
    let kept = top(&ranks, count);
    let frames = frames.into_iter().enumerate().filter(|(i, _)| kept.binary_search(i).is_ok());
    Ok(frames.map(|(i, frame)| FrameTokens { peak: peaks[i], ..frame }).collect())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn frame(i: u64, rows: &[[f32; 2]]) -> FrameTokens {
        let tokens =
            Tensor::from_slice(rows.as_flattened(), (rows.len(), 2), &Device::Cpu).unwrap();
        FrameTokens::whole(tokens, i..i + 1, (i as f64, i as f64))
    }

    #[test]
    fn alike_neighbours_become_their_mean_and_a_bound_of_one_merges_nothing() {
        let frames = || {
            vec![
                frame(0, &[[1.0, 0.0], [0.0, 1.0]]),
                frame(1, &[[3.0, 0.0], [0.0, 1.0]]),
                frame(2, &[[0.0, 1.0], [0.0, 1.0]]),
            ]
        };
        let merged = merge_alike(frames(), 0.95, None, false).unwrap();
        assert_eq!(merged.len(), 2);
        assert_eq!(merged[0].frames, 0..2);
        assert_eq!(merged[0].end, 1.0);
        assert_eq!(merged[0].tokens.to_vec2::<f32>().unwrap()[0], [2.0, 0.0]);
        assert_eq!(merge_alike(frames(), 1.0, None, true).unwrap().len(), 3);
        // Each of three counts as much as another.
        let three = (0..3).map(|i| frame(i, &[[1.0 + 2.0 * i as f32, 0.0]])).collect();
        let merged = merge_alike(three, 0.95, None, true).unwrap();
        assert_eq!(merged[0].tokens.to_vec2::<f32>().unwrap(), [[3.0, 0.0]]);
    }

    #[test]
    fn patches_that_did_not_change_go_and_one_always_stays() {
        let before = frame(0, &[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]);
        let changed = frame(1, &[[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]]);
        let to = |frame: &FrameTokens, on_device| {
            cosines(&frame.tokens, &before.tokens, on_device).unwrap()
        };
        assert_eq!(to(&changed, true), to(&changed, false));
        let kept = drop_alike(changed.clone(), &to(&changed, true), 0.5).unwrap();
        assert_eq!(kept.patches.as_deref(), Some(&[1][..]));
        assert_eq!(kept.tokens.to_vec2::<f32>().unwrap(), [[1.0, 0.0]]);
        let still = drop_alike(before.clone(), &to(&before, true), 0.5).unwrap();
        assert_eq!(still.tokens.dims(), [1, 2]);
    }

    #[test]
    fn peaks_of_change_come_first() {
        let at = |degrees: f64| {
            let (sin, cos) = degrees.to_radians().sin_cos();
            [[cos as f32, sin as f32]]
        };
        // The second differs more from the one before it than the fifth does, but is no peak.
        let angles = [0.0, 40.0, 85.0, 86.0, 96.0, 97.0];
        let frames =
            angles.iter().enumerate().map(|(i, &a)| frame(i as u64, &at(a))).collect::<Vec<_>>();
        let starts = |kept: &[FrameTokens]| kept.iter().map(|f| f.frames.start).collect::<Vec<_>>();
        let there = peaks(frames.clone(), 0.5, None, true).unwrap();
        let kept = peaks(frames.clone(), 0.5, None, false).unwrap();
        assert_eq!(starts(&there), starts(&kept));
        assert_eq!(starts(&kept), [0, 2, 4]);
        assert!(kept.iter().all(|frame| frame.peak));
        assert_eq!(peaks(frames, 1.0, None, true).unwrap().len(), 6);
    }
}
