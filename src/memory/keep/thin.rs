// SPDX-License-Identifier: MPL-2.0
//! Units get thinner where they lie: fewer of their tokens, one of two, one token for many.
//!
//! Which tokens stay is said by how little they resemble the mean of their unit: the mean is what the
//! rest has in common, and what a unit is found by stays that. It is the same for all layers, so that a
//! unit still is a picture with holes. The words around a picture are not thinned: they say when it was.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::ladder::Becomes;
use crate::error::Result;
use crate::memory::kv::{Kv, joined, read_all, rows, token_cosines};
use crate::memory::recipe::Keeps;
use crate::memory::store::{Block, Blocks, LayerStore, Store, Stretch, stretches};
use crate::memory::unit::{Geometry, RESIDUE, Unit, Units, Words};
use crate::memory::weigh::select::top;

/// What a memory holds to be retrieved.
pub struct Contents<'a> {
    pub layers: &'a mut [LayerStore],
    pub inputs: &'a mut VecDeque<Block>,
    pub tiers: &'a Store,
    pub units: &'a mut Units,
}

/// Makes units what they are to become. `seen`: units that something else still refers to.
///
/// # Errors
/// What the computation fails with.
pub fn thin(
    stored: Contents<'_>,
    becomes: BTreeMap<u64, Becomes>,
    geometry: &Geometry,
    keeps: Keeps,
    seen: &BTreeSet<u64>,
) -> Result<()> {
    let gone: BTreeSet<u64> =
        becomes.iter().filter(|(_, b)| **b == Becomes::Nothing).map(|(id, _)| *id).collect();
    let change = Change {
        kept: chosen(&stored, &becomes, keeps)?,
        sketches: sketches(&stored, &becomes),
        gone,
    };
    let inputs = stored.layers.len();
    for (at, layer) in stored.layers.iter_mut().enumerate() {
        let whole = keeps == Keeps::KeysAndValues;
        change.layer(&mut layer.blocks, whole, |blocks| stored.tiers.put(at, blocks))?;
    }
    if !stored.inputs.is_empty() {
        let held: Vec<Block> = stored.inputs.iter().cloned().collect();
        let (places, fresh) = change.blocks(&held, true)?;
        for (at, block) in places.into_iter().zip(stored.tiers.put(inputs, fresh)?) {
            if let Some(own) = stored.inputs.get_mut(at) {
                *own = block;
            }
        }
        stored.inputs.retain(|input| !change.gone.contains(&input.unit));
    }
    change.name(stored.units, geometry);
    stored.units.retain(|id| !change.gone.contains(&id) || seen.contains(&id));
    Ok(())
}

/// What is to be done.
struct Change {
    kept: BTreeMap<u64, Fewer>,
    sketches: BTreeMap<u64, Sketch>,
    gone: BTreeSet<u64>,
}

/// What stays of a unit: tokens of its picture, ascending, and the words around it.
struct Fewer {
    words: Words,
    picture: Vec<usize>,
    /// Tokens that the picture had.
    of: usize,
}

impl Fewer {
    /// The same as places in the whole unit.
    fn rows(&self) -> Vec<usize> {
        self.words.with(&self.picture, self.of)
    }
}

/// A unit whose picture becomes one token: that of these units, itself first.
struct Sketch {
    words: Words,
    parts: Vec<Part>,
}

/// What a sketch is the mean of; it weighs as many frames as it stands for.
struct Part {
    unit: u64,
    weight: f64,
    words: Words,
}

impl Change {
    /// One layer's blocks; `store` takes in what is new. `whole`: they hold the units and not a gist of
    /// each, which is one token anyway.
    fn layer(
        &self,
        blocks: &mut Blocks,
        whole: bool,
        store: impl FnOnce(Vec<Block>) -> Result<Vec<Block>>,
    ) -> Result<()> {
        for Sketch { parts, .. } in self.sketches.values() {
            let rows = parts.iter().filter_map(|p| Some((blocks.position(p.unit)?, p.weight)));
            let rows: Vec<(usize, f64)> = rows.collect();
            if let [(first, _), _, ..] = rows[..] {
                let mean = blocks.mean_keys().mean(&rows)?;
                blocks.set_mean_keys(first, &mean)?;
            }
        }
        let held: Vec<Block> = blocks.iter().cloned().collect();
        let (places, fresh) = self.blocks(&held, whole)?;
        for (at, block) in places.into_iter().zip(store(fresh)?) {
            blocks.replace(at, block);
        }
        blocks.retain(|_, block| !self.gone.contains(&block.unit))
    }

