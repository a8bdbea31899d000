// SPDX-License-Identifier: MPL-2.0
//! Which objects a stream casts, and how often.
//!
//! Drawn blindly, every object of a long stream would appear many times, and "where was
//! the red circle?" would have no single answer. A casting keeps every kind of question
//! askable at any length: some objects appear once, some never, and one or two shapes
//! appear in one colour only.

use crate::vocabulary::{HELD_OUT, Key, Shape};
use worlds::Rng;

/// Objects that appear at most once in a stream.
const SOLOISTS: usize = 14;
/// Objects kept out of a stream, so that "was there ...?" can be answered "no".
const ABSENT: usize = 7;
/// Shapes that appear in a single colour.
const RARE_SHAPES: usize = 2;
/// Soloists' largest share of a short stream's shots.
const SOLO_SHARE: f32 = 0.6;

/// The cast of one stream.
#[derive(Clone, Debug)]
pub(crate) struct Casting {
    /// The soloist of each shot, where there is one.
    solos: Vec<Option<Key>>,
    /// Objects that may appear again and again.
    chorus: Vec<Key>,
    /// Objects questions may mention.
    known: Vec<Key>,
}

impl Casting {
    pub(crate) fn draw(shots: usize, held_out: bool, rng: &mut Rng) -> Self {
        let mut keys = Key::trained();
        rng.shuffle(&mut keys);
        let mut known = keys.clone();
        restrict_rare_shapes(&mut keys, rng);
        let mut soloists = Vec::new();
        if held_out {
            soloists.extend(HELD_OUT);
            known.extend(HELD_OUT);
        }
        keys.drain(..ABSENT);
        soloists.extend(keys.drain(..SOLOISTS - soloists.len()));
        Self { solos: assign_solos(soloists, shots, held_out, rng), chorus: keys, known }
    }

    /// The object of shot `index`, never the one of the shot before it.
    pub(crate) fn key(&self, index: usize, previous: Option<Key>, rng: &mut Rng) -> Key {
        if let Some(solo) = self.solos[index] {
            return solo;
        }
        loop {
            let key = *rng.pick(&self.chorus);
            if Some(key) != previous {
                return key;
            }
        }
    }

    /// Objects a question about this stream may mention, seen or not.
    pub(crate) fn known(&self) -> &[Key] {
        &self.known
    }
}

/// Leaves a single colour of some shapes.
fn restrict_rare_shapes(keys: &mut Vec<Key>, rng: &mut Rng) {
    let mut shapes = Shape::ALL.to_vec();
    rng.shuffle(&mut shapes);
    for &shape in &shapes[..RARE_SHAPES] {
        let color = keys
            .iter()
            .find(|key| key.shape == shape)
            .expect("every shape has a trained colour")
            .color;
        keys.retain(|key| key.shape != shape || key.color == color);
    }
}

/// Spreads the soloists over the shots.
fn assign_solos(
    mut soloists: Vec<Key>,
    shots: usize,
    keep_order: bool,
    rng: &mut Rng,
) -> Vec<Option<Key>> {
    let wanted = ((SOLO_SHARE * shots as f32).ceil() as usize).min(soloists.len());
    if !keep_order {
        rng.shuffle(&mut soloists);
    }
    let mut solos: Vec<Option<Key>> = soloists.into_iter().take(wanted).map(Some).collect();
    solos.resize(shots, None);
    rng.shuffle(&mut solos);
    solos
}
