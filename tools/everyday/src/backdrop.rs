// SPDX-License-Identifier: MPL-2.0
//! What is behind the things: sceneries with depth, in three lights.

use std::f32::consts::TAU;

use worlds::{Rgb, Rng, derive, mix};

use crate::brush::Brush;
use crate::camera::Camera;
use crate::words::{Light, Scenery};

/// The colours of a light.
pub struct Palette {
    light: Light,
    sky: (Rgb, Rgb),
    /// What every colour of the backdrop is multiplied by.
    ambient: Rgb,
    /// What every colour of a thing is multiplied by: a thing stays as visible as it can.
    pub thing: Rgb,
    cloud: Rgb,
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

    fn lit(&self, rgb: Rgb) -> Rgb {
        std::array::from_fn(|i| rgb[i] * self.ambient[i])
    }
}

/// A colour near `base`.
fn near(rng: &mut Rng, base: Rgb, by: f32) -> Rgb {
    let gray = rng.range(-by, by);
    base.map(|part| (part + gray + rng.range(-by, by) / 2.0).clamp(0.0, 255.0))
}

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

struct Scene<'a, 'b> {
    brush: &'a mut Brush<'b>,
    palette: &'a Palette,
    camera: &'a Camera,
    /// The same for every light, so that the place looks the same.
    rng: Rng,
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

    fn room(&mut self) {
        const WALLS: [Rgb; 7] = [
            [226.0, 214.0, 190.0],
            [188.0, 206.0, 212.0],
            [206.0, 190.0, 200.0],
            [196.0, 210.0, 182.0],
            [220.0, 188.0, 164.0],
            [214.0, 214.0, 212.0],
            [128.0, 150.0, 160.0],
        ];
        const FLOORS: [Rgb; 4] = [
            [168.0, 124.0, 84.0],
            [196.0, 160.0, 116.0],
            [136.0, 106.0, 86.0],
            [176.0, 174.0, 170.0],
        ];
        let floor_line = self.camera.ground;
        let wall = *self.rng.pick(&WALLS);
        let wall = near(&mut self.rng, wall, 10.0);
        let floor = *self.rng.pick(&FLOORS);
        let floor = near(&mut self.rng, floor, 10.0);
        self.brush.gradient(
            (-0.1, self.palette.lit(wall.map(|part| part * 0.94))),
            (floor_line, self.palette.lit(wall)),
        );
        if self.rng.chance(0.4) {
            let stripe = self.palette.lit(wall.map(|part| part * 0.93));
            for index in 0..16 {
                let x = -0.2 + 0.09 * index as f32;
                self.brush.rect((x, x + 0.04), (-0.1, floor_line), stripe, 1.0);
            }
        }
        self.window();
        if self.rng.chance(0.6) {
            self.picture();
        }
        self.brush.rect(
            (-0.2, 1.2),
            (floor_line - 0.022, floor_line),
            self.palette.lit([236.0, 232.0, 224.0]),
            1.0,
        );
        self.brush.gradient(
            (floor_line, self.palette.lit(floor.map(|part| part * 0.84))),
            (1.1, self.palette.lit(floor.map(|part| part * 1.06))),
        );
        for plank in 1..6 {
            let depth = plank as f32 / 6.0;
            let y = floor_line + (1.0 - floor_line) * depth * depth;
            let joint = self.palette.lit(floor.map(|part| part * 0.76));
            self.brush.rect((-0.2, 1.2), (y, y + 0.008), joint, 0.8);
        }
        if self.rng.chance(0.6) {
            let rug = self.rng.range(0.0, 1.0);
            let rug = mix([150.0, 70.0, 66.0], [70.0, 96.0, 140.0], rug);
            let at = (self.rng.range(0.35, 0.65), self.rng.range(0.8, 0.88));
            self.brush.ellipse(at, (0.34, 0.1), self.palette.lit(rug), (0.9, 0.05));
            let inner = self.palette.lit(mix(rug, [230.0, 214.0, 186.0], 0.4));
            self.brush.ellipse(at, (0.27, 0.075), inner, (0.8, 0.05));
        }
        if self.palette.light == Light::Night {
            // A lamp out of sight.
            let x = self.rng.range(0.1, 0.9);
            self.brush.ellipse((x, 0.2), (0.75, 0.75), [240.0, 190.0, 120.0], (0.26, 1.0));
        }
    }

    fn window(&mut self) {
        let (wide, high) = (self.rng.range(0.2, 0.34), self.rng.range(0.22, 0.32));
        let (x, y) = (self.rng.range(0.04, 0.92 - wide), self.rng.range(0.06, 0.14));
        let frame = self.palette.lit([240.0, 238.0, 232.0]);
        self.brush.rect((x - 0.014, x + wide + 0.014), (y - 0.018, y + high + 0.018), frame, 1.0);
        let (top, low) = self.palette.sky;
        for band in 0..8 {
            let share = band as f32 / 8.0;
            let rows = (y + share * high, y + (share + 0.126) * high);
            self.brush.rect((x, x + wide), rows, mix(top, low, share), 1.0);
        }
        self.brush.rect(
            (x + wide / 2.0 - 0.007, x + wide / 2.0 + 0.007),
            (y, y + high),
            frame,
            1.0,
        );
        self.brush.rect(
            (x, x + wide),
            (y + high / 2.0 - 0.008, y + high / 2.0 + 0.008),
            frame,
            1.0,
        );
    }

    fn picture(&mut self) {
        let x = if self.rng.chance(0.5) {
            self.rng.range(0.02, 0.16)
        } else {
            self.rng.range(0.78, 0.9)
        };
        let y = self.rng.range(0.1, 0.2);
        let frame = self.palette.lit([96.0, 70.0, 48.0]);
        self.brush.rect((x, x + 0.12), (y, y + 0.13), frame, 1.0);
        let canvas = near(&mut self.rng, [170.0, 160.0, 140.0], 40.0);
        self.brush.rect(
            (x + 0.014, x + 0.106),
            (y + 0.018, y + 0.112),
            self.palette.lit(canvas),
            1.0,
        );
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
