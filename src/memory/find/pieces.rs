// SPDX-License-Identifier: MPL-2.0
//! The best pieces of every grain, the same for all layers; the coarse tell the fine where to look
//! (MuKV §1.7).

use candle_core::Tensor;

use super::bare::Bare;
use super::places::Context;
use super::view::View;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::unit::Kind;
use crate::memory::weigh::rank::{coarse_context, leaning, similarities};
use crate::memory::weigh::select::ranked;
use crate::model::decoder::Decoder;

/// The pieces that a question finds. `lean`: how much the finer ones lean on the best `top` coarse
/// ones.
///
/// # Errors
/// [`Cancelled`](crate::EngineError::Cancelled), or what the computation fails with.
pub fn leant(
    view: View<'_>,
    (lean, top): (f64, usize),
    question: &Tensor,
    decoder: &Decoder,
    cancel: &Cancel,
) -> Result<Vec<Option<Context>>> {
    let mut bare = Bare::new(view, cancel);
    decoder.forward(question, &mut bare)?;
    view.pack_shared(&pieces(view, &bare.key()?, lean, top)?)
}

/// The best pieces of each grain by the last layer's keys, fine to coarse, each best first. Twice
/// as many as wanted are candidates before the finer ones lean on the coarsest.
fn pieces(view: View<'_>, query: &[f32], lean: f64, top: usize) -> Result<Vec<u64>> {
    let last = view.held.geometry.layers.saturating_sub(1);
    let recipe = view.held.recipe;
    let offered = view.candidates(last);
    let (units, mean_keys) = (offered.units(), offered.mean_keys()?);
    let of_grain = |index: usize| -> (Vec<u64>, Vec<&[f32]>) {
        let is = |unit: &u64| {
            view.unit(*unit).is_some_and(|unit| unit.kind == Kind::Piece { grain: index })
        };
        let pairs = units.iter().zip(&mean_keys).filter(|(unit, _)| is(unit));
        pairs.map(|(unit, key)| (*unit, &**key)).unzip()
    };
    let coarsest = recipe.grains.frames.len().saturating_sub(1);
    let mut context = query.to_vec();
    let mut chosen: Vec<Vec<u64>> = Vec::new();
    for (index, grain) in recipe.grains.iter().enumerate().collect::<Vec<_>>().into_iter().rev() {
        let (units, vectors) = of_grain(index);
        let alike = similarities(query, &vectors);
        let candidates: Vec<usize> = ranked(&alike).into_iter().take(2 * grain.retrieve).collect();
        let near: Vec<&[f32]> = candidates.iter().map(|&i| vectors[i]).collect();
        let mut scores: Vec<f32> = candidates.iter().map(|&i| alike[i]).collect();
        if index == coarsest {
            // Of the candidates, as released: few where few coarse pieces are wanted.
            context = coarse_context(query, &near, &scores, top);
        } else {
            scores = leaning(&scores, &near, &context, lean);
        }
        let best = ranked(&scores).into_iter().take(grain.retrieve);
        chosen.push(best.map(|i| units[candidates[i]]).collect());
    }
    Ok(chosen.into_iter().rev().flatten().collect())
}
