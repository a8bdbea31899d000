// SPDX-License-Identifier: MPL-2.0
//! Everything one camera ever sees: clips in each light, and who passes there.

use worlds::{Rng, derive};

use crate::camera::Camera;
use crate::clip::Clip;
use crate::noun::{HELD_OUT, Noun};
use crate::words::{Light, Scenery, Style};

/// Clips of a camera in one light, the empty one included.
pub const CLIPS: usize = 24;
/// Things that pass a camera again and again.
const REGULARS: usize = 4;
/// The share of things that are regulars.
const REGULAR: f32 = 0.3;
/// The share of clips in which several of the same kind are there together.
const GROUP: f32 = 0.15;
/// The share of sceneries, in the order of [`Scenery::ALL`], in percent.
const SCENERIES: [usize; 5] = [26, 20, 20, 22, 12];

/// How cameras and clips are drawn.
#[derive(Clone, Debug)]
pub struct RollOptions {
    /// Casts the things that training never shows where they are shown then.
    pub held_out: bool,
    /// Whose drawings.
    pub styles: Vec<Style>,
    /// Width over height; `None` draws one.
    pub aspect: Option<f32>,
    /// Clips in each light, the empty one included.
    pub clips: usize,
}

impl Default for RollOptions {
    fn default() -> Self {
        Self { held_out: false, styles: Style::TRAINED.to_vec(), aspect: None, clips: CLIPS }
    }
}

/// A camera and its clips.
#[derive(Clone, Debug)]
pub struct Roll {
    pub camera: Camera,
    /// By light; the first clip of each shows nothing.
    pub clips: [Vec<Clip>; 3],
}

impl Roll {
    pub fn generate(seed: u64, options: &RollOptions) -> Self {
        let mut rng = Rng::new(derive(seed, 10));
        let scenery = if options.held_out { rng.pick(&HELD_OUT).1 } else { draw_scenery(&mut rng) };
        let camera = Camera::new(derive(seed, 11), scenery, options.aspect);
        let cast = Cast::draw(scenery, options, &mut rng);
        let clips = std::array::from_fn(|light| {
            let mut cast = cast.clone();
            let mut rng = Rng::new(derive(seed, 20 + light as u64));
            let clip = |index: usize| {
                let seed = derive(derive(seed, 30 + light as u64), index as u64);
                let nouns = if index == 0 { Vec::new() } else { cast.pick_some(&mut rng) };
                Clip::generate(&camera, Light::ALL[light], seed, &nouns, &options.styles)
            };
            (0..options.clips).map(clip).collect()
        });
        Self { camera, clips }
    }
}

fn draw_scenery(rng: &mut Rng) -> Scenery {
    let mut at = rng.below(SCENERIES.iter().sum());
    for (&scenery, share) in Scenery::ALL.iter().zip(SCENERIES) {
        if at < share {
            return scenery;
        }
        at -= share;
    }
    Scenery::Street
}

/// Who passes a camera.
#[derive(Clone, Debug)]
struct Cast {
    /// Again and again.
    regulars: Vec<Noun>,
    /// Once in each light, from the end.
    others: Vec<Noun>,
    regular: f32,
}

impl Cast {
    fn draw(scenery: Scenery, options: &RollOptions, rng: &mut Rng) -> Self {
        let mut others = usual(scenery, options);
        weigh_and_shuffle(&mut others, rng);
        let held_out = Noun::all().filter(|noun| noun.is_held_out(scenery));
        let mut regulars: Vec<Noun> =
            if options.held_out { held_out.collect() } else { Vec::new() };
        // The more clips, the more often the regulars have to fill them.
        let clips = options.clips as f32;
        let regular = (1.0 - (1.0 - REGULAR) * (CLIPS as f32 / clips).min(1.0)).min(0.97);
        while regulars.len() < REGULARS + options.clips / 32
            && others.len() > 8
            && let Some(noun) = others.pop()
        {
            regulars.push(noun);
        }
        Self { regulars, others, regular }
    }

    /// The things of one clip: one to four, sometimes several of a kind.
    fn pick_some(&mut self, rng: &mut Rng) -> Vec<Noun> {
        let count = how_many(rng);
        if count > 1 && rng.chance(2.2 * GROUP) {
            return vec![self.pick(rng); count];
        }
        let mut nouns = Vec::new();
        for _ in 0..count {
            let noun = self.pick(rng);
            if !nouns.contains(&noun) {
                nouns.push(noun);
            }
        }
        nouns
    }

    fn pick(&mut self, rng: &mut Rng) -> Noun {
        if rng.chance(self.regular) {
            return *rng.pick(&self.regulars);
        }
        match self.others.pop() {
            Some(noun) => {
                // Not for a long while.
                let back = rng.below(self.others.len() / 4 + 1);
                self.others.insert(back, noun);
                noun
            }
            None => *rng.pick(&self.regulars),
        }
    }
}

/// How many things a clip shows.
pub fn how_many(rng: &mut Rng) -> usize {
    match rng.below(100) {
        0..=43 => 1,
        44..=75 => 2,
        76..=91 => 3,
        _ => 4,
    }
}

/// The things that may be seen in `scenery`, without those that are kept from it.
pub fn usual(scenery: Scenery, options: &RollOptions) -> Vec<Noun> {
    Noun::all()
        .filter(|noun| noun.trained_sceneries().any(|other| other == scenery))
        .filter(|noun| options.styles.iter().any(|&style| noun.drawn_in(style)))
        .collect()
}

/// Shuffles such that those at home in few sceneries come last, where they are taken from first.
pub fn weigh_and_shuffle(nouns: &mut Vec<Noun>, rng: &mut Rng) {
    rng.shuffle(nouns);
    let mut order = Vec::with_capacity(nouns.len());
    while !nouns.is_empty() {
        let weights: Vec<usize> =
            nouns.iter().map(|noun| noun.trained_sceneries().count()).collect();
        let mut at = rng.below(weights.iter().sum());
        let index = weights.iter().position(|&weight| {
            let here = at < weight;
            at = at.saturating_sub(weight);
            here
        });
        order.push(nouns.swap_remove(index.unwrap_or(0)));
    }
    *nouns = order;
}
