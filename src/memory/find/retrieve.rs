// SPDX-License-Identifier: MPL-2.0
//! A question looks for what it needs: the best units of each layer in one pass (ReKV §3.2) or two
//! (StreamKV, whose second pass knows how much each layer deserves), or those that all layers like
//! best together.

use std::collections::{BTreeMap, HashMap};

use candle_core::Tensor;

use super::ids::Ids;
use super::liked::Liked;
use super::outstanding::outstanding;
use super::places::Context;
use super::reread::reread;
use super::trust::evenly;
use super::view::View;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::intake::Behind;
use crate::memory::recipe::{BudgetRule, Expert, Keeps, Similarity};
use crate::memory::unit::Unit;
use crate::memory::weigh::budget::{retrieve_counts, standardise};
use crate::memory::weigh::rank::rrf;
use crate::memory::weigh::score::{MeanQuery, cosine};
use crate::memory::weigh::select::{Choice, ranked};
use crate::model::decoder::{Attend, Decoder};

/// A question as retrieval sees it.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The embedded tokens of the bare question, `[n, C]`; nothing of it is kept.
    pub tokens: &'a Tensor,
    /// Those of [a question that asks for nothing](super::trust::ANY), where the recipe wants to know what
    /// the question likes beside that.
    pub any: Option<&'a Tensor>,
    /// What the outside text-image model makes of it, if the recipe has one.
    pub embedding: Option<&'a [f32]>,
}

impl<'a> From<&'a Tensor> for Asked<'a> {
    fn from(tokens: &'a Tensor) -> Self {
        Self { tokens, any: None, embedding: None }
    }
}

/// How many units a question wants of each layer, and how they are chosen.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Mean number of units a layer.
    pub units: usize,
    /// No layer takes more than this.
    pub most: usize,
    /// All layers look at the same units.
    pub agree: bool,
    /// Of what is found and is not of the newest units, the fraction that is read again.
    pub read: f64,
    /// Where the layers do not agree on what the question likes, units evenly apart are chosen.
    pub cover: bool,
    /// Units that these may lie apart where they are read again; 0: they are put side by side.
    pub reach: usize,
    pub rule: BudgetRule,
    pub choice: Choice,
}

/// The share of what is evenly apart from which on it stands where it stood.
const MOSTLY: f64 = 0.5;

/// A picture of few tokens says nothing in parts: of one so many are read, taking the mean of all.
const LEAST_OF_A_PICTURE: f64 = 5.0;

impl Wanted {
    /// The fraction that is read where a picture has so many tokens.
    fn share(&self, picture: usize) -> f64 {
        self.read.max(LEAST_OF_A_PICTURE / picture.max(1) as f64).min(1.0)
    }

    /// Units that are found where `count` of them would be read whole.
    fn found(&self, count: usize, picture: usize) -> usize {
        let whole = self.choice.recent.min(count);
        let thinned = (count - whole) as f64 / self.share(picture);
        whole.saturating_add(thinned.round() as usize)
    }
}

