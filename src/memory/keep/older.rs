// SPDX-License-Identifier: MPL-2.0
//! Inputs get fewer as newer ones come, whether there is room for them or not: what an answer reads is a
//! stream that was tidied up on the way.
//!
//! [`Tiers`] is FluxMem's way (2603.02096, §3.2): the newest pictures are whole; of those that leave them
//! what changed stays; in those that are older still, what is alike side by side is merged. [`Span`] is
//! CausalMem's (2606.25658, §3.2): of all tokens those stay that a few directions say least of, and of
//! what goes of a picture the mean. Both look at tokens as they enter the decoder, nothing else.

use std::collections::{BTreeMap, VecDeque};

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::thin::Contents;
use crate::error::Result;
use crate::memory::kv::{filed, index, pick, read, read_all, unfiled};
use crate::memory::recipe::{Older, Span, Tiers};
use crate::memory::store::Block;
use crate::memory::unit::{Geometry, RESIDUE, Unit, Words};
use crate::memory::weigh::around::{Picture, changed, likeness, merged};
use crate::memory::weigh::basis::Basis;
use crate::memory::weigh::select::{best, top};

/// CausalMem keeps so many of its tokens for what is new, 100 of 12,000, whatever means there are.
const LEAST_NEW: usize = 120;

/// What is remembered of pictures to tidy up by.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tidy {
    /// The newest pictures, whole, with how much each of their tokens was like the picture before.
    whole: VecDeque<(u64, Vec<Option<f32>>)>,
    /// Those of which only what changed is left.
    changed: VecDeque<u64>,
    basis: Basis,
    /// How many tokens the mean of a picture stands for.
    means: BTreeMap<u64, usize>,
}

/// A unit's picture as it is held.
struct Seen {
    id: u64,
    words: Words,
    /// `[n, C]`, words included.
    input: Tensor,
    patches: Vec<u32>,
}

impl Seen {
    /// The picture's tokens, `[n, C]`.
    fn picture(&self) -> Result<Tensor> {
        Ok(self.input.narrow(0, self.words.front, self.patches.len())?)
    }

    /// The same with these tokens for its picture, which stand at these patches.
    fn with(&self, tokens: &Tensor, patches: Vec<u32>) -> Result<Self> {
        let Words { front, behind } = self.words;
        let end = self.input.dim(0)? - behind;
        let tokens = tokens.to_dtype(self.input.dtype())?;
        let parts = [self.input.narrow(0, 0, front)?, tokens, self.input.narrow(0, end, behind)?];
        let filled: Vec<&Tensor> = parts.iter().filter(|part| part.elem_count() > 0).collect();
        Ok(Self { input: Tensor::cat(&filled, 0)?, patches, ..*self })
    }
}

