// SPDX-License-Identifier: MPL-2.0
//! The same units for all layers: what the first and the last layer agree on (CacheFlow §4.4).

use candle_core::Tensor;

use super::bare::Bare;
use super::places::Context;
use super::view::View;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::weigh::rank::consensus;
use crate::memory::weigh::score::MeanQuery;
use crate::memory::weigh::select::best;
use crate::model::decoder::Decoder;

/// `units` units for every layer.
///
/// # Errors
/// [`Cancelled`](crate::EngineError::Cancelled), or what the computation fails with.
pub fn agreed(
    view: View<'_>,
    units: usize,
    question: &Tensor,
    decoder: &Decoder,
    cancel: &Cancel,
) -> Result<Vec<Option<Context>>> {
    let mut bare = Bare::new(view, cancel);
    decoder.forward(question, &mut bare)?;
    let last = view.held.geometry.layers.saturating_sub(1);
    let ranking = |layer: usize| ranking(view, layer, bare.queries.get(layer), units);
    view.pack_shared(&consensus(&ranking(0), &ranking(last), units))
}

/// A layer's best units, best first.
fn ranking(view: View<'_>, layer: usize, query: Option<&MeanQuery>, count: usize) -> Vec<u64> {
    let Some(query) = query else { return Vec::new() };
    let (offered, units) = (view.candidates(layer), view.candidates(layer).units());
    let scores = offered.scores(query, view.held.recipe.similarity);
    best(&scores, count).into_iter().map(|i| units[i]).collect()
}
