// SPDX-License-Identifier: MPL-2.0
//! From a question to one context per layer: everything, the newest, the best of each layer in one
//! pass (ReKV) or two (StreamKV, whose second pass knows how much each layer deserves), or the
//! same units for all layers (MuKV, CacheFlow).

use std::collections::{BTreeMap, HashMap};

use candle_core::Tensor;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::attend::{Bare, PickPages, Retrieve};
use crate::memory::budget::{BudgetRule, retrieve_counts, standardised};
use crate::memory::position::{Context, Order};
use crate::memory::rank::{coarse_context, consensus, leaning, similarities};
use crate::memory::recipe::{Expert, Keeps, Recipe, Retrieval};
use crate::memory::reread::reread;
use crate::memory::score::{MeanQuery, cosine};
use crate::memory::select::{Choice, ranked};
use crate::memory::store::Block;
use crate::memory::{Kind, View};
use crate::model::decoder::Decoder;

/// A question as retrieval sees it.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The embedded tokens of the bare question, `[n, C]`; nothing of it is kept.
    pub tokens: &'a Tensor,
    /// What the outside text-image model makes of it, if the recipe has one.
    pub embedding: Option<&'a [f32]>,
}

impl<'a> From<&'a Tensor> for Asked<'a> {
    fn from(tokens: &'a Tensor) -> Self {
        Self { tokens, embedding: None }
    }
}

