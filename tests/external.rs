// SPDX-License-Identifier: MPL-2.0
//! Retrieval by an outside text-image model: with random weights, which shows the path and nothing
//! about accuracy.

use std::fs;
use std::path::Path;

use candle_core::{DType, Device};
use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::siglip;
use gststreamkvqa::{Frame, LoadOptions, Question, Recipe, Stream, VideoLlm};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/toyworld");

/// A SigLIP folder of the smallest size.
fn siglip(dir: &Path) {
    let config = serde_json::json!({
        "model_type": "siglip",
        "text_config": {
            "vocab_size": 2048, "hidden_size": 16, "intermediate_size": 16,
            "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16,
        },
        "vision_config": {
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 32, "patch_size": 16,
        },
    });
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let weights = VarMap::new();
    let vb = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
    siglip::Model::new(&serde_json::from_value(config).unwrap(), vb).unwrap();
    weights.save(dir.join("model.safetensors")).unwrap();
    fs::copy(Path::new(MODEL).join("tokenizer.json"), dir.join("tokenizer.json")).unwrap();
}

fn frames(n: usize) -> Vec<Frame> {
    let shade = |i: usize| vec![(i * 20 % 256) as u8; 64 * 48 * 3];
    (0..n).map(|i| Frame::new(shade(i), 64, 48, i as f64).unwrap()).collect()
}

fn asked(recipe: &Recipe) -> Result<Vec<Vec<u64>>, gststreamkvqa::EngineError> {
    let model = VideoLlm::load(MODEL, &LoadOptions::default())?;
    let mut stream = Stream::new(model, recipe.clone())?;
    stream.push_frames(&frames(12))?;
    let answer = stream.ask(&Question::new("what color is the ball?").max_tokens(2), |_| {})?;
    Ok(answer.layers.iter().map(|layer| layer.retrieved.clone()).collect())
}

fn recipe(name: &str, options: &[(&str, &str)]) -> Recipe {
    let mut recipe = Recipe::named(name).unwrap();
    for (key, value) in options {
        recipe.set(key, value).unwrap();
    }
    recipe
}

#[test]
fn an_outside_expert_ranks_alike_in_all_layers_and_beside_the_model_layer_by_layer() {
    let dir = tempfile::tempdir().unwrap();
    siglip(dir.path());
    let folder = dir.path().to_str().unwrap();
    let outside = [("experts", "external"), ("external-model", folder), ("retrieve", "4")];
    let found = asked(&recipe("rekv", &outside)).unwrap();
    assert!(found.iter().all(|units| units.len() == 4 && *units == found[0]), "{found:?}");
    let both = asked(&recipe("memstream", &[("external-model", folder), ("retrieve", "4")]));
    assert!(both.unwrap().iter().all(|units| units.len() == 4));
}

#[test]
fn without_a_folder_the_error_names_the_option() {
    let message = asked(&recipe("memstream", &[])).unwrap_err().to_string();
    assert!(
        message.contains("external-model") && message.contains("experts=internal"),
        "{message}"
    );
    let missing = asked(&recipe("memstream", &[("external-model", "/nowhere")]));
    let message = missing.unwrap_err().to_string();
    assert!(message.contains("/nowhere/config.json"), "{message}");
    let other = asked(&recipe("memstream", &[("external-model", MODEL)]));
    let message = other.unwrap_err().to_string();
    assert!(message.contains("model_type") && message.contains("siglip"), "{message}");
}
