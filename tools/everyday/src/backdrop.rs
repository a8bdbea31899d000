// SPDX-License-Identifier: MPL-2.0
//! What is behind the things: sceneries with depth, in three lights.

use std::f32::consts::TAU;

use worlds::{Rgb, Rng, derive, mix};

use crate::brush::Brush;
use crate::camera::Camera;
use crate::palette::{Palette, near};
use crate::words::{Light, Scenery};

/// Paints what is behind the things.
pub fn paint(brush: &mut Brush<'_>, camera: &Camera, light: Light) -> Palette {
    let mut rng = Rng::new(derive(camera.seed, 3));
    let palette = Palette::of(light, camera.scenery == Scenery::Room, &mut rng);
    let mut scene =
        Scene { brush, palette: &palette, camera, rng: Rng::new(derive(camera.seed, 4)) };
    match camera.scenery {
        Scenery::Street => scene.street(),
        Scenery::Field => scene.field(),
        Scenery::Shore => scene.shore(),
        Scenery::Room => scene.room(),
        Scenery::Sky => scene.sky(),
    }
    palette
}

pub(crate) struct Scene<'a, 'b> {
    pub(crate) brush: &'a mut Brush<'b>,
    pub(crate) palette: &'a Palette,
    pub(crate) camera: &'a Camera,
    /// The same for every light, so that the place looks the same.
    pub(crate) rng: Rng,
}

impl Scene<'_, '_> {
    /// Sky down to `low`, with clouds by day and stars at night.
    fn heavens(&mut self, low: f32, clouds: usize) {
        let (top, bottom) = self.palette.sky;
        self.brush.gradient((-0.1, top), (low, bottom));
        for _ in 0..28 {
            let (x, y) = (self.rng.range(-0.05, 1.05), self.rng.range(0.0, low));
            let bright = self.rng.range(70.0, 190.0);
            if self.palette.light == Light::Night {
                let size = 0.0035;
                self.brush.rect((x, x + size), (y, y + 1.6 * size), [bright; 3], 0.8);
            }
        }
        for _ in 0..clouds {
            let (x, y) = (self.rng.range(-0.1, 1.1), self.rng.range(0.02, 0.8 * low));
            let size = self.rng.range(0.08, 0.2);
            for _ in 0..3 {
                let at = (x + self.rng.range(-size, size), y + self.rng.range(-0.02, 0.02));
                let radius = (size * self.rng.range(0.6, 1.1), size * self.rng.range(0.16, 0.3));
                self.brush.ellipse(at, radius, self.palette.cloud, (0.55, 1.0));
            }
        }
    }

    /// A line of hills `high` above `base`.
    fn hills(&mut self, base: f32, high: f32, low: f32, color: Rgb) {
        let (a, b) = (self.rng.range(0.0, TAU), self.rng.range(0.0, TAU));
        let (p, q) = (self.rng.range(2.0, 5.0), self.rng.range(6.0, 11.0));
        let line =
            move |x: f32| base - high * (0.6 + 0.3 * (p * x + a).sin() + 0.1 * (q * x + b).sin());
        self.brush.below(line, low, color);
    }

    /// What is far away takes the colour of the air.
    fn far(&self, rgb: Rgb, share: f32) -> Rgb {
        mix(self.palette.lit(rgb), self.palette.sky.1, share)
    }

