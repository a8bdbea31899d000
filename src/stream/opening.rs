// SPDX-License-Identifier: MPL-2.0
//! What a stream begins with: its options, and a memory that has read the words in front of the
//! video.

use std::sync::Arc;

use super::alike::SkipOptions;
use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::memory::VideoMemory;
use crate::memory::find::trust::ANY;
use crate::memory::intake::{Prompts, Teller};
use crate::memory::recipe::{ProbePrompt, Recipe, Retrieval};
use crate::memory::store::StoreOptions;
use crate::model::prompt::{Form, PromptStyle};
use crate::model::text_image::TextImage;
use crate::model::vision::Moment;
use crate::model::vision::reuse::ReuseOptions;
use crate::model::{LoadOptions, VideoLlm};
use crate::notices::{Notices, Part};

/// What does not change during a stream's life.
#[derive(Clone, Debug, Default)]
pub struct StreamOptions {
    /// The system message in front of everything; `None` takes the prompt style's own.
    pub system_prompt: Option<String>,
    pub prompt_style: PromptStyle,
    /// How much is remembered, where and how exactly.
    pub store: StoreOptions,
    /// Frames a second, for models that place tokens by time. `None`: as far apart as the first two
    /// frames are.
    pub sample_rate: Option<f64>,
    /// Do as transformers 5 where that is not how the checkpoints were trained: put what follows the
    /// video behind its first picture instead of behind its last moment (Qwen2-VL, Qwen2.5-VL), or
    /// write one more pair of brackets around all units (Qwen3-VL).
    pub mrope_compat: bool,
    /// Which frames are left out because they show nothing new.
    pub skip: SkipOptions,
    /// When patches of a frame are taken from an earlier one instead of going through the tower
    /// (LLaVA-OneVision only).
    pub reuse: ReuseOptions,
    /// The flag that opening obeys, and every call after it until [`set_cancel`](super::Stream::set_cancel).
    pub cancel: Cancel,
}

/// A memory that has seen the tokens in front of the video and nothing else, and their ids; `None`
/// where the decoder makes no finite numbers of them.
pub fn empty_memory(
    model: &VideoLlm,
    recipe: &Recipe,
    options: &StreamOptions,
    notices: &Notices,
) -> Result<(VideoMemory, Option<Vec<u32>>)> {
    let mut memory = VideoMemory::for_model(model, recipe);
    memory.set_prompts(prompts(model, recipe)?);
    memory.store_in(options.store.clone());
    let system = options.system_prompt.as_deref();
    let ids = model.prompts().opening(form(options), system, recipe.system)?;
    if !ids.is_empty() {
        let decoder = model.decoder();
        match memory.open(decoder, &decoder.embed(&ids)?, &options.cancel) {
            Err(EngineError::NotFinite { .. }) => {
                let what = "what the decoder makes of the words in front of a video";
                notices.not_finite(Part::Keys, what.into());
                return Ok((memory, None));
            }
            opened => opened?,
        }
    }
    Ok((memory, Some(ids)))
}

/// The form of the words in front of a video and behind it.
pub fn form(options: &StreamOptions) -> Form {
    Form { style: options.prompt_style, nested: options.mrope_compat }
}

/// A warning about an option that this model has no use for.
pub fn unused(model: &VideoLlm, options: &StreamOptions) -> Option<EngineError> {
    let unused = options.reuse.most > 0 && model.vision().reusing().is_none();
    unused.then(|| EngineError::Unused {
        name: "tower-reuse".into(),
        reason: "this model's tower merges and windows its patches, and sees each frame as a whole"
            .into(),
    })
}

/// The outside expert of a recipe.
pub fn outside(
    model: &VideoLlm,
    recipe: &Recipe,
    options: &StreamOptions,
) -> Result<Option<Arc<TextImage>>> {
    let Some(folder) = recipe.outside_expert()? else { return Ok(None) };
    let options = LoadOptions { cancel: options.cancel.clone(), ..LoadOptions::default() };
    model.text_image(folder, &options).map(Some)
}

/// Makes the words around units, where the model has some.
fn teller(model: &VideoLlm) -> Result<Option<Teller>> {
    if model.prompts().around(Moment { frame: 0, seconds: 0.0 })?.is_none() {
        return Ok(None);
    }
    let model = model.clone();
    Ok(Some(Teller(Arc::new(move |moment| {
        let none = || EngineError::Tokenizer("there are no words around a unit".into());
        model.around(moment)?.ok_or_else(none)
    }))))
}

/// The prompts that say what matters, embedded.
fn prompts(model: &VideoLlm, recipe: &Recipe) -> Result<Prompts> {
    let words = |option, text: &str| model.decoder().embed(&model.prompts().words(option, text)?);
    let probe = |prompt: &ProbePrompt| match prompt {
        ProbePrompt::Turn => model.decoder().embed(&model.prompts().turn()?),
        ProbePrompt::Words(text) => words("probe-local or probe-global", text),
    };
    let guidance = recipe.compression.as_ref().filter(|rule| rule.keep_ratio < 1.0);
    Ok(Prompts {
        probes: recipe.probes().iter().map(probe).collect::<Result<_>>()?,
        guidance: guidance.map(|rule| words("guidance", &rule.guidance)).transpose()?,
        bank: recipe
            .pseudo_questions()
            .iter()
            .map(|one| words("bank", one))
            .collect::<Result<_>>()?,
        any: match recipe.retrieval {
            Retrieval::Best { cover: true, .. } => {
                Some(model.decoder().embed(&model.prompts().question(ANY)?)?)
            }
            _ => None,
        },
        teller: teller(model)?,
    })
}
