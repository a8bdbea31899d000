// SPDX-License-Identifier: MPL-2.0
//! How a resident cache shrinks: signals score its rows, a budget is spent on them, and something
//! may be left of what goes (other methods §2.4, §4.1-4.5).

use std::collections::HashMap;

use candle_core::{DType, Tensor};

use super::held::Held;
use super::place::{at_time, place, squeezed};
use super::probe::{Scores, read_scores};
use super::resident::Layer;
use super::residue::residues;
use super::words::{fill, with_words};
use crate::error::Result;
use crate::memory::kv::{Kv, index, pick, rotate};
use crate::memory::recipe::{Heads, Pick, Places, Resident, Scope, Signal};
use crate::memory::unit::{Geometry, Row};
use crate::memory::weigh::norms::{self, Grid};
use crate::memory::weigh::select::{buckets, evenly, quota, top};
use crate::memory::weigh::{depth, novelty, score};
use crate::model::rope::{Layout, Positions};

/// Shrinks every layer to `budget` tokens. `attention`: what each layer's rows receive from the
/// recipe's probe, `[lists, n]`, if it has one. What the choice goes by is read in one go.
///
/// # Errors
/// What the computation fails with.
pub fn evict(
    held: Held<'_>,
    layers: &[Layer],
    recipe: &Resident,
    budget: usize,
    attention: Option<Vec<Tensor>>,
) -> Result<Vec<Layer>> {
    let eviction = Eviction { held, recipe, budget, depth: layers.len() };
    let received = |at: usize| attention.as_ref().and_then(|layers| layers.get(at));
    let mut signals = vec![recipe.signal];
    signals.extend((recipe.share < 1.0).then_some(recipe.then));
    let mut measured = Vec::with_capacity(signals.len() * layers.len());
    for &signal in &signals {
        for (at, layer) in layers.iter().enumerate() {
            measured.push(eviction.measured(signal, layer, received(at))?);
        }
    }
    let unread: Vec<Tensor> = measured.iter().filter_map(Measured::unread).collect();
    let mut read = read_scores(&unread)?.into_iter();
    let mut measured = measured.into_iter().map(|measured| match measured {
        Measured::Here(scores) => scores,
        Measured::There(_) => read.next().unwrap_or_default(),
    });
    let mut signals = signals.into_iter().map(|signal| -> Vec<Scores> {
        let layers = layers.iter().enumerate().zip(&mut measured);
        layers
            .map(|((at, layer), scores)| finite(eviction.scores(signal, (at, layer), scores)))
            .collect()
    });
    let (mut first, second) = (signals.next().unwrap_or_default(), signals.next());
    if recipe.by_depth {
        first = by_depth(first);
    }
    let layers = layers.iter().zip(first).enumerate();
    layers
        .map(|(at, (layer, first))| {
            let second = second.as_ref().and_then(|second| second.get(at)).map(Vec::as_slice);
            eviction.shrink(at, layer, &first, second)
        })
        .collect()
}

/// A score that is not a number says nothing.
fn finite(mut scores: Scores) -> Scores {
    for score in scores.iter_mut().flatten().filter(|score| !score.is_finite()) {
        *score = 0.0;
    }
    scores
}

fn by_depth(scores: Vec<Scores>) -> Vec<Scores> {
    let wide = scores.first().map_or(0, Vec::len);
    let mut out: Vec<Scores> = vec![Vec::new(); scores.len()];
    for list in 0..wide {
        let stack: Vec<Vec<f32>> = scores.iter().map(|layer| layer[list].clone()).collect();
        for (layer, scores) in out.iter_mut().zip(depth::by_depth(&stack)) {
            layer.push(scores);
        }
    }
    out
}

/// `[Hk][n][d]` as one f32 list per head.
fn heads(tensor: &Tensor) -> Result<Vec<Vec<f32>>> {
    let (heads, _, _) = tensor.dims3()?;
    (0..heads)
        .map(|head| Ok(tensor.get(head)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?))
        .collect()
}

/// What a signal sees of each row of a layer, before it is smoothed or averaged over heads.
enum Measured {
    Here(Scores),
    /// `[lists, n]`.
    There(Tensor),
}

impl Measured {
    fn unread(&self) -> Option<Tensor> {
        match self {
            Self::Here(_) => None,
            Self::There(scores) => Some(scores.clone()),
        }
    }
}