    fn street(&mut self) {
        let horizon = self.camera.horizon;
        let clouds = self.rng.below(4);
        self.heavens(horizon, clouds);
        // Roofs far away, then the houses of this street.
        let mut x = -0.15;
        while x < 1.15 {
            let (wide, high) = (self.rng.range(0.05, 0.13), self.rng.range(0.05, 0.2));
            let color = self.far([128.0, 132.0, 146.0], 0.62);
            self.brush.rect((x, x + wide), (horizon - high, horizon), color, 1.0);
            x += wide;
        }
        let mut x = -0.2 + self.rng.range(0.0, 0.08);
        while x < 1.15 {
            let wide = self.rng.range(0.13, 0.26);
            if self.rng.chance(0.8) {
                self.house(x, wide);
            }
            x += wide + if self.rng.chance(0.3) { self.rng.range(0.01, 0.07) } else { 0.004 };
        }
        let (pavement, asphalt) = (
            near(&mut self.rng, [168.0, 164.0, 158.0], 14.0),
            near(&mut self.rng, [92.0, 94.0, 100.0], 14.0),
        );
        let kerb = self.camera.ground + self.rng.range(0.03, 0.06);
        self.brush.gradient(
            (horizon, self.palette.lit(pavement.map(|part| part * 0.9))),
            (kerb, self.palette.lit(pavement)),
        );
        self.brush.rect((-0.2, 1.2), (kerb, kerb + 0.012), self.palette.lit([205.0; 3]), 1.0);
        self.brush.gradient(
            (kerb + 0.012, self.palette.lit(asphalt.map(|part| part * 0.92))),
            (1.1, self.palette.lit(asphalt.map(|part| part * 1.12))),
        );
        let lane = kerb + 0.4 * (1.0 - kerb);
        let step = self.rng.range(0.16, 0.24);
        let first = self.rng.range(-0.2, -0.1);
        for dash in 0..9 {
            let x = first + dash as f32 * step;
            self.brush.rect(
                (x, x + 0.5 * step),
                (lane, lane + 0.016),
                self.palette.lit([222.0; 3]),
                0.85,
            );
        }
    }

    fn house(&mut self, x: f32, wide: f32) {
        const WALLS: [Rgb; 7] = [
            [176.0, 104.0, 84.0],
            [214.0, 196.0, 160.0],
            [150.0, 160.0, 174.0],
            [196.0, 156.0, 120.0],
            [132.0, 146.0, 130.0],
            [206.0, 206.0, 200.0],
            [150.0, 116.0, 110.0],
        ];
        let wall = *self.rng.pick(&WALLS);
        let wall = near(&mut self.rng, wall, 10.0);
        let low = self.camera.ground;
        let top = low - self.rng.range(0.22, 0.44);
        self.brush.rect((x, x + wide), (top, low), self.palette.lit(wall), 1.0);
        let roof = self.palette.lit(wall.map(|part| part * 0.62));
        self.brush.rect((x - 0.006, x + wide + 0.006), (top - 0.018, top), roof, 1.0);
        let columns = (wide / 0.062) as usize;
        let pitch = wide / columns as f32;
        let floors = ((low - top - 0.04) / 0.088) as usize;
        for floor in 0..floors {
            for column in 0..columns {
                let (left, upper) =
                    (x + (column as f32 + 0.24) * pitch, top + 0.024 + floor as f32 * 0.088);
                let dark = self.palette.lit([86.0, 104.0, 124.0]);
                // Someone is at home.
                let home = self.rng.unit();
                let glass = match self.palette.light {
                    Light::Night if home < 0.42 => [222.0, 186.0, 104.0],
                    Light::Dusk if home < 0.2 => [236.0, 190.0, 110.0],
                    _ => dark,
                };
                self.brush.rect((left, left + 0.52 * pitch), (upper, upper + 0.052), glass, 1.0);
            }
        }
    }

    fn field(&mut self) {
        let horizon = self.camera.horizon;
        let clouds = self.rng.below(5);
        self.heavens(horizon, clouds);
        let high = self.rng.range(0.04, 0.16);
        let color = self.far([96.0, 124.0, 112.0], 0.45);
        self.hills(horizon + 0.01, high, horizon + 0.02, color);
        let high = self.rng.range(0.01, 0.06);
        let color = self.far([98.0, 140.0, 76.0], 0.18);
        self.hills(horizon + 0.015, high, horizon + 0.02, color);
        const GRASS: [Rgb; 4] =
            [[112.0, 164.0, 70.0], [142.0, 160.0, 76.0], [96.0, 150.0, 82.0], [186.0, 168.0, 92.0]];
        let grass = *self.rng.pick(&GRASS);
        let grass = near(&mut self.rng, grass, 12.0);
        self.brush.gradient(
            (horizon + 0.012, self.palette.lit(grass.map(|part| part * 0.86))),
            (1.1, self.palette.lit(grass.map(|part| part * 1.04))),
        );
        if self.rng.chance(0.5) {
            self.fence();
        }
        for _ in 0..46 {
            let depth = self.rng.unit();
            let (x, y) = (self.rng.range(-0.1, 1.1), horizon + 0.04 + depth * (1.0 - horizon));
            let size = 0.006 + 0.014 * depth;
            let shade = self.palette.lit(grass.map(|part| part * self.rng.range(0.72, 1.16)));
            self.brush.ellipse((x, y), (size * 1.8, size * 0.6), shade, (0.8, 0.6));
        }
    }

