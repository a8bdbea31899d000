// SPDX-License-Identifier: MPL-2.0
//! A few pseudo-questions are asked of every picture when it comes, always the same ones: what they have to do
//! with is what any question may want (SAVEMem, stage 1). The question that is asked in the end has no part in
//! it.

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::seen::Seen;
use crate::error::Result;
use crate::memory::kv::read;
use crate::memory::weigh::salience::{likest, mean, usual};

/// What came of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Asked {
    /// Of each unit that is held its patches, ascending, with how salient they were.
    salience: BTreeMap<u64, Vec<(u32, f32)>>,
    usual: Option<f32>,
    changes: Changes,
}

/// How much pictures changed so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Changes {
    sum: f64,
    pictures: u64,
}

/// Less change than this is none.
const STILL: f64 = 1e-6;

impl Asked {
    pub fn usual(&self) -> Option<f32> {
        self.usual
    }

    /// Asks the bank, questions of `[m, C]` each, of a picture: how much it has to do with one of them.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn ask(&mut self, bank: &[Tensor], seen: &Seen) -> Result<f32> {
        let picture = seen.picture()?;
        let asked = bank.iter().filter(|words| words.elem_count() > 0);
        let asked: Vec<Tensor> =
            asked.map(|words| likest(&picture, words)).collect::<Result<_>>()?;
        if asked.is_empty() {
            return Ok(0.0);
        }
        let asked = read(&Tensor::stack(&asked, 0)?)?;
        let of_each: Vec<&[f32]> = asked.chunks_exact(seen.patches.len()).collect();
        let salient = |at: usize| {
            of_each.iter().filter_map(|one| one.get(at)).copied().fold(f32::NEG_INFINITY, f32::max)
        };
        let patches = seen.patches.iter().enumerate();
        self.salience.insert(seen.id, patches.map(|(at, &patch)| (patch, salient(at))).collect());
        Ok(mean(&of_each.iter().map(|one| mean(one)).collect::<Vec<_>>()))
    }

    /// Hears how much each of the newest pictures has to do with a question.
    pub fn hear(&mut self, newest: &[f32]) {
        self.usual = Some(usual(self.usual, mean(newest)));
    }

    /// How salient these tokens are of what is left of a unit.
    pub fn salience(&self, unit: u64, patches: &[u32]) -> Vec<f32> {
        let known = self.salience.get(&unit).map_or(&[][..], Vec::as_slice);
        let of = |patch: &u32| {
            let at = known.binary_search_by_key(patch, |(patch, _)| *patch).ok()?;
            known.get(at).map(|(_, salience)| *salience)
        };
        patches.iter().map(|patch| of(patch).unwrap_or_default()).collect()
    }

    /// Of these units alone is something held.
    pub fn forget_others(&mut self, held: impl Fn(u64) -> bool) {
        self.salience.retain(|unit, _| held(*unit));
    }

    /// Whether a picture that is so much like the one before is another scene: it changed more often as much as
    /// is usual so far than `scene` says.
    pub fn is_other_scene(&mut self, was: &[Option<f32>], scene: f64) -> bool {
        let changes: Vec<f64> = was.iter().flatten().map(|alike| f64::from(1.0 - alike)).collect();
        if changes.is_empty() {
            return false;
        }
        let change = changes.iter().sum::<f64>() / changes.len() as f64;
        let Changes { sum, pictures } = &mut self.changes;
        let usual = *sum / (*pictures).max(1) as f64;
        (*sum, *pictures) = (*sum + change, *pictures + 1);
        usual > STILL && change > scene * usual
    }
}
