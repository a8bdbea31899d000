// SPDX-License-Identifier: MPL-2.0
//! Painting a scene: backdrop, antialiased object, then what the camera does to it.

use worlds::{Canvas, Rng, derive, mix, span};

use crate::scene::{Backdrop, Object, Scene};
use crate::vocabulary::Shape;

/// Renders frame `index` of `scene` as packed RGB, `3 * width * height` bytes.
pub fn render(scene: &Scene, index: usize, width: usize, height: usize) -> Vec<u8> {
    let mut canvas = Canvas::new(width, height);
    canvas.fill(&scene.backdrop);
    if let Some(object) = &scene.object {
        canvas.draw(object, index);
    }
    let mut rng = Rng::new(derive(scene.seed, 100 + index as u64));
    canvas.shoot(&scene.camera, &mut rng)
}

/// The parts of a scene.
trait Paint {
    fn fill(&mut self, backdrop: &Backdrop);
    fn draw(&mut self, object: &Object, index: usize);
}

impl Paint for Canvas {
    fn fill(&mut self, backdrop: &Backdrop) {
        let [first, second] = backdrop.shades;
        let (dy, dx) = backdrop.angle.sin_cos();
        let (width, height) = (self.width as f32, self.height as f32);
        for y in 0..self.height {
            let v = (y as f32 + 0.5) / height - 0.5;
            for (x, pixel) in self.row_mut(y).iter_mut().enumerate() {
                let u = (x as f32 + 0.5) / width - 0.5;
                let along = u * dx + v * dy;
                let share = if backdrop.two_tone {
                    (along * 40.0 + 0.5).clamp(0.0, 1.0)
                } else {
                    (along + 0.5).clamp(0.0, 1.0)
                };
                *pixel = mix(first, second, share);
            }
        }
    }

    fn draw(&mut self, object: &Object, index: usize) {
        let (width, height) = (self.width as f32, self.height as f32);
        let (cx, cy) = object.center_at(index);
        let (cx, cy) = (cx * width, cy * height);
        let radius = object.radius * width.min(height);
        let (rx, ry) = (radius * object.squash.0, radius * object.squash.1);
        let reach = 1.5 * rx.max(ry) + 2.0;
        let xs = span(cx, reach, self.width);
        let (sin, cos) = object.rotation.sin_cos();
        for y in span(cy, reach, self.height) {
            let dy = y as f32 + 0.5 - cy;
            for x in xs.clone() {
                let dx = x as f32 + 0.5 - cx;
                let (u, v) = (dx * cos + dy * sin, dy * cos - dx * sin);
                let distance = outline(object, u / rx, v / ry) * radius;
                let cover = (0.5 - distance).clamp(0.0, 1.0);
                if cover > 0.0 {
                    let pixel = &mut self.pixels[y * self.width + x];
                    *pixel = mix(*pixel, object.rgb, cover);
                }
            }
        }
    }
}

/// Signed distance (negative inside) to the outline, in units of the radius.
/// Shapes have about equal area, so size alone tells nothing.
fn outline(object: &Object, x: f32, y: f32) -> f32 {
    let variant = object.variant;
    match object.key.shape {
        Shape::Circle => x.hypot(y) - 1.0,
        Shape::Ring => {
            let inner = 0.5 + 0.14 * variant;
            let middle = (1.08 + inner) / 2.0;
            (x.hypot(y) - middle).abs() - (1.08 - inner) / 2.0
        }
        Shape::Square => x.abs().max(y.abs()) - 0.9,
        Shape::Diamond => {
            let half_width = 0.8 + 0.14 * variant;
            let half_height = 1.32;
            let norm = half_width.hypot(half_height) / (half_width * half_height);
            (x.abs() / half_width + y.abs() / half_height - 1.0) / norm
        }
        Shape::Cross => {
            let arm = 0.27 + 0.1 * variant;
            let (a, b) = (x.abs(), y.abs());
            let bar = |along: f32, across: f32| (along - 1.12).max(across - arm);
            bar(a, b).min(bar(b, a))
        }
        Shape::Triangle => {
            // Apex up: the base at y = 0.85, the sides through (0, -1.25) and (±1.2, 0.85).
            let (rise, run) = (2.1, 1.2);
            let side = (rise * x.abs() - run * (y + 1.25)) / f32::hypot(rise, run);
            side.max(y - 0.85)
        }
    }
}
