// SPDX-License-Identifier: MPL-2.0
//! Inputs get fewer as newer ones come, whether there is room for them or not: what an answer reads is a
//! stream that was tidied up on the way.
//!
//! [`tiers`] is FluxMem's way (2603.02096, §3.2) and with pseudo-questions ([`asked`]) SAVEMem's (2605.07897,
//! stage 1); [`span`] is CausalMem's (2606.25658, §3.2). They look at tokens as they enter the decoder, nothing
//! else.

mod asked;
mod span;
mod tiers;

use std::collections::{BTreeMap, VecDeque};

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use self::asked::Asked;
use self::tiers::Whole;
use super::thin::Contents;
use crate::error::Result;
use crate::memory::kv::{filed, index, pick, unfiled};
use crate::memory::recipe::Older;
use crate::memory::store::Block;
use crate::memory::unit::{Geometry, Unit, Words};
use crate::memory::weigh::basis::Basis;

/// What is remembered of pictures to tidy up by.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tidy {
    /// The newest pictures.
    whole: VecDeque<Whole>,
    /// Those of which only what changed is left.
    changed: VecDeque<u64>,
    /// What pseudo-questions made of what is held.
    #[serde(default)]
    asked: Asked,
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
    /// Tidies up behind units that have just come. `bank`: the recipe's pseudo-questions, `[m, C]` each.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn up(
        &mut self,
        (rule, bank): (&Older, &[Tensor]),
        fresh: &[u64],
        mut held: Contents<'_>,
        geometry: &Geometry,
    ) -> Result<()> {
        for &id in fresh {
            match rule {
                Older::Stays => return Ok(()),
                Older::Tiers(tiers) => self.tiers((tiers, bank), id, &mut held, geometry)?,
                Older::Span(span) => self.span(span, id, &mut held, geometry)?,
            }
        }
        Ok(())
    }

    /// How much the newest pictures usually have to do with a pseudo-question; `None` where none is asked.
    pub fn usual(&self) -> Option<f32> {
        self.asked.usual()
    }
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
