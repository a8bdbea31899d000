// SPDX-License-Identifier: MPL-2.0
//! How a resident cache shrinks: signals score its rows, a budget is spent on them, and something
//! may be left of what goes (other methods §2.4, §4.1-4.5).

use candle_core::{DType, Tensor};

use crate::error::Result;
use crate::memory::recipe::{Heads, Leave, Pick, Resident, Scope, Signal};
use crate::memory::resident::{
    Layer, Places, RESIDUE, Residue, Row, at_time, place, rotate, squeezed,
};
use crate::memory::score::{self, Grid};
use crate::memory::select::{buckets, evenly, quota};
use crate::memory::store::Kv;
use crate::model::rope::{Layout, Place, Rope};

/// What shrinking needs to know of the model.
pub struct Frame<'a> {
    pub rope: &'a Rope,
    /// Tokens of a unit, `M`.
    pub unit_tokens: usize,
    pub layout: Layout,
    /// Tokens in front of the video.
    pub prefix: usize,
    /// Compare slots and rotated keys as the reference does, not patches and un-rotated ones.
    pub compat: bool,
}

/// Scores of one layer: one list for all heads, or one per KV head.
pub type Scores = Vec<Vec<f32>>;

/// Shrinks every layer to `budget` tokens. `attention`: what each layer's rows receive from the
/// recipe's probe, if it has one.
pub fn shrink(
    layers: &[Layer],
    recipe: &Resident,
    places: Places,
    budget: usize,
    attention: Option<Vec<Scores>>,
    frame: &Frame<'_>,
) -> Result<Vec<Layer>> {
    let received = attention.as_deref();
    let depth = layers.len();
    let signal = |signal: Signal| -> Result<Vec<Scores>> {
        let layers = layers.iter().enumerate();
        layers
            .map(|(at, layer)| {
                let scores =
                    scores(layer, signal, recipe, received.map(|a| &a[at]), frame, depth, at)?;
                Ok(finite(scores))
            })
            .collect()
    };
    let mut first = signal(recipe.signal)?;
    if recipe.by_depth {
        first = by_depth(first);
    }
    let second = if recipe.share < 1.0 { Some(signal(recipe.then)?) } else { None };
    let layers = layers.iter().zip(first).enumerate();
    layers
        .map(|(at, (layer, first))| {
            let second = second.as_ref().map(|second| second[at].as_slice());
            shrink_layer(layer, at, depth, recipe, places, budget, &first, second, frame)
        })
        .collect()
}

/// A score that is not a number says nothing.
fn finite(mut scores: Scores) -> Scores {
    for score in scores.iter_mut().flatten().filter(|score| !score.is_finite()) {
        *score = 0.0;
    }
    scores
}

fn by_depth(scores: Vec<Scores>) -> Vec<Scores> {
    let wide = scores.first().map_or(0, Vec::len);
    let mut out: Vec<Scores> = vec![Vec::new(); scores.len()];
    for list in 0..wide {
        let stack: Vec<Vec<f32>> = scores.iter().map(|layer| layer[list].clone()).collect();
        for (layer, scores) in out.iter_mut().zip(score::by_depth(&stack)) {
            layer.push(scores);
        }
    }
    out
}

/// `[Hk][n][d]` as one f32 list per head.
fn heads(tensor: &Tensor) -> Result<Vec<Vec<f32>>> {
    let (heads, _, _) = tensor.dims3()?;
    (0..heads)
        .map(|head| Ok(tensor.get(head)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?))
        .collect()
}

fn scores(
    layer: &Layer,
    signal: Signal,
    recipe: &Resident,
    received: Option<&Scores>,
    frame: &Frame<'_>,
    depth: usize,
    at: usize,
) -> Result<Scores> {
    let Some(kv) = layer.kv() else { return Ok(vec![Vec::new()]) };
    let n = layer.tokens();
    let rows = |head: usize| layer.lists().get(head).or(layer.lists().first());
    let per_head = match signal {
        Signal::Attention => {
            let stored = || layer.lists().iter().map(|l| l.iter().map(|r| r.score).collect());
            return Ok(received.cloned().unwrap_or_else(|| stored().collect()));
        }
        Signal::Recency => {
            let ages = (0..n).map(|i| i as f32 / n.max(1) as f32).collect();
            return Ok(vec![ages; layer.lists().len()]);
        }
        Signal::Novelty => heads(&compared(kv, layer, frame)?)?
            .iter()
            .enumerate()
            .map(|(head, keys)| {
                let Some(rows) = rows(head) else { return Vec::new() };
                let recent = recent(rows, recipe.recent, frame.unit_tokens);
                let slots: Vec<u32> = if frame.compat {
                    (0..n).map(|i| (i % frame.unit_tokens.max(1)) as u32).collect()
                } else {
                    rows.iter().map(|row| row.patch).collect()
                };
                score::novelty(keys, &slots, &recent)
            })
            .collect::<Scores>(),
        Signal::ValueNorm => {
            let grid = Grid::of(n, frame.unit_tokens, frame.layout);
            let smooth = recipe.pooling.then(|| score::kernel(at, depth)).flatten();
            heads(&kv.v)?
                .iter()
                .map(|values| {
                    let norms = score::norms(values, n);
                    smooth
                        .map_or_else(|| norms.clone(), |kernel| score::pooled(&norms, grid, kernel))
                })
                .collect()
        }
    };
    Ok(match recipe.heads {
        Heads::Own => per_head,
        Heads::Shared => vec![score::mean(&per_head)],
    })
}

