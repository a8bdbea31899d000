// SPDX-License-Identifier: MPL-2.0
//! Folders that are not what they should be: every one is an error that names the file and says
//! what is wrong, and none is a panic.

mod common;

use std::path::Path;
use std::sync::{Arc, Mutex};

use candle_core::DType;
use common::{Copy, fixture};
use gststreamkvqa::model::prompt::PromptStyle;
use gststreamkvqa::model::{DTypeChoice, DeviceChoice, LoadProgress, LoadStep};
use gststreamkvqa::{Cancel, EngineError, Frame, LoadOptions, VideoLlm};
use serde_json::{Value, json};

#[test]
fn a_folder_that_is_not_there() {
    let error = VideoLlm::load("/no/such/model", &LoadOptions::default()).err().unwrap();
    let message = error.to_string();
    for part in ["/no/such/model", "no such directory", "config.json", "tokenizer.json"] {
        assert!(message.contains(part), "{message}");
    }
    let file = fixture("ov-odd").join("config.json");
    let message = VideoLlm::load(file, &LoadOptions::default()).err().unwrap().to_string();
    assert!(message.contains("not a directory"), "{message}");
}

#[test]
fn missing_files_are_named() {
    for (file, said) in [
        ("config.json", "config.json"),
        ("tokenizer.json", "tokenizer.json"),
        ("processor_config.json", "no processor settings"),
        ("model.safetensors", "expected model.safetensors or model.safetensors.index.json"),
    ] {
        let copy = Copy::of("ov-odd");
        std::fs::remove_file(copy.path(file)).unwrap();
        copy.refused(&[said, &copy.dir().display().to_string()]);
    }
    let copy = Copy::of("ov-even");
    std::fs::remove_file(copy.path("model-00002-of-00003.safetensors")).unwrap();
    copy.refused(&["model-00002-of-00003.safetensors"]);
}

#[test]
fn other_architectures_are_named_beside_the_supported_one() {
    let copy = Copy::of("ov-odd");
    copy.edit("config.json", |c| {
        c["model_type"] = json!("qwen1_vl");
        c["architectures"] = json!(["Qwen2VLForConditionalGeneration"]);
    });
    copy.refused(&["`qwen1_vl`", "Qwen2VLForConditionalGeneration", "llava_onevision"]);
    let copy = Copy::of("ov-odd");
    copy.edit("config.json", |c| c["text_config"]["model_type"] = json!("llama"));
    copy.refused(&["text_config.model_type", "llama", "qwen2"]);
    let copy = Copy::of("ov-odd");
    copy.edit("config.json", |c| c["vision_config"]["model_type"] = json!("clip_vision_model"));
    copy.refused(&["clip_vision_model", "siglip_vision_model"]);
    let copy = Copy::of("ov-odd");
    copy.write("config.json", "{}");
    copy.refused(&["config.json", "`none`"]);
}

