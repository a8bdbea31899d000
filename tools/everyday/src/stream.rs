// SPDX-License-Identifier: MPL-2.0
//! A stream: the clips of a camera, or of a few, one after the other, one frame per second.

use std::rc::Rc;

use worlds::{Rng, derive, resize};

use crate::atlas::Atlas;
use crate::camera::Camera;
use crate::clip::Clip;
use crate::noun::Noun;
use crate::paint::paint;
use crate::roll::{CLIPS, Roll, RollOptions};
use crate::words::{Light, Style};

/// How a stream is drawn.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// Length in frames, which is also its length in seconds.
    pub frames: usize,
    /// Casts the things that training never shows where they are shown then.
    pub held_out: bool,
    /// Whose drawings.
    pub styles: Vec<Style>,
    /// Width over height of the picture; `None` draws one for each camera.
    pub aspect: Option<f32>,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { frames: 64, held_out: false, styles: Style::TRAINED.to_vec(), aspect: None }
    }
}

/// A camera's clips and where their frames are in a pool.
#[derive(Clone, Debug)]
pub struct Footage {
    pub(crate) roll: Rc<Roll>,
    /// By light and clip: the number of its first frame.
    first: Rc<[Vec<usize>; 3]>,
}

impl Footage {
    /// `roll`, whose first frame has the number `first`.
    pub(crate) fn new(roll: Roll, mut first: usize) -> Self {
        let number = |clips: &Vec<Clip>| {
            let mut numbers = Vec::with_capacity(clips.len());
            for clip in clips {
                numbers.push(first);
                first += clip.frames;
            }
            numbers
        };
        let numbers = roll.clips.each_ref().map(number);
        Self { roll: Rc::new(roll), first: Rc::new(numbers) }
    }

    pub(crate) fn frames(&self) -> usize {
        self.roll.clips.iter().flatten().map(|clip| clip.frames).sum()
    }
}

/// Where the cameras of a stream come from.
pub trait Cameras {
    fn camera(&mut self, rng: &mut Rng) -> Footage;
}

/// Draws every camera anew.
pub struct FreshCameras(pub RollOptions);

impl Cameras for FreshCameras {
    fn camera(&mut self, rng: &mut Rng) -> Footage {
        Footage::new(Roll::generate(rng.next_u64(), &self.0), 0)
    }
}

/// A clip, or a part of one, and the frames of the stream it fills.
#[derive(Clone, Debug)]
pub struct Segment {
    footage: Footage,
    light: usize,
    clip: usize,
    /// The first frame of the stream that shows it.
    pub start: usize,
    /// The frame of the clip shown first.
    pub offset: usize,
    pub frames: usize,
}

impl Segment {
    pub fn end(&self) -> usize {
        self.start + self.frames
    }

    pub fn roll(&self) -> &Roll {
        &self.footage.roll
    }

    pub fn clip(&self) -> &Clip {
        &self.footage.roll.clips[self.light][self.clip]
    }

    pub fn light(&self) -> Light {
        Light::ALL[self.light]
    }
}

/// A video of everyday things, described but not yet painted.
#[derive(Clone, Debug)]
pub struct Stream {
    pub seed: u64,
    pub segments: Vec<Segment>,
    pub(crate) styles: Vec<Style>,
}

impl Stream {
    /// The stream of `seed`: equal seeds and options give equal streams.
    pub fn generate(seed: u64, options: &StreamOptions) -> Self {
        let roll = RollOptions {
            held_out: options.held_out,
            styles: options.styles.clone(),
            aspect: options.aspect,
            clips: CLIPS.max(options.frames / 4),
        };
        Self::assemble(seed, options, &mut FreshCameras(roll))
    }

    /// Like [`Stream::generate`], with cameras from `source`.
    pub fn assemble(seed: u64, options: &StreamOptions, source: &mut impl Cameras) -> Self {
        let mut rng = Rng::new(derive(seed, 2));
        let cameras = match rng.below(100) {
            0..=71 => 1,
            72..=91 => 2,
            _ => 3,
        };
        let cameras = if options.frames < 20 { 1 } else { cameras };
        let reels = (0..cameras).map(|_| Reel::new(source.camera(&mut rng), &mut rng)).collect();
        let lights = lights(options.frames, &mut rng);
        let mut assembly = Assembly { reels, segments: Vec::new(), rng, frames: options.frames };
        assembly.fill(&lights);
        Self { seed, segments: assembly.segments, styles: options.styles.clone() }
    }

    /// The clips of one camera, one after the other: a video told, not drawn.
    pub fn of(camera: Camera, told: Vec<Clip>) -> Self {
        let mut clips = [const { Vec::new() }; 3];
        let mut order = Vec::new();
        for clip in told {
            let light = clip.light as usize;
            order.push((light, clips[light].len(), clip.frames));
            clips[light].push(clip);
        }
        let footage = Footage::new(Roll { camera, clips }, 0);
        let mut start = 0;
        let segments = order.into_iter().map(|(light, clip, frames)| {
            let footage = footage.clone();
            start += frames;
            Segment { footage, light, clip, start: start - frames, offset: 0, frames }
        });
        Self { seed: 0, segments: segments.collect(), styles: Style::TRAINED.to_vec() }
    }

