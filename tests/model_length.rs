// SPDX-License-Identifier: MPL-2.0
//! More video than a model was made for: a method that looks at all of it says so once, and names
//! one that does not.

mod common;

use common::Copy;
use gststreamkvqa::{Frame, Question, Recipe, Stream, VideoLlm};
use serde_json::json;

fn stream(model: &VideoLlm, method: &str) -> Stream {
    let mut recipe = Recipe::named(method).unwrap();
    if recipe.outside_expert().is_err() {
        recipe.set("experts", "internal").unwrap();
    }
    Stream::new(model.clone(), recipe).unwrap()
}

fn push(stream: &mut Stream, frames: u32) {
    let frame = |i: u32| {
        let level = (i * 37 % 251) as u8;
        Frame::new(vec![level; 70 * 70 * 3], 70, 70, f64::from(i)).unwrap()
    };
    stream.push_frames(&(0..frames).map(frame).collect::<Vec<_>>()).unwrap();
}

/// A fixture of nine tokens a frame that claims to be made for so many positions.
fn made_for(positions: usize) -> VideoLlm {
    let copy = Copy::of("ov-odd");
    copy.edit("config.json", |config| {
        config["text_config"]["max_position_embeddings"] = json!(positions);
    });
    copy.load()
}

#[track_caller]
fn one_warning(stream: &Stream, parts: &[&str]) {
    let warnings = stream.take_warnings();
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    let warning = warning.to_string();
    for part in parts {
        assert!(warning.contains(part), "`{part}` is not in: {warning}");
    }
}

#[test]
fn past_the_positions_of_the_model_a_method_without_a_bound_warns_once() {
    let model = made_for(200);
    let mut stream = stream(&model, "full");
    push(&mut stream, 10);
    assert!(stream.take_warnings().is_empty());
    push(&mut stream, 20);
    one_warning(&stream, &["`full`", "200", "max_position_embeddings", "auto", "sliding-window"]);
    push(&mut stream, 10);
    stream.ask(&Question::new("what?").max_tokens(1), |_| {}).unwrap();
    assert!(stream.take_warnings().is_empty());
    stream.clear().unwrap();
    push(&mut stream, 30);
    assert_eq!(stream.take_warnings().len(), 1, "a new stream begins anew");
}

#[test]
fn past_the_length_it_was_trained_on_too() {
    let copy = Copy::of("ov-odd");
    copy.write("streamkvqa.json", r#"{"trained_frames": 8}"#);
    let model = copy.load();
    let mut unbounded = stream(&model, "full");
    push(&mut unbounded, 8);
    assert!(unbounded.take_warnings().is_empty());
    push(&mut unbounded, 1);
    one_warning(&unbounded, &["`full`", "8", "trained_frames", "auto"]);
    let mut bounded = stream(&model, "auto");
    push(&mut bounded, 40);
    bounded.ask(&Question::new("what?").max_tokens(1), |_| {}).unwrap();
    assert!(bounded.take_warnings().is_empty());
}

#[test]
fn a_bounded_method_says_nothing_until_its_bound_is_too_high() {
    let model = made_for(200);
    for method in Recipe::names().iter().filter(|name| **name != "full") {
        let mut recipe = Recipe::named(method).unwrap();
        if recipe.outside_expert().is_err() {
            recipe.set("experts", "internal").unwrap();
        }
        assert!(recipe.set_budget(4, 9), "{method}");
        let mut stream = Stream::new(model.clone(), recipe).unwrap();
        push(&mut stream, 60);
        stream.ask(&Question::new("what?").max_tokens(1), |_| {}).unwrap();
        let warnings = stream.take_warnings();
        assert!(warnings.is_empty(), "{method}: {warnings:?}");
    }
    let mut recipe = Recipe::named("sliding-window").unwrap();
    assert!(recipe.set_budget(50, 9));
    let mut stream = Stream::new(model, recipe).unwrap();
    push(&mut stream, 60);
    stream.ask(&Question::new("what?").max_tokens(1), |_| {}).unwrap();
    one_warning(&stream, &["sliding-window", "200", "lower"]);
}
