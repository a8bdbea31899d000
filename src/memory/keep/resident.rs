// SPDX-License-Identifier: MPL-2.0
//! The resident cache: a bounded number of tokens per layer that new frames attend to and that
//! every answer sees whole (InfiniPot-V, StreamMem, HERMES, LiveVLM, ReTaKe).
//!
//! Keys are not rotated here either. Each row knows its place, so "kept positions", "a contiguous
//! range", "re-indexed when they grow too large" and "rescaled" are only ways of choosing the
//! places at which the keys are turned when they are used. What a layer holds may differ from
//! layer to layer and, where a method selects so, from one KV head to the next.
//!
//! A layer is never changed: appending and keeping make a new one (tensors are shared), which is
//! what lets a question look at the open segment on a branch of its own.

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::memory::kv::{Kv, gather};
use crate::memory::unit::{RESIDUE, Row};
use crate::model::rope::Place;
use crate::snapshot::{Reader, Snapshot};

/// One layer's resident tokens, in stream order.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    /// `[Hk, n, d]`, keys un-rotated.
    kv: Option<Kv>,
    /// One list for all heads, or one per KV head; all of one length.
    lists: Vec<Vec<Row>>,
    /// Tokens of each step that came in, for steps of which something is left.
    steps: Vec<(u64, usize)>,
    /// Tokens that came in, all told.
    seen: usize,
    /// How far what comes next stands before its place in the stream, by what was packed or squeezed.
    moved: i64,
}

impl Layer {
    pub fn tokens(&self) -> usize {
        self.lists.first().map_or(0, Vec::len)
    }

    pub fn kv(&self) -> Option<&Kv> {
        self.kv.as_ref()
    }

    /// One list for all heads, or one per KV head.
    pub fn lists(&self) -> &[Vec<Row>] {
        &self.lists
    }

    /// The list that speaks for a KV head.
    pub fn rows(&self, head: usize) -> Option<&[Row]> {
        self.lists.get(head).or(self.lists.first()).map(Vec::as_slice)
    }

    pub fn bytes(&self) -> u64 {
        let rows: usize = self.lists.iter().map(Vec::len).sum();
        let steps = self.steps.len() * size_of::<(u64, usize)>();
        self.kv.as_ref().map_or(0, Kv::footprint) + (rows * size_of::<Row>() + steps) as u64
    }

    pub fn steps(&self) -> &[(u64, usize)] {
        &self.steps
    }

    pub fn seen(&self) -> usize {
        self.seen
    }

    /// How far what comes next stands before its place in the stream.
    pub fn moved(&self) -> i64 {
        self.moved
    }

    /// With what comes next standing as much nearer as this layer ends sooner than `before` did.
    pub fn closed_up(self, before: &Self) -> Self {
        let ends = |layer: &Self| layer.end().unwrap_or(0) as i64;
        let moved = self.moved + ends(before) - ends(&self);
        Self { moved, ..self }
    }

    /// The position in time behind what stands for tokens that are gone.
    pub fn residue_end(&self) -> Option<usize> {
        let residue = self.lists.iter().flatten().filter(|row| row.patch == RESIDUE);
        residue.map(|row| row.place.t + 1).max()
    }

    /// The position in time behind everything it holds.
    pub fn end(&self) -> Option<usize> {
        self.lists.iter().flatten().map(|row| row.place.t + 1).max()
    }

    /// What it holds.
    pub fn save(&self, into: &mut Snapshot) {
        let Self { kv, lists, steps, seen, moved } = self.clone();
        into.value((lists, steps, seen, moved, kv.is_some()));
        if let Some(Kv { k, v }) = kv {
            into.tensor(k);
            into.tensor(v);
        }
    }

    /// The layer that was saved.
    ///
    /// # Errors
    /// What is wrong with the file, or what the computation fails with.
    pub fn restored(from: &mut Reader, device: &Device) -> Result<Self> {
        let (lists, steps, seen, moved, holds) = from.value()?;
        let kv = if holds {
            Some(Kv { k: from.tensor(device)?, v: from.tensor(device)? })
        } else {
            None
        };
        Ok(Self { kv, lists, steps, seen, moved })
    }

    /// With newcomers behind what it holds. `rows` are one list for all heads, or one per head.
    pub fn with(&self, fresh: &Kv, rows: &[Vec<Row>]) -> Result<Self> {
        let kv = match &self.kv {
            // The sum is bounded by the cap and one step, so this copies no growing cache.
            Some(kv) => Kv {
                k: Tensor::cat(&[&kv.k, &fresh.k], 1)?,
                v: Tensor::cat(&[&kv.v, &fresh.v], 1)?,
            },
            None => fresh.clone(),
        };
        let wide = self.lists.len().max(rows.len());
        let list = |of: &[Vec<Row>], at: usize| -> Vec<Row> {
            of.get(at).or(of.first()).cloned().unwrap_or_default()
        };
        let lists: Vec<Vec<Row>> =
            (0..wide).map(|at| [list(&self.lists, at), list(rows, at)].concat()).collect();
        let mut steps = self.steps.clone();
        let count = rows.first().map_or(0, Vec::len);
        if let Some(row) = rows.first().and_then(|rows| rows.first()) {
            match steps.last_mut() {
                Some((step, came)) if *step == row.step => *came += count,
                _ => steps.push((row.step, count)),
            }
        }
        Ok(Self { kv: Some(kv), lists, steps, seen: self.seen + count, moved: self.moved })
    }

