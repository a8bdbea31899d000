// SPDX-License-Identifier: MPL-2.0
//! CausalMem (2606.25658, §3.2): of all tokens those stay that a few directions which follow the stream say
//! least of, and of what goes of a picture the mean.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::seen::{Seen, chosen, drop_oldest, look, put};
use crate::error::Result;
use crate::memory::keep::thin::Contents;
use crate::memory::kv::{read, read_all};
use crate::memory::recipe::Span;
use crate::memory::unit::{Geometry, RESIDUE, Unit};
use crate::memory::weigh::basis::Basis;
use crate::memory::weigh::select::{best, top};

/// CausalMem keeps so many of its tokens for what is new, 100 of 12,000, whatever means there are.
const LEAST_NEW: usize = 120;

/// What has been seen, and what went of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Spanned {
    basis: Basis,
    /// How many tokens the mean of a picture stands for.
    means: BTreeMap<u64, usize>,
}

impl Spanned {
    /// A unit comes to the others, and what the directions say most of goes from all of them.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn take(
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
