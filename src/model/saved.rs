// SPDX-License-Identifier: MPL-2.0
//! What a config means does not hang on which version of transformers saved it.

use std::fmt::Debug;
use std::path::Path;

use serde_json::Value;

use super::checkpoint::Words;
use super::checkpoint::check::Checker;
use super::{internvl, llava_onevision, qwen2_5_vl, qwen2_vl, qwen3_vl};
use crate::error::Result;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: &str) -> Value {
    let text = std::fs::read_to_string(Path::new(ROOT).join(path)).expect(path);
    serde_json::from_str(&text).expect(path)
}

fn written<C: Debug>(checked: Result<(Words, C)>) -> Result<String> {
    let (mut words, config) = checked?;
    // Said once or twice.
    words.end_ids.sort_unstable();
    words.end_ids.dedup();
    Ok(format!("{words:#?} {config:#?}"))
}

/// All that a config says, as text.
fn meaning(json: Value) -> Result<String> {
    let check = Checker(Path::new("config.json"));
    match json["model_type"].as_str() {
        Some("llava_onevision") => written(llava_onevision::checked(&check, json)),
        Some("qwen2_vl") => written(qwen2_vl::checked(&check, json)),
        Some("qwen2_5_vl") => written(qwen2_5_vl::checked(&check, json)),
        Some("qwen3_vl") => written(qwen3_vl::checked(&check, json)),
        Some("internvl") => written(internvl::checked(&check, json)),
        other => panic!("{other:?}"),
    }
}

fn published(name: &str) -> Value {
    read(&format!("tools/real-size/configs/{name}.json"))
}

/// `tools/fixtures/make_saved.py`: fields left out that are the class's defaults, named twice, nested.
#[test]
fn a_published_config_means_the_same_whoever_saved_it() {
    let versions = read("tests/fixtures/saved.json");
    let mut seen = 0;
    for (version, saved) in versions.as_object().unwrap() {
        for (name, config) in saved.as_object().unwrap() {
            let again = meaning(config.clone());
            let again = again.unwrap_or_else(|fault| panic!("{name}, {version}: {fault}"));
            assert_eq!(again, meaning(published(name)).unwrap(), "{name}, {version}");
            seen += 1;
        }
    }
    assert_eq!(seen, 6 + 10 + 10);
}

/// What may be left out, and where else it may stand.
#[test]
fn what_is_left_out_is_what_the_classes_have() {
    for (name, gone) in [
        ("Qwen3-VL-8B-Instruct", "/text_config/head_dim"),
        ("Qwen3-VL-8B-Instruct", "/text_config/rope_scaling/mrope_section"),
        ("Qwen3-VL-8B-Instruct", "/text_config/rope_scaling/mrope_interleaved"),
        ("Qwen3-VL-8B-Instruct", "/text_config/hidden_act"),
        ("Qwen3-VL-8B-Instruct", "/text_config/model_type"),
        ("Qwen3-VL-8B-Instruct", "/tie_word_embeddings"),
        ("Qwen3-VL-8B-Instruct", "/video_token_id"),
        ("Qwen3-VL-8B-Instruct", "/vision_config/depth"),
        ("Qwen3-VL-8B-Instruct", "/vision_config/hidden_size"),
        ("Qwen3-VL-8B-Instruct", "/vision_config/intermediate_size"),
        ("Qwen3-VL-8B-Instruct", "/vision_config/num_heads"),
        ("Qwen3-VL-8B-Instruct", "/vision_config/num_position_embeddings"),
        ("Qwen3-VL-8B-Instruct", "/vision_config/deepstack_visual_indexes"),
        ("Qwen3-VL-8B-Instruct", "/vision_config/patch_size"),
        ("Qwen2-VL-7B-Instruct", "/rope_scaling"),
        ("Qwen2-VL-7B-Instruct", "/rope_theta"),
        ("Qwen2.5-VL-7B-Instruct", "/rope_scaling/mrope_section"),
        ("InternVL3_5-4B-HF", "/text_config/head_dim"),
        ("InternVL3_5-4B-HF", "/image_seq_length"),
        ("InternVL3-1B-hf", "/vision_config/hidden_size"),
    ] {
        let mut config = published(name);
        let (parent, key) = gone.rsplit_once('/').unwrap();
        let parent = config.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        assert!(parent.remove(key).is_some(), "{name} {gone}");
        let left = meaning(config).unwrap_or_else(|fault| panic!("{name} {gone}: {fault}"));
        assert_eq!(left, meaning(published(name)).unwrap(), "{name} {gone}");
    }
}

#[test]
fn the_base_of_rope_is_found_wherever_it_stands() {
    let name = "Qwen3-VL-4B-Instruct";
    for place in ["rope_scaling", "rope_parameters"] {
        let mut config = published(name);
        let text = config["text_config"].as_object_mut().unwrap();
        let theta = text.remove("rope_theta").unwrap();
        let mut rope = text.remove("rope_scaling").unwrap();
        rope["rope_theta"] = theta;
        text.insert(place.into(), rope);
        assert_eq!(meaning(config).unwrap(), meaning(published(name)).unwrap(), "{place}");
    }
}