/// The keys that are compared with each other: without positions, or, as the reference has it, as
/// they stood in the stream.
fn compared(kv: &Kv, layer: &Layer, frame: &Frame<'_>) -> Result<Tensor> {
    if !frame.compat {
        return Ok(kv.k.clone());
    }
    let at = |rows: &Vec<Row>| place(rows, Places::Kept, frame.layout, frame.prefix).positions;
    rotate(frame.rope, &kv.k, &layer.lists().iter().map(at).collect::<Vec<_>>())
}

/// Which rows are the newest `share` of the units' worth of tokens that are held: at least one
/// unit's.
fn recent(rows: &[Row], share: f64, unit_tokens: usize) -> Vec<bool> {
    let held = rows.len() / unit_tokens.max(1);
    let count = ((held as f64 * share) as usize).max(1) * unit_tokens.max(1);
    (0..rows.len()).map(|i| i + count >= rows.len()).collect()
}

#[expect(clippy::too_many_arguments, reason = "one layer's part of `shrink`")]
fn shrink_layer(
    layer: &Layer,
    at: usize,
    depth: usize,
    recipe: &Resident,
    places: Places,
    budget: usize,
    first: &Scores,
    second: Option<&[Vec<f32>]>,
    frame: &Frame<'_>,
) -> Result<Layer> {
    let n = layer.tokens();
    if n <= budget {
        return Ok(layer.clone());
    }
    let made = residues(layer, at, depth, recipe, budget, frame);
    let budget = budget - made.len();
    let mut keep: Vec<Vec<usize>> = Vec::with_capacity(first.len());
    for (head, first) in first.iter().enumerate() {
        let rows = layer.lists().get(head).or(layer.lists().first());
        let forced = match rows {
            Some(rows) if recipe.recent > 0.0 => recent(rows, recipe.recent, frame.unit_tokens),
            _ => vec![false; n],
        };
        keep.push(match (recipe.scope, recipe.pick) {
            (_, Pick::Evenly) => evenly(n, budget),
            (Scope::Step, _) => by_step(layer, first, budget),
            (Scope::Whole, Pick::Buckets { size, free }) => buckets(first, budget, size, free),
            (Scope::Whole, Pick::Top) => {
                let second = second.and_then(|second| second.get(head).or(second.first()));
                let second = second.map(Vec::as_slice);
                quota(first, second, &forced, recipe.share, budget)
            }
        });
    }
    let left = layer.keep(&keep)?;
    let left = match places {
        Places::Scaled => {
            let places = left.lists().iter().map(|rows| {
                let times: Vec<usize> = rows.iter().map(|row| row.place.t).collect();
                let times = squeezed(&times, n);
                let rows = rows.iter().zip(times);
                rows.map(|(row, t)| at_time(row.place, t, frame.layout)).collect()
            });
            left.placed_at(places.collect())
        }
        _ => left,
    };
    let residue = made.iter().map(|maker| maker(&left, &keep, first));
    let left = left.with_residue(&residue.collect::<Result<Vec<_>>>()?)?;
    Ok(match places {
        Places::Lazy { limit } if left.end().is_some_and(|end| end > limit) => {
            let packed = |rows: &Vec<Row>| {
                place(rows, Places::Packed, frame.layout, frame.prefix).positions.places()
            };
            let places = left.lists().iter().map(packed).collect();
            left.placed_at(places)
        }
        _ => left,
    })
}

/// Makes one residue row once it is known what is kept.
type Maker<'a> = Box<dyn Fn(&Layer, &[Vec<usize>], &Scores) -> Result<Residue> + 'a>;

/// The rows that will stand for what goes. They count towards the budget, so their number has to
/// be known before it is spent.
fn residues<'a>(
    layer: &'a Layer,
    at: usize,
    depth: usize,
    recipe: &Resident,
    budget: usize,
    frame: &'a Frame<'a>,
) -> Vec<Maker<'a>> {
    match recipe.leave {
        Leave::Nothing => Vec::new(),
        Leave::Summary => {
            if at < score::deep_from(depth) || budget < 2 {
                return Vec::new();
            }
            vec![Box::new(move |left, keep, _| summary(layer, left, keep, frame.layout))]
        }
        Leave::Prototypes => {
            let newest = layer.steps().last().map(|&(step, _)| step);
            let rows = layer.lists().first().map_or(&[][..], Vec::as_slice);
            let mut units: Vec<u64> = rows
                .iter()
                .filter(|row| Some(row.step) == newest && row.patch != RESIDUE)
                .map(|row| row.unit)
                .collect();
            units.dedup();
            if units.len() >= budget {
                return Vec::new();
            }
            let maker = |unit: u64| -> Maker<'a> {
                Box::new(move |_, _, scores| prototype(layer, unit, scores))
            };
            units.into_iter().map(maker).collect()
        }
    }
}

