// SPDX-License-Identifier: MPL-2.0
//! The colours of day, dusk and night.

use worlds::{Rgb, Rng, mix};

use crate::words::Light;

/// The colours of a light.
pub struct Palette {
    pub light: Light,
    pub sky: (Rgb, Rgb),
    /// What every colour of the backdrop is multiplied by.
    ambient: Rgb,
    /// What every colour of a thing is multiplied by: a thing stays as visible as it can.
    pub thing: Rgb,
    pub cloud: Rgb,
}

impl Palette {
    pub fn of(light: Light, indoors: bool, rng: &mut Rng) -> Self {
        let grey = rng.range(0.0, 0.55);
        let overcast = |rgb: Rgb, gray: f32| mix(rgb, [gray; 3], grey);
        match light {
            Light::Day => Self {
                light,
                sky: (
                    overcast([86.0, 150.0, 226.0], 168.0),
                    overcast([190.0, 222.0, 246.0], 212.0),
                ),
                ambient: [1.0; 3],
                thing: [1.0; 3],
                cloud: [250.0; 3],
            },
            Light::Dusk => Self {
                light,
                sky: ([92.0, 84.0, 142.0], [252.0, rng.range(140.0, 176.0), 98.0]),
                ambient: if indoors { [0.84, 0.66, 0.52] } else { [0.78, 0.60, 0.56] },
                thing: [0.93, 0.80, 0.72],
                cloud: [226.0, 128.0, 124.0],
            },
            Light::Night => Self {
                light,
                sky: ([8.0, 12.0, 34.0], [26.0, 36.0, 74.0]),
                ambient: if indoors { [0.46, 0.41, 0.43] } else { [0.27, 0.31, 0.46] },
                thing: if indoors { [0.84, 0.78, 0.76] } else { [0.76, 0.78, 0.92] },
                cloud: [44.0, 52.0, 84.0],
            },
        }
    }

    /// `rgb` in this light.
    pub fn lit(&self, rgb: Rgb) -> Rgb {
        std::array::from_fn(|i| rgb[i] * self.ambient[i])
    }
}

/// A colour near `base`.
pub fn near(rng: &mut Rng, base: Rgb, by: f32) -> Rgb {
    let gray = rng.range(-by, by);
    base.map(|part| (part + gray + rng.range(-by, by) / 2.0).clamp(0.0, 255.0))
}
