// SPDX-License-Identifier: MPL-2.0
//! A scene: one object (or none) before a background, seen for a few seconds.
//!
//! A scene is drawn from its own seed alone. That lets one pool of scenes, encoded once,
//! be assembled into any number of training streams.

use worlds::{Camera, Rgb, Rng, derive};

use crate::vocabulary::{Background, Color, Key, Place};

/// The longest scene in frames; scenes last `MIN_FRAMES..=MAX_FRAMES`.
pub const MAX_FRAMES: usize = 5;
/// The shortest scene in frames.
pub const MIN_FRAMES: usize = 2;

/// Where object centres may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Within one of the five named places, clear of their borders.
    Named,
    /// Anywhere, borders included: what real cameras do.
    Anywhere,
}

/// How scenes are drawn.
#[derive(Clone, Debug)]
pub struct SceneOptions {
    pub placement: Placement,
    /// Radius of the object relative to the shorter side of the frame.
    pub radius: (f32, f32),
}

impl Default for SceneOptions {
    fn default() -> Self {
        Self { placement: Placement::Named, radius: (0.13, 0.32) }
    }
}

/// The object of a scene and how it moves.
#[derive(Clone, Debug)]
pub struct Object {
    pub key: Key,
    pub rgb: Rgb,
    /// Centre in the first frame, unit coordinates.
    pub center: (f32, f32),
    /// Movement of the centre per frame.
    pub drift: (f32, f32),
    /// Relative to the shorter side of the frame.
    pub radius: f32,
    /// Width and height multipliers.
    pub squash: (f32, f32),
    /// Radians.
    pub rotation: f32,
    /// Inner radius of a ring, arm width of a cross, slimness of a diamond: 0..1.
    pub variant: f32,
    /// The named place all its centres lie in.
    pub place: Option<Place>,
}

/// What is behind the object: two shades of one background colour.
#[derive(Clone, Debug)]
pub struct Backdrop {
    pub name: Background,
    pub shades: [Rgb; 2],
    /// Direction in which the shades change.
    pub angle: f32,
    /// A hard edge between the shades instead of a gradient.
    pub two_tone: bool,
}

/// One scene.
#[derive(Clone, Debug)]
pub struct Scene {
    pub seed: u64,
    pub object: Option<Object>,
    pub backdrop: Backdrop,
    pub camera: Camera,
}

impl Scene {
    /// Draws the scene of `key` (`None`: an empty one) from `seed`.
    pub fn generate(seed: u64, key: Option<Key>, options: &SceneOptions) -> Self {
        let mut rng = Rng::new(derive(seed, 1));
        let backdrop = Backdrop::generate(&mut rng);
        let object = key.map(|key| Object::generate(&mut rng, key, options));
        let camera = Camera::generate(&mut rng);
        Self { seed, object, backdrop, camera }
    }

    pub fn key(&self) -> Option<Key> {
        self.object.as_ref().map(|object| object.key)
    }

    pub fn place(&self) -> Option<Place> {
        self.object.as_ref().and_then(|object| object.place)
    }
}

impl Object {
    fn generate(rng: &mut Rng, key: Key, options: &SceneOptions) -> Self {
        let (center, last) = match options.placement {
            Placement::Named => named_path(rng),
            Placement::Anywhere => free_path(rng),
        };
        let steps = (MAX_FRAMES - 1) as f32;
        let (small, large) = options.radius;
        let squash = rng.range(0.85, 1.18).sqrt();
        Self {
            key,
            rgb: object_rgb(rng, key.color),
            center,
            drift: ((last.0 - center.0) / steps, (last.1 - center.1) / steps),
            // Log-uniform: as many small objects as large ones.
            radius: small * (large / small).powf(rng.unit()),
            squash: (squash, 1.0 / squash),
            rotation: rng.range(-0.14, 0.14),
            variant: rng.unit(),
            place: Place::of(center.0, center.1)
                .filter(|_| Place::of(center.0, center.1) == Place::of(last.0, last.1)),
        }
    }

    /// The centre in frame `index` of the scene.
    pub fn center_at(&self, index: usize) -> (f32, f32) {
        let step = index as f32;
        (self.center.0 + step * self.drift.0, self.center.1 + step * self.drift.1)
    }
}

/// First and last centre of a path within one named place.
fn named_path(rng: &mut Rng) -> ((f32, f32), (f32, f32)) {
    let (left, right, middle) = ((0.18, 0.37), (0.63, 0.82), (0.43, 0.57));
    let (xs, ys) = match rng.pick(Place::ALL) {
        Place::TopLeft => (left, left),
        Place::TopRight => (right, left),
        Place::BottomLeft => (left, right),
        Place::BottomRight => (right, right),
        Place::Center => (middle, middle),
    };
    let mut point = || (rng.range(xs.0, xs.1), rng.range(ys.0, ys.1));
    (point(), point())
}

/// First and last centre of a short path anywhere in the frame.
fn free_path(rng: &mut Rng) -> ((f32, f32), (f32, f32)) {
    let start = (rng.range(0.15, 0.85), rng.range(0.15, 0.85));
    let mut move_by = |from: f32| (from + rng.range(-0.15, 0.15)).clamp(0.15, 0.85);
    (start, (move_by(start.0), move_by(start.1)))
}

/// A shade of `color`, jittered but never across the border to a neighbour.
fn object_rgb(rng: &mut Rng, color: Color) -> Rgb {
    let base = match color {
        Color::Red => [220.0, 30.0, 35.0],
        Color::Green => [35.0, 175.0, 55.0],
        Color::Blue => [40.0, 70.0, 225.0],
        Color::Yellow => [240.0, 222.0, 45.0],
        Color::White => [246.0, 246.0, 246.0],
        Color::Orange => [246.0, 138.0, 25.0],
        Color::Purple => [140.0, 45.0, 185.0],
        Color::Cyan => [45.0, 210.0, 225.0],
    };
    let jitter = if color == Color::White { 7.0 } else { 16.0 };
    shade(rng, base, jitter)
}

fn shade(rng: &mut Rng, base: Rgb, jitter: f32) -> Rgb {
    base.map(|component| (component + rng.range(-jitter, jitter)).clamp(0.0, 255.0))
}

impl Backdrop {
    fn generate(rng: &mut Rng) -> Self {
        let name = *rng.pick(Background::ALL);
        let base: Rgb = match name {
            Background::Black => [12.0, 12.0, 12.0],
            Background::Gray => [122.0, 122.0, 122.0],
            Background::Brown => [102.0, 66.0, 38.0],
            Background::Pink => [240.0, 160.0, 186.0],
        };
        let spread = if name == Background::Black { 12.0 } else { 18.0 };
        let flat = rng.chance(0.35);
        let first = lighten(shade(rng, base, 7.0), rng.range(-spread, spread));
        let second =
            if flat { first } else { lighten(shade(rng, base, 7.0), rng.range(-spread, spread)) };
        // Pure black is what test patterns and cut-off cameras show.
        let shades = if name == Background::Black && rng.chance(0.3) {
            [[0.0; 3]; 2]
        } else {
            [first, second]
        };
        Self {
            name,
            shades,
            angle: rng.range(0.0, std::f32::consts::TAU),
            two_tone: rng.chance(0.4),
        }
    }
}

fn lighten(rgb: Rgb, by: f32) -> Rgb {
    rgb.map(|component| (component + by).clamp(0.0, 255.0))
}
