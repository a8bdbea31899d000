// SPDX-License-Identifier: MPL-2.0
//! A method is data: its name stands here, in one table (`table.rs`), and nowhere else.
//! Everything downstream sees the parts it is composed of.
//!
//! The ground floor of the memory. Nothing here does anything but parse, print and count.

mod composition;
mod options;
mod parts;
mod prompts;
mod resident;
mod table;

use std::path::Path;

use crate::error::{EngineError, Result};
use crate::frame::Frame;
use crate::model::{Recommendations, VideoLlm};
use table::table;

pub use composition::Recipe;
pub use options::{EXTERNAL_MODEL, RecipeOption};
pub use parts::{
    Bank, BudgetRule, Compression, Cut, Expert, Grain, Grains, Keeps, Older, Order, Places,
    Questions, Reduce, Retrieval, Rung, Rungs, Sees, Similarity, Span, Sparse, Thinning, Tiers,
};
pub use resident::{Heads, Leave, Pick, Probe, Resident, Scope, Signal};

/// Multiply-adds that a question may cost before its first word where what it finds is read again: on two
/// cores about a second, on a large GPU some tenths of one.
const MOST_READ_ON_CPU: u64 = 100_000_000_000;
const MOST_READ: u64 = 50_000_000_000_000;

/// Pixels of a picture to count with as long as none has come.
const A_CAMERA: (usize, usize) = (1280, 720);

/// A prompt that a recipe needs embedded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbePrompt {
    /// What stands between a question and its answer.
    Turn,
    Words(String),
}

