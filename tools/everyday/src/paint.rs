// SPDX-License-Identifier: MPL-2.0
//! Painting a frame: backdrop, things from far to near, weather, then what the camera does to it.

use worlds::{Canvas, Rgb, Rng, derive, mix};

use crate::atlas::Atlas;
use crate::backdrop;
use crate::brush::Brush;
use crate::camera::{Camera, Hold};
use crate::clip::{Clip, Pose, Thing};
use crate::noun::Element;
use crate::words::{Light, Scenery};

/// Paints frame `index` of `clip`, packed RGB, `3 * width * height` bytes.
pub fn paint(
    atlas: &Atlas,
    camera: &Camera,
    clip: &Clip,
    index: usize,
    (width, height): (usize, usize),
) -> Vec<u8> {
    let things: Vec<(&Thing, Pose)> = clip.visible(index).collect();
    let moment = Moment {
        seed: clip.seed,
        light: clip.light,
        turning: None,
        part: index as f32 / clip.frames as f32,
        index,
    };
    paint_things(atlas, camera, &moment, things, (width, height))
}

/// When a frame is taken.
pub struct Moment {
    pub seed: u64,
    pub light: Light,
    /// The light it turns into, and how far it has.
    pub turning: Option<(Light, f32)>,
    /// How much of the clip has passed, 0 to 1.
    pub part: f32,
    pub index: usize,
}

/// Paints `things` before `camera`'s backdrop.
pub fn paint_things(
    atlas: &Atlas,
    camera: &Camera,
    moment: &Moment,
    mut things: Vec<(&Thing, Pose)>,
    (width, height): (usize, usize),
) -> Vec<u8> {
    let mut rng = Rng::new(derive(derive(moment.seed, 100), moment.index as u64));
    let mut canvas = Canvas::new(width, height);
    let shake = match camera.hold {
        Hold::Shaking(by) => (rng.range(-by, by), rng.range(-by, by)),
        _ => (0.0, 0.0),
    };
    let shift = (shake.0 - camera.pan(moment.part), shake.1);
    let mut brush = Brush { canvas: &mut canvas, shift };
    let mut tint = backdrop::paint(&mut brush, camera, moment.light).thing;
    if let Some((next, share)) = moment.turning {
        let mut later = Canvas::new(width, height);
        let palette = backdrop::paint(&mut Brush { canvas: &mut later, shift }, camera, next);
        for (pixel, later) in canvas.pixels.iter_mut().zip(&later.pixels) {
            *pixel = mix(*pixel, *later, share);
        }
        tint = mix(tint, palette.thing, share);
    }
    things.sort_by(|a, b| a.1.size.total_cmp(&b.1.size));
    for (thing, pose) in things {
        let pose = Pose { x: pose.x + shake.0, y: pose.y + shake.1, ..pose };
        draw(&mut canvas, atlas, camera, thing, pose, tint);
    }
    weather(&mut canvas, camera, moment, &mut rng);
    if camera.blur > 0.0 {
        soften(&mut canvas, 0.22 * camera.blur);
    }
    canvas.shoot(&camera.lens, &mut rng)
}

/// What a thing covers: left, top, width and height, in unit coordinates.
pub fn cover(atlas: &Atlas, camera: &Camera, thing: &Thing, pose: Pose) -> [f32; 4] {
    let (wide, high) = camera.extent(pose.size);
    let (across, down) =
        atlas.sprite(thing.noun, thing.style).map_or((1.0, 1.0), |sprite| sprite.shape());
    let left = pose.x - 0.5 * across * wide;
    // What stands on the ground or swims stands at the lower side of its square.
    let top = match thing.noun.element() {
        Element::Air => pose.y - 0.5 * down * high,
        _ => pose.y + 0.5 * high - down * high,
    };
    [left, top, across * wide, down * high]
}

fn draw(canvas: &mut Canvas, atlas: &Atlas, camera: &Camera, thing: &Thing, pose: Pose, tint: Rgb) {
    let Some(sprite) = atlas.sprite(thing.noun, thing.style) else { return };
    let [left, top, wide, high] = cover(atlas, camera, thing, pose);
    if thing.noun.element() == Element::Ground {
        let at = (left + wide / 2.0, top + high - 0.006);
        let mut brush = Brush { canvas, shift: (0.0, 0.0) };
        brush.ellipse(at, (0.52 * wide, 0.09 * high), [14.0, 14.0, 20.0], (0.42, 0.8));
    }
    let (width, height) = (canvas.width as f32, canvas.height as f32);
    let (left, top, wide, high) = (left * width, top * height, wide * width, high * height);
    let sampler = sprite.sampler(wide, high);
    let rows = top.max(0.0) as usize..((top + high).ceil().max(0.0) as usize).min(canvas.height);
    let columns =
        left.max(0.0) as usize..((left + wide).ceil().max(0.0) as usize).min(canvas.width);
    for y in rows {
        let v = (y as f32 + 0.5 - top) / high;
        if !(0.0..1.0).contains(&v) {
            continue;
        }
        let row = canvas.row_mut(y);
        for x in columns.clone() {
            let u = (x as f32 + 0.5 - left) / wide;
            if !(0.0..1.0).contains(&u) {
                continue;
            }
            let [r, g, b, alpha] = sampler.at(if thing.mirrored { 1.0 - u } else { u }, v);
            if alpha > 0.5 {
                let color = [r * tint[0], g * tint[1], b * tint[2]];
                let rest = 1.0 - alpha / 255.0;
                row[x] = std::array::from_fn(|i| color[i] + rest * row[x][i]);
            }
        }
    }
}

/// Rain, snow or fog, in some lights of some cameras.
fn weather(canvas: &mut Canvas, camera: &Camera, moment: &Moment, rng: &mut Rng) {
    if camera.scenery == Scenery::Room {
        return;
    }
    let kind = Rng::new(derive(camera.seed, 5 + moment.light as u64)).below(16);
    let gray = if moment.light == Light::Night { 84.0 } else { 196.0 };
    match kind {
        0 => {
            let mut brush = Brush { canvas, shift: (0.0, 0.0) };
            for _ in 0..36 {
                let (x, y) = (rng.unit(), rng.unit());
                brush.rect((x, x + 0.004), (y, y + 0.05), [gray; 3], 0.45);
            }
        }
        1 => {
            let mut brush = Brush { canvas, shift: (0.0, 0.0) };
            for _ in 0..40 {
                let at = (rng.unit(), rng.unit());
                brush.ellipse(at, (0.006, 0.008), [gray + 50.0; 3], (0.8, 0.7));
            }
        }
        2 => {
            for pixel in &mut canvas.pixels {
                *pixel = mix(*pixel, [gray - 10.0; 3], 0.24);
            }
        }
        _ => {}
    }
}

/// Every pixel takes `share` of its four neighbours' mean.
fn soften(canvas: &mut Canvas, share: f32) {
    let (width, height) = (canvas.width, canvas.height);
    let before = canvas.pixels.clone();
    for y in 0..height {
        let (above, below) = (y.saturating_sub(1) * width, (y + 1).min(height - 1) * width);
        for x in 0..width {
            let (left, right) = (x.saturating_sub(1), (x + 1).min(width - 1));
            let four = [above + x, below + x, y * width + left, y * width + right];
            let pixel = &mut canvas.pixels[y * width + x];
            for (channel, component) in pixel.iter_mut().enumerate() {
                let mean = 0.25 * four.iter().map(|&at| before[at][channel]).sum::<f32>();
                *component += 2.0 * share * (mean - *component);
            }
        }
    }
}