/// What each layer will see in front of the answer prompt.
pub fn contexts<'a>(
    view: View<'_>,
    recipe: &Recipe,
    decoder: &Decoder,
    question: impl Into<Asked<'a>>,
    cancel: &Cancel,
) -> Result<Vec<Option<Context>>> {
    let Asked { tokens, embedding } = question.into();
    match recipe.retrieval {
        Retrieval::All { last } => all(view, last),
        Retrieval::Best { units, most, recent, chunk, spread, agree, rule } => {
            let layers = view.memory.geometry.layers;
            let first = units.min(most);
            let choice = Choice { recent, chunk, spread };
            let opinion = embedding.map(|embedding| opinion(view, embedding));
            let pass = |counts: Vec<usize>| -> Result<Retrieve<'_>> {
                let mut retrieve = Retrieve::new(view, counts, choice, recipe.similarity, cancel);
                if let (Some(opinion), true) = (&opinion, recipe.expert != Expert::Internal) {
                    retrieve = retrieve.asking(opinion, recipe.expert);
                }
                decoder.forward(tokens, &mut retrieve)?;
                Ok(retrieve)
            };
            // Where there is nothing to rank no question pass is needed: ranking is all it is for.
            if agree || recipe.keeps == Keeps::Inputs {
                let held = held(view);
                let liked = if held.len() <= first {
                    held
                } else {
                    let found = pass(vec![first; layers])?;
                    liked(&found.candidates, &found.scores)
                };
                let pick = |liked: &Liked| best(liked, choice, first);
                return match recipe.keeps {
                    Keeps::KeysAndValues => shared(view, &pick(&liked)),
                    Keeps::Inputs => reread(view, recipe, liked, pick, decoder, cancel),
                };
            }
            let uniform = rule == BudgetRule::Stretched { temperature: 0.0 };
            if uniform && (0..layers).all(|layer| view.candidates(layer).count() <= first) {
                return all(view, None);
            }
            let found = pass(vec![first; layers])?;
            if uniform {
                return Ok(found.contexts);
            }
            let counts = retrieve_counts(&found.scores, units, most, rule);
            Ok(pass(counts)?.contexts)
        }
        Retrieval::Consensus { units } => {
            let mut bare = Bare::new(view, cancel);
            decoder.forward(tokens, &mut bare)?;
            let last = view.memory.geometry.layers.saturating_sub(1);
            let ranking = |layer: usize| ranking(view, layer, bare.queries.get(layer), recipe);
            shared(view, &consensus(&ranking(0), &ranking(last), units))
        }
        Retrieval::Grains { lean, top } => {
            let mut bare = Bare::new(view, cancel);
            decoder.forward(tokens, &mut bare)?;
            shared(view, &pieces(view, recipe, &bare.key, lean, top))
        }
        Retrieval::Pages { tokens: page, share, recent } => {
            let recent = recent * view.memory.geometry.unit_tokens;
            let mut pick = PickPages::new(view, (page, share, recent), recipe.similarity, cancel);
            decoder.forward(tokens, &mut pick)?;
            Ok(pick.contexts)
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

/// The same units for every layer, in this order or in the stream's.
fn shared(view: View<'_>, units: &[u64]) -> Result<Vec<Option<Context>>> {
    let mut units = units.to_vec();
    if view.memory.order == Order::Stream {
        units.sort_unstable();
    }
    (0..view.memory.geometry.layers)
        .map(|layer| {
            let held: HashMap<u64, &Block> =
                view.candidates(layer).map(|block| (block.unit, block)).collect();
            let blocks: Vec<&Block> =
                units.iter().filter_map(|unit| held.get(unit).copied()).collect();
            view.pack(layer, &blocks)
        })
        .collect()
}

/// Units in stream order, and how much the layers like each of them.
type Liked = BTreeMap<u64, f32>;

/// All units that some layer holds, one liked as well as another.
fn held(view: View<'_>) -> Liked {
    let layers = 0..view.memory.geometry.layers;
    layers.flat_map(|layer| view.candidates(layer)).map(|block| (block.unit, 0.0)).collect()
}

/// Of each unit the sum of its layers' scores, each in deviations from its layer's mean.
fn liked(units: &[Vec<u64>], scores: &[Vec<f32>]) -> Liked {
    let mut liked = Liked::new();
    for (units, scores) in units.iter().zip(scores) {
        let standard = standardised(scores).unwrap_or_else(|| vec![0.0; scores.len()]);
        for (&unit, score) in units.iter().zip(standard) {
            *liked.entry(unit).or_default() += score;
        }
    }
    liked
}

/// The units, in stream order, that a choice of `count` takes.
fn best(liked: &Liked, choice: Choice, count: usize) -> Vec<u64> {
    let (units, scores): (Vec<u64>, Vec<f32>) = liked.iter().map(|(&unit, &s)| (unit, s)).unzip();
    choice.of(&scores, count).into_iter().map(|i| units[i]).collect()
}

/// How alike an outside model finds the question and every unit that has a picture of its own.
fn opinion(view: View<'_>, embedding: &[f32]) -> HashMap<u64, f32> {
    let layers = 0..view.memory.geometry.layers;
    let units = layers.flat_map(|layer| view.candidates(layer)).filter_map(|b| view.unit(b.unit));
    units
        .filter_map(|unit| Some((unit.id, cosine(embedding, unit.embedding.as_deref()?))))
        .collect()
}

/// A layer's units, best first.
fn ranking(view: View<'_>, layer: usize, query: Option<&MeanQuery>, recipe: &Recipe) -> Vec<u64> {
    let Some(query) = query else { return Vec::new() };
    let blocks: Vec<&Block> = view.candidates(layer).collect();
    let scores: Vec<f32> =
        blocks.iter().map(|b| query.score(&b.representative, recipe.similarity)).collect();
    ranked(&scores).into_iter().map(|i| blocks[i].unit).collect()
}

/// The best pieces of each grain by the last layer's keys, fine to coarse, each best first. Twice
/// as many as wanted are candidates before the finer ones lean on the coarsest.
fn pieces(view: View<'_>, recipe: &Recipe, query: &[f32], lean: f64, top: usize) -> Vec<u64> {
    let last = view.memory.geometry.layers.saturating_sub(1);
    let of_grain = |index: usize| -> Vec<&Block> {
        let is = |block: &&Block| {
            view.unit(block.unit).is_some_and(|unit| unit.kind == Kind::Piece { grain: index })
        };
        view.candidates(last).filter(is).collect()
    };
    let coarsest = recipe.grains.frames.len().saturating_sub(1);
    let mut context = query.to_vec();
    let mut chosen: Vec<Vec<u64>> = Vec::new();
    for (index, grain) in recipe.grains.iter().enumerate().collect::<Vec<_>>().into_iter().rev() {
        let blocks = of_grain(index);
        let vectors: Vec<&[f32]> = blocks.iter().map(|b| b.representative.as_slice()).collect();
        let alike = similarities(query, &vectors);
        if index == coarsest {
            context = coarse_context(query, &vectors, &alike, top);
        }
        let candidates: Vec<usize> = ranked(&alike).into_iter().take(2 * grain.retrieve).collect();
        let near: Vec<&[f32]> = candidates.iter().map(|&i| vectors[i]).collect();
        let mut scores: Vec<f32> = candidates.iter().map(|&i| alike[i]).collect();
        if index != coarsest {
            scores = leaning(&scores, &near, &context, lean);
        }
        let best = ranked(&scores).into_iter().take(grain.retrieve);
        chosen.push(best.map(|i| blocks[candidates[i]].unit).collect());
    }
    chosen.into_iter().rev().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_not_heard_more_because_its_scores_are_larger() {
        let liked =
            liked(&[vec![1, 2, 3], vec![1, 2, 3]], &[vec![1.0, 2.0, 3.0], vec![9e3, 6e3, 3e3]]);
        assert!(liked.values().all(|score| score.abs() < 1e-5), "{liked:?}");
        // A unit that one layer has lost is liked by the others only.
        let liked = super::liked(&[vec![1, 2], vec![2]], &[vec![1.0, -1.0], vec![5.0]]);
        assert!(liked[&1] > 0.0 && liked[&1] == -liked[&2], "{liked:?}");
    }
}