/// The best units of each layer.
///
/// # Errors
/// [`Cancelled`](crate::EngineError::Cancelled), or what the computation fails with.
pub fn best(
    view: View<'_>,
    wanted: Wanted,
    question: Asked<'_>,
    decoder: &Decoder,
    cancel: &Cancel,
) -> Result<Vec<Option<Context>>> {
    let recipe = view.held.recipe;
    let Wanted { units, most, agree, rule, choice, .. } = wanted;
    let layers = view.held.geometry.layers;
    let first = units.min(most);
    let opinion = question.embedding.map(|embedding| opinion(view, embedding));
    let asked = question.tokens;
    let pass = |tokens: &Tensor, counts: Vec<usize>, all_scores: bool| -> Result<Retrieve<'_>> {
        let mut retrieve = Retrieve::new(view, counts, choice, recipe.similarity, cancel);
        retrieve.all_scores = all_scores;
        if let (Some(opinion), true) = (&opinion, recipe.expert != Expert::Internal) {
            retrieve = retrieve.asking(opinion, recipe.expert);
        }
        decoder.forward(tokens, &mut retrieve)?;
        Ok(retrieve)
    };
    // Where there is nothing to rank no question pass is needed: ranking is all it is for.
    if agree || recipe.keeps == Keeps::Inputs {
        let again = recipe.keeps == Keeps::Inputs;
        let picture = view.held.geometry.picture_tokens;
        let count = if again { wanted.found(first, picture) } else { first };
        let few = (0..layers).all(|layer| view.candidates(layer).len() <= count);
        let mut choice = choice;
        let liked = match few.then(|| held(view)).filter(|held| held.len() <= count) {
            Some(held) => held,
            None => {
                let found = pass(asked, vec![first; layers], true)?;
                if let (Some(any), true) = (question.any, wanted.cover) {
                    let any = pass(any, vec![first; layers], true)?;
                    choice.even = evenly(found.scores.clone(), any.scores);
                    if choice.even < MOSTLY {
                        choice.oldest = 0;
                    }
                }
                liked(&found.candidates, found.scores)
            }
        };
        // Evenly over the stream, what is new in many pictures says more than few of them in part.
        let thins = again && wanted.share(picture) < 1.0;
        let count = if thins && choice.even >= MOSTLY { count.max(most) } else { count };
        let pick = |liked: &Liked| liked.chosen(choice, count);
        if !again {
            return view.pack_shared(&pick(&liked));
        }
        let tokens = first * view.held.geometry.unit_tokens;
        let thin = |found| match thins {
            true => outstanding(found, choice.recent, tokens, view.held.geometry.columns()),
            false => Ok(found),
        };
        let reach = if choice.even >= MOSTLY { wanted.reach } else { 0 };
        return reread(view, liked, (pick, thin), reach, decoder, cancel);
    }
    let uniform = rule == BudgetRule::Stretched { temperature: 0.0 };
    if uniform && (0..layers).all(|layer| view.candidates(layer).len() <= first) {
        return view.pack_all(None);
    }
    let found = pass(asked, vec![first; layers], !uniform)?;
    if uniform {
        return Ok(found.contexts);
    }
    let counts = retrieve_counts(&found.scores, units, most, rule);
    Ok(pass(asked, counts, false)?.contexts)
}

/// All units that some layer holds, one liked as well as another.
fn held(view: View<'_>) -> Liked {
    let layers = 0..view.held.geometry.layers;
    let units: Vec<Ids> = layers.map(|layer| view.candidates(layer).ids()).collect();
    let scores = units.iter().map(|units| vec![0.0; units.len()]).collect();
    summed(&units, scores)
}

/// Of each unit the sum of its layers' scores, each in deviations from its layer's mean.
fn liked(units: &[Ids], mut scores: Vec<Vec<f32>>) -> Liked {
    for scores in &mut scores {
        if !standardise(scores) {
            scores.fill(0.0);
        }
    }
    summed(units, scores)
}

/// Scores added up by unit. Mostly all layers have the same units, and it is one sum of lists.
fn summed(units: &[Ids], scores: Vec<Vec<f32>>) -> Liked {
    let Some(first) = units.first() else { return Liked::default() };
    if units.iter().all(|units| units == first) {
        let mut sums = vec![0.0; first.len()];
        for scores in &scores {
            sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += score);
        }
        return Liked { units: first.clone(), scores: sums };
    }
    let mut sums: BTreeMap<u64, f32> = BTreeMap::new();
    for (unit, score) in units.iter().flat_map(Ids::iter).zip(scores.into_iter().flatten()) {
        *sums.entry(unit).or_default() += score;
    }
    let (units, scores) = sums.into_iter().unzip();
    Liked { units: Ids::Listed(units), scores }
}

/// How alike an outside model finds the question and every unit that has a picture of its own.
fn opinion(view: View<'_>, embedding: &[f32]) -> HashMap<u64, f32> {
    let alike = |unit: &Unit| Some((unit.id, cosine(embedding, unit.embedding.as_deref()?)));
    let open = view.branch.map_or(&[][..], |branch| &branch.units);
    view.units.iter().chain(open).filter_map(alike).collect()
}

/// A question looks for what it needs: every layer picks its own blocks by its own query and
/// attends to them, so that deeper layers ask with what shallower ones found (ReKV 3.2).
pub struct Retrieve<'a> {
    view: View<'a>,
    cancel: &'a Cancel,
    /// Units per layer.
    counts: Vec<usize>,
    choice: Choice,
    similarity: Similarity,
    /// An outside model's opinion of every unit, and how the two are fused.
    outside: Option<(&'a HashMap<u64, f32>, Expert)>,
    pub contexts: Vec<Option<Context>>,
    /// Per layer, the units that were candidates, in stream order.
    pub candidates: Vec<Ids>,
    /// Per layer, every candidate's score.
    pub scores: Vec<Vec<f32>>,
    /// Whether these are wanted, or only what is chosen by them: then those that are not chosen may be
    /// minus infinity.
    all_scores: bool,
}

