// SPDX-License-Identifier: MPL-2.0
//! A camera: what it looks at, how deep that is, and how it is held.

use worlds::{Rng, derive};

use crate::words::Scenery;

/// How a camera is held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Hold {
    Still,
    /// It turns slowly to one side and back, by this share of the width.
    Panning(f32),
    /// Every picture is off by up to this share of the width.
    Shaking(f32),
}

/// A camera, drawn from its own seed.
#[derive(Clone, Debug)]
pub struct Camera {
    pub seed: u64,
    pub scenery: Scenery,
    /// Width over height of its picture.
    pub aspect: f32,
    /// The height at which things that are infinitely far away stand, from the top.
    pub horizon: f32,
    /// Where the ground begins below it: the kerb, the water's edge, the floor.
    pub ground: f32,
    pub hold: Hold,
    /// Softens the picture.
    pub blur: f32,
    pub lens: worlds::Camera,
}

/// The sizes pictures are painted at before they are resized to the model's, by aspect.
const SIZES: [(f32, [(usize, usize); 2]); 3] = [
    (1.0, [(112, 112), (144, 144)]),
    (4.0 / 3.0, [(128, 96), (160, 120)]),
    (16.0 / 9.0, [(160, 90), (192, 108)]),
];

impl Camera {
    /// The camera of `seed` before `scenery`.
    pub fn new(seed: u64, scenery: Scenery, aspect: Option<f32>) -> Self {
        let mut rng = Rng::new(derive(seed, 1));
        let drawn = [1.0, 4.0 / 3.0, 4.0 / 3.0, 16.0 / 9.0][rng.below(4)];
        let (horizon, ground) = match scenery {
            Scenery::Street => (rng.range(0.40, 0.50), 0.05),
            Scenery::Field => (rng.range(0.40, 0.54), 0.0),
            Scenery::Shore => (rng.range(0.32, 0.42), rng.range(0.19, 0.25)),
            Scenery::Room => (rng.range(0.42, 0.50), 0.16),
            Scenery::Sky => (rng.range(0.90, 1.15), 0.0),
        };
        let hold = match rng.below(10) {
            0..=4 => Hold::Still,
            5..=7 => Hold::Panning(rng.range(-0.06, 0.06)),
            _ => Hold::Shaking(rng.range(0.004, 0.014)),
        };
        let mut lens = worlds::Camera::generate(&mut rng);
        lens.noise *= 0.7;
        lens.blocks *= 0.7;
        Self {
            seed,
            scenery,
            aspect: aspect.unwrap_or(drawn),
            horizon,
            ground: horizon + ground,
            hold,
            blur: if rng.chance(0.25) { rng.range(0.2, 0.9) } else { 0.0 },
            lens,
        }
    }

    /// The size its pictures are painted at for training.
    pub fn paint_size(&self) -> (usize, usize) {
        let near = |aspect: f32| (aspect - self.aspect).abs() < 0.01;
        let sizes = SIZES.iter().find(|(aspect, _)| near(*aspect)).map_or(SIZES[1].1, |row| row.1);
        *Rng::new(derive(self.seed, 2)).pick(&sizes)
    }

    /// The sides of a square of `size` (relative to the frame's mean side), in unit coordinates.
    pub fn extent(&self, size: f32) -> (f32, f32) {
        let root = self.aspect.sqrt();
        (size / root, size * root)
    }

    /// By how much the camera has turned at `part` (0 to 1) of a clip, of the width.
    pub fn pan(&self, part: f32) -> f32 {
        match self.hold {
            Hold::Panning(by) => by * (1.0 - (2.0 * part - 1.0).abs()),
            _ => 0.0,
        }
    }

    /// Where on the picture something of `size` touches the ground: the farther, the higher.
    pub fn foot(&self, size: f32) -> f32 {
        let horizon = self.horizon.min(0.6);
        (horizon + size / 0.54 * (0.955 - horizon)).max(self.ground + 0.02)
    }
}
