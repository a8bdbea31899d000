// SPDX-License-Identifier: MPL-2.0
//! The same units for all layers: what the first and the last layer agree on (CacheFlow §4.4).

use candle_core::Tensor;

use super::bare::Bare;
use super::places::Context;
use super::view::{Candidates, View, scores};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::weigh::rank::consensus;
use crate::memory::weigh::score::MeanQuery;
use crate::memory::weigh::select::best;
use crate::model::decoder::Decoder;

/// `wanted` units for every layer.
///
/// # Errors
/// [`Cancelled`](crate::EngineError::Cancelled), or what the computation fails with.
pub fn agreed(
    view: View<'_>,
    wanted: usize,
    question: &Tensor,
    decoder: &Decoder,
    cancel: &Cancel,
) -> Result<Vec<Option<Context>>> {
    let mut bare = Bare::new(view, cancel);
    decoder.forward(question, &mut bare)?;
    let last = view.held.geometry.layers.saturating_sub(1);
    let asked: Vec<(Candidates<'_>, &MeanQuery)> = [0, last]
        .into_iter()
        .filter_map(|layer| Some((view.candidates(layer), bare.queries.get(layer)?)))
        .collect();
    let scores = scores(&asked, view.held.recipe.similarity)?;
    // A layer's best units, best first.
    let mut rankings = asked.iter().zip(&scores).map(|((offered, _), scores)| {
        let units = offered.units();
        best(scores, wanted).into_iter().map(|i| units[i]).collect::<Vec<u64>>()
    });
    let (first, last) = (rankings.next().unwrap_or_default(), rankings.next().unwrap_or_default());
    view.pack_shared(&consensus(&first, &last, wanted))
}