/// The weighted mean `[Hk, 1, d]` of a layer's rows; `weights` are one list for all heads, or one
/// per head, each adding up to one.
fn mean_row(kv: &Kv, weights: &[Vec<f32>]) -> Result<Kv> {
    let n = kv.tokens()?;
    let wide = weights.len();
    let flat: Vec<f32> = weights.concat();
    let weights = Tensor::from_vec(flat, (wide, 1, n), kv.k.device())?;
    let mean = |x: &Tensor| -> Result<Tensor> {
        let (heads, n, _) = x.dims3()?;
        let weights = weights.broadcast_as((heads, 1, n))?.contiguous()?;
        Ok(weights.matmul(&x.to_dtype(DType::F32)?.contiguous()?)?.to_dtype(x.dtype())?)
    };
    Ok(Kv { k: mean(&kv.k)?, v: mean(&kv.v)? })
}

/// The mean of everything that goes, right behind what stays (HERMES). Keys are un-rotated, so
/// their mean is that of keys turned to the summary's own place.
fn summary(layer: &Layer, left: &Layer, keep: &[Vec<usize>], layout: Layout) -> Result<Residue> {
    let n = layer.tokens();
    let weights: Vec<Vec<f32>> = keep
        .iter()
        .map(|keep| {
            let share = 1.0 / (n - keep.len()).max(1) as f32;
            let mut weights = vec![share; n];
            keep.iter().for_each(|&i| weights[i] = 0.0);
            weights
        })
        .collect();
    let Some(kv) = layer.kv() else {
        return Err(candle_core::Error::msg("a summary of nothing").into());
    };
    let behind = |rows: &Vec<Row>| {
        let last = rows.last().copied().unwrap_or(Row {
            unit: 0,
            patch: RESIDUE,
            step: 0,
            place: Place::text(0),
            score: 0.0,
        });
        Row { patch: RESIDUE, place: at_time(last.place, last.place.t + 1, layout), ..last }
    };
    Ok(Residue { kv: mean_row(kv, &weights)?, rows: left.lists().iter().map(behind).collect() })
}

/// One row for a unit: the mean of its tokens weighted by their scores (StreamMem).
fn prototype(layer: &Layer, unit: u64, scores: &Scores) -> Result<Residue> {
    let Some(kv) = layer.kv() else {
        return Err(candle_core::Error::msg("a prototype of nothing").into());
    };
    let mut weights = Vec::with_capacity(scores.len());
    let mut rows = Vec::with_capacity(scores.len());
    for (head, scores) in scores.iter().enumerate() {
        let list = layer.lists().get(head).or(layer.lists().first());
        let list = list.map_or(&[][..], Vec::as_slice);
        let own = |i: usize| list.get(i).is_some_and(|row| row.unit == unit);
        let members = (0..list.len()).filter(|&i| own(i)).count();
        let sum: f32 = (0..list.len()).filter(|&i| own(i)).map(|i| scores[i].max(0.0)).sum();
        let weight = |i: usize| match own(i) {
            false => 0.0,
            true if sum.is_normal() => scores[i].max(0.0) / sum,
            true => 1.0 / members.max(1) as f32,
        };
        weights.push((0..list.len()).map(weight).collect());
        if let Some(last) = list.iter().rev().find(|row| row.unit == unit) {
            rows.push(Row { patch: RESIDUE, ..*last });
        }
    }
    Ok(Residue { kv: mean_row(kv, &weights)?, rows })
}

/// Every step keeps the same fraction of the tokens it came with (ReTaKe, with the length so far
/// for the video's length: the best of fewer are among the best of more, so what a step keeps in
/// the end is what the known length would have kept at once).
fn by_step(layer: &Layer, scores: &[f32], budget: usize) -> Vec<usize> {
    let rows = layer.lists().first().map_or(&[][..], Vec::as_slice);
    let ratio = budget as f64 / layer.seen().max(1) as f64;
    let mut keep = Vec::new();
    // The newest steps first: where one token each is too much, the oldest go.
    for &(step, came) in layer.steps().iter().rev() {
        let members: Vec<usize> = (0..rows.len()).filter(|&i| rows[i].step == step).collect();
        let count = ((came as f64 * ratio) as usize).max(1).min(budget - keep.len());
        let own: Vec<f32> = members.iter().map(|&i| scores[i]).collect();
        keep.extend(crate::memory::select::top(&own, count).into_iter().map(|i| members[i]));
    }
    keep.sort_unstable();
    keep
}