    /// Length in frames.
    pub fn frames(&self) -> usize {
        self.segments.last().map_or(0, Segment::end)
    }

    /// The segment that frame `index` belongs to; panics beyond the end.
    pub fn segment_at(&self, index: usize) -> &Segment {
        &self.segments[self.segments.partition_point(|segment| segment.end() <= index)]
    }

    /// The number of frame `index` in the pool the stream is assembled from.
    pub fn pool_frame(&self, index: usize) -> usize {
        let segment = self.segment_at(index);
        segment.footage.first[segment.light][segment.clip] + segment.offset + index - segment.start
    }

    /// Frame `index` painted at `width` x `height`, packed RGB.
    pub fn frame(&self, atlas: &Atlas, index: usize, width: usize, height: usize) -> Vec<u8> {
        let segment = self.segment_at(index);
        let shown = segment.offset + index - segment.start;
        paint(atlas, &segment.roll().camera, segment.clip(), shown, (width, height))
    }

    /// Frame `index` painted at `size` and resized to `to` as the model's processor would.
    pub fn frame_resized(
        &self,
        atlas: &Atlas,
        index: usize,
        size: (usize, usize),
        to: (usize, usize),
    ) -> Vec<u8> {
        resize(&self.frame(atlas, index, size.0, size.1), size, to)
    }
}

/// The light and the frame it begins with: mostly one all along, else in the order of the day or
/// against it, each at most once.
fn lights(frames: usize, rng: &mut Rng) -> Vec<(usize, usize)> {
    let first = rng.below(3);
    if frames < 12 || rng.chance(0.45) {
        return vec![(0, first)];
    }
    let mut order: Vec<usize> = (0..3).collect();
    if rng.chance(0.4) {
        order.reverse();
    }
    let changes = 1 + rng.below(2);
    let skip = rng.below(3 - changes);
    let order = &order[skip..=skip + changes];
    let mut starts: Vec<usize> =
        (0..changes).map(|_| frames / 8 + rng.below(frames - frames / 4)).collect();
    starts.insert(0, 0);
    starts.sort_unstable();
    starts.into_iter().zip(order.iter().copied()).collect()
}

/// A camera while a stream is put together.
struct Reel {
    footage: Footage,
    /// By light: clips not shown yet.
    left: [Vec<usize>; 3],
}

impl Reel {
    fn new(footage: Footage, rng: &mut Rng) -> Self {
        let left = footage.roll.clips.each_ref().map(|clips| {
            let mut order: Vec<usize> = (1..clips.len()).collect();
            rng.shuffle(&mut order);
            order
        });
        Self { footage, left }
    }
}

struct Assembly {
    reels: Vec<Reel>,
    segments: Vec<Segment>,
    rng: Rng,
    frames: usize,
}

impl Assembly {
    fn fill(&mut self, lights: &[(usize, usize)]) {
        // Some cameras show nothing for a long time.
        let quiet = self.rng.chance(0.08);
        let idle = if quiet { 0.75 } else { 0.28 };
        let mut reel = 0;
        let mut stay = self.rng.below(14) + 8;
        while self.end() < self.frames {
            let now = self.end();
            if self.reels.len() > 1 && now >= stay {
                reel = (reel + 1) % self.reels.len();
                stay = now + 8 + self.rng.below(18);
            }
            let light = lights.iter().rev().find(|(start, _)| *start <= now).map_or(0, |row| row.1);
            let next = if self.rng.chance(idle) { None } else { self.next_clip(reel, light) };
            match next {
                Some(clip) => self.push(reel, light, clip, usize::MAX),
                None => {
                    let frames = 1 + self.rng.below(8);
                    self.push(reel, light, 0, frames);
                }
            }
        }
    }

    fn end(&self) -> usize {
        self.segments.last().map_or(0, Segment::end)
    }

    /// A clip not shown yet, with nothing in it that has been there until now: nobody could say
    /// whether it left and came again.
    fn next_clip(&mut self, reel: usize, light: usize) -> Option<usize> {
        let before: Vec<Noun> = self.segments.last().map_or(Vec::new(), |segment| {
            segment.clip().things.iter().map(|thing| thing.noun).collect()
        });
        let Reel { footage, left } = &mut self.reels[reel];
        let fits = |&clip: &usize| {
            let things = &footage.roll.clips[light][clip].things;
            things.iter().all(|thing| !before.contains(&thing.noun))
        };
        let at = left[light].iter().rposition(fits)?;
        Some(left[light].remove(at))
    }

    fn push(&mut self, reel: usize, light: usize, clip: usize, frames: usize) {
        let footage = self.reels[reel].footage.clone();
        let start = self.end();
        let whole = footage.roll.clips[light][clip].frames;
        let frames = frames.min(whole).min(self.frames - start);
        self.segments.push(Segment { footage, light, clip, start, offset: 0, frames });
    }
}