    /// What is left with these indices kept, ascending: one list for all heads, or one per head,
    /// all of one length.
    pub fn keep(&self, keep: &[Vec<usize>]) -> Result<Self> {
        let Some(kv) = &self.kv else { return Ok(self.clone()) };
        let wide = self.lists.len().max(keep.len());
        if keep.iter().all(Vec::is_empty) {
            let lists = vec![Vec::new(); wide];
            let steps = Vec::new();
            return Ok(Self { kv: None, lists, steps, seen: self.seen, moved: self.moved });
        }
        let of = |at: usize| keep.get(at).or(keep.first()).map_or(&[][..], Vec::as_slice);
        let lists = (0..wide)
            .map(|at| {
                let rows = self.lists.get(at).or(self.lists.first());
                rows.map_or(Vec::new(), |rows| of(at).iter().map(|&i| rows[i]).collect())
            })
            .collect::<Vec<Vec<Row>>>();
        let kv = gather(kv, keep)?;
        let steps = self.steps.iter().copied();
        let alive = |step: u64| lists.iter().flatten().any(|row| row.step == step);
        let steps = steps.filter(|&(step, _)| alive(step)).collect();
        Ok(Self { kv: Some(kv), lists, steps, seen: self.seen, moved: self.moved })
    }

    /// With one row more per list, in the order of their places.
    pub fn with_residue(&self, residue: &[Residue]) -> Result<Self> {
        let Some(first) = residue.first() else { return Ok(self.clone()) };
        let keys: Vec<&Tensor> = residue.iter().map(|r| &r.kv.k).collect();
        let values: Vec<&Tensor> = residue.iter().map(|r| &r.kv.v).collect();
        let kv = Kv { k: Tensor::cat(&keys, 1)?, v: Tensor::cat(&values, 1)? };
        let wide = first.rows.len();
        let rows: Vec<Vec<Row>> =
            (0..wide).map(|at| residue.iter().map(|r| r.rows[at]).collect()).collect();
        let (steps, seen) = (self.steps.clone(), self.seen);
        let all = self.with(&kv, &rows)?;
        let order: Vec<Vec<usize>> = all.lists.iter().map(|rows| stream_order(rows)).collect();
        let sorted = Self { steps: Vec::new(), ..all }.keep(&order)?;
        Ok(Self { steps, seen, ..sorted })
    }

    /// With other places.
    pub fn placed_at(&self, places: Vec<Vec<Place>>) -> Self {
        let lists = self.lists.iter().zip(places).map(|(rows, places)| {
            rows.iter().zip(places).map(|(&row, place)| Row { place, ..row }).collect()
        });
        Self { lists: lists.collect(), ..self.clone() }
    }

    /// With the rows for which `keep` holds; only where all heads share them.
    pub fn filtered(&self, keep: impl Fn(&Row) -> bool) -> Result<Self> {
        match &self.lists[..] {
            [rows] => {
                let kept: Vec<usize> = (0..rows.len()).filter(|&i| keep(&rows[i])).collect();
                if kept.len() == rows.len() { Ok(self.clone()) } else { self.keep(&[kept]) }
            }
            _ => Ok(self.clone()),
        }
    }
}

/// A row that stands for tokens which are gone: `[Hk, 1, d]` and one row per list.
#[derive(Clone, Debug)]
pub struct Residue {
    pub kv: Kv,
    pub rows: Vec<Row>,
}

/// Indices of the rows in stream order; a residue comes behind its unit.
pub fn stream_order(rows: &[Row]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&i| (rows[i].unit, rows[i].order(), i));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::unit::{BEHIND, FRONT};

    fn row(unit: u64, patch: u32) -> Row {
        Row { unit, patch, step: 0, place: Place::text(0), score: 0.0 }
    }

    #[test]
    fn a_residue_comes_behind_its_unit() {
        let rows = [row(1, 0), row(0, RESIDUE), row(0, 1), row(0, 0)];
        assert_eq!(stream_order(&rows), [3, 2, 1, 0]);
    }

    #[test]
    fn words_stand_around_their_picture() {
        let rows = [row(1, FRONT), row(0, BEHIND), row(0, RESIDUE), row(0, 0), row(0, FRONT + 1)];
        assert_eq!(stream_order(&rows), [4, 3, 2, 1, 0]);
    }
}