impl Tidy {
    /// Tidies up behind units that have just come.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn up(
        &mut self,
        rule: &Older,
        fresh: &[u64],
        mut held: Contents<'_>,
        geometry: &Geometry,
    ) -> Result<()> {
        for &id in fresh {
            match rule {
                Older::Stays => return Ok(()),
                Older::Tiers(tiers) => self.tiers(tiers, id, &mut held, geometry)?,
                Older::Span(span) => self.span(span, id, &mut held, geometry)?,
            }
        }
        Ok(())
    }

    /// A unit comes into the first tier, and what leaves a tier enters the next.
    fn tiers(
        &mut self,
        rule: &Tiers,
        id: u64,
        held: &mut Contents<'_>,
        geometry: &Geometry,
    ) -> Result<()> {
        let Some(seen) = look(held, id)? else { return Ok(()) };
        let columns = geometry.columns();
        let before = match self.whole.back() {
            Some(&(before, _)) => look(held, before)?,
            None => None,
        };
        let was = match before {
            Some(before) => alike(&seen, &before, columns)?,
            None => vec![None; seen.patches.len()],
        };
        self.whole.push_back((id, was));
        if self.whole.len() > rule.whole.max(1)
            && let Some((id, was)) = self.whole.pop_front()
            && let Some(seen) = look(held, id)?
        {
            self.leave_whole(rule, seen, &was, held, columns)?;
        }
        if self.changed.len() > rule.changed
            && let Some(id) = self.changed.pop_front()
            && let Some(seen) = look(held, id)?
        {
            let tokens = read(&seen.picture()?)?;
            let picture = Picture { tokens: &tokens, patches: &seen.patches };
            if let Some((left, places)) = merged(picture, columns) {
                let patches: Vec<u32> = places.iter().map(|&at| seen.patches[at]).collect();
                let shape = (places.len(), seen.input.dim(1)?);
                let left = Tensor::from_vec(left, shape, seen.input.device())?;
                put(held, &seen.with(&left, patches)?)?;
            }
        }
        drop_oldest(held, rule.cap * geometry.unit_tokens, |unit| geometry.length(unit));
        Ok(())
    }

    /// What changed of a picture stays.
    fn leave_whole(
        &mut self,
        rule: &Tiers,
        seen: Seen,
        was: &[Option<f32>],
        held: &mut Contents<'_>,
        columns: u32,
    ) -> Result<()> {
        let behind = match self.whole.front() {
            Some(&(behind, _)) => look(held, behind)?,
            None => None,
        };
        let is = match behind {
            Some(behind) => alike(&seen, &behind, columns)?,
            None => vec![None; seen.patches.len()],
        };
        let stays = changed(was, &is, rule.same as f32);
        let kept: Vec<usize> = (0..stays.len()).filter(|&at| stays[at]).collect();
        // One of which nothing is left still takes its turn.
        self.changed.push_back(seen.id);
        if kept.is_empty() {
            drop_unit(held, seen.id);
        } else if kept.len() < stays.len() {
            let tokens = chosen(&seen.picture()?, &kept)?;
            let patches = kept.iter().map(|&at| seen.patches[at]).collect();
            put(held, &seen.with(&tokens, patches)?)?;
        }
        Ok(())
    }

    /// A unit comes to the others, and what the directions say most of goes from all of them.
    fn span(
        &mut self,
        rule: &Span,
        id: u64,
        held: &mut Contents<'_>,
        geometry: &Geometry,
    ) -> Result<()> {
        let Some(fresh) = look(held, id)? else { return Ok(()) };
        self.turn(rule, &fresh.picture()?.to_dtype(DType::F32)?)?;
        let room = rule.cap * geometry.unit_tokens;
        let words: usize = held.units.iter().map(|unit| unit.words.tokens()).sum();
        let length = |unit: &Unit| geometry.length(unit);
        if held.units.iter().map(length).sum::<usize>() > room && !self.basis.is_empty() {
            let ids: Vec<u64> = held.inputs.iter().map(|input| input.unit).collect();
            let all = ids.iter().map(|&id| look(held, id)).collect::<Result<Vec<_>>>()?;
            let all: Vec<Seen> = all.into_iter().flatten().collect();
            let means = all.iter().filter(|seen| is_mean(seen)).count();
            let new = room.saturating_sub(means + words).max(room / LEAST_NEW).max(1);
            self.keep_new(all, new, held)?;
        }
        // Of every picture at least the mean stays, so there is an end to how many there can be.
        let least = |unit: &Unit| 1 + unit.words.tokens();
        drop_oldest(held, room.saturating_sub((room / LEAST_NEW).max(1)), least);
        if let Some(oldest) = held.inputs.front().map(|input| input.unit) {
            self.means = self.means.split_off(&oldest);
        }
        Ok(())
    }

    /// Turns the directions to these tokens, `[n, C]` in f32.
    fn turn(&mut self, rule: &Span, tokens: &Tensor) -> Result<()> {
        let (n, dim) = tokens.dims2()?;
        if self.basis.is_empty() {
            self.basis.begin(&read(tokens)?, dim, rule.directions);
            return Ok(());
        }
        let (rest, shares) = self.left_of(tokens)?;
        let numbers = [rest.sqr()?.sum(1)?, shares.abs()?.mean(0)?];
        let numbers = read_all(&numbers)?;
        let [left, used] = &numbers[..] else { return Ok(()) };
        let most = best(left, rule.new.min(n));
        let rest = read(&chosen(&rest, &most)?)?;
        let rest: Vec<Vec<f32>> = rest.chunks_exact(dim).map(<[f32]>::to_vec).collect();
        self.basis.turn(used, &rest, rule.decay, rule.directions);
        Ok(())
    }

    /// What the directions leave of tokens `[n, C]`, and how much of each there is, `[n, k]`.
    fn left_of(&self, tokens: &Tensor) -> Result<(Tensor, Tensor)> {
        let directions = self.basis.directions();
        let shape = (directions.len(), tokens.dim(1)?);
        let directions = Tensor::from_vec(directions.concat(), shape, tokens.device())?;
        let shares = tokens.matmul(&directions.t()?)?;
        Ok(((tokens - shares.matmul(&directions)?)?, shares))
    }

    /// Of all pictures' tokens the `count` of which the directions leave most stay; what goes of a picture
    /// becomes part of its mean.
    fn keep_new(&mut self, all: Vec<Seen>, count: usize, held: &mut Contents<'_>) -> Result<()> {
        let pictures = all.iter().map(|seen| {
            let n = seen.patches.len() - usize::from(is_mean(seen));
            Ok(seen.picture()?.narrow(0, 0, n)?.to_dtype(DType::F32)?)
        });
        let pictures: Vec<Tensor> = pictures.collect::<Result<_>>()?;
        let filled: Vec<&Tensor> = pictures.iter().filter(|x| x.elem_count() > 0).collect();
        if filled.is_empty() {
            return Ok(());
        }
        let (rest, _) = self.left_of(&Tensor::cat(&filled, 0)?)?;
        let new = top(&read(&rest.sqr()?.sum(1)?)?, count);
        let (mut new, mut start) = (new.as_slice(), 0);
        for (seen, picture) in all.iter().zip(pictures) {
            let n = picture.dim(0)?;
            let (own, rest) = new.split_at(new.partition_point(|&at| at < start + n));
            let own: Vec<usize> = own.iter().map(|at| at - start).collect();
            (new, start) = (rest, start + n);
            if own.len() == n {
                continue;
            }
            let goes: Vec<usize> = (0..n).filter(|at| own.binary_search(at).is_err()).collect();
            let sum = chosen(&picture, &goes)?.sum_keepdim(0)?;
            let before = self.means.get(&seen.id).copied().filter(|_| is_mean(seen)).unwrap_or(0);
            let sum = match before {
                0 => sum,
                before => {
                    let mean = seen.picture()?.narrow(0, n, 1)?.to_dtype(DType::F32)?;
                    (sum + (mean * before as f64)?)?
                }
            };
            let stands_for = before + goes.len();
            let mean = (sum / stands_for as f64)?;
            let tokens = match own.is_empty() {
                true => mean,
                false => Tensor::cat(&[&chosen(&picture, &own)?, &mean], 0)?,
            };
            let patches = own.iter().map(|&at| seen.patches[at]).chain([RESIDUE]).collect();
            self.means.insert(seen.id, stands_for);
            put(held, &seen.with(&tokens, patches)?)?;
        }
        Ok(())
    }
}

