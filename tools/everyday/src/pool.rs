// SPDX-License-Identifier: MPL-2.0
//! A fixed pool of cameras. Its frames are encoded once by the vision tower; training streams are
//! then assembled from it without painting anything.

use worlds::{Rng, derive};

use crate::roll::{Roll, RollOptions};
use crate::stream::{Cameras, Footage};

/// Cameras, and the number of the first frame of each of their clips.
///
/// Frames are numbered camera by camera, light by light, clip by clip.
pub struct Pool {
    footage: Vec<Footage>,
    frames: usize,
}

impl Pool {
    pub fn new(seed: u64, cameras: u64) -> Self {
        let mut frames = 0;
        let footage = (0..cameras)
            .map(|index| {
                let roll = Roll::generate(derive(seed, index), &RollOptions::default());
                let footage = Footage::new(roll, frames);
                frames += footage.frames();
                footage
            })
            .collect();
        Self { footage, frames }
    }

    /// How many frames there are.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// The cameras in the order of their frames.
    pub fn rolls(&self) -> impl Iterator<Item = &Roll> {
        self.footage.iter().map(|footage| &*footage.roll)
    }
}

impl Cameras for &Pool {
    fn camera(&mut self, rng: &mut Rng) -> Footage {
        rng.pick(&self.footage).clone()
    }
}