#[test]
fn unknown_rope_scaling_is_refused() {
    let copy = Copy::of("ov-odd");
    copy.edit("config.json", |c| {
        c["text_config"]["rope_parameters"] =
            json!({"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0});
    });
    copy.refused(&["rope_parameters", "yarn", "default"]);
    let copy = Copy::of("ov-even");
    copy.edit("config.json", |c| {
        c["text_config"]["rope_scaling"] = json!({"type": "linear", "factor": 2.0});
    });
    copy.refused(&["rope_scaling", "linear"]);
}

#[test]
fn impossible_numbers_are_refused() {
    type Change = (&'static [&'static str], Value, &'static str);
    let changes: [Change; 15] = [
        (&["text_config", "hidden_size"], json!(0), "hidden_size"),
        (&["text_config", "hidden_size"], json!(u64::MAX), "hidden_size"),
        (&["text_config", "hidden_size"], json!(-4), "config.json"),
        (&["text_config", "hidden_size"], json!("64"), "config.json"),
        (&["text_config", "num_attention_heads"], json!(0), "num_attention_heads"),
        (&["text_config", "num_attention_heads"], json!(7), "multiple"),
        (&["text_config", "num_key_value_heads"], json!(3), "num_key_value_heads"),
        (&["text_config", "num_hidden_layers"], json!(1_000_000_000), "num_hidden_layers"),
        (&["text_config", "vocab_size"], json!(0), "vocab_size"),
        (&["text_config", "rms_norm_eps"], json!(-1.0), "rms_norm_eps"),
        (&["vision_config", "image_size"], json!(0), "image_size"),
        (&["vision_config", "patch_size"], json!(71), "patch_size"),
        (&["vision_config", "num_attention_heads"], json!(5), "multiple"),
        (&["vision_feature_layer"], json!(-9), "vision_feature_layer"),
        (&["vision_feature_layer"], json!([]), "vision_feature_layer"),
    ];
    for (path, value, said) in changes {
        let copy = Copy::of("ov-odd");
        copy.edit("config.json", |c| {
            let slot = path.iter().fold(c, |c, key| &mut c[*key]);
            *slot = value.clone();
        });
        copy.refused(&["config.json", said]);
    }
}

#[test]
fn a_truncated_weight_file_is_named_with_the_remedy() {
    for keep in [0, 4, 8, 100, 5000, 700_000] {
        let copy = Copy::of("ov-odd");
        let path = copy.path("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..keep]).unwrap();
        copy.refused(&["model.safetensors", "safetensors file", "fetch the file again"]);
    }
    // A header length beyond all reason.
    let copy = Copy::of("ov-odd");
    let path = copy.path("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..8].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    copy.refused(&["model.safetensors", "not a complete safetensors file"]);
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    let name = "language_model.model.layers.1.mlp.up_proj.weight";
    let copy = Copy::of("ov-odd");
    copy.rewrite(|tensors| tensors.retain(|(n, _)| n != name));
    copy.refused(&["language_model.layers.1.mlp.up_proj.weight", "missing", "model.safetensors"]);

    let copy = Copy::of("ov-odd");
    copy.rewrite(|tensors| {
        let slot = tensors.iter_mut().find(|(n, _)| n == name).unwrap();
        slot.1 = slot.1.narrow(0, 0, 95).unwrap().contiguous().unwrap();
    });
    copy.refused(&[name, "model.safetensors", "[95, 64]", "[96, 64]"]);

    // The config calls for another shape: found by the same check.
    let copy = Copy::of("ov-odd");
    copy.edit("config.json", |c| c["text_config"]["intermediate_size"] = json!(100));
    copy.refused(&["[96, 64]", "[100, 64]"]);

    let copy = Copy::of("ov-odd");
    copy.edit("config.json", |c| c["text_config"]["num_hidden_layers"] = json!(4));
    copy.refused(&["layers.3", "missing"]);
}

#[test]
fn integer_weights_and_two_spellings_of_one_weight_are_refused() {
    let copy = Copy::of("ov-odd");
    copy.rewrite(|tensors| {
        let slot = tensors.iter_mut().find(|(n, _)| n == "image_newline").unwrap();
        slot.1 = slot.1.to_dtype(candle_core::DType::I64).unwrap();
    });
    copy.refused(&["image_newline", "I64", "BF16"]);
    let copy = Copy::of("ov-odd");
    copy.rewrite(|tensors| {
        let newline = tensors.iter().find(|(n, _)| n == "image_newline").unwrap().1.clone();
        tensors.push(("model.image_newline".into(), newline));
    });
    copy.refused(&["image_newline", "same weight"]);
}

#[test]
fn tensors_without_a_place_are_refused_and_known_ones_are_not() {
    let copy = Copy::of("ov-odd");
    let with = |names: &[&str]| {
        copy.rewrite(|tensors| {
            let newline = tensors.iter().find(|(n, _)| n == "image_newline").unwrap().1.clone();
            tensors.extend(names.iter().map(|name| ((*name).to_owned(), newline.clone())));
        });
    };
    // What published checkpoints carry and nobody reads.
    with(&[
        "vision_tower.vision_model.head.probe",
        "vision_tower.vision_model.embeddings.position_ids",
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq",
    ]);
    VideoLlm::load(copy.dir(), &LoadOptions::default()).unwrap();
    with(&["audio_tower.bias", "language_model.model.layers.3.input_layernorm.weight"]);
    copy.refused(&["no place", "`audio_tower.bias`", "layers.3.input_layernorm.weight"]);
}

#[test]
fn a_config_with_fewer_layers_than_the_weights_is_refused() {
    let copy = Copy::of("ov-odd");
    copy.edit("config.json", |c| c["text_config"]["num_hidden_layers"] = json!(2));
    copy.refused(&["no place", "layers.2.", "and 4 more"]);
}

#[test]
fn one_error_names_all_that_differs() {
    let copy = Copy::of("ov-odd");
    copy.rewrite(|tensors| {
        tensors.retain(|(name, _)| {
            !name.ends_with("layers.1.mlp.up_proj.weight") && name != "image_newline"
        });
        for (name, tensor) in tensors.iter_mut() {
            if name.ends_with("layers.2.mlp.down_proj.weight") {
                *tensor = tensor.t().unwrap().contiguous().unwrap();
            }
        }
        let spare = tensors[0].1.clone();
        tensors.push(("spare".into(), spare));
    });
    copy.refused(&[
        "missing",
        "`image_newline`",
        "layers.1.mlp.up_proj.weight",
        "layers.2.mlp.down_proj.weight",
        "[96, 64]",
        "[64, 96]",
        "`spare`",
    ]);
}

/// A config may claim any size: nothing is allocated for weights that are not there.
#[test]
fn a_config_that_claims_a_giant_is_refused_at_once() {
    let copy = Copy::of("ov-odd");
    copy.edit("config.json", |c| {
        c["text_config"]["hidden_size"] = json!(131_072);
        c["text_config"]["num_attention_heads"] = json!(1024);
        c["text_config"]["num_key_value_heads"] = json!(1024);
        c["text_config"]["vocab_size"] = json!(1 << 24);
        c["text_config"]["num_hidden_layers"] = json!(1024);
        c["vision_config"]["hidden_size"] = json!(131_072);
        c["vision_config"]["intermediate_size"] = json!(131_072);
    });
    copy.refused(&["config.json calls for", "131072"]);
}

/// Headers that lie about offsets, lengths and shapes.
#[test]
fn hostile_headers_are_refused() {
    let nested = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let far = u64::MAX - 7;
    for header in [
        "".to_owned(),
        "[]".into(),
        nested,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,400]}}"#.into(),
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#.into(),
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#.into(),
        r#"{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}"#.into(),
        r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#.into(),
        format!(r#"{{"a":{{"dtype":"U8","shape":[{far}],"data_offsets":[0,{far}]}}}}"#),
        // Eight tensors whose lengths add up to just below 2^64.
        format!(
            "{{{}}}",
            (0..8u64)
                .map(|i| {
                    let (from, to) = (i << 61, ((i + 1) << 61).wrapping_sub(u64::from(i == 7)));
                    let size = to.wrapping_sub(from);
                    format!(
                        r#""{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{from},{to}]}}"#
                    )
                })
                .collect::<Vec<_>>()
                .join(",")
        ),
    ] {
        let copy = Copy::of("ov-odd");
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 4]);
        std::fs::write(copy.path("model.safetensors"), bytes).unwrap();
        copy.refused(&["model.safetensors", "not a complete safetensors file"]);
    }
}

