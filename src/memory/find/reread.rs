// SPDX-License-Identifier: MPL-2.0
//! Finding by the gist and reading again.
//!
//! Keys and values of a frame are not the frame: they also hold what the decoder had seen before it.
//! Long after, among other such frames and at other places, that misleads an answer more than it
//! helps. A memory that [keeps inputs](crate::memory::recipe::Keeps::Inputs) therefore stores what entered
//! the decoder, `[M, C]` a unit, which for the usual decoders is a fraction of the keys and values
//! of all layers; and in every layer the mean key and the mean value of the unit, one token that
//! stands for it while a question looks for what it needs. What it finds is encoded behind the
//! prefix as a stream of its own: a short one, which is what models are trained on.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::liked::Liked;
use super::places::Context;
use super::view::View;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::intake::{Before, Encoded, InWindow, Prompts};
use crate::memory::keep::{Held, Layer};
use crate::memory::kv::unfiled;
use crate::memory::recipe::{Keeps, Places, Recipe, Retrieval, Sees};
use crate::memory::store::{Block, LayerStore};
use crate::memory::unit::{Clock, Unit, Units};
use crate::model::decoder::Decoder;
use crate::model::rope::Layout;

/// Units with what entered the decoder, `[n, C]` each.
pub type Found = Vec<(Unit, Tensor)>;

/// Every layer's context after encoding the chosen units (ascending) as a stream of their own, less what
/// `thin` leaves out, side by side or within the `reach` of so many units. Without those that turn out to be
/// lost, others are chosen.
pub fn reread(
    view: View<'_>,
    mut candidates: Liked,
    (choose, thin): (impl Fn(&Liked) -> Vec<u64>, impl Fn(Found) -> Result<Found>),
    reach: usize,
    decoder: &Decoder,
    cancel: &Cancel,
) -> Result<Vec<Option<Context>>> {
    loop {
        let chosen = choose(&candidates);
        let mut found = Vec::with_capacity(chosen.len());
        for &id in &chosen {
            let input = view.input(id).map(Block::stretch).transpose()?.flatten();
            match (input, view.unit(id)) {
                (Some(input), Some(unit)) => found.push((unit.clone(), unfiled(&input.kv()?)?)),
                _ => candidates.remove(id),
            }
        }
        if found.len() == chosen.len() {
            return read(view, thin(found)?, (None, reach), decoder, cancel);
        }
    }
}

/// Every layer's context: what is left of the past, and these units encoded behind the prefix as a
/// stream of their own. They are put side by side; with a `reach`, and on a single axis, they stand as far
/// apart as they did, or as much less as it takes to stay within so many units.
///
/// # Errors
/// [`Cancelled`](crate::EngineError::Cancelled), or what the computation fails with.
pub fn read(
    view: View<'_>,
    found: Found,
    (past, reach): (Option<Vec<Layer>>, usize),
    decoder: &Decoder,
    cancel: &Cancel,
) -> Result<Vec<Option<Context>>> {
    let (keeps, retrieval) = (Keeps::KeysAndValues, Retrieval::All { last: None });
    // What was not encoded before is now.
    let sees = match view.held.recipe.sees {
        Sees::Nothing => Sees::Window,
        sees => sees,
    };
    let reach = if view.held.geometry.layout == Layout::Run { reach } else { 0 };
    let places = if reach > 0 { Places::Kept } else { view.held.recipe.places };
    let recipe = Recipe { keeps, retrieval, sees, places, ..view.held.recipe.clone() };
    let layers = afresh(view.held)?;
    let held = Held { recipe: &recipe, layers: &layers, resident: None, ..view.held };
    let (mut units, inputs): (Vec<Unit>, Vec<Tensor>) = found.into_iter().unzip();
    let stood = |unit: &Unit| unit.at + held.geometry.steps(unit);
    let begin = units.first().map_or(0, |unit| unit.at);
    let length = units.last().map_or(0, stood).saturating_sub(begin).max(1);
    let scale = (reach * held.geometry.unit_tokens) as f64 / length as f64;
    let (mut at, mut time) = (0, 0.0);
    let mut before: Option<Unit> = None;
    for unit in &mut units {
        if reach > 0 {
            at = at.max((unit.at.saturating_sub(begin) as f64 * scale.min(1.0)) as usize);
        }
        time += before.as_ref().map_or(0.0, |before| unit.behind(before));
        before = Some(unit.clone());
        (unit.at, unit.time) = (at, time);
        at += held.geometry.steps(unit);
    }
    let encoded = match inputs.is_empty() {
        true => Encoded::default(),
        false => {
            let prompts = Prompts::default();
            let seen = held.prefix_tokens();
            let clock = Clock::default();
            let before = Before {
                held,
                prompts: &prompts,
                seen,
                taken: 0,
                clock,
                next_unit: 0,
                segment: 0,
                at_once: true,
            };
            let lengths: Vec<usize> =
                inputs.iter().map(|input| input.dim(0)).collect::<candle_core::Result<_>>()?;
            let here = held.geometry.positions(seen, &units, &lengths);
            let mut pass = InWindow::new(before, here, cancel);
            decoder.forward(&Tensor::cat(&inputs, 0)?, &mut pass)?;
            let fresh = pass.into_layers().into_iter().map(|(raw, _)| (raw, None)).collect();
            Encoded::cut(held, units, fresh)?
        }
    };
    let encoded = Encoded { resident: past, ..encoded };
    let (inputs, units) = (VecDeque::new(), Units::default());
    let (branch, tiers) = (Some(&encoded), None);
    let (within, usual) = (None, None);
    let view = View { held, inputs: &inputs, units: &units, branch, tiers, within, usual };
    let layers = 0..held.geometry.layers;
    layers.map(|layer| view.pack(layer, &view.blocks(layer).blocks())).collect()
}

/// Layers that hold nothing but the prefix.
fn afresh(held: Held<'_>) -> Result<Vec<LayerStore>> {
    let layers = 0..held.layers.len();
    let layer = |at: usize| -> Result<LayerStore> {
        let mut layer = LayerStore::new(held.recipe.window);
        if let Some(prefix) = held.prefix_in_place(at)? {
            layer.window.append(&prefix)?;
        }
        if let Some(opening) = held.opening(at) {
            layer.open(opening.clone())?;
        }
        Ok(layer)
    };
    layers.map(layer).collect()
}
