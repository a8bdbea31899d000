// SPDX-License-Identifier: MPL-2.0
//! The words around the video and the question: chat template, tokenizer, and the wall between the
//! template's control tokens and text that anyone may have typed.
//!
//! A prompt is rendered with a placeholder where the question goes. The rendered text is cut at
//! the template's control tokens; only then is the question put in, and the stretch around it is
//! encoded as a whole by a tokenizer that knows no control tokens. So ordinary text gets the ids
//! that Hugging Face gives to the whole prompt (a template's line break and the first characters
//! of a question may share a token), while a typed `<|im_end|>` stays seven-odd ordinary tokens.

mod template;

use std::collections::BTreeSet;

use tokenizers::{DecodeStream, Tokenizer};

use self::template::{ChatTemplate, QUESTION, SYSTEM};
use super::checkpoint::tokenizer::{TokenizerConfig, read_tokenizer};
use super::checkpoint::{Checkpoint, VisionConfig};
use super::files::read_optional;
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

/// What follows the video.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Put `image_newline` between the video and [`ids`](Self::ids).
    pub newline: bool,
    pub ids: Vec<u32>,
}

/// The longest question that is taken, in characters.
pub const MAX_QUESTION_CHARS: usize = 8192;

const TURN_END: &str = "<|im_end|>";

/// Turns words into token ids and back, for one checkpoint.
pub struct Prompts {
    /// Recognises control tokens: for the template's own text.
    trusted: Tokenizer,
    /// Recognises none: for everything else.
    untrusted: Tokenizer,
    /// The control tokens by text.
    specials: Vec<(String, u32)>,
    template: ChatTemplate,
    /// Whether [`PromptStyle::Rekv`] has pieces of its own.
    pieces: bool,
    ends: BTreeSet<u32>,
}

impl Prompts {
    pub(crate) fn new(checkpoint: &Checkpoint) -> Result<Self> {
        let path = checkpoint.dir().join("tokenizer.json");
        let trusted = read_tokenizer(&path)?;
        let mut untrusted = trusted.clone();
        untrusted.set_encode_special_tokens(true);
        let mut specials: Vec<(String, u32)> = trusted
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special && !token.content.is_empty())
            .map(|(id, token)| (token.content, id))
            .collect();
        specials.sort();
        let video = checkpoint.config().video_token;
        let Some(video) = trusted.id_to_token(video) else {
            return Err(EngineError::Checkpoint {
                path,
                reason: format!("has no token {video}, the video token of config.json"),
            });
        };
        let config: TokenizerConfig =
            read_optional(&checkpoint.dir().join("tokenizer_config.json"))?.unwrap_or_default();
        let mut ends: BTreeSet<u32> = checkpoint.end_ids()?.into_iter().collect();
        let names = [config.token("eos_token"), Some(TURN_END)];
        ends.extend(names.into_iter().flatten().filter_map(|name| trusted.token_to_id(name)));
        let vision = &checkpoint.config().vision;
        let template = ChatTemplate::find(checkpoint.dir(), &config, vision, video)?;
        let pieces = matches!(vision, VisionConfig::OneVision(_));
        Ok(Self { trusted, untrusted, specials, template, pieces, ends })
    }

    /// Everything before the video. `system` is the caller's system message; without one, the
    /// template decides (`Hf`) or `rekv_default` is taken (`Rekv`).
    pub fn opening(
        &self,
        style: PromptStyle,
        system: Option<&str>,
        rekv_default: &str,
    ) -> Result<Vec<u32>> {
        match style {
            PromptStyle::Hf => {
                let rendered = self.template.render(system.is_some())?;
                self.encode_filled(&rendered.before, &[(SYSTEM, system.unwrap_or_default())])
            }
            // The blanks before the line break and at the end are ReKV's.
            PromptStyle::Rekv if !self.pieces => {
                let rendered = self.template.render(true)?;
                self.encode_filled(&rendered.before, &[(SYSTEM, system.unwrap_or(rekv_default))])
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
    pub fn tail(&self, style: PromptStyle, system: Option<&str>, text: &str) -> Result<Tail> {
        checked_question(text)?;
        match style {
            PromptStyle::Rekv if self.pieces => {
                let ids = self.encode_filled(
                    &format!("\n{QUESTION}<|im_end|><|im_start|>assistant\n"),
                    &[(QUESTION, text)],
                )?;
                Ok(Tail { newline: false, ids })
            }
            style => {
                let rendered = self.template.render(system.is_some())?;
                let ids = self.encode_filled(&rendered.after, &[(QUESTION, text)])?;
                Ok(Tail { newline: style == PromptStyle::Hf, ids })
            }
        }
    }

    /// What stands between a question and its answer, control tokens and all.
    pub fn turn(&self) -> Result<Vec<u32>> {
        let rendered = self.template.render(false)?;
        let after = rendered.after.split_once(QUESTION).map_or("", |(_, after)| after);
        encode(&self.trusted, after)
    }

    /// Any text as ordinary tokens; nothing in it is a control token.
    pub fn plain(&self, text: &str) -> Result<Vec<u32>> {
        encode(&self.untrusted, text)
    }

    /// Whether a token ends an answer.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// The text of token ids, control tokens left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.trusted.decode(ids, true).map_err(|e| EngineError::Tokenizer(e.to_string()))
    }

    /// Decodes token by token; holds back incomplete characters.
    pub(crate) fn stream(&self) -> TextStream<'_> {
        self.trusted.decode_stream(true)
    }

    /// Encodes `text`, control tokens recognised, in which placeholders stand for texts that are
    /// not to be trusted.
    fn encode_filled(&self, text: &str, fills: &[(&str, &str)]) -> Result<Vec<u32>> {
        if !fills.iter().any(|(mark, _)| text.contains(mark)) {
            return encode(&self.trusted, text);
        }
        let mut ids = Vec::new();
        let mut rest = text;
        loop {
            let (stretch, control, tail) = self.next_control(rest);
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

    /// The text up to the first control token, that token, and what follows it. Of two that begin
    /// at one place the longer counts, as in the tokenizer itself.
    fn next_control<'a>(&self, text: &'a str) -> (&'a str, Option<u32>, &'a str) {
        let places = self.specials.iter().filter_map(|(token, id)| {
            Some((text.find(token.as_str())?, std::cmp::Reverse(token.len()), *id))
        });
        match places.min() {
            Some((start, std::cmp::Reverse(length), id)) => {
                (&text[..start], Some(id), &text[start + length..])
            }
            None => (text, None, ""),
        }
    }
}

pub(crate) type TextStream<'a> = DecodeStream<
    'a,
    tokenizers::ModelWrapper,
    tokenizers::NormalizerWrapper,
    tokenizers::PreTokenizerWrapper,
    tokenizers::PostProcessorWrapper,
    tokenizers::DecoderWrapper,
>;

fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let encoding = tokenizer.encode_fast(text, false);
    Ok(encoding.map_err(|e| EngineError::Tokenizer(e.to_string()))?.get_ids().to_vec())
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
