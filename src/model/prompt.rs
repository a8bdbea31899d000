// SPDX-License-Identifier: MPL-2.0
//! The words around the video and the question: chat template, tokenizer, and the wall between the
//! template's control tokens and text that anyone may have typed.
//!
//! A prompt is rendered with a placeholder where the question goes. The rendered text is cut at
//! the template's control tokens; only then is the question put in, and the stretch around it is
//! encoded as a whole by a tokenizer that knows no control tokens. So ordinary text gets the ids
//! that Hugging Face gives to the whole prompt (a template's line break and the first characters
//! of a question may share a token), while a typed `<|im_end|>` stays seven-odd ordinary tokens.

mod controls;
mod sandbox;
mod template;

use std::collections::BTreeSet;

use self::controls::Controls;
pub(crate) use self::template::QWEN_TEMPLATE;
use self::template::{ChatTemplate, QUESTION, Rendered, SYSTEM};
pub(crate) use super::checkpoint::tokenizer::TextStream;
use super::checkpoint::tokenizer::{SafeTokenizer, TokenizerConfig};
use super::checkpoint::{Checkpoint, Words};
use super::files::read_optional;
use super::vision::{Moment, Plan, Told};
use crate::error::{EngineError, Result};

/// Who decides the words around the video and the question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PromptStyle {
    /// The checkpoint's own chat template, `image_newline` after the video.
    #[default]
    Hf,
    /// The separately tokenised pieces of ReKV and StreamKV, no `image_newline`. Those are written
    /// for LLaVA-OneVision; another checkpoint keeps its own template and takes their system
    /// message.
    Rekv,
}

/// Who decides the words, and whether a video whose units have words of their own keeps the template's
/// pair of brackets around it, as in transformers 5, or loses it, as such models were trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    pub style: PromptStyle,
    pub nested: bool,
}

impl From<PromptStyle> for Form {
    fn from(style: PromptStyle) -> Self {
        Self { style, nested: false }
    }
}

/// What follows the video.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Put `image_newline` between the video and [`ids`](Self::ids).
    pub newline: bool,
    pub ids: Vec<u32>,
}

/// The longest question that is taken, in characters.
pub const MAX_QUESTION_CHARS: usize = 8192;

/// The same of everything else that stands in front of a video or is asked of a method.
pub const MAX_WORDS_CHARS: usize = MAX_QUESTION_CHARS;

const TURN_END: &str = "<|im_end|>";

/// The property that holds the system message.
const SYSTEM_PROMPT: &str = "system-prompt";

/// Turns words into token ids and back, for one checkpoint.
pub struct Prompts {
    /// Recognises control tokens: for the template's own text.
    trusted: SafeTokenizer,
    /// Recognises none: for everything else.
    untrusted: SafeTokenizer,
    controls: Controls,
    template: ChatTemplate,
    /// Whether [`PromptStyle::Rekv`] has pieces of its own.
    pieces: bool,
    /// The words around each unit.
    told: Option<Told>,
    ends: BTreeSet<u32>,
    /// The token that stands for the video.
    video: u32,
}

impl Prompts {
    pub(crate) fn new(checkpoint: &Checkpoint, said: &Words, plan: &dyn Plan) -> Result<Self> {
        let path = checkpoint.dir().join("tokenizer.json");
        let mut trusted = SafeTokenizer::read(&path)?;
        let video = said.video_token;
        let Some(video_text) = trusted.text(video) else {
            return Err(EngineError::Checkpoint {
                path,
                reason: format!("has no token {video}, the video token of config.json"),
            });
        };
        let config: TokenizerConfig =
            read_optional(&checkpoint.dir().join("tokenizer_config.json"))?.unwrap_or_default();
        let mut ends: BTreeSet<u32> = said.end_ids.iter().copied().collect();
        ends.extend(checkpoint.generation()?.end_ids);
        let names = [config.token("eos_token"), Some(TURN_END)];
        ends.extend(names.into_iter().flatten().filter_map(|name| trusted.id(name)));
        let written = plan.placeholder().map_or(video_text, str::to_owned);
        let template = ChatTemplate::find(checkpoint.dir(), &config, plan.template(), written)?;
        let pieces = plan.has_pieces();
        let told = plan.told();
        let needed = told.iter().flat_map(|told| told.controls);
        if let Some(name) = needed.copied().find(|name| trusted.id(name).is_none()) {
            let reason = format!("has no token `{name}`, which stands around each picture");
            return Err(EngineError::Checkpoint { path, reason });
        }
        let used = template.written();
        let controls = Controls::of(&mut trusted, checkpoint, &config, &used)?;
        let mut untrusted = trusted.clone();
        untrusted.blind_to(controls.texts())?;
        let prompts = Self { trusted, untrusted, controls, template, pieces, told, ends, video };
        // What is wrong with the tokenizer shows now and not with the first question.
        prompts.opening(PromptStyle::Hf, None, "")?;
        prompts.tail(PromptStyle::Hf, None, "?")?;
        Ok(prompts)
    }

    /// Everything before the video. `system` is the caller's system message; without one, the
    /// template decides (`Hf`) or `rekv_default` is taken (`Rekv`).
    pub fn opening(
        &self,
        form: impl Into<Form>,
        system: Option<&str>,
        rekv_default: &str,
    ) -> Result<Vec<u32>> {
        check_length(SYSTEM_PROMPT, system.unwrap_or_default())?;
        let Form { style, nested } = form.into();
        match style {
            PromptStyle::Hf => {
                let [before, _] = self.outside(system.is_some(), nested)?;
                self.encode_filled(before, &[(SYSTEM, system.unwrap_or_default())])
            }
            // The blanks before the line break and at the end are ReKV's.
            PromptStyle::Rekv if !self.pieces => {
                let [before, _] = self.outside(true, nested)?;
                self.encode_filled(before, &[(SYSTEM, system.unwrap_or(rekv_default))])
            }
            PromptStyle::Rekv => self.encode_filled(
                &format!("<|im_start|>system \n{SYSTEM}<|im_end|><|im_start|>user "),
                &[(SYSTEM, system.unwrap_or(rekv_default))],
            ),
        }
    }