/// [`novelty`](novelty::novelty) of all heads' keys `[Hk, n, d]`, a list of slots and one of what is
/// recent each, where the keys lie: `[Hk, n]`.
fn novelty_of(keys: &Tensor, slots: &[Vec<u32>], recent: &[Vec<bool>]) -> Result<Tensor> {
    let (heads, n, dim) = keys.dims3()?;
    let device = keys.device();
    // Each head's slots that recent rows have, numbered through; those that none has come last.
    let (mut of_slot, mut counts) = (HashMap::new(), Vec::<f32>::new());
    let (mut rows, mut sums) = (Vec::new(), Vec::new());
    for (head, (slots, recent)) in slots.iter().zip(recent).enumerate() {
        for (i, slot) in slots.iter().enumerate().filter(|(i, _)| recent.get(*i) == Some(&true)) {
            let at = *of_slot.entry((head, *slot)).or_insert_with(|| {
                counts.push(0.0);
                counts.len() - 1
            });
            counts[at] += 1.0;
            rows.push(head * n + i);
            sums.push(at);
        }
    }
    let none = counts.len();
    let flat =
        slots.iter().enumerate().flat_map(|(head, slots)| slots.iter().map(move |s| (head, *s)));
    let of_row: Vec<usize> = flat.map(|slot| of_slot.get(&slot).copied().unwrap_or(none)).collect();
    let weight = |&at: &usize| counts.get(at).map_or(0.0, |count| -1.0 / count);
    let weights: Vec<f32> = of_row.iter().map(weight).collect();
    let keys = keys.to_dtype(DType::F32)?.contiguous()?.reshape((heads * n, dim))?;
    let directions = keys.broadcast_div(&(keys.sqr()?.sum_keepdim(1)?.sqrt()? + 1e-9)?)?;
    let recent = pick(&directions, &index(&rows, device)?, 0)?;
    let mut means = Tensor::zeros((none + 1, dim), DType::F32, device)?;
    if !rows.is_empty() {
        means = means.index_add(&index(&sums, device)?, &recent, 0)?;
    }
    let own = pick(&means, &index(&of_row, device)?, 0)?;
    let weights = Tensor::from_vec(weights, heads * n, device)?;
    Ok(((directions * own)?.sum(1)? * weights)?.reshape((heads, n))?)
}

/// One shrinking of all layers.
struct Eviction<'a> {
    held: Held<'a>,
    recipe: &'a Resident,
    /// Tokens that a layer is to hold.
    budget: usize,
    /// Layers of the model.
    depth: usize,
}