    /// Blocks that take the place of some of these, and where.
    fn blocks(&self, held: &[Block], whole: bool) -> Result<(Vec<usize>, Vec<Block>)> {
        let (mut places, mut fresh) = (Vec::new(), Vec::new());
        let find = |id: u64| held.binary_search_by_key(&id, |block| block.unit).ok();
        let kept = self.kept.iter().filter(|_| whole);
        let thinner: Vec<(usize, &Fewer)> =
            kept.filter_map(|(id, fewer)| Some((find(*id)?, fewer))).collect();
        let loaded = load(held, thinner.iter().map(|(at, _)| *at))?;
        for ((at, fewer), stretch) in thinner.into_iter().zip(loaded) {
            let (Some(stretch), Some(block)) = (stretch, held.get(at)) else { continue };
            places.push(at);
            fresh.push(Block::new(block.unit, rows(&stretch.kv()?, &fewer.rows())?)?);
        }
        for (&id, sketch) in &self.sketches {
            // A layer may hold some of them only.
            let parts: Vec<(usize, &Part)> =
                sketch.parts.iter().filter_map(|part| Some((find(part.unit)?, part))).collect();
            let Some(&(first, _)) = parts.first() else { continue };
            let loaded = load(held, parts.iter().map(|(at, _)| *at))?;
            let loaded =
                loaded.iter().zip(&parts).filter_map(|(kv, (_, p))| Some((kv.as_ref()?, *p)));
            if let Some(sketch) = sketch.of(loaded, whole)? {
                places.push(first);
                fresh.push(Block::new(id, sketch)?);
            }
        }
        Ok((places, fresh))
    }

    /// What the units consist of now, and what they stand for.
    fn name(&self, held: &mut Units, geometry: &Geometry) {
        let mut named: Vec<Unit> = Vec::with_capacity(self.kept.len() + self.sketches.len());
        for (&id, kept) in &self.kept {
            let Some(unit) = held.get(id) else { continue };
            let patch = |&i: &usize| match &unit.patches {
                Some(patches) => patches.get(i).copied().unwrap_or(RESIDUE),
                None => i as u32,
            };
            let patches = Some(kept.picture.iter().map(patch).collect());
            named.push(Unit { patches, ..unit.clone() });
        }
        for (&id, Sketch { parts, .. }) in &self.sketches {
            let units: Vec<&Unit> = parts.iter().filter_map(|part| held.get(part.unit)).collect();
            let (Some(first), Some(last)) = (units.first(), units.last()) else { continue };
            let embedding = mean_embedding(&units);
            let latest = units.iter().map(|unit| unit.end).fold(first.end, f64::max);
            named.push(Unit {
                id,
                frames: first.frames.start..last.frames.end.max(first.frames.end),
                end: latest,
                patches: Some(Arc::new([RESIDUE])),
                embedding,
                ..(*first).clone()
            });
        }
        debug_assert!(named.iter().all(|unit| geometry.length(unit) > 0));
        named.into_iter().for_each(|unit| held.replace(unit));
    }
}

/// Where blocks with these indices lie.
fn load(held: &[Block], at: impl Iterator<Item = usize>) -> Result<Vec<Option<Stretch>>> {
    stretches(&at.filter_map(|at| held.get(at)).collect::<Vec<_>>())
}

/// The tokens of a unit that are its picture's.
fn picture(kv: &Kv, Words { front, behind }: Words) -> Result<Kv> {
    kv.part(front, kv.tokens()?.saturating_sub(front + behind))
}

impl Sketch {
    /// The weighted mean of the means of these pictures, within the words around one of them.
    fn of<'a>(
        &self,
        parts: impl Iterator<Item = (&'a Stretch, &'a Part)>,
        whole: bool,
    ) -> Result<Option<Kv>> {
        let mut sum: Option<(Kv, f64)> = None;
        let mut around = None;
        for (stretch, part) in parts {
            let kv = stretch.kv()?;
            let words = if whole { part.words } else { Words::default() };
            let seen = picture(&kv, words)?;
            let mean = |x: &Tensor| x.to_dtype(DType::F32)?.mean_keepdim(1)? * part.weight;
            let own = Kv { k: mean(&seen.k)?, v: mean(&seen.v)? };
            sum = Some(match sum {
                None => (own, part.weight),
                Some((all, before)) => {
                    (Kv { k: (all.k + own.k)?, v: (all.v + own.v)? }, before + part.weight)
                }
            });
            if around.is_none() && (!whole || words == self.words) {
                around = Some((kv, words));
            }
        }
        let (Some((Kv { k, v }, weight)), Some((kv, words))) = (sum, around) else {
            return Ok(None);
        };
        let mean = |sum: Tensor| (sum / weight)?.to_dtype(kv.k.dtype());
        let mean = Kv { k: mean(k)?, v: mean(v)? };
        let Words { front, behind } = words;
        if words.tokens() == 0 {
            return Ok(Some(mean));
        }
        let (front, behind) = (kv.part(0, front)?, kv.part(kv.tokens()? - behind, behind)?);
        let parts = [&front, &mean, &behind].into_iter();
        // No kernel is started for nothing.
        let parts: Vec<&Kv> = parts.filter(|part| part.k.elem_count() > 0).collect();
        joined(&parts)
    }
}

