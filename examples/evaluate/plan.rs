// SPDX-License-Identifier: MPL-2.0
//! What a cell of the comparison measures: a method with its options, a length and a budget.

use gststreamkvqa::memory::store::StoreOptions;
use gststreamkvqa::{EngineError, Frame, Recipe, ReuseOptions, Stream, VideoLlm};

use crate::bench::Work;
use crate::world::{PAINTED, Video, World};

/// The method that sees no video.
const BLIND: &str = "blind";
/// The method that sees the frames that hold the answer and no others.
const ORACLE: &str = "oracle";

/// What of a video a method sees before a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sees {
    All,
    Nothing,
    /// The frames that hold the answer, as many as the budget has room for: what any choice of frames may hope
    /// for.
    Relevant,
}

/// What is one cell's own.
#[derive(Clone)]
pub struct Plan {
    pub label: String,
    pub frames: usize,
    pub budget: usize,
    pub recipe: Recipe,
    pub store: StoreOptions,
    /// The memory has room for so many frames as they come; `None`: for all.
    room: Option<usize>,
    pub reuse: ReuseOptions,
    pub sees: Sees,
}

impl Plan {
    /// `method` is a name with options behind a colon, joined by plus signs: the method's; `store`,
    /// `store-residual`, `tower-reuse` and `reuse-tolerance` as the element has them; and `room`, which
    /// bounds the memory to the bytes of so many frames. A plain name is the published method; names
    /// of options joined to it by plus signs, as in `rekv+recent`, take these from the model's folder.
    pub fn parse(
        method: &str,
        model: &VideoLlm,
        frames: usize,
        budget: usize,
    ) -> Result<Self, EngineError> {
        let (name, options) = method.split_once(':').unwrap_or((method, ""));
        let mut parts = name.split('+');
        let name = parts.next().unwrap_or_default();
        let (known, sees) = match name {
            BLIND => ("full", Sees::Nothing),
            ORACLE => ("full", Sees::Relevant),
            name => (name, Sees::All),
        };
        let mut recipe = Recipe::published_for(known, model)?;
        let tuned = Recipe::for_model(known, model)?.options();
        for key in parts {
            let option = tuned.iter().find(|option| option.name == key);
            recipe.set(key, option.map_or("", |option| &option.value))?;
        }
        // A budget is what a method may use; where the model's folder recommends less, it does.
        let own =
            |key| Some(model.recommendations().recipes.get(name)?.get(key)?.as_u64()? as usize);
        let less = ["retrieve", "cap"].into_iter().filter_map(own).min();
        let frame = Frame::new(vec![0; 3 * PAINTED.0 * PAINTED.1], PAINTED.0, PAINTED.1, 0.0)?;
        let unit = model.picture(&frame)?.tokens();
        recipe.set_budget(less.map_or(budget, |less| less.min(budget)), unit);
        let mut store = StoreOptions::default();
        let mut reuse = ReuseOptions { most: 0, tolerance: 2.0 };
        let mut room = None;
        for option in options.split('+').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            match key {
                "store" => store.codec = Some(value.parse()?),
                "store-residual" => {
                    store.residual = number(key, value)?;
                }
                "room" => room = Some(number(key, value)?),
                "tower-reuse" => reuse.most = number(key, value)?,
                "reuse-tolerance" => reuse.tolerance = number(key, value)?,
                _ => recipe.set(key, value)?,
            }
        }
        Ok(Self { label: method.to_owned(), frames, budget, recipe, store, room, reuse, sees })
    }

    /// The same with a bound of as many bytes as there is room for.
    pub fn bounded(
        &self,
        model: &VideoLlm,
        world: &World,
        work: &Work,
    ) -> Result<Self, EngineError> {
        /// By then windows are as full as they get in so short a video.
        const FRAMES: usize = 64;
        let mut plan = self.clone();
        let Some(room) = self.room else { return Ok(plan) };
        let video = world.video(work.first_seed, work.drawn(2 * FRAMES));
        let mut stream = Stream::new(model.clone(), self.recipe.clone())?;
        let mut bytes = Vec::with_capacity(2);
        for start in [0, FRAMES] {
            let frames = (start..start + FRAMES).map(|index| paint(&video, index));
            stream.push_frames(&frames.collect::<Result<Vec<_>, _>>()?)?;
            bytes.push(stream.stats().bytes);
        }
        let a_frame = bytes[1].saturating_sub(bytes[0]) / FRAMES as u64;
        let fixed = bytes[0].saturating_sub(FRAMES as u64 * a_frame);
        plan.store.budget.device = Some(fixed + room as u64 * a_frame);
        Ok(plan)
    }
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, EngineError> {
    let reason = format!("`{value}` is no number that can be taken");
    value.parse().map_err(|_| EngineError::Option { key: key.into(), reason })
}

/// A frame of a video as the model's own processor gets it.
pub fn paint(video: &Video<'_>, index: usize) -> Result<Frame, EngineError> {
    let (width, height) = PAINTED;
    Frame::new(video.paint(index), width, height, index as f64)
}
