// SPDX-License-Identifier: MPL-2.0
//! What is new: keys unlike the recent ones of their patch (InfiniPot-V's TaR, §2.4), and keys
//! unlike those of the unit before (MemStream's adaptive key selection, §3.3).

use std::collections::HashMap;

use super::score::row_cosines;
use super::select::top;

/// How little each row of one KV head's keys `[n, d]` resembles the recent ones of the same slot
/// (InfiniPot-V's TaR): minus the mean of the cosines, taken with the mean of the recent rows'
/// directions, which is the same. 0 where the recent rows lack the slot.
pub fn novelty(keys: &[f32], slots: &[u32], recent: &[bool]) -> Vec<f32> {
    let Some(dim) = keys.len().checked_div(slots.len()).filter(|&dim| dim > 0) else {
        return Vec::new();
    };
    let direction = |key: &[f32]| -> Vec<f32> {
        let norm = key.iter().map(|x| x * x).sum::<f32>().sqrt() + 1e-9;
        key.iter().map(|x| x / norm).collect()
    };
    let rows: Vec<Vec<f32>> = keys.chunks_exact(dim).map(direction).collect();
    let mut means: HashMap<u32, (Vec<f32>, usize)> = HashMap::new();
    for ((row, slot), _) in rows.iter().zip(slots).zip(recent).filter(|(_, recent)| **recent) {
        let (sum, count) = means.entry(*slot).or_insert_with(|| (vec![0.0; dim], 0));
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        *count += 1;
    }
    let score = |(row, slot): (&Vec<f32>, &u32)| match means.get(slot) {
        Some((sum, count)) => -row.iter().zip(sum).map(|(a, b)| a * b).sum::<f32>() / *count as f32,
        None => 0.0,
    };
    rows.iter().zip(slots).map(score).collect()
}

/// Which `count` of the tokens are least like the same ones of the unit before, ascending. All of
/// them where there is none to compare with.
pub fn least_alike(keys: &[f32], before: &[f32], dim: usize, count: usize) -> Vec<usize> {
    let n = keys.len() / dim.max(1);
    if before.len() != keys.len() {
        return (0..n).collect();
    }
    let unlike: Vec<f32> = row_cosines(keys, before, dim).iter().map(|cosine| -cosine).collect();
    top(&unlike, count)
}
