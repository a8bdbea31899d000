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
use crate::memory::store::Kv;
use crate::model::rope::{Kept, Layout, Place, Placed, Positions, Rope};

/// Where a token that a layer holds comes from and where it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    pub unit: u64,
    /// Its place in the unit's picture, or [`RESIDUE`].
    pub patch: u32,
    /// The encoding step that it came with.
    pub step: u64,
    pub place: Place,
    /// What the signal said when it came, for signals that see a token only then.
    pub score: f32,
}

/// The patch of a row that stands for several tokens which are gone.
pub const RESIDUE: u32 = u32::MAX;

/// How the places of resident tokens, and of what was retrieved, are chosen when they are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Places {
    /// Side by side behind the prefix, whatever lay between them.
    #[default]
    Packed,
    /// Where they stood in the stream.
    Kept,
    /// Where they stood, until the largest passes the limit: then side by side, once.
    Lazy { limit: usize },
    /// Where they stood; what a step leaves of a stretch is squeezed to that fraction of its time.
    Scaled,
    /// Every unit right behind the prefix, all at the same place.
    Local,
}

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

    pub fn bytes(&self) -> u64 {
        self.kv.as_ref().map_or(0, Kv::bytes)
    }

    pub fn steps(&self) -> &[(u64, usize)] {
        &self.steps
    }

    pub fn seen(&self) -> usize {
        self.seen
    }

    /// The position in time behind everything it holds.
    pub fn end(&self) -> Option<usize> {
        self.lists.iter().flatten().map(|row| row.place.t + 1).max()
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
        Ok(Self { kv: Some(kv), lists, steps, seen: self.seen + count })
    }

    /// What is left with these indices kept, ascending: one list for all heads, or one per head,
    /// all of one length.
    pub fn keep(&self, keep: &[Vec<usize>]) -> Result<Self> {
        let Some(kv) = &self.kv else { return Ok(self.clone()) };
        let wide = self.lists.len().max(keep.len());
        if keep.iter().all(Vec::is_empty) {
            let lists = vec![Vec::new(); wide];
            return Ok(Self { kv: None, lists, steps: Vec::new(), seen: self.seen });
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
        Ok(Self { kv: Some(kv), lists, steps, seen: self.seen })
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
    order.sort_by_key(|&i| (rows[i].unit, rows[i].patch, i));
    order
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

/// Where rows stand when they are used behind a prefix.
pub fn place(rows: &[Row], rule: Places, layout: Layout, prefix: usize) -> Placed {
    match rule {
        Places::Packed => side_by_side(rows, layout, prefix),
        Places::Kept | Places::Lazy { .. } | Places::Scaled => {
            let places: Vec<Place> = rows.iter().map(|row| row.place).collect();
            let end = places.iter().map(Place::max).max().map_or(prefix, |last| last + 1);
            Placed { positions: Positions::listed(places), next: end }
        }
        Places::Local if layout == Layout::Run => {
            let at = |row: &Row| Place::text(prefix + offset(row));
            let positions = Positions::listed(rows.iter().map(at).collect());
            let next = prefix + rows.len();
            Placed { positions, next }
        }
        Places::Local => {
            let offsets = |rows: &[Row]| side_by_side(rows, layout, prefix).positions;
            let units = rows.chunk_by(|a, b| a.unit == b.unit).map(offsets);
            let positions = units.fold(Positions::run(0, 0), |all, unit| all.then(&unit));
            let next = prefix + rows.len();
            Placed { positions, next }
        }
    }
}

fn side_by_side(rows: &[Row], layout: Layout, prefix: usize) -> Placed {
    let units = rows.chunk_by(|a, b| a.unit == b.unit);
    let patches: Vec<Vec<usize>> = units.map(offsets).collect();
    layout.packed(prefix, patches.iter().map(|patches| Kept::Some(patches)))
}

fn offsets(rows: &[Row]) -> Vec<usize> {
    rows.iter().map(offset).collect()
}

/// The offset in its unit; a residue stands where its unit begins.
fn offset(row: &Row) -> usize {
    if row.patch == RESIDUE { 0 } else { row.patch as usize }
}

/// A place at another time. Where there is one axis, time is all of it.
pub fn at_time(place: Place, t: usize, layout: Layout) -> Place {
    match layout {
        Layout::Run => Place::text(t),
        Layout::Grid { .. } => Place { t, ..place },
    }
}

/// The times of what is left of a stretch of `n` tokens, squeezed to that fraction of it
/// (ReTaKe): `t' = first + trunc((t - first) * kept / n)`, `first` being the first kept one's.
pub fn squeezed(times: &[usize], n: usize) -> Vec<usize> {
    let first = times.iter().copied().min().unwrap_or(0);
    let squeeze = |t: usize| first + (t - first) * times.len() / n.max(1);
    times.iter().map(|&t| squeeze(t)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(unit: u64, patch: u32) -> Row {
        Row { unit, patch, step: 0, place: Place::text(0), score: 0.0 }
    }

    #[test]
    fn a_residue_comes_behind_its_unit() {
        let rows = [row(1, 0), row(0, RESIDUE), row(0, 1), row(0, 0)];
        assert_eq!(stream_order(&rows), [3, 2, 1, 0]);
    }

    #[test]
    fn units_at_one_place_keep_the_offsets_of_their_patches() {
        let rows = [row(0, 1), row(1, 0), row(1, 3), row(2, RESIDUE)];
        let Placed { positions, next } = place(&rows, Places::Local, Layout::Run, 5);
        let times: Vec<usize> = positions.places().iter().map(|place| place.t).collect();
        assert_eq!(times, [6, 5, 8, 5]);
        assert_eq!(next, 9);
    }
}
