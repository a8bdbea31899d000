// SPDX-License-Identifier: MPL-2.0
//! Which folders are taken, which are refused, and what a refusal says: why, and what to take instead.

mod common;

use std::path::Path;

use common::Copy;
use gststreamkvqa::{LoadOptions, VideoLlm};
use serde_json::{Value, json};

fn refused(model_type: &str) -> String {
    let copy = Copy::of("qwen3-one");
    copy.edit("config.json", |config| config["model_type"] = model_type.into());
    copy.error().to_string()
}

#[test]
fn what_does_not_run_here_says_why_and_what_to_take() {
    for (model_type, why, instead) in [
        ("llavaonevision1_5", "code of its own", "Qwen3-VL"),
        ("qwen3_5", "recurrent and hold no keys", "Qwen3-VL"),
        ("qwen3_5_moe", "recurrent and hold no keys", "Qwen3-VL"),
        ("qwen3_5_text", "recurrent and hold no keys", "Qwen3-VL"),
        ("qwen3_vl_moe", "experts", "dense Qwen3-VL"),
        ("qwen2_5_omni", "hear and speak", "Qwen2.5-VL"),
        ("internvl_chat", "InternVL's own code", "-hf"),
    ] {
        let message = refused(model_type);
        for part in ["config.json", model_type, why, instead] {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    }
}

#[test]
fn an_unknown_type_lists_those_that_run() {
    let message = refused("mamba_vl");
    for part in ["mamba_vl", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl"] {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    assert!(message.contains("Cosmos-Reason1") && message.contains("Cosmos-Reason2"), "{message}");
}

#[test]
fn quantised_folders_name_their_twin() {
    for (method, name, twin) in [
        ("awq", "Qwen2.5-VL-7B-Instruct-AWQ", "Qwen2.5-VL-7B-Instruct"),
        ("gptq", "Qwen2-VL-7B-Instruct-GPTQ-Int4", "Qwen2-VL-7B-Instruct"),
        ("fp8", "Qwen3-VL-8B-Instruct-FP8", "Qwen3-VL-8B-Instruct"),
        ("compressed-tensors", "Qwen3-VL-4B-Instruct-w8a8", "Qwen3-VL-4B-Instruct"),
    ] {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        let config =
            json!({"model_type": "qwen3_vl", "quantization_config": {"quant_method": method}});
        std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
        let message = error(&dir);
        for part in [&method.to_uppercase(), twin, "without quantisation", "config.json"] {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
        assert!(!message.contains(&format!("`{name}`")), "{message}");
    }
}

#[test]
fn gguf_is_refused_as_a_file_and_as_a_folder() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("Qwen3-VL-2B-Instruct-GGUF");
    std::fs::create_dir(&dir).unwrap();
    let file = dir.join("Qwen3VL-2B-Instruct-Q4_K_M.gguf");
    std::fs::write(&file, b"GGUF").unwrap();
    for path in [&dir, &file] {
        let message = error(path);
        assert!(
            message.contains("GGUF") && message.contains("`Qwen3-VL-2B-Instruct`"),
            "{message}"
        );
    }
}

/// Nothing is looked for, let alone downloaded.
#[test]
fn gguf_is_refused_by_its_name_on_the_hub() {
    let message = error(Path::new("hf:unsloth/Qwen3-VL-2B-Instruct-GGUF"));
    for part in ["hf:unsloth/Qwen3-VL-2B-Instruct-GGUF", "GGUF", "`Qwen3-VL-2B-Instruct`", "q8"] {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

/// MLX names no method.
#[test]
fn what_mlx_quantised_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("Qwen3-VL-4B-Instruct-4bit");
    std::fs::create_dir(&dir).unwrap();
    let quantization = json!({"group_size": 64, "bits": 4});
    for config in [
        json!({"model_type": "qwen3_vl", "quantization": quantization}),
        json!({"model_type": "qwen3_vl", "quantization": quantization,
               "quantization_config": quantization}),
    ] {
        std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
        let message = error(&dir);
        assert!(
            message.contains("by MLX") && message.contains("`Qwen3-VL-4B-Instruct`"),
            "{message}"
        );
    }
}

fn error(path: &Path) -> String {
    VideoLlm::load(path, &LoadOptions::default()).err().expect("must be refused").to_string()
}

/// The published configs, but for what only transformers reads, with the tokenizer and processor of a
/// small fixture: everything up to the weights is taken.
#[test]
fn published_configs_are_taken() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/real-size/configs");
    let mut seen = 0;
    for (config, fixture) in [
        ("Qwen3-VL-2B-Instruct.json", "qwen3-hub"),
        ("Qwen3-VL-4B-Instruct.json", "qwen3-hub"),
        ("Qwen3-VL-8B-Instruct.json", "qwen3-hub"),
        ("Qwen2-VL-2B-Instruct.json", "qwen2-hub"),
        ("Qwen2-VL-7B-Instruct.json", "qwen2-hub"),
        ("InternVL3-1B-hf.json", "intern-hub"),
        ("InternVL3-2B-hf.json", "intern-hub"),
        ("InternVL3-8B-hf.json", "intern-hub"),
        ("InternVL3_5-1B-HF.json", "intern-hub"),
        ("InternVL3_5-2B-HF.json", "intern-hub"),
        ("InternVL3_5-4B-HF.json", "intern-hub"),
        ("InternVL3_5-8B-HF.json", "intern-hub"),
    ] {
        let text = std::fs::read_to_string(folder.join(config)).expect(config);
        let mut published: Value = serde_json::from_str(&text).unwrap();
        let copy = Copy::of(fixture);
        // The small tokenizer has other ids.
        copy.edit("config.json", |small| {
            for name in ["video_token_id", "image_token_id"] {
                if let Some(id) = small.get(name) {
                    published[name] = id.clone();
                }
            }
            *small = published.clone();
        });
        if fixture == "intern-hub" {
            copy.edit("preprocessor_config.json", |settings| {
                settings["size"] = json!({"height": 448, "width": 448});
            });
        }
        copy.refused(&["the weights are not those of the model in config.json"]);
        seen += 1;
    }
    assert_eq!(seen, 12);
}
