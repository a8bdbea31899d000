// SPDX-License-Identifier: MPL-2.0
//! A clip: what one camera sees in one light for 4 to 8 seconds, one frame a second.
//!
//! Between two clips of a camera nothing has to fit: what was there has left, and what is there
//! has just come.

use worlds::{Rng, derive};

use crate::camera::Camera;
use crate::noun::{Element, Facing, Noun};
use crate::words::{Distance, Light, Scenery, Style};

pub const MIN_FRAMES: usize = 4;
pub const MAX_FRAMES: usize = 8;
/// Two things may hide this share of each other.
const OVERLAP: f32 = 0.12;
/// This share of a thing may be outside of the picture.
const OUTSIDE: f32 = 0.14;

/// Where a thing is in one frame, as the square around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pose {
    /// The centre, in unit coordinates.
    pub x: f32,
    pub y: f32,
    /// The side, relative to the mean of the frame's sides.
    pub size: f32,
}

/// A thing and its way through a clip.
#[derive(Clone, Debug, PartialEq)]
pub struct Thing {
    pub noun: Noun,
    pub style: Style,
    pub mirrored: bool,
    /// A pose for each frame of the clip; `None` while it is not there.
    pub track: Vec<Option<Pose>>,
}

/// A clip.
#[derive(Clone, Debug)]
pub struct Clip {
    pub seed: u64,
    pub light: Light,
    pub frames: usize,
    pub things: Vec<Thing>,
}

impl Clip {
    /// A clip of `camera` with those of `nouns` that find room.
    pub fn generate(
        camera: &Camera,
        light: Light,
        seed: u64,
        nouns: &[Noun],
        styles: &[Style],
    ) -> Self {
        let mut rng = Rng::new(derive(seed, 1));
        let frames = if nouns.is_empty() {
            MAX_FRAMES
        } else {
            MIN_FRAMES + rng.below(MAX_FRAMES - MIN_FRAMES + 1)
        };
        let mut clip = Self { seed, light, frames, things: Vec::new() };
        for &noun in nouns {
            let style = drawing(noun, styles, &mut rng);
            // Some other way through the picture may be free.
            let thing = (0..24).find_map(|_| {
                let mut way = Way { camera, noun, frames, rng: &mut rng };
                let track = way.track(nouns.len());
                clip.free(camera, &track).then_some(track)
            });
            if let Some(track) = thing {
                let mirrored = mirrored(noun, &track, &mut rng);
                clip.things.push(Thing { noun, style, mirrored, track });
            }
        }
        clip
    }

    /// The things in frame `index`, with their poses.
    pub fn visible(&self, index: usize) -> impl Iterator<Item = (&Thing, Pose)> {
        self.things.iter().filter_map(move |thing| {
            thing.track.get(index).copied().flatten().map(|pose| (thing, pose))
        })
    }

    fn free(&self, camera: &Camera, track: &[Option<Pose>]) -> bool {
        track.iter().enumerate().all(|(index, pose)| {
            let Some(pose) = pose else { return true };
            let (width, height) = camera.extent(pose.size);
            let margin = (0.5 - OUTSIDE) * width;
            let inside = pose.x >= margin
                && pose.x <= 1.0 - margin
                && pose.y >= 0.5 * height - 0.02
                && pose.y <= 1.0 - 0.45 * height;
            inside && self.visible(index).all(|(_, other)| shared(camera, *pose, other) <= OVERLAP)
        })
    }
}

/// Which share of the smaller of two squares the other covers.
fn shared(camera: &Camera, a: Pose, b: Pose) -> f32 {
    let (aw, ah) = camera.extent(a.size);
    let (bw, bh) = camera.extent(b.size);
    let overlap = |a: f32, aw: f32, b: f32, bw: f32| {
        ((a + aw / 2.0).min(b + bw / 2.0) - (a - aw / 2.0).max(b - bw / 2.0)).max(0.0)
    };
    overlap(a.x, aw, b.x, bw) * overlap(a.y, ah, b.y, bh) / (aw * ah).min(bw * bh)
}

