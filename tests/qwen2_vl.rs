// SPDX-License-Identifier: MPL-2.0
//! Qwen2-VL against Hugging Face transformers, and its streams against themselves. What follows a video
//! stands behind the largest position as in 4.57, or behind the first picture as in 5.24.

mod common;

use candle_core::Tensor;
use common::against::{Causal, Fixture, ask, first_logits, flat, ids, internal};
use common::{Copy, assert_close};
use gststreamkvqa::model::prompt::PromptStyle;
use gststreamkvqa::model::rope::{Place, Positions};
use gststreamkvqa::{Frame, Recipe};
use serde_json::Value;

/// Several units with an odd number of frames, and one unit of portrait frames.
const ALL: [&str; 2] = ["qwen2-wide", "qwen2-hub"];

const RULES: [(&str, bool); 2] = [("", false), ("compat_", true)];

#[test]
fn pixels_and_unit_tokens_agree() {
    for name in ALL {
        let fixture = Fixture::open(name);
        fixture.assert_pixels(name);
        fixture.assert_units(name);
    }
}

#[test]
fn prompt_ids_positions_and_all_logits_agree() {
    for name in ALL {
        let fixture = Fixture::open(name);
        assert_eq!(fixture.expected["text_as_in"], "4.57.1");
        let (model, units, picture) = (&fixture.model, fixture.units(), fixture.picture());
        let (prompts, decoder) = (model.prompts(), model.decoder());
        let video = units.dims()[0] * units.dims()[1];
        for (i, question, text) in fixture.questions() {
            let opening = prompts.opening(PromptStyle::Hf, None, "").unwrap();
            let tail = prompts.tail(PromptStyle::Hf, None, text).unwrap().ids;
            let wanted = ids(&question["input_ids"]);
            assert_eq!(opening, wanted[..opening.len()], "{name} {text}");
            assert_eq!(tail, wanted[opening.len() + video..], "{name} {text}");
            let units = units.reshape((video, ())).unwrap();
            let (before, after) = (decoder.embed(&opening).unwrap(), decoder.embed(&tail).unwrap());
            let embeds = Tensor::cat(&[&before, &units, &after], 0).unwrap();
            for (rule, compat) in RULES {
                let layout = model.layout(&picture, fixture.rate(), compat);
                let placed = layout.stretch(opening.len(), 0..video);
                let positions = Positions::run(0, opening.len())
                    .then(&placed.positions)
                    .then(&Positions::run(placed.next, tail.len()));
                let expected = fixture.tensors[&format!("{rule}positions_q{i}")].to_vec2::<i64>();
                let expected = expected.unwrap();
                let axes = |&Place { t, h, w }: &Place| [t as i64, h as i64, w as i64];
                let found: Vec<[i64; 3]> = positions.places().iter().map(axes).collect();
                let expected: Vec<[i64; 3]> =
                    (0..wanted.len()).map(|j| [0, 1, 2].map(|axis| expected[axis][j])).collect();
                assert_eq!(found, expected, "{name} {rule}{text}");
                let hidden = decoder.forward(&embeds, &mut Causal { model, positions }).unwrap();
                let expected = &fixture.tensors[&format!("{rule}logits_q{i}")];
                let rows = expected.dims()[0];
                let hidden = hidden.narrow(0, wanted.len() - rows, rows).unwrap();
                let logits = flat(&decoder.logits(&hidden).unwrap());
                assert_close(&logits, &flat(expected), 1e-4, &format!("{name} {rule}{text}"));
            }
        }
    }
}

#[test]
fn a_stream_that_keeps_everything_answers_like_stock_generate() {
    for name in ALL {
        let fixture = Fixture::open(name);
        for rule in RULES {
            fixture.assert_answers(rule, 32, name);
        }
    }
}

#[test]
fn every_method_answers_and_asking_changes_nothing() {
    let fixture = Fixture::open("qwen2-wide");
    let frames: Vec<Frame> = (0..6).flat_map(|i| fixture.frames_from(5.0 * f64::from(i))).collect();
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
    }
}

/// A unit is one step of time, whatever the rate; what comes late stands later.
#[test]
fn a_unit_takes_one_position_of_time() {
    let fixture = Fixture::open("qwen2-wide");
    let picture = fixture.picture();
    for rate in [0.1, 1.0, 30.0] {
        let layout = fixture.model.layout(&picture, rate, false);
        let places = layout.stretch(0, 0..3 * picture.tokens()).positions.places();
        let times: Vec<usize> = places.iter().step_by(picture.tokens()).map(|p| p.t).collect();
        assert_eq!(times, [0, 1, 2]);
    }
    let logits = |method| {
        let mut stream = fixture.stream(internal(method), false);
        stream.push_frames(&fixture.frames()).unwrap();
        first_logits(&stream, "what?")
    };
    assert_close(&logits("rekv"), &logits("full"), 1e-5, "retrieving everything");
    assert_close(&logits("auto"), &logits("full"), 1e-5, "reading everything again");
}

#[test]
fn a_config_is_checked_and_its_faults_are_named() {
    for (path, value, named) in [
        ("/rope_scaling/mrope_section", "[2, 3, 4]", "add up to 8"),
        ("/vision_config/hidden_size", "32", "`hidden_size` is 64"),
        ("/vision_config/num_heads", "3", "num_heads"),
        ("/vision_config/embed_dim", "0", "embed_dim"),
        ("/vision_config/mlp_ratio", "100", "mlp_ratio"),
        ("/vision_config", "{\"in_channels\": 1}", "in_channels"),
    ] {
        let copy = Copy::of("qwen2-hub");
        let value: Value = serde_json::from_str(value).unwrap();
        copy.edit("config.json", |config| *config.pointer_mut(path).unwrap() = value.clone());
        copy.refused(&["config.json", named]);
    }
}
