// SPDX-License-Identifier: MPL-2.0
//! Training pictures: scenes painted at the sizes cameras deliver, resized to the model's.

use crate::render::render;
use crate::scene::{MAX_FRAMES, Placement, Scene, SceneOptions};
use crate::vocabulary::{Background, Color, Key, Place, Shape};
use worlds::resize;
use worlds::{Rng, derive};

/// Sizes pictures are painted at before they are resized; small ones are cheap and common.
const SIZES: [(usize, usize); 10] = [
    (56, 56),
    (64, 64),
    (80, 60),
    (96, 72),
    (96, 96),
    (112, 84),
    (128, 72),
    (112, 112),
    (160, 120),
    (192, 144),
];
/// The smallest radius at an aspect ratio of 4:3, relative to the height: a 240-line
/// `videotestsrc pattern=ball` shows a ball of 20 pixels.
const SMALL: f32 = 0.08;
/// The label of something that is not there, or has no single name.
const UNLABELLED: u8 = 255;

/// The size the scene of `seed` is painted at.
pub fn paint_size(seed: u64) -> (usize, usize) {
    *Rng::new(derive(seed, 5)).pick(&SIZES)
}

/// A lone scene for the vision tower: mostly as large as in streams, some smaller, anywhere,
/// one in twelve empty.
pub fn vision_scene(seed: u64) -> Scene {
    let mut rng = Rng::new(derive(seed, 6));
    let (width, height) = paint_size(seed);
    let stretch = (0.75 * width as f32 / height as f32).max(1.0);
    let key = (!rng.chance(1.0 / 12.0)).then(|| *rng.pick(&Key::trained()));
    let small = SMALL * stretch;
    let radius = if rng.chance(0.25) { (small, 0.13) } else { (0.13, 0.36) };
    let options = SceneOptions { placement: Placement::Anywhere, radius };
    Scene::generate(seed, key, &options)
}

/// Frame `index` of a training scene as the model sees it, `size` x `size`.
pub fn model_frame(scene: &Scene, index: usize, size: usize) -> Vec<u8> {
    let (width, height) = paint_size(scene.seed);
    let painted = render(scene, index, width, height);
    resize(&painted, (width, height), (size, size))
}

/// Which frame of a lone scene is shown.
pub fn vision_index(seed: u64) -> usize {
    Rng::new(derive(seed, 7)).below(MAX_FRAMES)
}

/// The labels of frame `index`: colour, shape, place, background, each an index into its
/// word list; the length of the list means "nothing", 255 "no single name".
pub fn labels(scene: &Scene, index: usize) -> [u8; 4] {
    let background = position(Background::ALL, scene.backdrop.name);
    let Some(object) = &scene.object else {
        let nothing = [Color::ALL.len(), Shape::ALL.len(), Place::ALL.len()];
        let [color, shape, place] = nothing.map(|length| length as u8);
        return [color, shape, place, background];
    };
    let (x, y) = object.center_at(index);
    [
        position(Color::ALL, object.key.color),
        position(Shape::ALL, object.key.shape),
        Place::of(x, y).map_or(UNLABELLED, |place| position(Place::ALL, place)),
        background,
    ]
}

fn position<T: PartialEq>(all: &[T], value: T) -> u8 {
    all.iter().position(|item| *item == value).unwrap_or(0) as u8
}
