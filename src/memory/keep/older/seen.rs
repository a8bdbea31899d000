// SPDX-License-Identifier: MPL-2.0
//! A unit's picture as it is held, and how it becomes less.

use candle_core::Tensor;

use crate::error::Result;
use crate::memory::keep::thin::Contents;
use crate::memory::kv::{filed, index, pick, unfiled};
use crate::memory::store::Block;
use crate::memory::unit::{Unit, Words};

/// A unit's picture as it is held.
pub struct Seen {
    pub id: u64,
    pub words: Words,
    /// `[n, C]`, words included.
    pub input: Tensor,
    pub patches: Vec<u32>,
}

impl Seen {
    /// The picture's tokens, `[n, C]`.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn picture(&self) -> Result<Tensor> {
        Ok(self.input.narrow(0, self.words.front, self.patches.len())?)
    }

    /// The same with these tokens for its picture, which stand at these patches.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn with(&self, tokens: &Tensor, patches: Vec<u32>) -> Result<Self> {
        let Words { front, behind } = self.words;
        let end = self.input.dim(0)? - behind;
        let tokens = tokens.to_dtype(self.input.dtype())?;
        let parts = [self.input.narrow(0, 0, front)?, tokens, self.input.narrow(0, end, behind)?];
        let filled: Vec<&Tensor> = parts.iter().filter(|part| part.elem_count() > 0).collect();
        Ok(Self { input: Tensor::cat(&filled, 0)?, patches, ..*self })
    }
}

/// Rows of a list `[n, C]`.
///
/// # Errors
/// What the computation fails with.
pub fn chosen(tokens: &Tensor, rows: &[usize]) -> Result<Tensor> {
    pick(tokens, &index(rows, tokens.device())?, 0)
}

/// What is held of a unit; `None` where it is lost.
///
/// # Errors
/// What the computation fails with.
pub fn look(held: &Contents<'_>, id: u64) -> Result<Option<Seen>> {
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
///
/// # Errors
/// What the computation fails with.
pub fn put(held: &mut Contents<'_>, seen: &Seen) -> Result<()> {
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

/// Nothing of a unit is held from here on.
pub fn drop_unit(held: &mut Contents<'_>, id: u64) {
    held.inputs.retain(|input| input.unit != id);
    held.units.remove(id);
}

/// Drops the oldest while they come to more than this; the newest stays.
pub fn drop_oldest(held: &mut Contents<'_>, room: usize, cost: impl Fn(&Unit) -> usize) {
    let of = |held: &Contents<'_>, id: u64| held.units.get(id).map_or(0, &cost);
    let mut all: usize = held.inputs.iter().map(|input| of(held, input.unit)).sum();
    while all > room && held.inputs.len() > 1 {
        let Some(oldest) = held.inputs.front().map(|input| input.unit) else { break };
        all -= of(held, oldest).min(all);
        drop_unit(held, oldest);
    }
}
