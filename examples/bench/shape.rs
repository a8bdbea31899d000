// SPDX-License-Identifier: MPL-2.0
//! Folders of published shapes without weights: the published `config.json`, and words that are just
//! enough to ask a question.

use std::path::Path;

use clap::ValueEnum;
use serde_json::{Value, json};

/// A published model, by its sizes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Shape {
    #[value(name = "llava-onevision-0.5b")]
    OneVisionHalf,
    #[value(name = "llava-onevision-7b")]
    OneVision7,
    #[value(name = "qwen2.5-vl-3b")]
    Qwen3,
    #[value(name = "qwen2.5-vl-7b")]
    Qwen7,
    /// LLaVA-OneVision with three narrow layers: to try things out.
    #[value(name = "tiny")]
    Tiny,
    /// Qwen2.5-VL, likewise.
    #[value(name = "tiny-qwen")]
    TinyQwen,
}

/// Ordinary tokens of Qwen2; the control tokens follow them.
const ORDINARY: u64 = 151_643;

/// Rows of the tiny ones' embeddings, a few more than tokens, as published.
const TINY_VOCABULARY: u64 = 520;

const ONE_VISION_CONTROLS: [&str; 5] =
    ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"];

const QWEN_CONTROLS: [&str; 14] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
];

/// What the published templates make of a video and a question.
const ONE_VISION_TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message['role'] }} \
{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}<video>{% endfor %}\
{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}\
{{ '\\n' + content['text'] }}{% endfor %}<|im_end|>{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

const QWEN_TEMPLATE: &str = "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}\
{% for message in messages if message['role'] != 'system' %}{{ '<|im_start|>' + message['role'] + '\\n' }}\
{% for content in message['content'] %}{% if content['type'] == 'video' %}\
<|vision_start|><|video_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}\
{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

impl Shape {
    fn config(self) -> serde_json::Result<Value> {
        macro_rules! published {
            ($name:literal) => {
                include_str!(concat!("../../tools/real-size/configs/", $name, ".json"))
            };
        }
        let text = match self {
            Self::OneVisionHalf | Self::Tiny => published!("llava-onevision-qwen2-0.5b-ov-hf"),
            Self::OneVision7 => published!("llava-onevision-qwen2-7b-ov-hf"),
            Self::Qwen3 | Self::TinyQwen => published!("Qwen2.5-VL-3B-Instruct"),
            Self::Qwen7 => published!("Qwen2.5-VL-7B-Instruct"),
        };
        let mut config: Value = serde_json::from_str(text)?;
        match self {
            Self::Tiny => shrink_one_vision(&mut config, self.first_control()),
            Self::TinyQwen => shrink_qwen(&mut config, self.first_control()),
            _ => {}
        }
        Ok(config)
    }

    fn is_qwen(self) -> bool {
        matches!(self, Self::Qwen3 | Self::Qwen7 | Self::TinyQwen)
    }

    fn controls(self) -> &'static [&'static str] {
        if self.is_qwen() { &QWEN_CONTROLS } else { &ONE_VISION_CONTROLS }
    }

    /// The id of the first control token.
    fn first_control(self) -> u64 {
        match self {
            Self::Tiny | Self::TinyQwen => 512 - self.controls().len() as u64,
            _ => ORDINARY,
        }
    }

    /// Writes everything but the weights into a folder, for pictures of so many pixels a side if not the
    /// published ones.
    pub fn write(
        self,
        image_size: Option<usize>,
        folder: &Path,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let mut config = self.config()?;
        match image_size {
            Some(_) if self.is_qwen() => {
                return Err(
                    "--image-size: Qwen2.5-VL takes pictures as they come, see --frame-size".into(),
                );
            }
            Some(side) => set_image_size(&mut config, side),
            None => {}
        }
        let processor = if self.is_qwen() {
            json!({
                "image_processor_type": "Qwen2VLImageProcessor",
                "image_mean": [0.481_454_66, 0.457_827_5, 0.408_210_73],
                "image_std": [0.268_629_54, 0.261_302_58, 0.275_777_11],
                "min_pixels": 3136,
                "max_pixels": 12_845_056,
            })
        } else {
            let side = &config["vision_config"]["image_size"];
            json!({
                "image_processor_type": "LlavaOnevisionImageProcessor",
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
                "size": {"height": side, "width": side},
            })
        };
        let template = if self.is_qwen() { QWEN_TEMPLATE } else { ONE_VISION_TEMPLATE };
        for (name, value) in [
            ("config.json", config),
            ("tokenizer.json", tokenizer(self.controls(), self.first_control())),
            ("tokenizer_config.json", json!({"eos_token": "<|im_end|>"})),
            ("chat_template.json", json!({"chat_template": template})),
            ("preprocessor_config.json", processor),
        ] {
            std::fs::write(folder.join(name), serde_json::to_vec(&value)?)?;
        }
        Ok(())
    }
}

fn set(fields: &mut Value, values: Value) {
    if let (Some(fields), Value::Object(values)) = (fields.as_object_mut(), values) {
        fields.extend(values);
    }
}

fn set_image_size(config: &mut Value, side: usize) {
    set(&mut config["vision_config"], json!({ "image_size": side }));
    set(config, json!({"image_grid_pinpoints": [[side, side]]}));
}

/// The sizes of a tiny decoder.
fn words(first: u64) -> Value {
    json!({"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": TINY_VOCABULARY,
        "bos_token_id": first, "eos_token_id": first + 2})
}

fn shrink_one_vision(config: &mut Value, first: u64) {
    let vision = json!({"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2});
    set(&mut config["vision_config"], vision);
    set_image_size(config, 70);
    set(&mut config["text_config"], words(first));
    set(config, json!({"image_token_index": first + 3, "video_token_index": first + 4}));
}

fn shrink_qwen(config: &mut Value, first: u64) {
    let vision = json!({"hidden_size": 32, "intermediate_size": 48, "depth": 3, "num_heads": 2,
        "out_hidden_size": 64, "fullatt_block_indexes": [1]});
    set(&mut config["vision_config"], vision);
    set(&mut config["rope_scaling"], json!({"mrope_section": [2, 3, 3]}));
    set(config, words(first));
    set(
        config,
        json!({"vision_start_token_id": first + 9, "vision_end_token_id": first + 10,
        "vision_token_id": first + 11, "image_token_id": first + 12, "video_token_id": first + 13}),
    );
}

/// A byte-level tokenizer that joins nothing: every byte is a token.
fn tokenizer(controls: &[&str], first: u64) -> Value {
    let ids = controls.iter().zip(first..);
    let added: Vec<Value> = ids
        .clone()
        .map(|(content, id)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let bytes = letters().zip(0u64..).map(|(letter, id)| (letter.to_string(), id.into()));
    // Among the words too: an added token that is no word gets the next free id, whatever it says.
    let vocab: serde_json::Map<String, Value> =
        bytes.chain(ids.map(|(content, id)| (content.to_string(), id.into()))).collect();
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
        "use_regex": false});
    json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": level,
        "post_processor": null,
        "decoder": level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    })
}

/// GPT-2's printable stand-ins for the 256 bytes, in byte order.
fn letters() -> impl Iterator<Item = char> {
    let plain = |byte: u32| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut spare = 0x100..;
    (0..0x100).filter_map(move |byte| {
        char::from_u32(if plain(byte) { byte } else { spare.next().unwrap_or(byte) })
    })
}
