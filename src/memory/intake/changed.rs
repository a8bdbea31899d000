// SPDX-License-Identifier: MPL-2.0
//! The way in past what changed: a window of whole units of which new frames see only the keys least
//! like those of the same patch one unit before (MemStream's adaptive key selection, §3.3). What is
//! stored to be retrieved stays whole.

use candle_core::Tensor;

use super::before::{Before, WayIn};
use super::encoded::Encoded;
use super::frames::Segment;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::kv::{Kv, by_token, gather, representative};
use crate::memory::recipe::Sparse;
use crate::memory::store::{Block, ChangedWindow};
use crate::memory::unit::UNBOUNDED;
use crate::memory::weigh::novelty::least_alike;
use crate::model::attention::{self, Stage, Visible};
use crate::model::decoder::{Attend, Decoder};
use crate::model::rope::Positions;

/// One pass over all units of a segment, unit by unit in each layer.
pub struct Changed(pub Sparse);

impl WayIn for Changed {
    fn encode(
        &self,
        before: Before<'_>,
        segment: &Segment,
        decoder: &Decoder,
        cancel: &Cancel,
    ) -> Result<Encoded> {
        let inputs = before.inputs(segment)?;
        let lengths = inputs.lengths()?;
        let here = before.positions(&inputs)?;
        let new = || InChanged::new(before, self.0, (here.clone(), &lengths), cancel);
        let (pass, _) = decoder.forward_together(&inputs.embeds()?, cancel, new)?;
        let fresh = pass.into_layers();
        let raw: Vec<&Kv> = fresh.iter().map(|layer| &layer.raw).collect();
        let resident = before.grown(&inputs, &raw, decoder, cancel)?;
        let raw = fresh.iter().map(|layer| (layer.raw.clone(), None)).collect();
        let mut encoded = Encoded::cut(before.held, inputs.units, raw)?;
        for (layer, Fresh { window, changed, .. }) in encoded.layers.iter_mut().zip(fresh) {
            layer.changed = Some(window);
            if !before.held.recipe.changed_representative {
                continue;
            }
            for (index, kept) in changed.into_iter().enumerate() {
                let block = layer.blocks.get(index).map(Block::load).transpose()?;
                if let Some(kv) = block.flatten() {
                    layer.blocks.set_mean_key(index, &representative(&gather(&kv, &[kept])?.k)?);
                }
            }
        }
        Ok(Encoded { resident, ..encoded })
    }
}

/// Tokens that later units see of one of `n`.
fn kept(rule: Sparse, n: usize) -> usize {
    ((n as f64 * rule.keep).round() as usize).clamp(1, n.max(1))
}

/// Which of the tokens of a unit with these keys (see [`by_token`]) later ones will see behind this
/// window.
fn seen_later(rule: Sparse, window: &ChangedWindow, keys: &[f32], dim: usize) -> Vec<usize> {
    let whole = rule.pairs && window.seen().is_multiple_of(2);
    let count = kept(rule, keys.len() / dim.max(1));
    least_alike(keys, if whole { &[] } else { window.last() }, dim, count)
}

/// What a pass leaves of one layer.
pub struct Fresh {
    /// Un-rotated keys and values.
    pub raw: Kv,
    pub window: ChangedWindow,
    /// Which tokens of each unit the window holds.
    pub changed: Vec<Vec<usize>>,
}

/// Frames come in, unit by unit.
pub struct InChanged<'a> {
    before: Before<'a>,
    rule: Sparse,
    /// Where they stand.
    here: Positions,
    /// Tokens of each unit.
    lengths: &'a [usize],
    cancel: &'a Cancel,
    layers: Vec<Fresh>,
}

impl<'a> InChanged<'a> {
    /// `here`, `lengths`: where the frames stand, and the tokens of each.
    pub fn new(
        before: Before<'a>,
        rule: Sparse,
        (here, lengths): (Positions, &'a [usize]),
        cancel: &'a Cancel,
    ) -> Self {
        Self { before, rule, here, lengths, cancel, layers: Vec::new() }
    }

    pub fn into_layers(self) -> Vec<Fresh> {
        self.layers
    }
}

impl Attend for InChanged<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let held = self.before.held;
        let (rope, layout) = (&held.geometry.rope, held.geometry.layout);
        let places = self.here.places();
        let in_place = held.prefix_in_place(layer)?;
        let dim = k.dim(0)? * k.dim(2)?;
        let mut window = held.layers[layer].changed.clone();
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
            let past = window.view()?;
            let mut stages = Vec::with_capacity(3);
            // The prefix stays in sight; once the window has moved on, at its far end.
            let seen = match held.prefix(layer) {
                Some(kv) if window.seen() > self.rule.units => {
                    let far = layout.reach((self.rule.units + 1) * n - 1);
                    let q = rope.rotate(&raw_q, &Positions::constant(far, n))?;
                    Some((q, kv.clone()))
                }
                _ => in_place.clone().map(|kv| (q.clone(), kv)),
            };
            if let Some((q, Kv { k, v })) = &seen {
                stages.push(Stage { q, k, v, visible: Visible::All });
            }
            if let Some(Kv { k, v }) = &past {
                stages.push(Stage { q: &q, k, v, visible: Visible::All });
            }
            let visible = Visible::Window { offset: 0, width: UNBOUNDED };
            stages.push(Stage { q: &q, k: &own.k, v: &own.v, visible });
            contexts.push(attention::attend(&stages, held.geometry.scale)?);

            let keys = by_token(&raw_k)?;
            let kept = seen_later(self.rule, &window, &keys, dim);
            window.push(gather(&own, std::slice::from_ref(&kept))?, keys, self.rule.units);
            changed.push(kept);
            start += n;
        }
        self.layers.push(Fresh { raw: Kv { k: k.clone(), v: v.clone() }, window, changed });
        Ok(Tensor::cat(&contexts, 1)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn of_a_pair_the_first_is_whole_and_the_second_compared_with_it() {
        let rule = |pairs| Sparse { units: 4, keep: 0.5, pairs };
        // Two tokens of one number each; the second token turned round.
        let window = |seen| {
            let mut window = ChangedWindow::default();
            let none = Tensor::zeros((1, 0, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
            for _ in 0..seen {
                window.push(Kv { k: none.clone(), v: none.clone() }, vec![1.0, 1.0], 4);
            }
            window
        };
        let keys = [1.0, -1.0];
        for (pairs, seen, expected) in
            [(false, 1, &[1][..]), (false, 2, &[1]), (true, 1, &[1]), (true, 2, &[0, 1])]
        {
            let kept = seen_later(rule(pairs), &window(seen), &keys, 1);
            assert_eq!(kept, expected, "pairs {pairs}, unit {seen}");
        }
        // Nothing came before the first one of all.
        assert_eq!(seen_later(rule(false), &window(0), &keys, 1), [0, 1]);
    }
}
