// SPDX-License-Identifier: MPL-2.0
//! Training pictures: frames in the model's size with labels for each of 4 x 4 cells.

use worlds::{Rng, derive, resize};

use crate::atlas::Atlas;
use crate::camera::Camera;
use crate::clip::Clip;
use crate::noun::Noun;
use crate::paint::{cover, paint};
use crate::roll::{RollOptions, how_many, usual};
use crate::words::{Distance, Light, Scenery, Style};

/// Cells of a frame in each direction: the model's tokens.
pub const GRID: usize = 4;
/// Three bytes for each cell, two for the frame.
pub const LABELS: usize = 3 * GRID * GRID + 2;
/// A thing counts for a cell if it covers this share of the cell or has this share of itself there.
const COVERED: f32 = 0.28;

/// A frame of a clip of a camera.
pub struct Shot {
    pub camera: Camera,
    pub clip: Clip,
    pub index: usize,
}

/// The frame of `seed` for the vision tower: every thing as often as every other, in any of its
/// sceneries and lights, alone or in company; one in twelve empty.
pub fn vision_shot(seed: u64, styles: &[Style]) -> Shot {
    let mut rng = Rng::new(derive(seed, 6));
    let options = RollOptions { styles: styles.to_vec(), ..RollOptions::default() };
    let drawn = |noun: &Noun| styles.iter().any(|&style| noun.drawn_in(style));
    let nouns: Vec<Noun> = Noun::all().filter(drawn).collect();
    let noun = *rng.pick(&nouns);
    let sceneries: Vec<Scenery> = noun.trained_sceneries().collect();
    let scenery = *rng.pick(&sceneries);
    let camera = Camera::new(derive(seed, 7), scenery, None);
    let light = *rng.pick(Light::ALL);
    let cast = if rng.chance(1.0 / 12.0) {
        Vec::new()
    } else {
        company(noun, scenery, &options, &mut rng)
    };
    let clip = Clip::generate(&camera, light, derive(seed, 8), &cast, &options.styles);
    let seen: Vec<usize> = (0..clip.frames)
        .filter(|&index| clip.visible(index).any(|(thing, _)| thing.noun == noun))
        .collect();
    let index =
        if seen.is_empty() || rng.chance(0.1) { rng.below(clip.frames) } else { *rng.pick(&seen) };
    Shot { camera, clip, index }
}

/// `noun` and what is there with it.
fn company(noun: Noun, scenery: Scenery, options: &RollOptions, rng: &mut Rng) -> Vec<Noun> {
    let count = how_many(rng);
    if rng.chance(0.12) {
        return vec![noun; count];
    }
    let mut others = usual(scenery, options);
    others.retain(|&other| other != noun);
    rng.shuffle(&mut others);
    let mut nouns = vec![noun];
    nouns.extend(others.into_iter().take(count - 1));
    nouns
}

impl Shot {
    /// The picture as the model sees it, `size` x `size`.
    pub fn picture(&self, atlas: &Atlas, size: usize) -> Vec<u8> {
        model_frame(atlas, &self.camera, &self.clip, self.index, size)
    }

    pub fn labels(&self, atlas: &Atlas) -> [u8; LABELS] {
        labels(atlas, &self.camera, &self.clip, self.index)
    }
}

/// Frame `index` of `clip` as the model sees it, `size` x `size`.
pub fn model_frame(
    atlas: &Atlas,
    camera: &Camera,
    clip: &Clip,
    index: usize,
    size: usize,
) -> Vec<u8> {
    let painted = camera.paint_size();
    resize(&paint(atlas, camera, clip, index, painted), painted, (size, size))
}

/// For each cell, row by row: the thing that covers most of it (0: none), its distance (1 near,
/// 2 far), and how many things have their centre there; then the frame's scenery and light.
pub fn labels(atlas: &Atlas, camera: &Camera, clip: &Clip, index: usize) -> [u8; LABELS] {
    let mut labels = [0; LABELS];
    let mut largest = [0.0; GRID * GRID];
    let side = 1.0 / GRID as f32;
    for (thing, pose) in clip.visible(index) {
        let [left, top, wide, high] = cover(atlas, camera, thing, pose);
        let cell = |at: f32| ((at * GRID as f32).max(0.0) as usize).min(GRID - 1);
        let center = cell(top + high / 2.0) * GRID + cell(left + wide / 2.0);
        labels[3 * center + 2] += 1;
        for (number, largest) in largest.iter_mut().enumerate() {
            let (x, y) = ((number % GRID) as f32 * side, (number / GRID) as f32 * side);
            let across = (left + wide).min(x + side) - left.max(x);
            let down = (top + high).min(y + side) - top.max(y);
            let area = across.max(0.0) * down.max(0.0);
            let enough = area >= COVERED * (side * side).min(wide * high) || number == center;
            if enough && area > *largest {
                *largest = area;
                labels[3 * number] = thing.noun.id();
                labels[3 * number + 1] = match Distance::of(pose.size) {
                    Some(Distance::Near) => 1,
                    Some(Distance::Far) => 2,
                    None => 0,
                };
            }
        }
    }
    labels[LABELS - 2] = camera.scenery as u8;
    labels[LABELS - 1] = clip.light as u8;
    labels
}
