// SPDX-License-Identifier: MPL-2.0
//! Finding by the gist and reading again.
//!
//! Keys and values of a frame are not the frame: they also hold what the decoder had seen before it.
//! Long after, among other such frames and at other places, that misleads an answer more than it
//! helps. A memory that [keeps inputs](super::recipe::Keeps::Inputs) therefore stores what entered
//! the decoder, `[M, C]` a unit, which for the usual decoders is a fraction of the keys and values
//! of all layers; and in every layer the mean key and the mean value of the unit, one token that
//! stands for it while a question looks for what it needs. What it finds is encoded behind the
//! prefix as a stream of its own: a short one, which is what models are trained on.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::attend::Ingest;
use crate::memory::position::Context;
use crate::memory::recipe::{Keeps, Recipe};
use crate::memory::store::{Block, Kv};
use crate::memory::{Unit, VideoMemory, View};
use crate::model::decoder::Decoder;
use crate::model::rope::Positions;

/// One token for many, both `[Hk, 1, d]`: the mean of their keys before RoPE, and of their values.
pub fn gist(kv: &Kv) -> Result<Kv> {
    let mean = |x: &Tensor| -> Result<Tensor> {
        Ok(x.to_dtype(DType::F32)?.mean_keepdim(1)?.to_dtype(x.dtype())?)
    };
    Ok(Kv { k: mean(&kv.k)?, v: mean(&kv.v)? })
}

/// A unit's input `[M, C]` as the store holds things: half of its channels each, `[1, M, C / 2]`.
pub fn filed(input: &Tensor) -> Result<Kv> {
    let (_, channels) = input.dims2()?;
    let half = channels / 2;
    let part = |start, len| input.narrow(1, start, len)?.unsqueeze(0);
    Ok(Kv { k: part(0, half)?, v: part(half, channels - half)? })
}

/// The input `[M, C]` again.
fn unfiled(kv: &Kv) -> Result<Tensor> {
    Ok(Tensor::cat(&[&kv.k, &kv.v], 2)?.squeeze(0)?)
}

impl VideoMemory {
    /// A memory of nothing but the prefix.
    fn afresh(&self, recipe: &Recipe) -> Result<Self> {
        let recipe = Recipe { keeps: Keeps::KeysAndValues, ..recipe.clone() };
        let mut fresh = Self::new(self.geometry.clone(), self.rope.clone(), &recipe);
        fresh.layout = self.layout;
        fresh.seen = self.prefix_tokens();
        let places = Positions::run(0, fresh.seen);
        for (layer, known) in fresh.layers.iter_mut().zip(&self.layers) {
            let Some(prefix) = &known.prefix else { continue };
            let k = self.rope.rotate(&prefix.k, &places)?;
            layer.window.append(&Kv { k, v: prefix.v.clone() })?;
            layer.prefix = Some(prefix.clone());
        }
        Ok(fresh)
    }
}

/// Every layer's context after encoding the chosen units (ascending) as a stream of their own.
/// Without those that turn out to be lost, others are chosen.
pub fn reread(
    view: View<'_>,
    recipe: &Recipe,
    mut candidates: BTreeMap<u64, f32>,
    choose: impl Fn(&BTreeMap<u64, f32>) -> Vec<u64>,
    decoder: &Decoder,
    cancel: &Cancel,
) -> Result<Vec<Option<Context>>> {
    loop {
        let chosen = choose(&candidates);
        let mut found = Vec::with_capacity(chosen.len());
        for &id in &chosen {
            let input = view.input(id).map(Block::load).transpose()?.flatten();
            match (input, view.unit(id)) {
                (Some(kv), Some(unit)) => found.push((unit.clone(), unfiled(&kv)?)),
                _ => {
                    candidates.remove(&id);
                }
            }
        }
        if found.len() == chosen.len() {
            return read(view, recipe, found, decoder, cancel);
        }
    }
}

fn read(
    view: View<'_>,
    recipe: &Recipe,
    found: Vec<(Unit, Tensor)>,
    decoder: &Decoder,
    cancel: &Cancel,
) -> Result<Vec<Option<Context>>> {
    let fresh = view.memory.afresh(recipe)?;
    let (mut units, inputs): (Vec<Unit>, Vec<Tensor>) = found.into_iter().unzip();
    let mut at = 0;
    for unit in &mut units {
        unit.at = at;
        at += fresh.steps(unit);
    }
    let encoded = match inputs.is_empty() {
        true => None,
        false => {
            let mut ingest = Ingest::new(&fresh, cancel);
            decoder.forward(&Tensor::cat(&inputs, 0)?, &mut ingest)?;
            Some(fresh.encoded(units, ingest.into_layers())?)
        }
    };
    let view = View { memory: &fresh, branch: encoded.as_ref() };
    let pack = |layer| view.pack(layer, &view.blocks(layer).collect::<Vec<_>>());
    (0..fresh.geometry.layers).map(pack).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::testing::random_tensor;

    #[test]
    fn an_input_comes_back_from_the_store_as_it_was() {
        let input = random_tensor(1, (3, 8));
        let kv = filed(&input).unwrap();
        assert_eq!((kv.k.dims(), kv.v.dims()), (&[1, 3, 4][..], &[1, 3, 4][..]));
        let values = |t: &Tensor| t.to_vec2::<f32>().unwrap();
        assert_eq!(values(&unfiled(&kv).unwrap()), values(&input));
    }

    #[test]
    fn a_gist_is_one_token_with_the_mean_of_all() {
        let kv = Kv { k: random_tensor(1, (2, 3, 4)), v: random_tensor(2, (2, 3, 4)) };
        let gist = gist(&kv).unwrap();
        assert_eq!((gist.k.dims(), gist.v.dims()), (&[2, 1, 4][..], &[2, 1, 4][..]));
        let all = kv.v.to_vec3::<f32>().unwrap();
        let mean = (all[1][0][2] + all[1][1][2] + all[1][2][2]) / 3.0;
        assert!((gist.v.to_vec3::<f32>().unwrap()[1][0][2] - mean).abs() < 1e-6);
    }
}
