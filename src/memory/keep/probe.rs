// SPDX-License-Identifier: MPL-2.0
//! What the resident cache is asked: prompts behind everything it holds, which note what each row
//! receives and leave nothing behind.

use candle_core::Tensor;

use super::held::Held;
use super::place::place;
use super::resident::Layer;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::kv::{Kv, joined, read_all, rotate};
use crate::memory::recipe::Heads;
use crate::memory::unit::UNBOUNDED;
use crate::model::attention::{self, Stage, Visible};
use crate::model::decoder::Attend;
use crate::model::rope::Positions;

/// Scores of one layer: one list for all heads, or one per KV head.
pub type Scores = Vec<Vec<f32>>;

/// Prefix and resident tokens of a layer, keys turned where they stand. `at`: the places of the
/// resident ones.
pub fn in_sight(
    held: Held<'_>,
    at: usize,
    layer: &Layer,
    places: &[Positions],
) -> Result<Option<Kv>> {
    let mut parts: Vec<Kv> = held.prefix_in_place(at)?.into_iter().collect();
    if let Some(kv) = layer.kv() {
        let k = rotate(&held.geometry.rope, &kv.k, places)?;
        parts.push(Kv { k, v: kv.v.clone() });
    }
    joined(&parts.iter().collect::<Vec<_>>())
}

/// What every key receives, a list `[1, nk]` of the means over all heads, or one per KV head of the means
/// over its query heads, `[Hk, nk]`. It lies where the keys do.
///
/// # Errors
/// What the computation fails with.
pub fn received(
    q: &Tensor,
    k: &Tensor,
    visible: Visible,
    scale: f64,
    heads: Heads,
) -> Result<Tensor> {
    match heads {
        Heads::Shared => Ok(attention::attention_mass_tensor(q, k, visible, scale)?.unsqueeze(0)?),
        Heads::Own => attention::attention_mass_by_head(q, k, visible, scale),
    }
}

/// What rows received, `[lists, n]` each, in one read.
///
/// # Errors
/// What the computation fails with.
pub fn read_scores(received: &[Tensor]) -> Result<Vec<Scores>> {
    let read = read_all(received)?;
    let lists = received.iter().zip(read).map(|(tensor, scores)| {
        let (lists, n) = tensor.dims2()?;
        let list = |at: usize| scores.get(at * n..(at + 1) * n).unwrap_or(&[]).to_vec();
        Ok((0..lists).map(list).collect())
    });
    lists.collect()
}

/// A prompt behind everything resident: notes what each row receives, and is gone.
pub struct Ask<'a> {
    held: Held<'a>,
    resident: &'a [Layer],
    heads: Heads,
    cancel: &'a Cancel,
    layers: Vec<Tensor>,
}

impl<'a> Ask<'a> {
    pub fn new(held: Held<'a>, resident: &'a [Layer], heads: Heads, cancel: &'a Cancel) -> Self {
        Self { held, resident, heads, cancel, layers: Vec::new() }
    }

    /// Per layer what the resident rows received, `[lists, n]`.
    pub fn into_layers(self) -> Vec<Tensor> {
        self.layers
    }
}

impl Attend for Ask<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.cancel.check()?;
        let (held, resident) = (self.held, &self.resident[layer]);
        let geometry = held.geometry;
        let prefix = held.prefix_tokens();
        let placed: Vec<_> = resident
            .lists()
            .iter()
            .map(|rows| place(rows, held.recipe.places, geometry.layout, prefix))
            .collect();
        let next = placed.iter().map(|placed| placed.next).max().unwrap_or(prefix);
        let places: Vec<Positions> = placed.into_iter().map(|placed| placed.positions).collect();
        let past = in_sight(held, layer, resident, &places)?;
        let here = Positions::run(next, q.dim(1)?);
        let (q, k) = (geometry.rope.rotate(q, &here)?, geometry.rope.rotate(k, &here)?);
        let own = Visible::Window { offset: 0, width: UNBOUNDED };
        let mut stages = vec![Stage { q: &q, k: &k, v, visible: own }];
        if let Some(Kv { k, v }) = &past {
            stages.insert(0, Stage { q: &q, k, v, visible: Visible::All });
        }
        let context = attention::attend(&stages, geometry.scale)?;
        let (keys, before) = match &past {
            Some(past) => (Tensor::cat(&[&past.k, &k], 1)?, past.tokens()?),
            None => (k.clone(), 0),
        };
        let visible = Visible::Window { offset: before, width: UNBOUNDED };
        let all = received(&q, &keys, visible, geometry.scale, self.heads)?;
        self.layers.push(all.narrow(1, prefix, before - prefix)?);
        Ok(context)
    }
}