impl Eviction<'_> {
    /// What a signal sees of a layer's rows.
    fn measured(
        &self,
        signal: Signal,
        layer: &Layer,
        received: Option<&Tensor>,
    ) -> Result<Measured> {
        let Some(kv) = layer.kv() else { return Ok(Measured::Here(vec![Vec::new()])) };
        let (n, on_device) = (layer.tokens(), self.held.geometry.on_device);
        Ok(match signal {
            Signal::Attention => match received {
                Some(received) => Measured::There(received.clone()),
                None => {
                    let stored = layer.lists().iter();
                    Measured::Here(
                        stored.map(|rows| rows.iter().map(|row| row.score).collect()).collect(),
                    )
                }
            },
            Signal::Recency => {
                let ages = (0..n).map(|i| i as f32 / n.max(1) as f32).collect();
                Measured::Here(vec![ages; layer.lists().len()])
            }
            Signal::Novelty => {
                let keys = self.compared(kv, layer)?;
                let (slots, recent): (Vec<_>, Vec<_>) =
                    (0..keys.dim(0)?).map(|head| self.slots(layer, head)).unzip();
                if on_device {
                    return Ok(Measured::There(novelty_of(&keys, &slots, &recent)?));
                }
                let heads = heads(&keys)?;
                let heads = heads.iter().zip(slots.iter().zip(&recent));
                let novelty = |(keys, (slots, recent)): (&Vec<f32>, (&Vec<u32>, &Vec<bool>))| {
                    novelty::novelty(keys, slots, recent)
                };
                Measured::Here(heads.map(novelty).collect())
            }
            Signal::ValueNorm if on_device => {
                Measured::There(kv.v.to_dtype(DType::F32)?.sqr()?.sum(2)?.sqrt()?)
            }
            Signal::ValueNorm => {
                Measured::Here(heads(&kv.v)?.iter().map(|v| norms::norms(v, n)).collect())
            }
        })
    }

    /// For a KV head, whose keys are compared with whose, and which of the rows are recent.
    fn slots(&self, layer: &Layer, head: usize) -> (Vec<u32>, Vec<bool>) {
        let Geometry { unit_tokens, picture_tokens, .. } = *self.held.geometry;
        let Some(rows) = layer.rows(head) else { return (Vec::new(), Vec::new()) };
        let slots = match self.held.recipe.compat {
            true => {
                let mut place = 0..;
                let slot = |row: &Row| match row.is_word() {
                    true => row.patch,
                    false => place.next().unwrap_or(0) % picture_tokens.max(1) as u32,
                };
                rows.iter().map(slot).collect()
            }
            false => rows.iter().map(|row| row.patch).collect(),
        };
        (slots, recent(rows, self.recipe.recent, unit_tokens))
    }

    /// What a signal says of a layer's rows by what it sees of them.
    fn scores(&self, signal: Signal, (at, layer): (usize, &Layer), measured: Scores) -> Scores {
        let Geometry { picture_tokens, layout, .. } = *self.held.geometry;
        let per_head = match signal {
            Signal::Attention | Signal::Recency => return measured,
            Signal::Novelty => measured,
            Signal::ValueNorm => {
                let kernel = self.recipe.pooling.then(|| norms::kernel(at, self.depth)).flatten();
                let smooth = |(head, mut norms): (usize, Vec<f32>)| {
                    let Some(kernel) = kernel else { return norms };
                    // Words lie in no picture.
                    let rows = layer.rows(head).unwrap_or(&[]);
                    let seen: Vec<usize> = (0..norms.len())
                        .filter(|&i| rows.get(i).is_none_or(|row| !row.is_word()))
                        .collect();
                    let own: Vec<f32> = seen.iter().map(|&i| norms[i]).collect();
                    let grid = Grid::of(own.len(), picture_tokens, layout);
                    let pooled = norms::pooled(&own, grid, kernel);
                    seen.iter().zip(pooled).for_each(|(&i, pooled)| norms[i] = pooled);
                    norms
                };
                measured.into_iter().enumerate().map(smooth).collect()
            }
        };
        match self.recipe.heads {
            Heads::Own => per_head,
            Heads::Shared => vec![score::mean(&per_head)],
        }
    }

    /// The keys that are compared with each other: without positions, or, as the reference has it,
    /// as they stood in the stream.
    fn compared(&self, kv: &Kv, layer: &Layer) -> Result<Tensor> {
        if !self.held.recipe.compat {
            return Ok(kv.k.clone());
        }
        let at = |rows: &Vec<Row>| self.placed(rows, Places::Kept);
        let places: Vec<Positions> = layer.lists().iter().map(at).collect();
        rotate(&self.held.geometry.rope, &kv.k, &places)
    }

    fn placed(&self, rows: &[Row], rule: Places) -> Positions {
        place(rows, rule, self.held.geometry.layout, self.held.prefix_tokens()).positions
    }

    /// One layer within the budget. `second`: what the rest of the budget goes by.
    fn shrink(
        &self,
        at: usize,
        layer: &Layer,
        first: &Scores,
        second: Option<&[Vec<f32>]>,
    ) -> Result<Layer> {
        let (recipe, layout) = (self.recipe, self.held.geometry.layout);
        let made = residues(layer, (at, self.depth), recipe, self.budget, layout);
        let budget = self.budget - made.len();
        if layer.tokens() <= budget {
            return Ok(layer.clone());
        }
        let mut keep: Vec<Vec<usize>> = first
            .iter()
            .enumerate()
            .map(|(head, first)| {
                let second = second.and_then(|second| second.get(head).or(second.first()));
                self.kept(layer, head, first, second.map(Vec::as_slice), budget)
            })
            .collect();
        // Heads may have kept different pictures with words of different lengths.
        let most = keep.iter().map(Vec::len).max().unwrap_or(0);
        for (head, keep) in keep.iter_mut().enumerate() {
            fill(layer.rows(head).unwrap_or(&[]), keep, most);
        }
        let left = layer.keep(&keep)?;
        let left = match self.held.recipe.places {
            Places::Scaled => squeezed_together(layer, left, layout),
            _ => left,
        };
        let residue = made.iter().map(|maker| maker(&left, &keep, first));
        let left = left.with_residue(&residue.collect::<Result<Vec<_>>>()?)?;
        Ok(match self.held.recipe.places {
            Places::Lazy { limit } if left.end().is_some_and(|end| end > limit) => {
                let packed = |rows: &Vec<Row>| self.placed(rows, Places::Packed).places();
                let places = left.lists().iter().map(packed).collect();
                left.placed_at(places).closed_up(layer)
            }
            Places::Lazy { .. } | Places::Scaled => left.closed_up(layer),
            _ => left,
        })
    }

    /// Which rows of one list the budget buys, ascending.
    fn kept(
        &self,
        layer: &Layer,
        head: usize,
        first: &[f32],
        second: Option<&[f32]>,
        budget: usize,
    ) -> Vec<usize> {
        let rows = layer.rows(head).unwrap_or(&[]);
        with_words(rows, budget, |pictures, budget| {
            let of = |scores: &[f32]| -> Vec<f32> { pictures.iter().map(|&i| scores[i]).collect() };
            let second = second.map(of);
            let own = Pictures {
                rows: pictures.iter().map(|&i| rows[i]).collect(),
                first: of(first),
                second: second.as_deref(),
            };
            self.chosen(layer, &own, budget).into_iter().map(|i| pictures[i]).collect()
        })
    }

    /// The same of rows of pictures, by their numbers among these.
    fn chosen(&self, layer: &Layer, own: &Pictures<'_>, budget: usize) -> Vec<usize> {
        let recipe = self.recipe;
        let Pictures { rows, first, second } = own;
        let forced = match recipe.recent > 0.0 {
            true => recent(rows, recipe.recent, self.held.geometry.picture_tokens),
            false => vec![false; rows.len()],
        };
        match (recipe.scope, recipe.pick) {
            (_, Pick::Evenly) => beside(&forced, budget, |open, left| evenly(open.len(), left)),
            (Scope::Step, _) => {
                beside(&forced, budget, |open, left| by_step(layer, (rows, first), open, left))
            }
            (Scope::Whole, Pick::Buckets { size, free }) => {
                beside(&forced, budget, |open, left| {
                    let scores: Vec<f32> = open.iter().map(|&i| first[i]).collect();
                    buckets(&scores, left, size, free)
                })
            }
            (Scope::Whole, Pick::Top) => quota(first, *second, &forced, recipe.share, budget),
        }
    }
}

