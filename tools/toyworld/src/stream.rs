// SPDX-License-Identifier: MPL-2.0
//! A stream: scenes one after the other, one frame per second.

use std::ops::Range;

use crate::casting::Casting;
use crate::render::render;
use crate::scene::{MAX_FRAMES, MIN_FRAMES, Scene, SceneOptions};
use crate::vocabulary::Key;
use worlds::resize;
use worlds::{Rng, derive};

/// How a stream is drawn.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// Length in frames, which is also its length in seconds.
    pub frames: usize,
    /// Casts the combinations that training never shows.
    pub held_out: bool,
    /// Share of scenes without an object.
    pub blank: f32,
    pub scene: SceneOptions,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { frames: 32, held_out: false, blank: 0.05, scene: SceneOptions::default() }
    }
}

/// A scene and the frames of the stream it fills.
#[derive(Clone, Debug)]
pub struct Shot {
    pub scene: Scene,
    /// The first frame of the stream that shows it.
    pub start: usize,
    /// The frame of the scene shown first: shots may begin in the middle of a movement.
    pub offset: usize,
    pub frames: usize,
}

impl Shot {
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.frames
    }

    pub fn key(&self) -> Option<Key> {
        self.scene.key()
    }
}

/// Where the scenes of a stream come from.
pub trait SceneSource {
    /// A scene of `key`; `None` asks for one without an object.
    fn scene(&mut self, key: Option<Key>, rng: &mut Rng) -> Scene;
}

/// Draws every scene anew.
pub struct FreshScenes(pub SceneOptions);

impl SceneSource for FreshScenes {
    fn scene(&mut self, key: Option<Key>, rng: &mut Rng) -> Scene {
        Scene::generate(rng.next_u64(), key, &self.0)
    }
}

/// A video of the toy world, described but not yet painted.
#[derive(Clone, Debug)]
pub struct Stream {
    pub seed: u64,
    pub shots: Vec<Shot>,
    pub(crate) casting: Casting,
}

impl Stream {
    /// The stream of `seed`: equal seeds and options give equal streams.
    pub fn generate(seed: u64, options: &StreamOptions) -> Self {
        Self::assemble(seed, options, &mut FreshScenes(options.scene.clone()))
    }

    /// Like [`Stream::generate`], with scenes from `source`.
    pub fn assemble(seed: u64, options: &StreamOptions, source: &mut impl SceneSource) -> Self {
        let mut rng = Rng::new(derive(seed, 2));
        let lengths = shot_lengths(options.frames, &mut rng);
        let casting = Casting::draw(lengths.len(), options.held_out, &mut rng);
        let mut shots: Vec<Shot> = Vec::with_capacity(lengths.len());
        for (index, frames) in lengths.into_iter().enumerate() {
            let previous = shots.last().and_then(Shot::key);
            let blank = rng.chance(options.blank);
            let key = (!blank).then(|| casting.key(index, previous, &mut rng));
            shots.push(Shot {
                scene: source.scene(key, &mut rng),
                start: shots.last().map_or(0, |shot| shot.range().end),
                offset: rng.below(MAX_FRAMES - frames + 1),
                frames,
            });
        }
        Self { seed, shots, casting }
    }

    /// Length in frames.
    pub fn frames(&self) -> usize {
        self.shots.last().map_or(0, |shot| shot.range().end)
    }

    /// The shot that frame `index` belongs to; panics beyond the end.
    pub fn shot_at(&self, index: usize) -> &Shot {
        let shot = self.shots.partition_point(|shot| shot.range().end <= index);
        &self.shots[shot]
    }

    /// Frame `index` painted at `width` x `height`, packed RGB.
    pub fn frame(&self, index: usize, width: usize, height: usize) -> Vec<u8> {
        let shot = self.shot_at(index);
        render(&shot.scene, shot.offset + index - shot.start, width, height)
    }

    /// Frame `index` painted at `size` and resized to `to` as the model's processor would.
    pub fn frame_resized(&self, index: usize, size: (usize, usize), to: (usize, usize)) -> Vec<u8> {
        resize(&self.frame(index, size.0, size.1), size, to)
    }
}

/// Lengths of consecutive shots, `MIN_FRAMES..=MAX_FRAMES` each, that fill `frames`;
/// only the last may be cut short.
fn shot_lengths(frames: usize, rng: &mut Rng) -> Vec<usize> {
    let mut lengths = Vec::new();
    let mut left = frames;
    while left > 0 {
        let length = (MIN_FRAMES + rng.below(MAX_FRAMES - MIN_FRAMES + 1)).min(left);
        lengths.push(length);
        left -= length;
    }
    lengths
}
