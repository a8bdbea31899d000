// SPDX-License-Identifier: MPL-2.0
//! The chat template of a checkpoint, rendered with placeholders.

use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind};
use serde::Deserialize;
use serde_json::json;

use crate::error::{EngineError, Result};
use crate::model::checkpoint::VisionConfig;
use crate::model::checkpoint::tokenizer::{Source, TokenizerConfig};
use crate::model::files::{read_optional, read_text};

/// Stand for the question and the system message. Private-use characters: no template contains
/// them, and they contain nothing a template would escape or trim.
pub(super) const QUESTION: &str = "\u{f8ff}question\u{f8ff}";
pub(super) const SYSTEM: &str = "\u{f8ff}system\u{f8ff}";

/// The template of the published LLaVA-OneVision checkpoints.
const LLAVA_ONEVISION: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}\
    {% for part in message['content'] if part['type'] == 'image' %}{{ '<image>' }}{% endfor %}\
    {% for part in message['content'] if part['type'] == 'video' %}{{ '<video>' }}{% endfor %}\
    {% for part in message['content'] if part['type'] == 'text' %}{{ '\n' + part['text'] }}{% endfor %}\
    {{ '<|im_end|>' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// What the published Qwen2.5-VL template makes of a system message and one user turn.
const QWEN: &str = "{% for message in messages %}\
    {% if loop.first and message['role'] != 'system' %}\
    {{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}\
    {{ '<|im_start|>' + message['role'] + '\n' }}\
    {% for part in message['content'] %}\
    {% if part['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}\
    {% else %}{{ part['text'] }}{% endif %}{% endfor %}\
    {{ '<|im_end|>\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

#[derive(Deserialize)]
struct TemplateFile {
    chat_template: String,
}

/// A rendered prompt, cut at the video.
pub(super) struct Rendered {
    pub before: String,
    pub after: String,
}

pub(super) struct ChatTemplate {
    /// Where it came from, for messages.
    path: PathBuf,
    source: String,
    environment: Environment<'static>,
    /// Text of the video token.
    video: String,
    /// `bos_token` and its like, which templates may mention.
    tokens: serde_json::Map<String, serde_json::Value>,
}

impl ChatTemplate {
    /// The template of the folder, from whichever file has it, else the architecture's own.
    pub fn find(
        dir: &Path,
        config: &TokenizerConfig,
        vision: &VisionConfig,
        video: String,
    ) -> Result<Self> {
        let jinja = dir.join("chat_template.jinja");
        let json = dir.join("chat_template.json");
        let (path, source) = if jinja.exists() {
            let source = read_text(&jinja)?;
            (jinja, source)
        } else if let Some(TemplateFile { chat_template }) = read_optional(&json)? {
            (json, chat_template)
        } else {
            let inline = config.chat_template.as_ref().and_then(|source| match source {
                Source::One(text) => Some(text),
                Source::Named(list) => {
                    let named = list.iter().find(|named| named.name == "default");
                    named.or(list.first()).map(|named| &named.template)
                }
            });
            let own = match vision {
                VisionConfig::OneVision(_) => LLAVA_ONEVISION,
                VisionConfig::Qwen(_) => QWEN,
            };
            let source = inline.map_or(own, String::as_str);
            (dir.join("tokenizer_config.json"), source.to_owned())
        };
        let tokens = ["bos_token", "eos_token", "pad_token", "unk_token"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), config.token(name)?.into())))
            .collect();
        let environment = environment().map_err(|e| EngineError::Checkpoint {
            path: path.clone(),
            reason: format!("chat template: {e}"),
        })?;
        let template =
            Self { path, source: without_generation_tags(&source), environment, video, tokens };
        template.render(false)?;
        Ok(template)
    }

    /// The prompt of one user turn with a video and a question, after a system message if wanted.
    pub fn render(&self, system: bool) -> Result<Rendered> {
        let fault = |reason: String| EngineError::Checkpoint {
            path: self.path.clone(),
            reason: format!("chat template: {reason}"),
        };
        let mut messages = Vec::new();
        if system {
            messages.push(json!({"role": "system", "content": [{"type": "text", "text": SYSTEM}]}));
        }
        messages.push(json!({
            "role": "user",
            "content": [{"type": "video"}, {"type": "text", "text": QUESTION}],
        }));
        let mut context = self.tokens.clone();
        context.insert("messages".into(), messages.into());
        context.insert("add_generation_prompt".into(), true.into());
        let context = minijinja::Value::from(minijinja::value::Serde(context));
        let text = self
            .environment
            .render_str(&self.source, context)
            .map_err(|e| fault(format!("{e:#}")))?;
        let Some((before, after)) = text.split_once(&self.video) else {
            return Err(fault(format!("renders no `{}` for a video", self.video)));
        };
        if after.contains(&self.video) || after.matches(QUESTION).count() != 1 {
            return Err(fault("must render one video and, after it, the question once".into()));
        }
        if before.matches(SYSTEM).count() != usize::from(system) {
            return Err(fault("does not render a system message once, before the video".into()));
        }
        Ok(Rendered { before: before.to_owned(), after: after.to_owned() })
    }
}

/// Jinja as transformers sets it up.
fn environment() -> std::result::Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function(
        "raise_exception",
        |message: String| -> std::result::Result<(), Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    Ok(environment)
}

/// Replaces transformers' `{% generation %}` blocks, which mark what is trained on and print
/// nothing, by blocks that keep their effect on the blanks around them.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let (tag, tail) = rest[start..].split_at(length + 2);
        out.push_str(&rest[..start]);
        let word = tag.trim_start_matches("{%").trim_end_matches("%}");
        let word = word.trim_matches(['-', '+']).trim();
        match word {
            "generation" => out.push_str(&tag.replace(word, "if true")),
            "endgeneration" => out.push_str(&tag.replace(word, "endif")),
            _ => out.push_str(tag),
        }
        rest = tail;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_tags_go_and_their_whitespace_control_stays() {
        let source = "a\n{%- generation -%} b {% endgeneration %}\n{% if x %}generation{% endif %}";
        let expected = "a\n{%- if true -%} b {% endif %}\n{% if x %}generation{% endif %}";
        assert_eq!(without_generation_tags(source), expected);
    }
}
