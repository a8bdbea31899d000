// SPDX-License-Identifier: MPL-2.0
//! Painting a scene: backdrop, antialiased object, then what the camera does to it.

use crate::rng::{Rng, derive};
use crate::scene::{Backdrop, Camera, Object, Rgb, Scene};
use crate::vocabulary::Shape;

/// Renders frame `index` of `scene` as packed RGB, `3 * width * height` bytes.
pub fn render(scene: &Scene, index: usize, width: usize, height: usize) -> Vec<u8> {
    let mut canvas = Canvas::new(width, height);
    canvas.fill(&scene.backdrop);
    if let Some(object) = &scene.object {
        canvas.draw(object, index);
    }
    let mut rng = Rng::new(derive(scene.seed, 100 + index as u64));
    canvas.expose(&scene.camera);
    if scene.camera.half_chroma {
        canvas.halve_chroma();
    }
    if scene.camera.blocks > 0.0 {
        canvas.add_block_noise(scene.camera.blocks, &mut rng);
    }
    canvas.develop(scene.camera.noise, &mut rng)
}

/// A picture in floating point.
struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<Rgb>,
}

impl Canvas {
    fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![[0.0; 3]; width * height] }
    }

    fn row_mut(&mut self, y: usize) -> &mut [Rgb] {
        &mut self.pixels[y * self.width..(y + 1) * self.width]
    }

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

    /// Contrast, brightness and the light gradient.
    fn expose(&mut self, camera: &Camera) {
        let (strength, angle) = camera.light;
        let (dy, dx) = angle.sin_cos();
        let (width, height) = (self.width as f32, self.height as f32);
        for y in 0..self.height {
            let v = (y as f32 + 0.5) / height - 0.5;
            for (x, pixel) in self.row_mut(y).iter_mut().enumerate() {
                let u = (x as f32 + 0.5) / width - 0.5;
                let gain = camera.contrast * (1.0 + 2.0 * strength * (u * dx + v * dy));
                for component in pixel {
                    *component = *component * gain + camera.brightness;
                }
            }
        }
    }

    /// Carries colour at half resolution, as 4:2:0 video does.
    fn halve_chroma(&mut self) {
        let (width, height) = (self.width, self.height);
        for y in (0..height).step_by(2) {
            for x in (0..width).step_by(2) {
                let corners = [(0, 0), (1, 0), (0, 1), (1, 1)]
                    .map(|(i, j)| (y + j).min(height - 1) * width + (x + i).min(width - 1));
                let mut mean = [0.0; 3];
                for &corner in &corners {
                    for (sum, component) in mean.iter_mut().zip(self.pixels[corner]) {
                        *sum += 0.25 * component;
                    }
                }
                let mean_luma = luma(mean);
                for (n, &corner) in corners.iter().enumerate() {
                    if corners[..n].contains(&corner) {
                        continue;
                    }
                    let lift = luma(self.pixels[corner]) - mean_luma;
                    self.pixels[corner] = mean.map(|component| component + lift);
                }
            }
        }
    }

    /// One offset per 8x8 block and component.
    fn add_block_noise(&mut self, amplitude: f32, rng: &mut Rng) {
        let columns = self.width.div_ceil(8);
        for band in 0..self.height.div_ceil(8) {
            let offsets: Vec<Rgb> = (0..columns)
                .map(|_| {
                    let gray = rng.range(-amplitude, amplitude);
                    [0; 3].map(|_: i32| gray + 0.5 * rng.range(-amplitude, amplitude))
                })
                .collect();
            for y in band * 8..(band * 8 + 8).min(self.height) {
                for (x, pixel) in self.row_mut(y).iter_mut().enumerate() {
                    for (component, offset) in pixel.iter_mut().zip(offsets[x / 8]) {
                        *component += offset;
                    }
                }
            }
        }
    }

    /// Adds sensor noise and rounds to bytes.
    fn develop(self, noise: f32, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(3 * self.pixels.len());
        for pixel in self.pixels {
            // Three bytes of one random word are noise enough for one pixel.
            let grain = if noise > 0.0 { rng.next_u64() } else { 0 };
            for (channel, component) in pixel.into_iter().enumerate() {
                let unit = ((grain >> (8 * channel)) & 0xff) as f32 / 127.5 - 1.0;
                bytes.push((component + noise * unit + 0.5).clamp(0.0, 255.0) as u8);
            }
        }
        bytes
    }
}

fn mix(a: Rgb, b: Rgb, share: f32) -> Rgb {
    std::array::from_fn(|i| a[i] + (b[i] - a[i]) * share)
}

fn luma([r, g, b]: Rgb) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}

/// The pixels within `reach` of `center`.
fn span(center: f32, reach: f32, size: usize) -> std::ops::Range<usize> {
    let low = (center - reach).floor().max(0.0) as usize;
    let high = (center + reach).ceil().max(0.0) as usize;
    low.min(size)..high.min(size)
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
