// SPDX-License-Identifier: MPL-2.0
//! When the resident cache shrinks, to how much, and whom it asks what matters.

use candle_core::{DType, Tensor};

use super::evict::evict;
use super::held::Held;
use super::probe::Ask;
use super::resident::Layer;
use super::words::with_words;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::recipe::Resident;
use crate::memory::weigh::depth::{deep_from, shallow_to};
use crate::model::decoder::Decoder;

/// To how many tokens a layer has to shrink that holds `held` tokens behind `prefix` after `seen` have
/// come in, `unit` to a frame; `None`: it may stay as it is.
pub fn shrink_to(
    recipe: &Resident,
    (prefix, held): (usize, usize),
    seen: usize,
    unit: usize,
) -> Option<usize> {
    let counted = if recipe.prefix_counts { prefix + held } else { held };
    let cap = recipe.cap * unit;
    let floor = ((recipe.cap as f64 * recipe.floor).round() as usize).max(1) * unit;
    let full = if floor < cap { counted >= cap } else { counted > cap };
    if !full {
        return None;
    }
    if recipe.total == 0 {
        return Some(floor);
    }
    let rest = (recipe.total * unit).saturating_sub(seen);
    let target = if floor + rest >= cap { floor } else { cap - rest };
    (target < held).then_some(target)
}

/// How many units of these lengths may come in before a cache with these layers has to shrink, at
/// least one.
pub fn room(held: Held<'_>, layers: &[Layer], lengths: &[usize]) -> usize {
    let Some(recipe) = held.recipe.resident.as_ref().filter(|recipe| recipe.floor < 1.0) else {
        return lengths.len();
    };
    let cap = recipe.cap * held.geometry.unit_tokens;
    let mut room = cap.saturating_sub(layers.iter().map(Layer::tokens).max().unwrap_or(0));
    let fits = |n: &&usize| {
        let fits = **n <= room;
        room = room.saturating_sub(**n);
        fits
    };
    lengths.iter().take_while(fits).count().max(1)
}

/// These layers within the recipe's bound. `received`: what each row received from a probe that came
/// in with the frames, `[lists, n]` a layer, which is read only if something has to go; `probes`: the embedded prompts, `[n, C]` each, that are asked otherwise.
///
/// # Errors
/// [`Cancelled`](crate::EngineError::Cancelled), or what the computation fails with.
pub fn shrunk(
    held: Held<'_>,
    layers: Vec<Layer>,
    received: Option<Vec<Tensor>>,
    probes: &[Tensor],
    decoder: &Decoder,
    cancel: &Cancel,
) -> Result<Vec<Layer>> {
    let Some(recipe) = &held.recipe.resident else { return Ok(layers) };
    let unit = held.geometry.unit_tokens.max(1);
    let tokens = layers.iter().map(Layer::tokens).max().unwrap_or(0);
    let seen = layers.iter().map(Layer::seen).max().unwrap_or(0);
    let counted = (held.prefix_tokens(), tokens);
    let Some(budget) = shrink_to(recipe, counted, seen, unit) else { return Ok(layers) };
    let received = match received {
        None if recipe.asks() => Some(ask(held, &layers, recipe, probes, decoder, cancel)?),
        received => received,
    };
    evict(held, &layers, recipe, budget, received)
}

/// Drops the oldest tokens of every layer, about `bytes` of all and at least one of each; whether there
/// were any.
///
/// # Errors
/// What the computation fails with.
pub fn drop_oldest(layers: &mut [Layer], bytes: u64) -> Result<bool> {
    let held: u64 = layers.iter().map(Layer::bytes).sum();
    let share = held.saturating_sub(bytes) as f64 / held.max(1) as f64;
    let any = layers.iter().any(|layer| layer.tokens() > 0);
    for layer in layers {
        let n = layer.tokens();
        if n == 0 {
            continue;
        }
        let left = ((n as f64 * share) as usize).min(n.saturating_sub(1));
        let lists = layer.lists().iter();
        let newest = lists.map(|rows| {
            with_words(rows, left, |pictures, count| {
                pictures.iter().copied().skip(pictures.len().saturating_sub(count)).collect()
            })
        });
        *layer = layer.keep(&newest.collect::<Vec<_>>())?;
    }
    Ok(any)
}

/// What each layer's rows receive from the prompts: from the one there is, or each layer from that of
/// its depth (shallow, middle, deep).
fn ask(
    held: Held<'_>,
    layers: &[Layer],
    recipe: &Resident,
    probes: &[Tensor],
    decoder: &Decoder,
    cancel: &Cancel,
) -> Result<Vec<Tensor>> {
    let mut answers = Vec::with_capacity(probes.len());
    for probe in probes {
        let mut ask = Ask::new(held, layers, recipe.heads, cancel);
        decoder.forward(probe, &mut ask)?;
        answers.push(ask.into_layers());
    }
    let depth = layers.len();
    let role = |layer: usize| {
        usize::from(layer >= shallow_to(depth)) + usize::from(layer >= deep_from(depth))
    };
    let of = |(at, layer): (usize, &Layer)| -> Result<Tensor> {
        let answer = answers.get(role(at)).or(answers.first());
        match answer.and_then(|layers| layers.get(at)) {
            Some(scores) => Ok(scores.clone()),
            None => {
                let shape = (1, layer.tokens());
                Ok(Tensor::zeros(shape, DType::F32, &held.geometry.device)?)
            }
        }
    };
    layers.iter().enumerate().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::recipe::Recipe;

    #[test]
    fn where_the_release_has_it_the_prefix_counts_towards_the_trigger_and_not_towards_what_is_left()
    {
        let resident =
            |method: &str| Resident { cap: 4, ..Recipe::named(method).unwrap().resident.unwrap() };
        let (hermes, streammem) = (resident("hermes"), resident("streammem"));
        for (prefix, held, of_hermes, of_streammem) in [
            (0, 40, None, None),
            (3, 37, None, None),
            (3, 38, Some(40), None),
            (0, 41, Some(40), Some(40)),
        ] {
            let to = |recipe: &Resident| shrink_to(recipe, (prefix, held), held, 10);
            assert_eq!(
                (to(&hermes), to(&streammem)),
                (of_hermes, of_streammem),
                "{prefix}, {held}"
            );
        }
    }
}