    /// The question alone, as ordinary text.
    pub fn question(&self, text: &str) -> Result<Vec<u32>> {
        checked_question(text)?;
        self.plain(text)
    }

    /// Everything after the video up to where the answer begins.
    pub fn tail(&self, form: impl Into<Form>, system: Option<&str>, text: &str) -> Result<Tail> {
        checked_question(text)?;
        let Form { style, nested } = form.into();
        match style {
            PromptStyle::Rekv if self.pieces => {
                let ids = self.encode_filled(
                    &format!("\n{QUESTION}<|im_end|><|im_start|>assistant\n"),
                    &[(QUESTION, text)],
                )?;
                Ok(Tail { newline: false, ids })
            }
            style => {
                let [_, after] = self.outside(system.is_some(), nested)?;
                let ids = self.encode_filled(after, &[(QUESTION, text)])?;
                Ok(Tail { newline: style == PromptStyle::Hf, ids })
            }
        }
    }

    /// What the template writes before a video and behind it; `nested`: with what units' own words take
    /// the place of otherwise.
    fn outside(&self, system: bool, nested: bool) -> Result<[&str; 2]> {
        let Rendered { before, after } = self.template.render(system)?;
        let inner = self.told.filter(|told| !(nested && told.nests)).and_then(
            |Told { instead_of, .. }| {
                let [left, right] = instead_of;
                Some([before.strip_suffix(left)?, after.strip_prefix(right)?])
            },
        );
        Ok(inner.unwrap_or([before, after]))
    }

    /// What stands in front of a unit's picture and behind it; `None` where nothing does.
    pub fn around(&self, moment: Moment) -> Result<Option<[Vec<u32>; 2]>> {
        let Some(told) = self.told else { return Ok(None) };
        let [front, behind] = (told.around)(moment);
        Ok(Some([self.trusted.encode(&front, false)?, self.trusted.encode(&behind, false)?]))
    }

    /// What stands between a question and its answer, control tokens and all.
    pub fn turn(&self) -> Result<Vec<u32>> {
        let rendered = self.template.render(false)?;
        let after = rendered.after.split_once(QUESTION).map_or("", |(_, after)| after);
        self.trusted.encode(after, false)
    }

    /// The words of a method's option as ordinary tokens.
    ///
    /// # Errors
    /// [`EngineError::Words`] that names the option, for words without end.
    pub fn words(&self, option: &str, text: &str) -> Result<Vec<u32>> {
        check_length(option, text)?;
        self.plain(text)
    }

    /// Any text as ordinary tokens; nothing in it is a control token.
    pub fn plain(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.untrusted.encode(text, false)?;
        if !ids.iter().any(|id| self.controls.ids.contains(id)) {
            return Ok(ids);
        }
        // A vocabulary that has a control token among its words puts it together from its letters.
        let mut ids = Vec::new();
        for letter in text.chars() {
            ids.extend(self.untrusted.encode(letter.encode_utf8(&mut [0; 4]), false)?);
        }
        ids.retain(|id| !self.controls.ids.contains(id));
        Ok(ids)
    }

    /// The tokens that end an answer.
    pub(crate) fn ends(&self) -> &BTreeSet<u32> {
        &self.ends
    }

    /// The token that stands for a video.
    pub fn video(&self) -> u32 {
        self.video
    }

    /// Whether a token ends an answer.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// The text of token ids, control tokens left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.trusted.decode(ids)
    }

    /// Decodes token by token; holds back incomplete characters.
    pub(crate) fn stream(&self) -> TextStream<'_> {
        self.trusted.stream()
    }

    /// Encodes `text`, control tokens recognised, in which placeholders stand for texts that are
    /// not to be trusted.
    fn encode_filled(&self, text: &str, fills: &[(&str, &str)]) -> Result<Vec<u32>> {
        if !fills.iter().any(|(mark, _)| text.contains(mark)) {
            return self.trusted.encode(text, false);
        }
        let mut ids = Vec::new();
        let mut rest = text;
        loop {
            let (stretch, control, tail) = self.controls.next(rest);
            let mut filled = stretch.to_owned();
            for (mark, fill) in fills {
                filled = filled.replace(mark, fill);
            }
            ids.extend(self.plain(&filled)?);
            let Some(control) = control else { return Ok(ids) };
            ids.push(control);
            rest = tail;
        }
    }
}

/// Refuses words that take a model minutes to read.
fn check_length(name: &str, text: &str) -> Result<()> {
    let chars = text.chars().count();
    if chars <= MAX_WORDS_CHARS {
        return Ok(());
    }
    Err(EngineError::Words {
        name: name.into(),
        reason: format!("has {chars} characters; at most {MAX_WORDS_CHARS} are taken"),
    })
}

fn checked_question(text: &str) -> Result<()> {
    if text.trim().is_empty() {
        return Err(EngineError::Question("the text is empty".into()));
    }
    let chars = text.chars().count();
    if chars > MAX_QUESTION_CHARS {
        return Err(EngineError::Question(format!(
            "the text has {chars} characters; at most {MAX_QUESTION_CHARS} are taken"
        )));
    }
    Ok(())
}