impl Recipe {
    /// Names of all methods, for help texts.
    pub fn names() -> &'static [&'static str] {
        &[
            "auto",
            "streamkv",
            "streamkv-paper",
            "rekv",
            "mukv",
            "infinipot-v",
            "memstream",
            "streammem",
            "hermes",
            "livevlm",
            "cacheflow",
            "retake",
            "dscache",
            "simplestream",
            "fluxmem",
            "causalmem",
            "savemem",
            "sliding-window",
            "uniform",
            "full",
        ]
    }

    /// The method with its published defaults.
    ///
    /// # Errors
    /// [`EngineError::UnknownMethod`] with the known ones.
    pub fn named(name: &str) -> Result<Self> {
        table().into_iter().find(|recipe| recipe.name == name).ok_or_else(|| {
            EngineError::UnknownMethod { name: name.into(), known: Self::names().join(", ") }
        })
    }

    /// The method with the values that the model's folder recommends (`streamkvqa.json`).
    ///
    /// A recommendation tunes the parts a method has and never adds one, so `full` stays full. The
    /// path of another model is meant from this model's folder.
    ///
    /// # Errors
    /// As [`Recipe::named`] and [`Recipe::set`].
    pub fn for_model(name: &str, model: &VideoLlm) -> Result<Self> {
        let mut recipe = Self::published_for(name, model)?;
        let recommended = model.recommendations();
        let own = recommended.added_to.get(name).into_iter().flatten();
        recipe.take(recommended.added.iter().chain(own), recommended)?;
        Ok(recipe)
    }

    /// The published method with what the model's size, pictures and words ask of it, and nothing
    /// that makes it another method (`streamkvqa.json` without `added`).
    ///
    /// # Errors
    /// As [`Recipe::for_model`].
    pub fn published_for(name: &str, model: &VideoLlm) -> Result<Self> {
        let mut recipe = Self::named(name)?;
        let recommended = model.recommendations();
        if let (Some(frames), Retrieval::Best { reach, cover: true, .. }) =
            (recommended.trained_frames, &mut recipe.retrieval)
        {
            *reach = frames;
        }
        let own = recommended.recipes.get(name).into_iter().flatten();
        let all = || recommended.recipe.iter().chain(own.clone());
        recipe.take(all(), recommended)?;
        if recipe.keeps == Keeps::Inputs && !all().any(|(key, _)| key == "keep") {
            let (width, height) = A_CAMERA;
            let first = Frame::new(vec![0; 3 * width * height], width, height, 0.0)?;
            let work = model.decoder().work() * model.picture(&first)?.tokens() as u64;
            recipe.spare_reading(work, model.device().is_cpu());
        }
        Ok(recipe)
    }

    /// Keeps keys and values where a question would have to wait too long while what it finds is read
    /// again. `work`: multiply-adds of the decoder for a unit.
    fn spare_reading(&mut self, work: u64, on_cpu: bool) {
        let most = if on_cpu { MOST_READ_ON_CPU } else { MOST_READ };
        if let Retrieval::Best { units, .. } = self.retrieval
            && work.saturating_mul(units as u64) > most
        {
            self.keeps = Keeps::KeysAndValues;
        }
    }

    /// Names of the options in which the model's folder makes the method another than the published
    /// one.
    ///
    /// # Errors
    /// As [`Recipe::for_model`].
    pub fn added_by(name: &str, model: &VideoLlm) -> Result<Vec<&'static str>> {
        let published = Self::published_for(name, model)?.options();
        let tuned = Self::for_model(name, model)?.options();
        let differs = |option: &RecipeOption| !published.contains(option);
        Ok(tuned.into_iter().filter(differs).map(|option| option.name).collect())
    }

    /// Sets those of the recommended options whose part the method has.
    fn take<'a>(
        &mut self,
        options: impl Iterator<Item = (&'a String, &'a serde_json::Value)>,
        recommended: &Recommendations,
    ) -> Result<()> {
        for (key, value) in options {
            let mut value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let key = key.replace('_', "-");
            if key == EXTERNAL_MODEL {
                value = recommended.model(&value).display().to_string();
            }
            let option = options::named(&key)?;
            if option.of(self).is_some() {
                self.set(&key, &value)?;
            }
        }
        Ok(())
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Overrides one field by its option name, e.g. `set("retrieve", "16")`.
    ///
    /// # Errors
    /// [`EngineError::Option`] for a name that no method has, one that this method does not have,
    /// or a value out of range.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        options::named(key)?.set(self, value.trim())
    }

    /// Sets what the method holds or looks at to so many frames' worth of tokens, a frame having
    /// `unit_tokens`: the cap of its
    /// resident cache if it has one, else the units it retrieves. `false` if it has no such bound.
    pub fn set_budget(&mut self, frames: usize, unit_tokens: usize) -> bool {
        let frames = frames.max(1);
        match &mut self.older {
            Older::Stays => {}
            Older::Tiers(tiers @ Tiers { bank: Some(_), .. }) => {
                // What is whole is held besides.
                let all = tiers.whole + tiers.changed;
                if frames < all {
                    tiers.whole = (tiers.whole * frames / all).max(1);
                    tiers.changed = frames - tiers.whole;
                }
                tiers.cap = frames.saturating_sub(tiers.whole);
                return true;
            }
            Older::Tiers(tiers) => {
                // Of the published sizes each keeps its share where less is to be held.
                let share = |units: usize, cap: usize| (units * frames / cap.max(1)).max(1);
                if frames < tiers.cap {
                    tiers.whole = share(tiers.whole, tiers.cap);
                    tiers.changed = share(tiers.changed, tiers.cap);
                }
                tiers.cap = frames;
                return true;
            }
            Older::Span(span) => {
                span.cap = frames;
                return true;
            }
        }
        match (&mut self.resident, &mut self.retrieval) {
            (Some(resident), Retrieval::Fresh { units }) => {
                (resident.cap, *units) = (frames, frames.min(*units));
            }
            (Some(resident), _) => resident.cap = frames,
            (
                None,
                Retrieval::All { last: Some(units) }
                | Retrieval::Best { units, .. }
                | Retrieval::Fresh { units }
                | Retrieval::Consensus { units },
            ) => *units = frames,
            (None, Retrieval::Grains { .. }) => {
                // Each grain's share stays; a piece counts with what is kept of it.
                let cost = |g: &Grain| (g.retrieve * g.kept(g.tokens(unit_tokens))) as f64;
                let all: f64 = self.grains.iter().map(|grain| cost(&grain)).sum();
                let scale = (frames * unit_tokens) as f64 / all.max(f64::MIN_POSITIVE);
                for count in &mut self.grains.retrieve {
                    *count = ((*count as f64 * scale) as usize).max(1);
                }
            }
            (
                None,
                Retrieval::All { last: None } | Retrieval::Gated { .. } | Retrieval::Pages { .. },
            ) => return false,
        }
        true
    }

    /// The folder of the text-image model that ranks units, if one does.
    ///
    /// # Errors
    /// [`EngineError::Option`] if one does and the recipe does not say which.
    pub fn outside_expert(&self) -> Result<Option<&Path>> {
        match (self.expert, self.external_model.as_str()) {
            (Expert::Internal, _) => Ok(None),
            (_, "") => Err(EngineError::Option {
                key: EXTERNAL_MODEL.into(),
                reason: format!(
                    "method `{}` ranks with a text-image model too; set external-model to the \
                     folder of a SigLIP or CLIP checkpoint, or experts=internal to do without",
                    self.name()
                ),
            }),
            (_, folder) => Ok(Some(Path::new(folder))),
        }
    }

    /// The prompts whose attention says what stays resident, in the order of the depths they are
    /// for.
    pub fn probes(&self) -> Vec<ProbePrompt> {
        let Some(resident) = self.resident.as_ref().filter(|resident| resident.asks()) else {
            return Vec::new();
        };
        match &resident.probe {
            Probe::Turn => vec![ProbePrompt::Turn],
            Probe::Words { local, global } => vec![
                ProbePrompt::Words(local.clone()),
                ProbePrompt::Words(format!("{local}; {global}")),
                ProbePrompt::Words(global.clone()),
            ],
            Probe::Newest { .. } | Probe::Itself => Vec::new(),
        }
    }

    /// Every option that some method has, with its values in all that have it: "64; auto 16".
    pub fn all_options() -> Vec<RecipeOption> {
        options::all(&table())
    }

    /// Every option that this recipe has, with its value.
    pub fn options(&self) -> Vec<RecipeOption> {
        options::of(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_row_and_every_row_a_name() {
        let rows: Vec<_> = table().iter().map(Recipe::name).collect();
        assert_eq!(rows, Recipe::names());
    }

    #[test]
    fn every_option_can_be_set_to_the_value_it_has() {
        for mut recipe in table() {
            let before = recipe.clone();
            for option in before.options() {
                recipe.set(option.name, &option.value).unwrap();
            }
            assert_eq!(recipe, before);
        }
    }

    #[test]
    fn a_budget_is_never_exceeded_by_pieces_of_which_all_is_kept() {
        let unit = 16;
        for frames in [8, 16, 32, 100] {
            let mut mukv = Recipe::named("mukv").unwrap();
            assert!(mukv.set_budget(frames, unit));
            let tokens = mukv.grains.iter().map(|g| g.retrieve * g.kept(g.tokens(unit)));
            let tokens: usize = tokens.sum();
            assert!(tokens <= frames * unit && 2 * tokens > frames * unit, "{tokens} of {frames}");
        }
    }

    #[test]
    fn tiers_that_are_asked_of_stay_within_a_budget_whole_ones_included() {
        for frames in [1, 2, 3, 9, 10, 16, 100] {
            let mut savemem = Recipe::named("savemem").unwrap();
            assert!(savemem.set_budget(frames, 16));
            let Older::Tiers(tiers) = &savemem.older else { panic!("no tiers") };
            assert!(tiers.whole >= 1 && tiers.whole + tiers.cap.max(tiers.changed) == frames);
            assert!(frames < 10 || (tiers.whole, tiers.changed) == (2, 8));
        }
    }

    #[test]
    fn what_is_encoded_again_is_part_of_the_budget() {
        let mut dscache = Recipe::named("dscache").unwrap();
        for (frames, fresh) in [(16, 4), (3, 3)] {
            assert!(dscache.set_budget(frames, 4));
            let value =
                |name| dscache.options().into_iter().find(|o| o.name == name).unwrap().value;
            assert_eq!((value("cap"), value("fresh")), (frames.to_string(), fresh.to_string()));
        }
    }

    /// Tokens of a picture times what one of them costs the decoder.
    #[test]
    fn what_takes_too_long_to_read_again_is_not() {
        let keeps = |work: u64, on_cpu| {
            let mut auto = Recipe::named("auto").unwrap();
            auto.spare_reading(work, on_cpu);
            auto.keeps
        };
        let (small, half_a_billion, seven) =
            (48 * 2_000_000, 196 * 360_000_000, 196 * 6_500_000_000);
        assert_eq!(keeps(small, true), Keeps::Inputs);
        assert_eq!(keeps(half_a_billion, true), Keeps::KeysAndValues);
        assert_eq!(keeps(seven, false), Keeps::Inputs);
        assert_eq!(keeps(10 * seven, false), Keeps::KeysAndValues);
        let mut full = Recipe::named("full").unwrap();
        full.spare_reading(u64::MAX, true);
        assert_eq!(full, Recipe::named("full").unwrap());
    }

    #[test]
    fn wrong_names_and_values_say_what_would_be_right() {
        let message = Recipe::named("strimkv").unwrap_err().to_string();
        assert!(message.contains("strimkv") && message.contains("streamkv, streamkv-paper"));
        let mut rekv = Recipe::named("rekv").unwrap();
        let message = rekv.set("retreive", "3").unwrap_err().to_string();
        assert!(message.contains("`retreive`") && message.contains("retrieve-max"), "{message}");
        let message = rekv.set("guidance", "x").unwrap_err().to_string();
        assert!(message.contains("`rekv` has no such part"), "{message}");
        let message = rekv.set("retrieve", "many").unwrap_err().to_string();
        assert!(message.contains("`many` is not a value in 1..=4096"), "{message}");
        assert!(rekv.set("retrieve", "0").is_err());
    }
}
