// SPDX-License-Identifier: MPL-2.0
//! What `generation_config.json` asks of an answer, against Hugging Face transformers
//! (`tools/fixtures/make_generation.py`); how answers end; and drawing instead of taking the best.

mod common;

use common::{Copy, fixture, frames_of, tensors};
use gststreamkvqa::{
    Answer, EngineError, Finish, Frame, Question, Recipe, Sampling, Stream, StreamOptions, VideoLlm,
};
use serde_json::{Value, json};

const FILE: &str = "generation_config.json";

/// One or two of each family.
const FIXTURES: [&str; 7] =
    ["ov-odd", "ov-even", "qwen-wide", "qwen-hub", "qwen2-wide", "qwen3-wide", "intern-three"];

fn read(name: &str, file: &str) -> Value {
    let text = std::fs::read_to_string(fixture(name).join(file)).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The fixture's video, at its own rate.
fn video(name: &str) -> Vec<Frame> {
    let frames = tensors(&fixture(name).join("expected.safetensors")).remove("frames").unwrap();
    let rate = read(name, "expected.json")["fps"].as_f64().unwrap_or(1.0);
    let timed = |(i, frame): (usize, Frame)| {
        let time = i as f64 / rate;
        Frame::new(frame.rgb().to_vec(), frame.width(), frame.height(), time).unwrap()
    };
    frames_of(&frames).into_iter().enumerate().map(timed).collect()
}

/// A stream that has seen the fixture's video and keeps all of it, as transformers does.
fn seen(model: VideoLlm, name: &str) -> Stream {
    let options = StreamOptions { mrope_compat: true, ..StreamOptions::default() };
    let mut stream = Stream::open(model, Recipe::named("full").unwrap(), options).unwrap();
    stream.push_frames(&video(name)).unwrap();
    stream
}

fn ask(stream: &Stream, text: &str, max_tokens: usize) -> Answer {
    stream.ask(&Question::new(text).max_tokens(max_tokens), |_| {}).unwrap()
}

/// The fixture with other generation settings beside the ids that end an answer.
fn with(name: &str, settings: &Value) -> Copy {
    let copy = Copy::of(name);
    copy.edit(FILE, |file| {
        let fields = settings.as_object().unwrap().clone();
        file.as_object_mut().unwrap().extend(fields);
    });
    copy
}

#[test]
fn answers_under_generation_settings_are_those_of_transformers() {
    for name in FIXTURES {
        let ends = read(name, FILE)["eos_token_id"].clone();
        let is_end = |id: &Value| *id == ends || ends.as_array().is_some_and(|e| e.contains(id));
        let mut bites = 0;
        for case in read(name, "generation_expected.json").as_array().unwrap() {
            let (text, settings) = (case["question"].as_str().unwrap(), &case["config"]);
            let mut expected = case["ids"].as_array().unwrap().clone();
            let ended = expected.last().is_some_and(is_end);
            if ended {
                expected.pop();
            }
            let answer = ask(&seen(with(name, settings).load(), name), text, 64);
            assert_eq!(json!(answer.ids), json!(expected), "{name} {settings} {text}");
            let finish = if ended { Finish::Stop } else { Finish::Length };
            assert_eq!(answer.finish, finish, "{name} {settings} {text}");
            let plain = ask(&seen(with(name, &json!({})).load(), name), text, 64);
            bites += usize::from(plain.ids != answer.ids);
        }
        assert!(bites >= 15, "{name}: the settings changed {bites} answers");
    }
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    for (settings, said) in [
        (json!({"repetition_penalty": 0.0}), "repetition_penalty"),
        (json!({"repetition_penalty": -1.5}), "repetition_penalty"),
        (json!({"repetition_penalty": "high"}), "high"),
        (json!({"bad_words_ids": [[3], []]}), "bad_words_ids"),
        (json!({"bad_words_ids": [3]}), "generation settings"),
        (json!({"suppress_tokens": ["a"]}), "generation settings"),
        (json!({"min_new_tokens": 1.5}), "generation settings"),
    ] {
        with("ov-odd", &settings).refused(&[FILE, said]);
    }
    let copy = Copy::of("ov-odd");
    copy.write(FILE, "[1, 2]");
    copy.refused(&[FILE]);
}

/// transformers passes over ids that no token has, and so does a null.
#[test]
fn settings_that_say_nothing_change_nothing() {
    let plain = ask(&seen(Copy::of("ov-odd").load(), "ov-odd"), "what?", 8);
    let settings = json!({
        "repetition_penalty": null,
        "no_repeat_ngram_size": 0,
        "suppress_tokens": [-1, 99_999_999_999u64, 60_000],
        "begin_suppress_tokens": null,
        "bad_words_ids": [[60_000], [-1, 4]],
        "num_beams": 1,
        "sequence_bias": null,
        "penalty_alpha": 0.0,
    });
    let stream = seen(with("ov-odd", &settings).load(), "ov-odd");
    assert_eq!(ask(&stream, "what?", 8).ids, plain.ids);
    assert!(stream.take_warnings().is_empty());
}

#[test]
fn settings_that_are_not_applied_are_one_warning() {
    let settings = json!({"num_beams": 4, "sequence_bias": [[[3], 2.0]], "top_k": 1});
    let stream = seen(with("ov-odd", &settings).load(), "ov-odd");
    let warnings = stream.take_warnings();
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    let warning = warning.to_string();
    for part in [FILE, "num_beams=4", "sequence_bias", "not applied"] {
        assert!(warning.contains(part), "{warning}");
    }
    assert!(!warning.contains("top_k"), "it is sampling's: {warning}");
}

#[test]
fn an_answer_that_loops_ends_and_says_so() {
    // With these alone to say, the model goes round.
    let suppress: Vec<u32> = (0..512).filter(|id| ![70, 71, 72].contains(id)).collect();
    let settings = json!({"suppress_tokens": suppress, "min_new_tokens": 5000});
    let stream = seen(with("ov-odd", &settings).load(), "ov-odd");
    let whole = ask(&stream, "what?", 64);
    assert_eq!((whole.finish, whole.ids.len()), (Finish::Length, 64));
    let answer = ask(&stream, "what?", 2000);
    assert_eq!(answer.finish, Finish::Loop);
    assert!((64..600).contains(&answer.ids.len()), "{}", answer.ids.len());
    assert_eq!(answer.ids[..64], whole.ids);
}

#[test]
fn drawn_answers_follow_their_seed() {
    let stream = seen(Copy::of("ov-odd").load(), "ov-odd");
    let drawn = |seed, temperature, top_p| {
        let sampling = Some(Sampling { temperature, top_p, seed });
        let question = Question { sampling, ..Question::new("what?").max_tokens(12) };
        stream.ask(&question, |_| {}).unwrap().ids
    };
    let greedy = ask(&stream, "what?", 12).ids;
    assert_eq!(drawn(1, 1.0, 1.0), drawn(1, 1.0, 1.0));
    assert!((2..8).any(|seed| drawn(seed, 1.0, 1.0) != drawn(1, 1.0, 1.0)));
    assert_eq!(drawn(3, 1e-4, 1.0), greedy, "next to no temperature");
    assert_eq!(drawn(3, 1.0, 1e-6), greedy, "the likeliest alone");
    assert_eq!(ask(&stream, "what?", 12).ids, greedy, "drawing leaves nothing behind");
}

#[test]
fn what_a_checkpoint_says_of_sampling_is_left_to_the_user() {
    let settings = json!({"do_sample": true, "temperature": 1.5, "top_p": 0.9, "top_k": 50});
    let stream = seen(with("ov-odd", &settings).load(), "ov-odd");
    let plain = seen(Copy::of("ov-odd").load(), "ov-odd");
    assert_eq!(ask(&stream, "what?", 16).ids, ask(&plain, "what?", 16).ids);
    assert!(stream.take_warnings().is_empty());
}

/// A folder that says nothing of generation is read all the same.
#[test]
fn the_file_need_not_be_there() {
    let copy = Copy::of("ov-odd");
    std::fs::remove_file(copy.path(FILE)).unwrap();
    let plain = ask(&seen(Copy::of("ov-odd").load(), "ov-odd"), "what?", 4);
    assert_eq!(ask(&seen(copy.load(), "ov-odd"), "what?", 4).ids, plain.ids);
    assert!(matches!(
        seen(Copy::of("ov-odd").load(), "ov-odd").ask(&Question::new(""), |_| {}),
        Err(EngineError::Question(_))
    ));
}