impl<'a> Retrieve<'a> {
    pub fn new(
        view: View<'a>,
        counts: Vec<usize>,
        choice: Choice,
        similarity: Similarity,
        cancel: &'a Cancel,
    ) -> Self {
        Self {
            view,
            cancel,
            counts,
            choice,
            similarity,
            outside: None,
            contexts: Vec::new(),
            candidates: Vec::new(),
            scores: Vec::new(),
            all_scores: true,
        }
    }

    /// The same with an outside opinion of every unit.
    pub fn asking(self, opinion: &'a HashMap<u64, f32>, expert: Expert) -> Self {
        Self { outside: Some((opinion, expert)), ..self }
    }

    /// Scores of a layer's blocks from the layer's own and the outside opinion. A unit of which
    /// there is none ranks last outside.
    fn fused(&self, units: &Ids, own: Vec<f32>) -> Vec<f32> {
        let Some((opinion, expert)) = self.outside else { return own };
        let units = units.to_vec();
        let outside: Vec<f32> = units
            .iter()
            .map(|unit| opinion.get(unit).copied().unwrap_or(f32::NEG_INFINITY))
            .collect();
        match expert {
            Expert::Internal => own,
            Expert::External => outside,
            Expert::Both { kappa } => {
                let ids = |scores: &[f32]| ranked(scores).into_iter().map(|i| units[i]).collect();
                let fused: HashMap<u64, f64> =
                    rrf(&[ids(&own), ids(&outside)], kappa).into_iter().collect();
                units.iter().map(|unit| fused.get(unit).map_or(0.0, |s| *s as f32)).collect()
            }
        }
    }
}

impl Attend for Retrieve<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.cancel.check()?;
        let held = self.view.held;
        let query = MeanQuery::of(q, held.geometry.kv_heads, held.geometry.on_device)?;
        let (units, scores, context) = loop {
            let offered = self.view.candidates(layer);
            let units = offered.ids();
            let count = self.counts[layer];
            let few = !self.all_scores && self.outside.is_none() && self.choice.is_of_singles();
            let own = match few {
                true => offered.scores_of_best(&query, self.similarity, count)?,
                false => offered.scores(&query, self.similarity)?,
            };
            let scores = self.fused(&units, own);
            let chosen = self.choice.of(&scores, count);
            let chosen: Vec<_> = chosen.into_iter().filter_map(|i| offered.at(i)).collect();
            let context = self.view.pack(layer, &chosen)?;
            // Without those that turned out to be lost, others would have been chosen.
            if !chosen.iter().any(|block| block.is_lost()) {
                break (units, scores, context);
            }
        };
        let start = context.as_ref().map_or(0, |context| context.next);
        let behind = Behind::context(held, layer, context.as_ref().map(|c| &c.kv));
        let out = behind.attend_fresh(start, q, k, v)?;
        self.contexts.push(context);
        self.candidates.push(units);
        self.scores.push(scores);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_less_is_read_of_a_picture_the_more_are_found() {
        let choice = Choice { recent: 4, chunk: 1, ..Choice::default() };
        let rule = BudgetRule::Stretched { temperature: 0.0 };
        let wanted = Wanted {
            units: 16,
            most: 128,
            agree: true,
            read: 0.3,
            cover: false,
            reach: 0,
            rule,
            choice,
        };
        assert_eq!(wanted.found(16, 196), 4 + 40);
        assert_eq!(wanted.found(16, 10), 4 + 24);
        assert_eq!(wanted.found(16, 4), 16);
        assert_eq!(wanted.found(3, 196), 3);
        assert_eq!(Wanted { read: 1.0, ..wanted }.found(16, 196), 16);
    }

    #[test]
    fn a_layer_is_not_heard_more_because_its_scores_are_larger() {
        let listed = |ids: &[u64]| Ids::Listed(ids.to_vec());
        let of = [vec![1.0, 2.0, 3.0], vec![9e3, 6e3, 3e3]];
        let both = liked(&[listed(&[1, 2, 3]), listed(&[1, 2, 3])], of.to_vec());
        assert!(both.scores.iter().all(|score| score.abs() < 1e-5), "{both:?}");
        // A unit that one layer has lost is liked by the others only.
        let one = liked(&[listed(&[1, 2]), listed(&[2])], vec![vec![1.0, -1.0], vec![5.0]]);
        assert!(one.scores[0] > 0.0 && one.scores[0] == -one.scores[1], "{one:?}");
    }
}