/// The rows of pictures of one list, with what they are chosen by.
struct Pictures<'a> {
    rows: Vec<Row>,
    first: Vec<f32>,
    second: Option<&'a [f32]>,
}

/// Which rows are the newest `share` of the units' worth of tokens that are held: at least one
/// unit's.
fn recent(rows: &[Row], share: f64, unit_tokens: usize) -> Vec<bool> {
    let held = rows.len() / unit_tokens.max(1);
    let count = ((held as f64 * share) as usize).max(1) * unit_tokens.max(1);
    (0..rows.len()).map(|i| i + count >= rows.len()).collect()
}

/// What is left of a layer, each step's places squeezed to the fraction of it that is left.
fn squeezed_together(before: &Layer, left: Layer, layout: Layout) -> Layer {
    let places = left.lists().iter().enumerate().map(|(head, rows)| {
        let times = squeezed_steps(before.rows(head).unwrap_or(&[]), rows);
        let rows = rows.iter().zip(times);
        rows.map(|(row, t)| at_time(row.place, t, layout)).collect()
    });
    let places = places.collect();
    left.placed_at(places)
}

/// The forced rows, the newest of them where they do not all fit, and of the others what `pick`
/// makes of the budget that is left. `pick` gets the others and says which of them, ascending.
fn beside(
    forced: &[bool],
    budget: usize,
    pick: impl FnOnce(&[usize], usize) -> Vec<usize>,
) -> Vec<usize> {
    let (held, open): (Vec<usize>, Vec<usize>) = (0..forced.len()).partition(|&i| forced[i]);
    let held = &held[held.len() - held.len().min(budget)..];
    let picked = pick(&open, budget - held.len()).into_iter().map(|i| open[i]);
    let mut keep: Vec<usize> = picked.chain(held.iter().copied()).collect();
    keep.sort_unstable();
    keep
}