    fn fence(&mut self) {
        let wood = self.palette.lit([150.0, 122.0, 92.0]);
        let low = self.camera.horizon + 0.075;
        let pitch = self.rng.range(0.07, 0.12);
        for post in 0..20 {
            let x = -0.2 + post as f32 * pitch;
            self.brush.rect((x, x + 0.008), (low - 0.065, low), wood, 0.9);
        }
        for rail in [0.05, 0.025] {
            self.brush.rect((-0.2, 1.3), (low - rail, low - rail + 0.008), wood, 0.9);
        }
    }

    fn shore(&mut self) {
        let horizon = self.camera.horizon;
        let clouds = self.rng.below(5);
        self.heavens(horizon, clouds);
        if self.rng.chance(0.4) {
            let high = self.rng.range(0.02, 0.08);
            let color = self.far([100.0, 120.0, 124.0], 0.5);
            let base = horizon + self.rng.range(0.0, 0.02);
            self.hills(base, high, horizon, color);
        }
        let sea = near(&mut self.rng, [46.0, 126.0, 166.0], 16.0);
        let edge = self.camera.ground;
        let (far, close) =
            (mix(self.palette.lit(sea), self.palette.sky.1, 0.3), self.palette.lit(sea));
        self.brush.gradient(
            (horizon, far),
            (edge + 0.03, mix(close, self.palette.lit([120.0, 190.0, 196.0]), 0.5)),
        );
        for _ in 0..26 {
            let depth = self.rng.unit();
            let (x, y) =
                (self.rng.range(-0.2, 1.1), horizon + 0.012 + depth * (edge - horizon - 0.012));
            let long = 0.03 + 0.1 * depth * self.rng.unit();
            let foam = self.palette.lit([200.0, 226.0, 232.0]);
            self.brush.rect((x, x + long), (y, y + 0.004 + 0.004 * depth), foam, 0.4);
        }
        let sand = near(&mut self.rng, [222.0, 198.0, 148.0], 14.0);
        let (phase, waves) = (self.rng.range(0.0, TAU), self.rng.range(3.0, 8.0));
        let line = move |x: f32| edge + 0.012 * (waves * x + phase).sin();
        self.brush.below(
            move |x| line(x) - 0.012,
            edge + 0.1,
            self.palette.lit([236.0, 240.0, 238.0]),
        );
        self.brush.below(line, 1.2, self.palette.lit(sand));
        self.brush.below(
            move |x| edge + 0.3 + 0.03 * (2.0 * waves * x).sin(),
            1.2,
            self.palette.lit(sand.map(|part| part * 1.05)),
        );
        for _ in 0..36 {
            let (x, y) = (self.rng.range(-0.1, 1.1), self.rng.range(edge + 0.05, 1.0));
            let shade = self.palette.lit(sand.map(|part| part * 0.86));
            self.brush.ellipse((x, y), (0.007, 0.004), shade, (0.7, 0.5));
        }
    }

    fn sky(&mut self) {
        let clouds = 2 + self.rng.below(7);
        self.heavens(1.05, clouds);
        if self.camera.horizon < 1.0 {
            let high = self.rng.range(0.02, 0.06);
            let color = self.far([92.0, 122.0, 96.0], 0.3);
            self.hills(self.camera.horizon, high, 1.2, color);
        }
    }
}
