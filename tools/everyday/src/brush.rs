// SPDX-License-Identifier: MPL-2.0
//! Simple shapes on a canvas, in unit coordinates.

use worlds::{Canvas, Rgb, mix, span};

/// Paints in unit coordinates, with everything shifted by what the camera has turned.
pub struct Brush<'a> {
    pub canvas: &'a mut Canvas,
    pub shift: (f32, f32),
}

impl Brush<'_> {
    /// From one colour at height `from` to another at `to`, over the full width.
    pub fn gradient(&mut self, from: (f32, Rgb), to: (f32, Rgb)) {
        let height = self.canvas.height as f32;
        let (top, low) = (from.0 + self.shift.1, to.0 + self.shift.1);
        for y in self.rows(top, low) {
            let share = ((y as f32 + 0.5) / height - top) / (low - top);
            self.canvas.row_mut(y).fill(mix(from.1, to.1, share.clamp(0.0, 1.0)));
        }
    }

    fn rows(&self, top: f32, low: f32) -> std::ops::Range<usize> {
        let height = self.canvas.height as f32;
        let end = |y: f32| (y * height).round().clamp(0.0, height) as usize;
        end(top)..end(low).max(end(top))
    }

    /// A rectangle; `cover` 1 hides what is below it.
    pub fn rect(&mut self, x: (f32, f32), y: (f32, f32), color: Rgb, cover: f32) {
        let width = self.canvas.width as f32;
        let (left, right) = ((x.0 + self.shift.0) * width, (x.1 + self.shift.0) * width);
        let first = left.floor().clamp(0.0, width) as usize;
        let last = right.ceil().clamp(0.0, width) as usize;
        for row in self.rows(y.0 + self.shift.1, y.1 + self.shift.1) {
            let pixels = self.canvas.row_mut(row);
            for (x, pixel) in pixels.iter_mut().enumerate().take(last).skip(first) {
                let inside = (right.min(x as f32 + 1.0) - left.max(x as f32)).clamp(0.0, 1.0);
                *pixel = mix(*pixel, color, inside * cover);
            }
        }
    }

    /// An ellipse whose border is `soft` (0 to 1) of it.
    pub fn ellipse(
        &mut self,
        center: (f32, f32),
        radius: (f32, f32),
        color: Rgb,
        (cover, soft): (f32, f32),
    ) {
        let (width, height) = (self.canvas.width, self.canvas.height);
        let (cx, cy) =
            ((center.0 + self.shift.0) * width as f32, (center.1 + self.shift.1) * height as f32);
        let (rx, ry) = (radius.0 * width as f32, radius.1 * height as f32);
        let soft = soft.max(1.0 / rx.min(ry).max(1.0));
        let xs = span(cx, rx + 1.0, width);
        for y in span(cy, ry + 1.0, height) {
            let v = (y as f32 + 0.5 - cy) / ry;
            let row = self.canvas.row_mut(y);
            for x in xs.clone() {
                let u = (x as f32 + 0.5 - cx) / rx;
                let distance = 1.0 - (u * u + v * v).sqrt();
                let inside = (distance / soft).clamp(0.0, 1.0);
                if inside > 0.0 {
                    row[x] = mix(row[x], color, inside * cover);
                }
            }
        }
    }

    /// Everything below a line given by its height at each x, down to `low`.
    pub fn below(&mut self, line: impl Fn(f32) -> f32, low: f32, color: Rgb) {
        let (width, height) = (self.canvas.width, self.canvas.height);
        let low = ((low + self.shift.1) * height as f32).round().clamp(0.0, height as f32) as usize;
        for x in 0..width {
            let top = line((x as f32 + 0.5) / width as f32 - self.shift.0) + self.shift.1;
            let top = (top * height as f32).clamp(0.0, height as f32);
            let first = top as usize;
            for y in first..low {
                let cover = (y as f32 + 1.0 - top).clamp(0.0, 1.0);
                let pixel = &mut self.canvas.pixels[y * width + x];
                *pixel = mix(*pixel, color, cover);
            }
        }
    }
}