/// Of the `open` rows every step keeps the same fraction of those it came with (ReTaKe, with the
/// length so far for the video's length: the best of fewer are among the best of more, so what a
/// step keeps in the end is what the known length would have kept at once).
fn by_step(
    layer: &Layer,
    (rows, scores): (&[Row], &[f32]),
    open: &[usize],
    budget: usize,
) -> Vec<usize> {
    let of = |step: u64| (0..open.len()).filter(move |&i| rows[open[i]].step == step);
    let held = |step: u64| rows.iter().filter(|row| row.step == step).count();
    let protected = rows.len() - open.len();
    let ratio = budget as f64 / layer.seen().saturating_sub(protected).max(1) as f64;
    let mut keep = Vec::new();
    // The newest steps first: where one token each is too much, the oldest go.
    for &(step, came) in layer.steps().iter().rev() {
        let members: Vec<usize> = of(step).collect();
        // What stands for lost rows may be protected too, though it never came.
        let came = came.saturating_sub(held(step) - members.len());
        let count = ((came as f64 * ratio) as usize).max(1).min(budget - keep.len());
        let own: Vec<f32> = members.iter().map(|&i| scores[open[i]]).collect();
        keep.extend(top(&own, count).into_iter().map(|i| members[i]));
    }
    keep.sort_unstable();
    keep
}

