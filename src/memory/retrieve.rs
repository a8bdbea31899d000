// SPDX-License-Identifier: MPL-2.0
//! From a question to one context per layer: everything, the newest, or the best of each layer in
//! one pass (ReKV) or two (StreamKV, whose second pass knows how much each layer deserves).

use candle_core::Tensor;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::View;
use crate::memory::attend::Retrieve;
use crate::memory::budget::{BudgetRule, retrieve_counts};
use crate::memory::position::Context;
use crate::memory::recipe::{Recipe, Retrieval};
use crate::memory::select::Choice;
use crate::memory::store::Block;
use crate::model::decoder::Decoder;

/// What each layer will see in front of the answer prompt. `question`, `[n, C]`, are the embedded
/// tokens of the bare question; nothing of it is kept.
pub fn contexts(
    view: View<'_>,
    recipe: &Recipe,
    decoder: &Decoder,
    question: &Tensor,
    cancel: &Cancel,
) -> Result<Vec<Option<Context>>> {
    match recipe.retrieval {
        Retrieval::All { last } => all(view, last),
        Retrieval::Best { units, most, recent, chunk, neighbours, rule } => {
            let layers = view.memory.geometry.layers;
            let first = units.min(most);
            let uniform = rule == BudgetRule::Stretched { temperature: 0.0 };
            if uniform && (0..layers).all(|layer| view.candidates(layer).count() <= first) {
                // Nothing to rank, and ranking is all that the question pass is for.
                return all(view, None);
            }
            let pass = |counts: Vec<usize>| -> Result<Retrieve<'_>> {
                let choice = Choice { recent, chunk, neighbours };
                let mut retrieve = Retrieve::new(view, counts, choice, recipe.similarity, cancel);
                decoder.forward(question, &mut retrieve)?;
                Ok(retrieve)
            };
            let found = pass(vec![first; layers])?;
            if uniform {
                return Ok(found.contexts);
            }
            let counts = retrieve_counts(&found.scores, units, most, rule);
            Ok(pass(counts)?.contexts)
        }
    }
}

fn all(view: View<'_>, last: Option<usize>) -> Result<Vec<Option<Context>>> {
    (0..view.memory.geometry.layers)
        .map(|layer| {
            let blocks: Vec<&Block> = view.candidates(layer).collect();
            let from = last.map_or(0, |last| blocks.len().saturating_sub(last));
            view.pack(layer, &blocks[from..])
        })
        .collect()
}
