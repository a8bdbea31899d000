// SPDX-License-Identifier: MPL-2.0
//! Three tiers: the newest pictures are whole; of those that leave them what changed stays; in those that are
//! older still, what is alike side by side is merged (FluxMem, 2603.02096, §3.2).
//!
//! Where pseudo-questions are asked of every picture, what they have to do with has to be more alike to go,
//! of another scene nothing goes for being alike, and of what gets old the most salient tokens of every quarter
//! stay; where there is no room it is the least salient ones that go, and not the oldest (SAVEMem, 2605.07897,
//! stage 1).

use std::collections::VecDeque;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::asked::Asked;
use super::seen::{Seen, chosen, drop_oldest, drop_unit, look, put};
use crate::error::Result;
use crate::memory::keep::thin::Contents;
use crate::memory::kv::{read, read_all};
use crate::memory::recipe::{Bank, Tiers};
use crate::memory::unit::Geometry;
use crate::memory::weigh::around::{Picture, changed, likeness, merged};
use crate::memory::weigh::salience::spread_out;
use crate::memory::weigh::select::ranked;

/// Of fewer tokens than this nothing is chosen: they are merged (SAVEMem's code).
const FEW: usize = 20;

/// Which pictures stand in which tier; those of the last one are the others.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tiered {
    /// The newest.
    whole: VecDeque<Whole>,
    /// Those of which only what changed is left.
    changed: VecDeque<u64>,
    /// What pseudo-questions made of what is held.
    asked: Asked,
}

/// A picture of the first tier.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Whole {
    unit: u64,
    /// How much each of its tokens was like the picture before.
    was: Vec<Option<f32>>,
    /// Whether it changed much more than is usual.
    scene: bool,
    /// How much it has to do with a pseudo-question.
    asked: f32,
}

impl Tiered {
    /// How much the newest pictures usually have to do with a pseudo-question; `None` where none is asked.
    pub fn usual(&self) -> Option<f32> {
        self.asked.usual()
    }

