// SPDX-License-Identifier: MPL-2.0
//! A room: wall, floor, window, and a lamp at night.

use worlds::{Rgb, mix};

use crate::backdrop::Scene;
use crate::palette::near;
use crate::words::Light;

impl Scene<'_, '_> {
    pub(crate) fn room(&mut self) {
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
}
