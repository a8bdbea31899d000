// SPDX-License-Identifier: MPL-2.0
//! The answer behind its contexts, and where its attention went.

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::find::Context;
use crate::memory::intake::Behind;
use crate::memory::keep::{Held, read_scores, received};
use crate::memory::recipe::Heads;
use crate::memory::store::Tail;
use crate::model::attention::Visible;
use crate::model::decoder::Attend;
use crate::model::rope::Positions;
use crate::model::verdict::Rewind;

/// What stands behind one layer's context.
struct Own {
    tail: Tail,
    /// The position of the next token.
    next: usize,
}

/// The answer: prompt and generated tokens behind each layer's context. Grows a tail of its own
/// and writes nothing to the memory.
pub struct Answering<'a> {
    held: Held<'a>,
    contexts: &'a [Option<Context>],
    cancel: &'a Cancel,
    room: usize,
    own: Vec<Own>,
    /// Attention of the row that says the first answer token, layer by layer: to each token of the
    /// layer's context, `[lists of owners, n]`.
    looked: Vec<(usize, Tensor)>,
}

impl<'a> Answering<'a> {
    /// `room`: tokens of the prompt and the longest answer.
    pub fn new(
        held: Held<'a>,
        contexts: &'a [Option<Context>],
        room: usize,
        cancel: &'a Cancel,
    ) -> Self {
        Self { held, contexts, cancel, room, own: Vec::new(), looked: Vec::new() }
    }

    /// How much the first answer token looked at each unit, summed over layers; all layers are read
    /// together.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn into_mass(self) -> Result<BTreeMap<u64, f64>> {
        let (layers, tensors): (Vec<usize>, Vec<Tensor>) = self.looked.into_iter().unzip();
        let mut all = BTreeMap::new();
        for (layer, lists) in layers.into_iter().zip(read_scores(&tensors)?) {
            let Some(context) = self.contexts.get(layer).and_then(Option::as_ref) else { continue };
            for (units, mass) in context.owners.iter().zip(lists) {
                let mut at = context.prefix;
                for &(unit, tokens) in units {
                    let share: f32 = mass.iter().skip(at).take(tokens).sum();
                    let share = share / context.owners.len() as f32;
                    *all.entry(unit).or_default() += f64::from(share);
                    at += tokens;
                }
            }
        }
        Ok(all)
    }

    /// Notes where the last row of `q` (rotated) looks in a layer's context.
    fn note_mass(&mut self, layer: usize, q: &Tensor, context: &Context) -> Result<()> {
        let last = q.narrow(1, q.dim(1)? - 1, 1)?.contiguous()?;
        // One list of owners speaks for all heads, several for a KV head each.
        let heads = if context.owners.len() == 1 { Heads::Shared } else { Heads::Own };
        let scale = self.held.geometry.scale;
        let looked = received(&last, &context.kv.k, Visible::All, scale, heads)?;
        self.looked.push((layer, looked));
        Ok(())
    }
}

impl Rewind for Answering<'_> {
    fn tokens(&self) -> usize {
        self.own.first().map_or(0, |own| own.tail.tokens())
    }

    fn rewind(&mut self, tokens: usize) {
        for own in &mut self.own {
            own.next -= own.tail.truncate(tokens);
        }
    }
}

impl Attend for Answering<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.cancel.check()?;
        let geometry = self.held.geometry;
        let context = self.contexts[layer].as_ref();
        if self.own.len() == layer {
            let (kv_heads, dim) = (geometry.kv_heads, geometry.head_dim);
            self.own.push(Own {
                tail: Tail::new(kv_heads, self.room, dim, k.dtype(), k.device())?,
                next: context.map_or(0, |context| context.next),
            });
        }
        let n = q.dim(1)?;
        let here = Positions::run(self.own[layer].next, n);
        let rotated = geometry.rope.rotate(q, &here)?;
        if let (0, Some(context)) = (self.own[layer].tail.tokens(), context) {
            self.note_mass(layer, &rotated, context)?;
        }
        let own = &mut self.own[layer];
        own.tail.append(&geometry.rope.rotate(k, &here)?, v)?;
        own.next += n;
        Behind::context(self.held, layer, context.map(|context| &context.kv)).attend(
            q,
            &rotated,
            &own.tail.view()?,
        )
    }
}