/// The units that become a sketch.
fn sketches(stored: &Contents<'_>, becomes: &BTreeMap<u64, Becomes>) -> BTreeMap<u64, Sketch> {
    let part = |&id: &u64| {
        let unit = stored.units.get(id)?;
        let frames = (unit.frames.end - unit.frames.start).max(1);
        Some(Part { unit: id, weight: frames as f64, words: unit.words })
    };
    let sketch = |(&id, becomes): (&u64, &Becomes)| match becomes {
        Becomes::Sketch(ids) => {
            let words = stored.units.get(id)?.words;
            Some((id, Sketch { words, parts: ids.iter().filter_map(part).collect() }))
        }
        Becomes::Tokens(_) | Becomes::Nothing => None,
    };
    becomes.iter().filter_map(sketch).collect()
}

/// Of each unit that is to have fewer tokens those that stay, all in one read.
fn chosen(
    stored: &Contents<'_>,
    becomes: &BTreeMap<u64, Becomes>,
    keeps: Keeps,
) -> Result<BTreeMap<u64, Fewer>> {
    let wanted: Vec<(u64, usize, Words)> = becomes
        .iter()
        .filter_map(|(&id, becomes)| match becomes {
            Becomes::Tokens(n) => Some((id, *n, stored.units.get(id)?.words)),
            Becomes::Sketch(_) | Becomes::Nothing => None,
        })
        .collect();
    let mut sums: BTreeMap<u64, Tensor> = BTreeMap::new();
    let mut look = |held: &[(&Block, Words)]| -> Result<()> {
        let blocks: Vec<&Block> = held.iter().map(|(block, _)| *block).collect();
        for (&(block, words), stretch) in held.iter().zip(stretches(&blocks)?) {
            let Some(stretch) = stretch else { continue };
            let own = likeness(&picture(&stretch.kv()?, words)?, keeps)?;
            let all = match sums.remove(&block.unit) {
                Some(sum) => (sum + own)?,
                None => own,
            };
            sums.insert(block.unit, all);
        }
        Ok(())
    };
    match keeps {
        Keeps::KeysAndValues => {
            for layer in stored.layers.iter() {
                let blocks = &layer.blocks;
                let find = |&(id, _, words): &(u64, usize, Words)| {
                    Some((blocks.get(blocks.position(id)?)?, words))
                };
                look(&wanted.iter().filter_map(find).collect::<Vec<_>>())?;
            }
        }
        Keeps::Inputs => {
            let find = |(id, _, words): &(u64, usize, Words)| {
                let at = stored.inputs.binary_search_by_key(id, |input| input.unit).ok()?;
                Some((stored.inputs.get(at)?, *words))
            };
            look(&wanted.iter().filter_map(find).collect::<Vec<_>>())?;
        }
    }
    let (ids, unread): (Vec<u64>, Vec<Tensor>) = sums.into_iter().unzip();
    let likeness: BTreeMap<u64, Vec<f32>> = ids.into_iter().zip(read_all(&unread)?).collect();
    let choose = |(id, n, words): (u64, usize, Words)| {
        let unlike: Vec<f32> = likeness.get(&id)?.iter().map(|alike| -alike).collect();
        Some((id, Fewer { words, picture: top(&unlike, n), of: unlike.len() }))
    };
    Ok(wanted.into_iter().filter_map(choose).collect())
}

/// How much each token is like the mean of all, `[n]`: by its key, or by all of what entered the decoder.
fn likeness(kv: &Kv, keeps: Keeps) -> Result<Tensor> {
    let rows = match keeps {
        Keeps::KeysAndValues => kv.k.clone(),
        Keeps::Inputs => Tensor::cat(&[&kv.k, &kv.v], 2)?,
    };
    let mean = rows.to_dtype(DType::F32)?.mean_keepdim(1)?;
    token_cosines(&rows, &mean.broadcast_as(rows.shape())?)
}

/// What an outside model makes of all of these.
fn mean_embedding(units: &[&Unit]) -> Option<Arc<[f32]>> {
    let all: Vec<&[f32]> = units.iter().filter_map(|unit| unit.embedding.as_deref()).collect();
    let first = all.first()?;
    let mean = |i: usize| all.iter().filter_map(|e| e.get(i)).sum::<f32>() / all.len() as f32;
    Some((0..first.len()).map(mean).collect())
}
