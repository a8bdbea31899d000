// SPDX-License-Identifier: MPL-2.0
//! What is there now first: an answer sees the newest units alone where they have as much to do with the
//! question as they usually have with one, and else what of the past has (SAVEMem, 2605.07897, stage 2).
//!
//! What is usual the released code takes from the questions that were asked before. A question leaves no trace
//! here, so it is what the pseudo-questions found in the newest units, each time some came.

use candle_core::Tensor;

use super::fresh::gather;
use super::places::Context;
use super::reread::{Found, read};
use super::view::View;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::kv::read_all;
use crate::memory::store::Block;
use crate::memory::unit::Unit;
use crate::memory::weigh::salience::{likest, mean, usual, wanted};
use crate::memory::weigh::select::top;
use crate::model::decoder::Decoder;

/// Every layer's context: prefix, and encoded behind it the whole units, or with them those that the question,
/// `[n, C]`, has to do with, `few` if it is clear which. `gate`: how many times the usual is enough.
///
/// # Errors
/// [`Cancelled`](crate::EngineError::Cancelled), or what the computation fails with.
pub fn gated(
    view: View<'_>,
    (gate, few): (f64, usize),
    question: &Tensor,
    decoder: &Decoder,
    cancel: &Cancel,
) -> Result<Vec<Option<Context>>> {
    let open = view.branch.map_or(&[][..], |branch| &branch.inputs);
    let newest = view.inputs.iter().chain(open).rev().take(view.held.recipe.whole());
    let within = |block: &&Block| view.within.is_none_or(|within| within.has(block.unit));
    // Where a question is confined to what was before them there are none.
    let found = match gather(view, newest.filter(within).count())? {
        newest if is_enough(view, &newest, question, gate)? => newest,
        newest => {
            let mut past = gather(view, usize::MAX)?;
            past.truncate(past.len() - newest.len());
            let scores = affinities(&past, question)?;
            let chosen = top(&scores, wanted(&scores, few));
            let mut at = 0..;
            past.retain(|_| at.next().is_some_and(|at| chosen.binary_search(&at).is_ok()));
            past.extend(newest);
            past
        }
    };
    read(view, found, (None, 0), decoder, cancel)
}

/// Whether the newest units have enough to do with the question.
fn is_enough(view: View<'_>, newest: &Found, question: &Tensor, gate: f64) -> Result<bool> {
    if newest.is_empty() || question.dim(0)? == 0 {
        return Ok(false);
    }
    let now = mean(&affinities(newest, question)?);
    Ok(f64::from(now) >= gate * f64::from(usual(view.usual, now)))
}

/// How much each of these units has to do with a question `[n, C]`: the mean of what its picture's tokens have.
fn affinities(units: &Found, question: &Tensor) -> Result<Vec<f32>> {
    let asked = |(unit, input): &(Unit, Tensor)| -> Result<Tensor> {
        let n = input.dim(0)?.saturating_sub(unit.words.tokens());
        likest(&input.narrow(0, unit.words.front, n)?, question)
    };
    let asked: Vec<Tensor> = units.iter().map(asked).collect::<Result<_>>()?;
    Ok(read_all(&asked)?.iter().map(|tokens| mean(tokens)).collect())
}
