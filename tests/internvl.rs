// SPDX-License-Identifier: MPL-2.0
//! InternVL3 and 3.5 against Hugging Face transformers, and their streams against themselves.

mod common;

use candle_core::Tensor;
use common::against::{Causal, Fixture, ask, differ, first_logits, flat, ids, internal};
use common::{Copy, assert_close};
use gststreamkvqa::model::prompt::PromptStyle;
use gststreamkvqa::model::rope::Positions;
use gststreamkvqa::{Frame, Recipe};
use serde_json::Value;

/// Three frames before a decoder of Qwen3's kind, and one before one of Qwen2's.
const ALL: [&str; 2] = ["intern-three", "intern-hub"];

#[test]
fn pixels_and_frame_tokens_agree() {
    for name in ALL {
        let fixture = Fixture::open(name);
        fixture.assert_pixels(name);
        fixture.assert_units(name);
    }
}

#[test]
fn prompt_ids_and_all_logits_agree() {
    for name in ALL {
        let fixture = Fixture::open(name);
        let (model, units) = (&fixture.model, fixture.units());
        let (prompts, decoder) = (model.prompts(), model.decoder());
        for (i, question, text) in fixture.questions() {
            let what = format!("{name} {text}");
            let opening = prompts.opening(PromptStyle::Hf, None, "").unwrap();
            let tail = prompts.tail(PromptStyle::Hf, None, text).unwrap().ids;
            let embed = |ids: &[u32]| decoder.embed(ids).unwrap();
            let (mut all, mut embeds) = (opening.clone(), vec![embed(&opening)]);
            for (at, moment) in fixture.moments().into_iter().enumerate() {
                let [front, behind] = prompts.around(moment).unwrap().unwrap();
                let pads = vec![prompts.video(); units.dims()[1]];
                embeds.extend([embed(&front), units.get(at).unwrap(), embed(&behind)]);
                all.extend([front, pads, behind].concat());
            }
            all.extend(&tail);
            embeds.push(embed(&tail));
            assert_eq!(all, ids(&question["input_ids"]), "{what}");
            let positions = Positions::run(0, all.len());
            let embeds = Tensor::cat(&embeds, 0).unwrap();
            let hidden = decoder.forward(&embeds, &mut Causal { model, positions }).unwrap();
            let expected = &fixture.tensors[&format!("logits_q{i}")];
            let rows = expected.dims()[0];
            let hidden = hidden.narrow(0, all.len() - rows, rows).unwrap();
            assert_close(&flat(&decoder.logits(&hidden).unwrap()), &flat(expected), 1e-4, &what);
        }
    }
}

/// The switch to what transformers 5 does differently has nothing to switch here.
#[test]
fn a_stream_that_keeps_everything_answers_like_stock_generate() {
    for name in ALL {
        let fixture = Fixture::open(name);
        for compat in [false, true] {
            fixture.assert_answers(("", compat), 32, name);
        }
    }
}

#[test]
fn every_method_answers_and_asking_changes_nothing() {
    let fixture = Fixture::open("intern-three");
    let frames: Vec<Frame> = (0..9).flat_map(|i| fixture.frames_from(3.0 * f64::from(i))).collect();
    for &method in Recipe::names() {
        let mut recipe = internal(method);
        if recipe.options().iter().any(|option| option.name == "cap") {
            recipe.set("cap", "6").unwrap();
        }
        let mut stream = fixture.stream(recipe, false);
        stream.push_frames(&frames).unwrap();
        let answer = ask(&stream, "What color was the ring?", 6);
        assert_eq!(ask(&stream, "What color was the ring?", 6).ids, answer.ids, "{method}");
        assert!(!answer.ids.is_empty() && !answer.evidence.is_empty(), "{method}");
        for layer in stream.memory().held().resident.into_iter().flatten() {
            assert!(layer.tokens() <= 6 * stream.memory().held().geometry.unit_tokens, "{method}");
        }
    }
}

#[test]
fn retrieving_everything_equals_keeping_everything() {
    let fixture = Fixture::open("intern-three");
    let logits = |method| {
        let mut stream = fixture.stream(internal(method), false);
        stream.push_frames(&fixture.frames()).unwrap();
        first_logits(&stream, "What color was the ring?")
    };
    for method in ["rekv", "sliding-window", "auto"] {
        assert_close(&logits(method), &logits("full"), 1e-5, method);
    }
}

/// A frame says its number in the stream, also when others are gone.
#[test]
fn frames_keep_their_numbers() {
    let fixture = Fixture::open("intern-three");
    let frames = fixture.frames();
    let newest = |frames: &[Frame]| {
        // One frame of which nobody else was seen.
        let mut recipe = internal("streamkv");
        for (key, value) in [
            ("window", "1"),
            ("segment-frames", "1"),
            ("summary", "false"),
            ("keep-ratio", "1"),
            ("retrieve-temperature", "0"),
            ("retrieve", "1"),
            ("recent", "1"),
        ] {
            recipe.set(key, value).unwrap();
        }
        let mut stream = fixture.stream(recipe, false);
        stream.push_frames(frames).unwrap();
        first_logits(&stream, "what?")
    };
    assert!(differ(&newest(&frames), &newest(&frames[2..])), "Frame3 is not Frame1");
}

#[test]
fn a_config_is_checked_and_its_faults_are_named() {
    for (path, value, named) in [
        ("/text_config/rope_scaling/rope_type", "\"yarn\"", "`yarn`"),
        ("/text_config/model_type", "\"llama\"", "`llama`"),
        ("/vision_config/model_type", "\"siglip\"", "internvl_vision"),
        ("/vision_config/use_qk_norm", "true", "InternViT-6B"),
        ("/vision_config/norm_type", "\"rms_norm\"", "InternViT-6B"),
        ("/vision_config/use_mask_token", "true", "use_mask_token"),
        ("/vision_config/image_size", "[56, 84]", "56x84"),
        ("/vision_config/num_attention_heads", "5", "num_attention_heads"),
        ("/downsample_ratio", "0.3", "downsample_ratio"),
        ("/downsample_ratio", "0.0", "downsample_ratio"),
        ("/downsample_ratio", "0.3333333333333333", "does not divide"),
        ("/vision_feature_layer", "-2", "vision_feature_layer"),
        ("/vision_feature_select_strategy", "\"full\"", "class token"),
    ] {
        let copy = Copy::of("intern-hub");
        let value: Value = serde_json::from_str(value).unwrap();
        copy.edit("config.json", |config| *config.pointer_mut(path).unwrap() = value.clone());
        copy.refused(&["config.json", named]);
    }
    let copy = Copy::of("intern-hub");
    copy.edit("preprocessor_config.json", |settings| settings["size"] = 70.into());
    copy.refused(&["preprocessor_config.json", "takes 56"]);
}
