// SPDX-License-Identifier: MPL-2.0
//! A picture in floating point, and what lighting, lens, sensor and codec do to it.

use crate::rng::Rng;

/// An RGB colour with components in 0..=255.
pub type Rgb = [f32; 3];

/// What lighting, lens, sensor and codec do to the picture.
#[derive(Clone, Debug)]
pub struct Camera {
    pub contrast: f32,
    pub brightness: f32,
    /// Strength and direction of a light gradient over the whole frame.
    pub light: (f32, f32),
    /// Amplitude of per-pixel noise.
    pub noise: f32,
    /// Chroma is carried at half resolution (4:2:0).
    pub half_chroma: bool,
    /// Amplitude of 8x8 block noise, as left by video compression.
    pub blocks: f32,
}

impl Camera {
    pub fn generate(rng: &mut Rng) -> Self {
        // A third of the scenes are clean: synthetic sources and good codecs.
        let clean = rng.chance(0.33);
        let amount = if clean { 0.0 } else { 1.0 };
        Self {
            contrast: 1.0 + amount * rng.range(-0.10, 0.08),
            brightness: amount * rng.range(-9.0, 9.0),
            light: (amount * rng.range(0.0, 0.13), rng.range(0.0, std::f32::consts::TAU)),
            noise: amount * rng.range(0.0, 11.0),
            half_chroma: rng.chance(0.6),
            blocks: amount * if rng.chance(0.5) { rng.range(0.0, 6.0) } else { 0.0 },
        }
    }
}

/// A picture in floating point.
pub struct Canvas {
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<Rgb>,
}

impl Canvas {
    pub fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![[0.0; 3]; width * height] }
    }

    pub fn row_mut(&mut self, y: usize) -> &mut [Rgb] {
        &mut self.pixels[y * self.width..(y + 1) * self.width]
    }

    /// The picture as `camera` delivers it, packed RGB.
    pub fn shoot(mut self, camera: &Camera, rng: &mut Rng) -> Vec<u8> {
        self.expose(camera);
        if camera.half_chroma {
            self.halve_chroma();
        }
        if camera.blocks > 0.0 {
            self.add_block_noise(camera.blocks, rng);
        }
        self.develop(camera.noise, rng)
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

/// Between `a` and `b`.
pub fn mix(a: Rgb, b: Rgb, share: f32) -> Rgb {
    std::array::from_fn(|i| a[i] + (b[i] - a[i]) * share)
}

/// Brightness of a colour.
pub fn luma([r, g, b]: Rgb) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}

/// The pixels within `reach` of `center`.
pub fn span(center: f32, reach: f32, size: usize) -> std::ops::Range<usize> {
    let low = (center - reach).floor().max(0.0) as usize;
    let high = (center + reach).ceil().max(0.0) as usize;
    low.min(size)..high.min(size)
}