    /// A unit comes into the first tier, and what leaves a tier enters the next.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn take(
        &mut self,
        (rule, bank): (&Tiers, &[Tensor]),
        id: u64,
        held: &mut Contents<'_>,
        geometry: &Geometry,
    ) -> Result<()> {
        let Some(seen) = look(held, id)? else { return Ok(()) };
        let columns = geometry.columns();
        let before = match self.whole.back() {
            Some(before) => look(held, before.unit)?,
            None => None,
        };
        let was = match before {
            Some(before) => alike(&seen, &before, columns)?,
            None => vec![None; seen.patches.len()],
        };
        let (scene, asked) = match &rule.bank {
            Some(Bank { scene, .. }) => {
                (self.asked.is_other_scene(&was, *scene), self.asked.ask(bank, &seen)?)
            }
            None => (false, 0.0),
        };
        self.whole.push_back(Whole { unit: id, was, scene, asked });
        if self.whole.len() > rule.whole.max(1)
            && let Some(leaves) = self.whole.pop_front()
            && let Some(seen) = look(held, leaves.unit)?
        {
            self.leave_whole(rule, seen, &leaves, held, columns)?;
        }
        if self.changed.len() > rule.changed
            && let Some(id) = self.changed.pop_front()
            && let Some(seen) = look(held, id)?
        {
            self.grow_old(rule, &seen, held, columns)?;
        }
        if rule.bank.is_none() {
            drop_oldest(held, rule.cap * geometry.unit_tokens, |unit| geometry.length(unit));
            return Ok(());
        }
        self.forget(rule.cap * geometry.unit_tokens, held, geometry)?;
        self.asked.forget_others(|id| held.units.get(id).is_some());
        let newest: Vec<f32> = self.whole.iter().map(|whole| whole.asked).collect();
        self.asked.hear(&newest);
        Ok(())
    }

    /// What changed of a picture stays.
    fn leave_whole(
        &mut self,
        rule: &Tiers,
        seen: Seen,
        whole: &Whole,
        held: &mut Contents<'_>,
        columns: u32,
    ) -> Result<()> {
        let behind = match self.whole.front() {
            Some(behind) => look(held, behind.unit)?,
            None => None,
        };
        let is = match behind {
            Some(behind) => alike(&seen, &behind, columns)?,
            None => vec![None; seen.patches.len()],
        };
        let same = rule.same as f32;
        let stays = match &rule.bank {
            None => changed(&whole.was, &is, |_| same),
            Some(_) if whole.scene => changed(&whole.was, &is, |_| f32::INFINITY),
            Some(Bank { spare, .. }) => {
                let salience = self.asked.salience(seen.id, &seen.patches);
                let more = |at: usize| salience.get(at).map_or(0.0, |own| own * *spare as f32);
                changed(&whole.was, &is, |at| same + more(at))
            }
        };
        let kept: Vec<usize> = (0..stays.len()).filter(|&at| stays[at]).collect();
        // One of which nothing is left still takes its turn.
        self.changed.push_back(seen.id);
        if kept.is_empty() {
            drop_unit(held, seen.id);
            return Ok(());
        }
        leave(held, &seen, &kept)
    }

    /// A picture enters the last tier.
    fn grow_old(
        &self,
        rule: &Tiers,
        seen: &Seen,
        held: &mut Contents<'_>,
        columns: u32,
    ) -> Result<()> {
        if rule.bank.is_some() && seen.patches.len() >= FEW {
            let salience = self.asked.salience(seen.id, &seen.patches);
            return leave(held, seen, &spread_out(&salience, &seen.patches, columns));
        }
        let tokens = read(&seen.picture()?)?;
        let picture = Picture { tokens: &tokens, patches: &seen.patches };
        if let Some((left, places)) = merged(picture, columns) {
            let patches: Vec<u32> = places.iter().map(|&at| seen.patches[at]).collect();
            let shape = (places.len(), seen.input.dim(1)?);
            let left = Tensor::from_vec(left, shape, seen.input.device())?;
            put(held, &seen.with(&left, patches)?)?;
        }
        Ok(())
    }

    /// Of the last tier the least salient tokens go while it and the one before it come to more than there is
    /// room for.
    fn forget(&self, room: usize, held: &mut Contents<'_>, geometry: &Geometry) -> Result<()> {
        let whole = self.whole.front().map_or(u64::MAX, |whole| whole.unit);
        let changed = self.changed.front().copied().unwrap_or(whole);
        let (mut over, mut old) = (0, Vec::new());
        for unit in held.inputs.iter().filter_map(|input| held.units.get(input.unit)) {
            if unit.id < whole {
                over += geometry.length(unit);
            }
            if unit.id < changed {
                let n = geometry.length(unit) - unit.words.tokens();
                let patches: Vec<u32> = (0..n).map(|token| unit.patch(token)).collect();
                old.push((unit.id, unit.words.tokens(), self.asked.salience(unit.id, &patches)));
            }
        }
        let mut over = over.saturating_sub(room);
        if over == 0 {
            return Ok(());
        }
        let tokens = old.iter().enumerate();
        let tokens: Vec<(usize, usize)> = tokens
            .flat_map(|(unit, (.., salience))| (0..salience.len()).map(move |at| (unit, at)))
            .collect();
        let least: Vec<f32> =
            old.iter().flat_map(|(.., salience)| salience).map(|salience| -salience).collect();
        let mut stays: Vec<Vec<bool>> =
            old.iter().map(|(.., salience)| vec![true; salience.len()]).collect();
        for (unit, at) in ranked(&least).into_iter().map(|token| tokens[token]) {
            if over == 0 {
                break;
            }
            stays[unit][at] = false;
            over -= 1;
            if !stays[unit].contains(&true) {
                over = over.saturating_sub(old[unit].1);
            }
        }
        for ((id, ..), stays) in old.iter().zip(&stays) {
            let kept: Vec<usize> = (0..stays.len()).filter(|&at| stays[at]).collect();
            if kept.is_empty() {
                drop_unit(held, *id);
            } else if kept.len() < stays.len()
                && let Some(seen) = look(held, *id)?
            {
                leave(held, &seen, &kept)?;
            }
        }
        Ok(())
    }
}

/// Leaves these tokens of a picture.
fn leave(held: &mut Contents<'_>, seen: &Seen, kept: &[usize]) -> Result<()> {
    if kept.len() == seen.patches.len() {
        return Ok(());
    }
    let patches = kept.iter().map(|&at| seen.patches[at]).collect();
    put(held, &seen.with(&chosen(&seen.picture()?, kept)?, patches)?)
}

/// How much the tokens of a picture are like those of another around the same places.
fn alike(of: &Seen, other: &Seen, columns: u32) -> Result<Vec<Option<f32>>> {
    let tokens = read_all(&[of.picture()?, other.picture()?])?;
    let [a, b] = &tokens[..] else { return Ok(Vec::new()) };
    let of = Picture { tokens: a, patches: &of.patches };
    Ok(likeness(of, Picture { tokens: b, patches: &other.patches }, columns))
}