/// The times of what is left of a list: each step's are squeezed to the fraction of it that is
/// left, and begin where those of the step before it end (ReTaKe §4.5).
fn squeezed_steps(before: &[Row], left: &[Row]) -> Vec<usize> {
    let mut times: Vec<usize> = Vec::with_capacity(left.len());
    for rows in left.chunk_by(|a, b| a.step == b.step) {
        let held = before.iter().filter(|row| row.step == rows[0].step).count();
        let own = squeezed(&rows.iter().map(|row| row.place.t).collect::<Vec<_>>(), held);
        let first = own.iter().copied().min().unwrap_or(0);
        let start = times.iter().copied().max().map_or(first, |last| last + 1);
        times.extend(own.into_iter().map(|t| start + t - first));
    }
    times
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::memory::recipe::{Leave, Recipe};
    use crate::memory::testing::geometry;
    use crate::memory::unit::RESIDUE;
    use crate::model::rope::Place;

    /// One layer of `units` units of two tokens, four units a step, all alike but for their scores:
    /// the older, the higher. A token's values are its number.
    fn layer(units: usize) -> Layer {
        let kv = |rows: &[Row]| {
            let n = rows.len();
            let numbers: Vec<f32> = rows.iter().flat_map(|row| [-row.score; 2]).collect();
            Kv {
                k: Tensor::zeros((1, n, 2), DType::F32, &Device::Cpu).unwrap(),
                v: Tensor::from_vec(numbers, (1, n, 2), &Device::Cpu).unwrap(),
            }
        };
        let rows: Vec<Row> = (0..2 * units)
            .map(|i| Row {
                unit: i as u64 / 2,
                patch: i as u32 % 2,
                step: i as u64 / 8,
                place: Place::text(i),
                score: -(i as f32),
            })
            .collect();
        let steps = rows.chunk_by(|a, b| a.step == b.step);
        let with = |layer: Layer, rows: &[Row]| layer.with(&kv(rows), &[rows.to_vec()]);
        steps.fold(Layer::default(), |layer, rows| with(layer, rows).unwrap())
    }

    fn resident(method: &str) -> Resident {
        Recipe::named(method).unwrap().resident.unwrap()
    }

    /// What is left of layers whose units have `unit_tokens` tokens of two numbers.
    fn left(
        layers: &[Layer],
        recipe: &Resident,
        places: Places,
        budget: usize,
        (unit_tokens, compat): (usize, bool),
    ) -> Vec<Layer> {
        let geometry = geometry(layers.len(), (1, 1, 2), unit_tokens);
        let recipe = Recipe {
            places,
            compat,
            resident: Some(recipe.clone()),
            ..Recipe::named("retake").unwrap()
        };
        let held = Held { geometry: &geometry, recipe: &recipe, layers: &[], resident: None };
        let resident = recipe.resident.as_ref().unwrap();
        evict(held, layers, resident, budget, None).unwrap()
    }

    fn shrunk(change: impl FnOnce(&mut Resident), places: Places, budget: usize) -> Layer {
        let mut recipe = resident("retake");
        change(&mut recipe);
        left(&[layer(8)], &recipe, places, budget, (2, false)).remove(0)
    }

    /// Ten such layers, the first of them shallow, the last three deep.
    fn shrunk_in_depth(leave: Leave, places: Places, budget: usize) -> Vec<Layer> {
        let recipe = Resident { leave, ..resident("hermes") };
        left(&vec![layer(8); 10], &recipe, places, budget, (2, false))
    }

    fn times(layer: &Layer) -> Vec<usize> {
        layer.lists()[0].iter().map(|row| row.place.t).collect()
    }

    #[test]
    fn shallow_layers_keep_the_newest_and_deep_ones_what_gets_attention() {
        let layers = shrunk_in_depth(Leave::Nothing, Places::Kept, 3);
        assert_eq!(times(&layers[0]), [13, 14, 15]);
        assert_eq!(times(&layers[9]), [0, 1, 2]);
    }

    #[test]
    fn a_summary_stands_for_what_goes_right_behind_what_stays() {
        let layers = shrunk_in_depth(Leave::Summary, Places::Kept, 6);
        let is_residue = |row: &&Row| row.patch == RESIDUE;
        for (at, layer) in layers.iter().enumerate() {
            let rows = &layer.lists()[0];
            assert_eq!(rows.len(), 6, "layer {at}");
            assert_eq!(rows.iter().filter(is_residue).count(), usize::from(at >= 7), "layer {at}");
        }
        let deep = &layers[9];
        assert_eq!(times(deep), [0, 1, 2, 3, 4, 5]);
        // Tokens 5 to 15 are gone.
        let values: Vec<Vec<f32>> = deep.kv().unwrap().v.get(0).unwrap().to_vec2().unwrap();
        assert!((values[5][0] - 10.0).abs() < 1e-5, "{values:?}");
    }

    #[test]
    fn positions_are_packed_once_the_last_is_beyond_the_limit() {
        let layers = |limit| shrunk_in_depth(Leave::Nothing, Places::Lazy { limit }, 3);
        assert_eq!(times(&layers(16)[0]), [13, 14, 15]);
        assert_eq!(times(&layers(15)[0]), [0, 1, 2]);
    }

    #[test]
    fn the_reference_compares_keys_as_they_stood() {
        let kept = |compat| {
            let rows: Vec<Row> = (0..8)
                .map(|i| Row {
                    unit: i as u64,
                    patch: 0,
                    step: 0,
                    place: Place::text(i),
                    score: 0.0,
                })
                .collect();
            let keys = Tensor::from_vec([1f32, 0.0].repeat(8), (1, 8, 2), &Device::Cpu).unwrap();
            let layer = Layer::default().with(&Kv { k: keys.clone(), v: keys }, &[rows]).unwrap();
            let recipe = Resident { share: 1.0, recent: 0.25, ..resident("infinipot-v") };
            times(&left(&[layer], &recipe, Places::Kept, 4, (1, compat))[0])
        };
        // Without positions all keys are one; with them, those half a turn away are the newest.
        assert_eq!(kept(false), [0, 1, 6, 7]);
        assert_eq!(kept(true), [3, 4, 6, 7]);
    }

    #[test]
    fn what_is_to_stay_in_any_case_stays_however_the_rest_is_chosen() {
        let buckets = Pick::Buckets { size: 1, free: 0.5 };
        for (scope, pick) in [
            (Scope::Whole, Pick::Top),
            (Scope::Whole, buckets),
            (Scope::Whole, Pick::Evenly),
            (Scope::Step, Pick::Top),
        ] {
            // Two of eight units; by their scores the newest would be the first to go.
            let change = |r: &mut Resident| (r.scope, r.pick, r.recent) = (scope, pick, 0.25);
            let left = shrunk(change, Places::Kept, 10);
            let rows = &left.lists()[0];
            let newest: Vec<u64> = rows[rows.len() - 4..].iter().map(|row| row.unit).collect();
            assert_eq!(newest, [6, 6, 7, 7], "{scope:?}, {pick:?}");
            assert!((9..=10).contains(&rows.len()), "{scope:?}, {pick:?}: {}", rows.len());
            // Where there is no room for all of them, the newest.
            let left = shrunk(change, Places::Kept, 3);
            let units: Vec<u64> = left.lists()[0].iter().map(|row| row.unit).collect();
            assert_eq!(units, [6, 7, 7], "{scope:?}, {pick:?}");
        }
    }

    #[test]
    fn each_step_is_squeezed_by_what_it_keeps() {
        // The older step keeps two of its eight tokens and the newer one, with the protected unit,
        // four; it begins where the older one ends.
        let left = shrunk(|recipe| recipe.recent = 0.125, Places::Scaled, 7);
        let rows = &left.lists()[0];
        let kept: Vec<_> = rows.iter().map(|row| 2 * row.unit + u64::from(row.patch)).collect();
        assert_eq!(kept, [0, 1, 8, 9, 14, 15]);
        let times: Vec<_> = rows.iter().map(|row| row.place.t).collect();
        assert_eq!(times, [0, 0, 1, 1, 4, 4]);
    }
}
