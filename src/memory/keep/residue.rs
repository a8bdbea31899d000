// SPDX-License-Identifier: MPL-2.0
//! What is left of tokens that go: a weighted mean of each new frame (StreamMem §4.1), or one mean
//! of everything (HERMES §4.2).

use candle_core::{DType, Tensor};

use super::place::at_time;
use super::resident::{Layer, Residue};
use crate::error::Result;
use crate::memory::kv::Kv;
use crate::memory::recipe::{Leave, Resident};
use crate::memory::unit::{RESIDUE, Row};
use crate::memory::weigh::depth::deep_from;
use crate::model::rope::{Layout, Place};

/// Makes one residue row once it is known what is kept.
pub type Maker<'a> = Box<dyn Fn(&Layer, &[Vec<usize>], &[Vec<f32>]) -> Result<Residue> + 'a>;

/// The rows that will stand for what goes. They count towards the budget, so their number has to
/// be known before it is spent.
pub fn residues<'a>(
    layer: &'a Layer,
    (at, depth): (usize, usize),
    recipe: &Resident,
    budget: usize,
    layout: Layout,
) -> Vec<Maker<'a>> {
    match recipe.leave {
        Leave::Nothing => Vec::new(),
        Leave::Summary => {
            if at < deep_from(depth) || budget < 2 {
                return Vec::new();
            }
            vec![Box::new(move |left, keep, _| summary(layer, left, keep, layout))]
        }
        Leave::Prototypes => {
            let newest = layer.steps().last().map(|&(step, _)| step);
            let rows = layer.lists().first().map_or(&[][..], Vec::as_slice);
            let mut units: Vec<u64> = rows
                .iter()
                .filter(|row| Some(row.step) == newest && row.patch != RESIDUE && !row.is_word())
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
fn prototype(layer: &Layer, unit: u64, scores: &[Vec<f32>]) -> Result<Residue> {
    let Some(kv) = layer.kv() else {
        return Err(candle_core::Error::msg("a prototype of nothing").into());
    };
    let mut weights = Vec::with_capacity(scores.len());
    let mut rows = Vec::with_capacity(scores.len());
    for (head, scores) in scores.iter().enumerate() {
        let list = layer.lists().get(head).or(layer.lists().first());
        let list = list.map_or(&[][..], Vec::as_slice);
        let own = |i: usize| list.get(i).is_some_and(|row| row.unit == unit && !row.is_word());
        let members = (0..list.len()).filter(|&i| own(i)).count();
        let sum: f32 = (0..list.len()).filter(|&i| own(i)).map(|i| scores[i].max(0.0)).sum();
        let weight = |i: usize| match own(i) {
            false => 0.0,
            true if sum.is_normal() => scores[i].max(0.0) / sum,
            true => 1.0 / members.max(1) as f32,
        };
        weights.push((0..list.len()).map(weight).collect());
        if let Some(last) = list.iter().rev().find(|row| row.unit == unit && !row.is_word()) {
            rows.push(Row { patch: RESIDUE, ..*last });
        }
    }
    Ok(Residue { kv: mean_row(kv, &weights)?, rows })
}
