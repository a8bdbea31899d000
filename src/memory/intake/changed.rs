// SPDX-License-Identifier: MPL-2.0
//! The way in past what changed: a window of whole units of which new frames see only the keys least
//! like those of the same patch one unit before (MemStream's adaptive key selection, §3.3). What is
//! stored to be retrieved stays whole.

use std::ops::Range;

use candle_core::Tensor;

use super::before::{Before, WayIn};
use super::encoded::Encoded;
use super::frames::Segment;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::kv::{Kv, best, by_token, index, pick, representatives, token_cosines};
use crate::memory::recipe::Sparse;
use crate::memory::store::{ChangedWindow, MeanKeys};
use crate::memory::unit::{UNBOUNDED, Words};
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
        let words: Vec<Words> = inputs.units.iter().map(|unit| unit.words).collect();
        let new =
            || InChanged::new(before, self.0, (here.clone(), &lengths), cancel).with_words(&words);
        let pass = before.pass(decoder, &inputs.embeds()?, cancel, new)?;
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
            let Some(whole) = layer.whole.as_ref().filter(|_| !layer.blocks.is_empty()) else {
                continue;
            };
            let (mut keys, mut kept) = (Vec::with_capacity(lengths.len()), Vec::new());
            let mut start = 0;
            for (changed, &n) in changed.iter().zip(&lengths) {
                keys.push(pick(&whole.k.narrow(1, start, n)?, changed, 1)?);
                kept.push(changed.elem_count());
                start += n;
            }
            let mean_keys = representatives(&Tensor::cat(&keys, 1)?, &kept)?;
            let mean_keys = MeanKeys::of(mean_keys, before.held.geometry.on_device)?;
            layer.blocks.set_mean_keys(0, &mean_keys)?;
        }
        Ok(Encoded { resident, ..encoded })
    }
}

/// Tokens that later units see of one of `n`.
fn kept(rule: Sparse, n: usize) -> usize {
    ((n as f64 * rule.keep).round() as usize).clamp(1, n.max(1))
}

/// Which of the tokens of a unit with these un-rotated keys `[Hk, n, d]` later ones will see behind this
/// window, `[kept]`. What the next unit sees hangs on it, so where the keys are on a device the choice
/// is made there.
fn seen_later(
    rule: Sparse,
    window: &ChangedWindow,
    keys: &Tensor,
    on_device: bool,
) -> Result<Tensor> {
    let n = keys.dim(1)?;
    let whole = rule.pairs && window.seen().is_multiple_of(2);
    let before = window.last().filter(|last| !whole && last.dims() == keys.dims());
    let count = kept(rule, n);
    match before {
        None => index(&(0..n).collect::<Vec<_>>(), keys.device()),
        Some(before) if on_device => best(&token_cosines(keys, before)?.neg()?, count),
        Some(before) => {
            let dim = keys.dim(0)? * keys.dim(2)?;
            let kept = least_alike(&by_token(keys)?, &by_token(before)?, dim, count);
            index(&kept, keys.device())
        }
    }
}

/// Places in a picture as places in its unit, with those of the words around it: `front` in front of it,
/// `behind` it.
fn amid(kept: &Tensor, front: usize, behind: Range<usize>) -> Result<Tensor> {
    if front == 0 && behind.is_empty() {
        return Ok(kept.clone());
    }
    let list = |places: Range<usize>| index(&places.collect::<Vec<_>>(), kept.device());
    let shift = Tensor::full(front as u32, kept.shape(), kept.device())?;
    let (before, after, kept) = (list(0..front)?, list(behind)?, (kept + shift)?);
    let parts = [before, kept, after];
    // No kernel is started for nothing.
    let parts: Vec<&Tensor> = parts.iter().filter(|part| part.elem_count() > 0).collect();
    Ok(Tensor::cat(&parts, 0)?)
}

/// What a pass leaves of one layer.
pub struct Fresh {
    /// Un-rotated keys and values.
    pub raw: Kv,
    pub window: ChangedWindow,
    /// Which tokens of each unit the window holds, `[kept]` each.
    pub changed: Vec<Tensor>,
}

/// Frames come in, unit by unit.
pub struct InChanged<'a> {
    before: Before<'a>,
    rule: Sparse,
    /// Where they stand.
    here: Positions,
    /// Tokens of each unit.
    lengths: &'a [usize],
    /// Words around each, if there are any.
    words: &'a [Words],
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
        Self { before, rule, here, lengths, words: &[], cancel, layers: Vec::new() }
    }

    /// The same of units with words around them.
    pub fn with_words(self, words: &'a [Words]) -> Self {
        Self { words, ..self }
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
        let mut window = held.layers[layer].changed.with_room(k, k.dim(1)?)?;
        let mut contexts = Vec::with_capacity(self.lengths.len());
        let mut changed = Vec::with_capacity(self.lengths.len());
        let mut start = 0;
        for (at, &n) in self.lengths.iter().enumerate() {
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

            // Pictures are compared; words are seen by all that follows.
            let Words { front, behind } = self.words.get(at).copied().unwrap_or_default();
            let picture = n.saturating_sub(front + behind);
            let raw_k = raw_k.narrow(1, front, picture)?.contiguous()?;
            let kept = seen_later(self.rule, &window, &raw_k, held.geometry.on_device)?;
            let kept = amid(&kept, front, front + picture..n)?;
            let seen = Kv { k: pick(&own.k, &kept, 1)?, v: pick(&own.v, &kept, 1)? };
            window.push(&seen, raw_k, self.rule.units)?;
            changed.push(kept);
            start += n;
        }
        let raw = Kv { k: k.clone(), v: v.clone() };
        self.layers.push(Fresh { raw, window: window.fitted()?, changed });
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
        let keys = |keys: &[f32]| Tensor::from_slice(keys, (1, 2, 1), &Device::Cpu).unwrap();
        let window = |seen| {
            let mut window = ChangedWindow::default();
            let none = Tensor::zeros((1, 0, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
            for _ in 0..seen {
                let unit = Kv { k: none.clone(), v: none.clone() };
                window.push(&unit, keys(&[1.0, 1.0]), 4).unwrap();
            }
            window
        };
        let seen = |rule, seen, own: &[f32]| -> Vec<u32> {
            let [host, device] = [false, true].map(|on_device| {
                let kept = seen_later(rule, &window(seen), &keys(own), on_device).unwrap();
                kept.to_vec1().unwrap()
            });
            assert_eq!(host, device);
            host
        };
        // The second token turned round.
        for (pairs, units, expected) in
            [(false, 1, &[1][..]), (false, 2, &[1]), (true, 1, &[1]), (true, 2, &[0, 1])]
        {
            let kept = seen(rule(pairs), units, &[1.0, -1.0]);
            assert_eq!(kept, expected, "pairs {pairs}, unit {units}");
        }
        // Nothing came before the first one of all, and of equals the first comes first.
        assert_eq!(seen(rule(false), 0, &[1.0, -1.0]), [0, 1]);
        assert_eq!(seen(rule(false), 1, &[1.0, 1.0]), [0]);
    }
}