#[test]
fn hostile_json_is_refused() {
    let nested = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    for (file, text) in [
        ("config.json", nested.clone()),
        ("config.json", "\u{0}".into()),
        ("config.json", r#"{"model_type": "llava_onevision", "text_config": 7}"#.into()),
        (
            "config.json",
            r#"{"model_type": "llava_onevision", "text_config": {"rope_theta": 1e999}}"#.into(),
        ),
        ("tokenizer.json", nested.clone()),
        (
            "tokenizer.json",
            r#"{"version":"1.0","model":{"type":"BPE","vocab":{"a":4294967295},"merges":["a b"]}}"#
                .into(),
        ),
        ("processor_config.json", nested),
    ] {
        let copy = Copy::of("ov-odd");
        copy.write(file, &text);
        copy.refused(&[file]);
    }
}

#[test]
fn a_shard_outside_the_folder_is_not_followed() {
    let copy = Copy::of("ov-even");
    copy.edit("model.safetensors.index.json", |index| {
        index["weight_map"]["image_newline"] = json!("../../etc/passwd");
    });
    copy.refused(&["model.safetensors.index.json", "../../etc/passwd"]);
}

#[test]
fn processor_settings_that_do_not_fit_are_refused() {
    let file = "preprocessor_config.json";
    type Change = (&'static str, Value, &'static str);
    let changes: [Change; 6] = [
        ("size", json!({"height": 99, "width": 99}), "99"),
        ("size", json!({"height": 56, "width": 70}), "squares"),
        ("image_std", json!([0.5, 0.0, 0.5]), "zero"),
        ("image_mean", json!([0.5]), "three"),
        ("resample", json!(5), "resample"),
        ("do_resize", json!(false), "do_resize"),
    ];
    for (key, value, said) in changes {
        let copy = Copy::of("ov-even");
        copy.edit(file, |p| p[key] = value);
        copy.refused(&[file, said]);
    }
}

#[test]
fn broken_tokenizers_and_templates_are_named() {
    let copy = Copy::of("ov-odd");
    copy.write("tokenizer.json", "{\"model\": 3}");
    copy.refused(&["tokenizer.json", "tokenizer"]);
    for template in ["{% for %}", "no video here", "{{ raise_exception('not for you') }}"] {
        let copy = Copy::of("ov-odd");
        copy.write("chat_template.jinja", template);
        copy.refused(&["chat_template.jinja", "chat template"]);
    }
}

#[test]
fn a_folder_without_a_template_gets_the_family_s_own() {
    let question = "What color was the ring?";
    let tail = |dir: &Path| {
        let model = VideoLlm::load(dir, &LoadOptions::default()).unwrap();
        model.prompts().tail(PromptStyle::Hf, Some("be brief"), question).unwrap()
    };
    let copy = Copy::of("ov-odd");
    std::fs::remove_file(copy.path("chat_template.jinja")).unwrap();
    assert_eq!(tail(copy.dir()), tail(&fixture("ov-odd")));
}

#[test]
fn recommendations_are_read_and_checked() {
    let copy = Copy::of("ov-odd");
    let file = "streamkvqa.json";
    let model = VideoLlm::load(copy.dir(), &LoadOptions::default()).unwrap();
    assert_eq!(model.recommended_sample_rate(), None);
    copy.write(file, r#"{"sample_rate": 2.0, "trained_frames": 64, "recipe": {"retrieve": 8}}"#);
    let model = VideoLlm::load(copy.dir(), &LoadOptions::default()).unwrap();
    assert_eq!(model.recommended_sample_rate(), Some(2.0));
    assert_eq!(model.recommendations().trained_frames, Some(64));
    assert_eq!(model.recommendations().recipe["retrieve"], 8);
    for (text, said) in [
        ("{\"sample_rate\": \"two\"}", "two"),
        ("{\"sample_rate\": -1}", "sample_rate"),
        ("{\"trained_frames\": 0}", "trained_frames"),
        ("{\"sample_rate\": 2.0,}", "line 1"),
        ("[]x", "streamkvqa.json"),
    ] {
        copy.write(file, text);
        copy.refused(&[file, said]);
    }
}

#[test]
fn loading_reports_its_progress_by_shard_and_can_be_cancelled() {
    let seen = Arc::new(Mutex::new(Vec::<LoadProgress>::new()));
    let options = LoadOptions {
        progress: Some(Arc::new({
            let seen = seen.clone();
            move |at| seen.lock().unwrap().push(at.clone())
        })),
        ..Default::default()
    };
    VideoLlm::load(fixture("ov-even"), &options).unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.is_sorted_by(|a, b| a.done < b.done && a.total == b.total));
    let last = seen.last().unwrap();
    assert!(last.done == last.total && last.total > 500_000, "{last:?}");
    for number in 1..=3 {
        let name = format!("model-{number:05}-of-00003.safetensors");
        let of_shard = |at: &&LoadProgress| *at.file == name;
        let at = seen.iter().find(of_shard).unwrap_or_else(|| panic!("{name}"));
        assert_eq!((at.step, at.number, at.files), (LoadStep::Read, number, 3));
    }

    let cancel = Cancel::new();
    let options = LoadOptions {
        cancel: cancel.clone(),
        progress: Some(Arc::new(move |_| cancel.raise())),
        ..Default::default()
    };
    let result = VideoLlm::load(fixture("ov-even"), &options);
    assert!(matches!(result, Err(EngineError::Cancelled)));
}

#[test]
#[cfg(not(feature = "cuda"))]
fn a_device_this_build_does_not_have_is_named() {
    let options = LoadOptions { device: DeviceChoice::Cuda(0), ..Default::default() };
    let message = VideoLlm::load(fixture("ov-odd"), &options).err().unwrap().to_string();
    assert!(message.contains("cuda:0") && message.contains("--features cuda"), "{message}");
}

/// Weights are held in the format asked for, by default in their own; the CPU computes in f32.
#[test]
fn number_formats_change_what_is_held_and_hardly_what_is_computed() {
    let tokens = |fixture_name, dtype| {
        let options = LoadOptions { dtype, device: DeviceChoice::Cpu, ..Default::default() };
        let model = VideoLlm::load(fixture(fixture_name), &options).unwrap();
        let frame = Frame::new((0..1800).map(|i| (i * 37 % 251) as u8).collect(), 30, 20, 0.0);
        let frame = frame.unwrap();
        let picture = model.picture(&frame).unwrap();
        let tokens = model.encode_frames(&[frame], &picture, &Cancel::new()).unwrap();
        assert_eq!((tokens.dtype(), model.dtype()), (DType::F32, DType::F32));
        (model.weights_dtype(), tokens.flatten_all().unwrap().to_vec1::<f32>().unwrap())
    };
    let apart =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    let (held, exact) = tokens("ov-odd", DTypeChoice::Auto);
    assert_eq!(held, DType::F32);
    for (dtype, expected, tolerance) in
        [(DTypeChoice::Bf16, DType::BF16, 0.2), (DTypeChoice::F16, DType::F16, 0.02)]
    {
        let (held, rounded) = tokens("ov-odd", dtype);
        assert_eq!(held, expected);
        let apart = apart(&exact, &rounded);
        assert!(apart > 0.0 && apart < tolerance, "{dtype:?}: {apart}");
    }
    let (held, rounded) = tokens("ov-odd", DTypeChoice::Q8);
    assert_eq!(held, DType::F32, "what is no matrix of a linear layer");
    let apart_in_eight = apart(&exact, &rounded);
    assert!(apart_in_eight > 0.0 && apart_in_eight < 0.2, "q8: {apart_in_eight}");
    // Weights that are bf16 already lose nothing in f32.
    let (held, own) = tokens("ov-even-bf16", DTypeChoice::Auto);
    assert_eq!(held, DType::BF16);
    let (_, wide) = tokens("ov-even-bf16", DTypeChoice::F32);
    assert!(apart(&own, &wide) < 1e-4);
}
