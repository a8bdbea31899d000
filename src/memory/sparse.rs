// SPDX-License-Identifier: MPL-2.0
//! A window of whole units of which new frames see only what changed: the keys least like those of
//! the same patch one unit before (MemStream's adaptive key selection, §3.3). What is stored to be
//! retrieved stays whole.

use std::collections::VecDeque;

use candle_core::{DType, Tensor};

use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::VideoMemory;
use crate::memory::attend::UNBOUNDED;
use crate::memory::resident::gather;
use crate::memory::score::row_cosines;
use crate::memory::select::top;
use crate::memory::store::Kv;
use crate::model::attention::{self, Stage, Visible};
use crate::model::decoder::Attend;
use crate::model::rope::Positions;

/// How far new frames see, and how much of that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sparse {
    /// Units before the one at hand.
    pub units: usize,
    /// Fraction of a unit's tokens that later ones see.
    pub keep: f64,
    /// Compare units in pairs, the first of each whole, instead of each with the one before it.
    pub pairs: bool,
}

impl Sparse {
    /// Tokens that later units see of one of `n`.
    pub fn kept(&self, n: usize) -> usize {
        ((n as f64 * self.keep).round() as usize).clamp(1, n.max(1))
    }

    /// Which of the tokens of a unit with these keys (see [`by_token`]) later ones will see behind
    /// this window.
    fn seen_later(&self, window: &Layer, keys: &[f32], dim: usize) -> Vec<usize> {
        let whole = self.pairs && window.seen.is_multiple_of(2);
        let count = self.kept(keys.len() / dim.max(1));
        least_alike(keys, if whole { &[] } else { &window.last }, dim, count)
    }
}

/// One layer's window.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    /// What is seen of each unit, keys rotated at their place in the stream.
    units: VecDeque<Kv>,
    /// The last unit's keys, un-rotated, token by token.
    last: Vec<f32>,
    /// Units that came in.
    seen: usize,
}

impl Layer {
    pub fn bytes(&self) -> u64 {
        self.units.iter().map(Kv::bytes).sum()
    }
}

/// Keys `[Hk, n, d]` token by token, heads side by side.
pub fn by_token(keys: &Tensor) -> Result<Vec<f32>> {
    let keys = keys.to_dtype(DType::F32)?.transpose(0, 1)?.contiguous()?;
    Ok(keys.flatten_all()?.to_vec1()?)
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

/// A layer's un-rotated keys and values, the window behind them, and which tokens of each unit it
/// holds.
type Fresh = (Kv, Layer, Vec<Vec<usize>>);

/// Frames come in, unit by unit.
pub struct IngestSparse<'a> {
    memory: &'a VideoMemory,
    rule: Sparse,
    layers: &'a [Layer],
    /// Tokens of each unit.
    lengths: &'a [usize],
    cancel: &'a Cancel,
    out: Vec<Fresh>,
}

impl<'a> IngestSparse<'a> {
    pub fn new(
        memory: &'a VideoMemory,
        rule: Sparse,
        layers: &'a [Layer],
        lengths: &'a [usize],
        cancel: &'a Cancel,
    ) -> Self {
        Self { memory, rule, layers, lengths, cancel, out: Vec::new() }
    }

    pub fn into_layers(self) -> Vec<Fresh> {
        self.out
    }
}

impl Attend for IngestSparse<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let memory = self.memory;
        let (rope, scale) = (&memory.rope, memory.geometry.scale);
        let places = memory.upcoming(q.dim(1)?).places();
        let prefix = memory.layers.get(layer).and_then(|store| store.prefix.as_ref());
        let dim = k.dim(0)? * k.dim(2)?;
        let mut window = self.layers[layer].clone();
        let mut contexts = Vec::with_capacity(self.lengths.len());
        let mut changed = Vec::with_capacity(self.lengths.len());
        let mut start = 0;
        for &n in self.lengths {
            self.cancel.check()?;
            let part = |x: &Tensor| x.narrow(1, start, n)?.contiguous();
            let here = Positions::listed(places[start..start + n].to_vec());
            let (raw_q, raw_k, v) = (part(q)?, part(k)?, part(v)?);
            let q = rope.rotate(&raw_q, &here)?;
            let own = Kv { k: rope.rotate(&raw_k, &here)?, v };
            let past = match window.units.len() {
                0 => None,
                _ => {
                    let keys: Vec<&Tensor> = window.units.iter().map(|kv| &kv.k).collect();
                    let values: Vec<&Tensor> = window.units.iter().map(|kv| &kv.v).collect();
                    Some(Kv { k: Tensor::cat(&keys, 1)?, v: Tensor::cat(&values, 1)? })
                }
            };
            let mut stages = Vec::with_capacity(3);
            // The prefix stays in sight; once the window has moved on, at its far end.
            let seen = match prefix {
                Some(kv) if window.seen > self.rule.units => {
                    let far = memory.layout.reach((self.rule.units + 1) * n - 1);
                    let q = rope.rotate(&raw_q, &Positions::constant(far, n))?;
                    Some((q, kv.clone()))
                }
                Some(kv) => {
                    let at = Positions::run(0, kv.tokens()?);
                    Some((q.clone(), Kv { k: rope.rotate(&kv.k, &at)?, v: kv.v.clone() }))
                }
                None => None,
            };
            if let Some((q, Kv { k, v })) = &seen {
                stages.push(Stage { q, k, v, visible: Visible::All });
            }
            if let Some(Kv { k, v }) = &past {
                stages.push(Stage { q: &q, k, v, visible: Visible::All });
            }
            let visible = Visible::Window { offset: 0, width: UNBOUNDED };
            stages.push(Stage { q: &q, k: &own.k, v: &own.v, visible });
            contexts.push(attention::attend(&stages, scale)?);

            let raw = by_token(&raw_k)?;
            let kept = self.rule.seen_later(&window, &raw, dim);
            window.units.push_back(gather(&own, std::slice::from_ref(&kept))?);
            changed.push(kept);
            if window.units.len() > self.rule.units {
                window.units.pop_front();
            }
            window.last = raw;
            window.seen += 1;
            start += n;
        }
        self.out.push((Kv { k: k.clone(), v: v.clone() }, window, changed));
        Ok(Tensor::cat(&contexts, 1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_pair_the_first_is_whole_and_the_second_compared_with_it() {
        let rule = |pairs| Sparse { units: 4, keep: 0.5, pairs };
        // Two tokens of one number each; the second token turned round.
        let window = |seen| Layer { last: vec![1.0, 1.0], seen, ..Layer::default() };
        let keys = [1.0, -1.0];
        for (pairs, seen, expected) in
            [(false, 1, &[1][..]), (false, 2, &[1]), (true, 1, &[1]), (true, 2, &[0, 1])]
        {
            let kept = rule(pairs).seen_later(&window(seen), &keys, 1);
            assert_eq!(kept, expected, "pairs {pairs}, unit {seen}");
        }
        // Nothing came before the first one of all.
        assert_eq!(rule(false).seen_later(&Layer::default(), &keys, 1), [0, 1]);
    }
}