/// Whether the last of its tokens stands for those that went.
fn is_mean(seen: &Seen) -> bool {
    seen.patches.last() == Some(&RESIDUE)
}

/// How much the tokens of a picture are like those of another around the same places.
fn alike(of: &Seen, other: &Seen, columns: u32) -> Result<Vec<Option<f32>>> {
    let tokens = read_all(&[of.picture()?, other.picture()?])?;
    let [a, b] = &tokens[..] else { return Ok(Vec::new()) };
    let of = Picture { tokens: a, patches: &of.patches };
    Ok(likeness(of, Picture { tokens: b, patches: &other.patches }, columns))
}

/// Rows of a list `[n, C]`.
fn chosen(tokens: &Tensor, rows: &[usize]) -> Result<Tensor> {
    pick(tokens, &index(rows, tokens.device())?, 0)
}

/// What is held of a unit; `None` where it is lost.
fn look(held: &Contents<'_>, id: u64) -> Result<Option<Seen>> {
    let at = held.inputs.binary_search_by_key(&id, |input| input.unit).ok();
    let block = at.and_then(|at| held.inputs.get(at));
    let (Some(unit), Some(block)) = (held.units.get(id), block) else { return Ok(None) };
    let Some(kv) = block.load()? else { return Ok(None) };
    let input = unfiled(&kv)?;
    let n = input.dim(0)?.saturating_sub(unit.words.tokens());
    let is_whole = unit.patches.as_ref().is_none_or(|patches| patches.len() == n);
    let patches = (0..n).map(|token| unit.patch(token)).collect();
    // Words alone are no picture.
    Ok((is_whole && n > 0).then_some(Seen { id, words: unit.words, input, patches }))
}

/// Takes the place of what is held of the same unit.
fn put(held: &mut Contents<'_>, seen: &Seen) -> Result<()> {
    let Ok(at) = held.inputs.binary_search_by_key(&seen.id, |input| input.unit) else {
        return Ok(());
    };
    let block = Block::new(seen.id, filed(&seen.input)?)?;
    for block in held.tiers.put(held.layers.len(), vec![block])? {
        if let Some(own) = held.inputs.get_mut(at) {
            *own = block;
        }
    }
    if let Some(unit) = held.units.get(seen.id) {
        let patches = Some(seen.patches.as_slice().into());
        let unit = Unit { patches, ..unit.clone() };
        held.units.replace(unit);
    }
    Ok(())
}

fn drop_unit(held: &mut Contents<'_>, id: u64) {
    held.inputs.retain(|input| input.unit != id);
    held.units.remove(id);
}

/// Drops the oldest while they come to more than this; the newest stays.
fn drop_oldest(held: &mut Contents<'_>, room: usize, cost: impl Fn(&Unit) -> usize) {
    let of = |held: &Contents<'_>, id: u64| held.units.get(id).map_or(0, &cost);
    let mut all: usize = held.inputs.iter().map(|input| of(held, input.unit)).sum();
    while all > room && held.inputs.len() > 1 {
        let Some(oldest) = held.inputs.front().map(|input| input.unit) else { break };
        all -= of(held, oldest).min(all);
        drop_unit(held, oldest);
    }
}