fn drawing(noun: Noun, styles: &[Style], rng: &mut Rng) -> Style {
    let drawn: Vec<Style> = styles.iter().copied().filter(|&style| noun.drawn_in(style)).collect();
    if drawn.is_empty() { Style::Noto } else { *rng.pick(&drawn) }
}

/// Whether the drawing has to be mirrored to look where the thing goes.
fn mirrored(noun: Noun, track: &[Option<Pose>], rng: &mut Rng) -> bool {
    let mut seen = track.iter().flatten();
    let first = seen.next();
    let moved = match (first, seen.next_back()) {
        (Some(first), Some(last)) => last.x - first.x,
        _ => 0.0,
    };
    let goes_right = if moved.abs() > 0.05 { moved > 0.0 } else { rng.chance(0.5) };
    match noun.facing() {
        Facing::Left => goes_right,
        Facing::Right => !goes_right,
        Facing::Either => rng.chance(0.5),
        Facing::Fixed => false,
    }
}

/// Draws a way through the picture.
struct Way<'a> {
    camera: &'a Camera,
    noun: Noun,
    frames: usize,
    rng: &'a mut Rng,
}

impl Way<'_> {
    fn track(&mut self, company: usize) -> Vec<Option<Pose>> {
        let choice = if self.noun.moves() { self.rng.unit() } else { 0.0 };
        match choice {
            x if x < 0.40 => self.stay(company),
            x if x < 0.68 => self.cross(company),
            x if x < 0.82 => self.approach(),
            x if x < 0.92 => self.come_back(company),
            _ => self.pause(company),
        }
    }

    fn near(&mut self) -> f32 {
        let large: f32 = if self.camera.aspect > 1.5 { 0.48 } else { 0.54 };
        Distance::NEAR * (large / Distance::NEAR).powf(self.rng.unit())
    }

    fn far(&mut self) -> f32 {
        self.rng.range(0.2, Distance::FAR)
    }

    fn size(&mut self, company: usize) -> f32 {
        let near = [0.65, 0.65, 0.6, 0.35, 0.12][company.min(4)];
        if self.rng.chance(near) { self.near() } else { self.far() }
    }

    /// The height of its centre, if it is of `size`.
    fn level(&mut self, size: f32) -> f32 {
        let (_, height) = self.camera.extent(size);
        let top = 0.5 * height;
        match (self.noun.element(), self.camera.scenery) {
            (Element::Air, Scenery::Sky) => self.rng.range(top, 0.92 - top),
            (Element::Air, _) => {
                let low = (self.camera.horizon + 0.08 - top).max(top + 0.02);
                self.rng.range(top, low)
            }
            (Element::Water, _) => {
                let sea = (self.camera.horizon + 0.07, self.camera.ground + 0.02);
                let depth = ((size - 0.2) / 0.34).clamp(0.0, 1.0);
                (sea.0 + depth * (sea.1 - sea.0) + self.rng.range(-0.01, 0.01) - top).max(top)
            }
            (Element::Ground, _) => {
                self.camera.foot(size) + self.rng.range(-0.012, 0.012) - 0.5 * height
            }
        }
    }

    /// Up and down a little, as things that walk or fly do.
    fn bob(&mut self) -> f32 {
        let by = if self.noun.element() == Element::Air { 0.018 } else { 0.005 };
        self.rng.range(-by, by)
    }

    /// When it is there: `length` frames of the clip.
    fn start(&mut self, length: usize) -> usize {
        self.rng.below(self.frames - length + 1)
    }

    fn place(&mut self, start: usize, poses: impl IntoIterator<Item = Pose>) -> Vec<Option<Pose>> {
        let mut track = vec![None; self.frames];
        for (index, mut pose) in poses.into_iter().enumerate() {
            pose.x -= self.camera.pan((start + index) as f32 / self.frames as f32);
            track[start + index] = Some(pose);
        }
        track
    }

    /// The middle of one of the three places.
    fn spot(&mut self, size: f32) -> f32 {
        let edge = (0.5 - OUTSIDE) * self.camera.extent(size).0 + 0.005;
        let slack = if matches!(self.camera.hold, crate::Hold::Panning(_)) { 0.05 } else { 0.0 };
        match self.rng.below(3) {
            0 => self.rng.range(edge.max(0.15), 0.31 + slack),
            1 => self.rng.range(0.45, 0.55),
            _ => self.rng.range(0.69 - slack, 1.0 - edge.max(0.15)),
        }
    }

    /// It comes, stays where it is, and goes.
    fn stay(&mut self, company: usize) -> Vec<Option<Pose>> {
        let size = self.size(company);
        let (x, y) = (self.spot(size), self.level(size));
        let length = 2 + self.rng.below(self.frames - 1);
        let start = self.start(length);
        let lively = self.noun.moves();
        let poses: Vec<Pose> = (0..length)
            .map(|_| {
                let (dx, dy) =
                    if lively { (self.rng.range(-0.012, 0.012), self.bob()) } else { (0.0, 0.0) };
                Pose { x: x + dx, y: y + dy, size }
            })
            .collect();
        self.place(start, poses)
    }

    /// From one side to the other; `stops` frames it stands still in the middle.
    fn walk(&mut self, company: usize, stops: usize) -> Vec<Pose> {
        let size = self.size(company);
        let y = self.level(size);
        let steps = 3 + self.rng.below((self.frames - stops).min(5) - 2);
        let edge = (0.5 - OUTSIDE) * self.camera.extent(size).0 + 0.002;
        let (from, to) = (edge + self.rng.range(0.0, 0.08), 1.0 - edge - self.rng.range(0.0, 0.08));
        let (from, to) = if self.rng.chance(0.5) { (from, to) } else { (to, from) };
        let mut xs: Vec<f32> =
            (0..steps).map(|step| from + (to - from) * step as f32 / (steps - 1) as f32).collect();
        let middle = steps / 2;
        for _ in 0..stops {
            xs.insert(middle, xs[middle]);
        }
        xs.into_iter().map(|x| Pose { x, y: y + self.bob(), size }).collect()
    }

    fn cross(&mut self, company: usize) -> Vec<Option<Pose>> {
        let poses = self.walk(company, 0);
        let start = self.start(poses.len());
        self.place(start, poses)
    }

    fn pause(&mut self, company: usize) -> Vec<Option<Pose>> {
        let stops = 1 + self.rng.below(self.frames - 3);
        let poses = self.walk(company, stops.min(3));
        let start = self.start(poses.len());
        self.place(start, poses)
    }

    /// Out of the picture and in again.
    fn come_back(&mut self, company: usize) -> Vec<Option<Pose>> {
        let mut track = self.stay(company);
        let seen: Vec<usize> = (0..track.len()).filter(|&at| track[at].is_some()).collect();
        if let [_, inner @ .., _] = seen.as_slice()
            && !inner.is_empty()
        {
            track[*self.rng.pick(inner)] = None;
        }
        track
    }

    /// From far to near, or the other way round.
    fn approach(&mut self) -> Vec<Option<Pose>> {
        let steps = 3 + self.rng.below(self.frames.min(5) - 2);
        let (far, near) = (self.far(), self.near().max(0.36));
        let x = self.spot(near);
        let drift = self.rng.range(-0.05, 0.05);
        let turned = steps / 2;
        let mut level = |size: f32| self.level(size);
        let (far_y, near_y) = (level(far), level(near));
        let mut poses: Vec<Pose> = (0..steps)
            .map(|step| {
                // Half of the way far, the other half near: nothing in between has no name.
                let size = if step < turned {
                    far * (Distance::FAR / far).powf(step as f32 / turned as f32)
                } else {
                    let part = (step - turned + 1) as f32 / (steps - turned) as f32;
                    Distance::NEAR * (near / Distance::NEAR).powf(part)
                };
                let part = (size - far) / (near - far);
                Pose { x: x + drift * part, y: far_y + (near_y - far_y) * part, size }
            })
            .collect();
        if self.rng.chance(0.5) {
            poses.reverse();
        }
        let start = self.start(steps);
        self.place(start, poses)
    }
}
