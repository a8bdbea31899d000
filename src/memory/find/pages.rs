// SPDX-License-Identifier: MPL-2.0
//! Pages of what is resident: of each layer the best by their mean keys, and the newest tokens
//! (LiveVLM §4.3).

use std::collections::BTreeSet;

use candle_core::Tensor;

use super::places::Context;
use super::view::View;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::intake::Behind;
use crate::memory::keep::Layer;
use crate::memory::kv::representatives;
use crate::memory::recipe::Similarity;
use crate::memory::store::MeanKeys;
use crate::memory::weigh::score::MeanQuery;
use crate::memory::weigh::select::top;
use crate::model::decoder::Attend;

/// A question picks pages of what is resident, layer by layer, by their mean keys without
/// positions (LiveVLM 4.3).
pub struct PickPages<'a> {
    view: View<'a>,
    cancel: &'a Cancel,
    tokens: usize,
    share: f64,
    /// Newest tokens that are taken in any case.
    recent: usize,
    similarity: Similarity,
    pub contexts: Vec<Option<Context>>,
}

impl<'a> PickPages<'a> {
    pub fn new(
        view: View<'a>,
        (tokens, share, recent): (usize, f64, usize),
        similarity: Similarity,
        cancel: &'a Cancel,
    ) -> Self {
        Self { view, cancel, tokens, share, recent, similarity, contexts: Vec::new() }
    }

    fn picked(&self, resident: &Layer, query: &MeanQuery) -> Result<Vec<usize>> {
        let (n, Some(kv)) = (resident.tokens(), resident.kv()) else { return Ok(Vec::new()) };
        let old = n - self.recent.min(n);
        let starts = (0..old).step_by(self.tokens);
        let lengths: Vec<usize> = starts.map(|start| self.tokens.min(old - start)).collect();
        let on_device = self.view.held.geometry.on_device;
        let pages = MeanKeys::of(representatives(&kv.k, &lengths)?, on_device)?;
        let scores = query.scores(&pages, self.similarity)?.read()?;
        let count = (scores.len() as f64 * self.share).ceil() as usize;
        let pages = top(&scores, count).into_iter();
        let rows = pages.flat_map(|p| p * self.tokens..((p + 1) * self.tokens).min(old));
        let mut picked: Vec<usize> = rows.chain(old..n).collect();
        // Words come with what they are around.
        let own = resident.rows(0).unwrap_or(&[]);
        let seen: BTreeSet<u64> =
            picked.iter().filter(|&&i| !own[i].is_word()).map(|&i| own[i].unit).collect();
        let words = (0..own.len()).filter(|&i| own[i].is_word() && seen.contains(&own[i].unit));
        picked.extend(words);
        picked.sort_unstable();
        picked.dedup();
        Ok(picked)
    }
}

impl Attend for PickPages<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.cancel.check()?;
        let held = self.view.held;
        let query = MeanQuery::of(q, held.geometry.kv_heads, held.geometry.on_device)?;
        let picked = match self.view.resident(layer) {
            Some(resident) => Some(resident.keep(&[self.picked(resident, &query)?])?),
            None => None,
        };
        let blocks = self.view.candidates(layer).blocks();
        let context = self.view.pack_beside(layer, picked.as_ref(), &blocks)?;
        let start = context.as_ref().map_or(0, |context| context.next);
        let behind = Behind::context(held, layer, context.as_ref().map(|c| &c.kv));
        let out = behind.attend_fresh(start, q, k, v)?;
        self.contexts.push(context);
        Ok(out)
    }
}
