// SPDX-License-Identifier: MPL-2.0
//! The chat template of a checkpoint, rendered with placeholders.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;

use super::sandbox;
use crate::error::{EngineError, Result};
use crate::model::checkpoint::tokenizer::{Source, TokenizerConfig};
use crate::model::files::{read_optional, read_text};

/// Stand for the question and the system message. Private-use characters: no template contains
/// them, and they contain nothing a template would escape or trim.
pub(super) const QUESTION: &str = "\u{f8ff}question\u{f8ff}";
pub(super) const SYSTEM: &str = "\u{f8ff}system\u{f8ff}";

/// What the published templates of Qwen2-VL and Qwen2.5-VL make of a system message and one user turn.
pub(crate) const QWEN_TEMPLATE: &str = "{% for message in messages %}\
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
#[derive(Clone)]
pub(super) struct Rendered {
    pub before: String,
    pub after: String,
}

pub(super) struct ChatTemplate {
    /// Where it came from, for messages.
    path: PathBuf,
    source: String,
    /// The prompt without a system message, and with one if the template takes it.
    plain: Rendered,
    with_system: std::result::Result<Rendered, String>,
}

impl ChatTemplate {
    /// The template of the folder, from whichever file has it, else the family's `own`.
    pub fn find(dir: &Path, config: &TokenizerConfig, own: &str, video: String) -> Result<Self> {
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
            let source = inline.map_or(own, String::as_str);
            (dir.join("tokenizer_config.json"), source.to_owned())
        };
        let tokens = ["bos_token", "eos_token", "pad_token", "unk_token"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), config.token(name)?.into())))
            .collect();
        let source = without_generation_tags(&source);
        let plain = match render(&source, &tokens, &video, false) {
            Ok(plain) => plain,
            Err(reason) => return Err(fault(&path, &reason)),
        };
        let with_system = render(&source, &tokens, &video, true);
        Ok(Self { path, source, plain, with_system })
    }

    /// What the template is made of and what it renders.
    pub fn written(&self) -> String {
        let Self { source, plain, with_system, .. } = self;
        let mut written = format!("{source}\n{}{}", plain.before, plain.after);
        if let Ok(Rendered { before, after }) = with_system {
            written.push_str(before);
            written.push_str(after);
        }
        written
    }

    /// The prompt of one user turn with a video and a question, after a system message if wanted.
    pub fn render(&self, system: bool) -> Result<&Rendered> {
        match &self.with_system {
            _ if !system => Ok(&self.plain),
            Ok(rendered) => Ok(rendered),
            Err(reason) => Err(fault(&self.path, reason)),
        }
    }
}

fn fault(path: &Path, reason: &str) -> EngineError {
    EngineError::Checkpoint { path: path.to_owned(), reason: format!("chat template: {reason}") }
}

/// Renders a template once, with placeholders. `tokens`: `bos_token` and its like, which it may
/// mention; `video`: the text of the video token.
fn render(
    source: &str,
    tokens: &serde_json::Map<String, serde_json::Value>,
    video: &str,
    system: bool,
) -> std::result::Result<Rendered, String> {
    let mut messages = Vec::new();
    if system {
        messages.push(json!({"role": "system", "content": [{"type": "text", "text": SYSTEM}]}));
    }
    messages.push(json!({
        "role": "user",
        "content": [{"type": "video"}, {"type": "text", "text": QUESTION}],
    }));
    let mut context = tokens.clone();
    context.insert("messages".into(), messages.into());
    context.insert("add_generation_prompt".into(), true.into());
    let context = minijinja::Value::from(minijinja::value::Serde(context));
    let text = sandbox::render(source, &context)?;
    let Some((before, after)) = text.split_once(video) else {
        return Err(format!("renders no `{video}` for a video"));
    };
    if after.contains(video) || after.matches(QUESTION).count() != 1 {
        return Err("must render one video and, after it, the question once".into());
    }
    if before.matches(SYSTEM).count() != usize::from(system) {
        return Err("does not render a system message once, before the video".into());
    }
    Ok(Rendered { before: before.to_owned(), after: after.to_owned() })
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
