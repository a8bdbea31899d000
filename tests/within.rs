// SPDX-License-Identifier: MPL-2.0
//! Questions about a stretch of the stream: nothing else is looked at, whatever the method.

mod common;

use std::collections::BTreeSet;

use common::{fixture, toyworld_model};
use gststreamkvqa::{
    Answer, EngineError, Frame, LoadOptions, Question, Recipe, SkipOptions, Stream, StreamOptions,
    VideoLlm,
};

/// Noise, another one in each frame.
fn frames(count: usize) -> Vec<Frame> {
    let frame = |i: usize| {
        let noise = (0..3 * 56 * 56).map(|at| ((at * (7 * i + 31)) % 251) as u8).collect();
        Frame::new(noise, 56, 56, i as f64).unwrap()
    };
    (0..count).map(frame).collect()
}

fn seen(model: &VideoLlm, recipe: Recipe, frames: &[Frame]) -> Stream {
    let mut stream = Stream::new(model.clone(), recipe).unwrap();
    frames.chunks(3).for_each(|frames| stream.push_frames(frames).unwrap());
    stream
}

fn ask(stream: &Stream, from: f64, to: f64) -> Answer {
    let question = Question::new("what?").max_tokens(2).within(from, to);
    stream.ask(&question, |_| {}).unwrap()
}

/// The seconds of the units that some layer looked at.
fn looked_at(stream: &Stream, answer: &Answer) -> BTreeSet<u64> {
    let ids: BTreeSet<u64> =
        answer.layers.iter().flat_map(|layer| layer.retrieved.iter().copied()).collect();
    let units = stream.memory().units().chain(&answer.open_units);
    let units = units.filter(|unit| ids.contains(&unit.id));
    units.flat_map(|unit| [unit.start as u64, unit.end as u64]).collect()
}

#[test]
fn every_method_looks_at_nothing_else() {
    let model = VideoLlm::load(fixture("ov-even"), &LoadOptions::default()).unwrap();
    let frames = frames(26);
    let mut looked = 0;
    for name in Recipe::names() {
        let mut recipe = Recipe::named(name).unwrap();
        for (option, value) in
            [("experts", "internal"), ("retrieve", "4"), ("resident-frames", "8")]
        {
            if recipe.options().iter().any(|known| known.name == option) {
                recipe.set(option, value).unwrap();
            }
        }
        let stream = seen(&model, recipe, &frames);
        for (from, to) in [(20.0, 25.0), (22.0, 23.0), (25.0, 25.0)] {
            let question = Question::new("what?").max_tokens(2).within(from, to);
            let answer = match stream.ask(&question, |_| {}) {
                Ok(answer) => answer,
                // A unit of several frames lies within nothing so short.
                Err(EngineError::Question(_)) if to - from < 5.0 => continue,
                Err(error) => panic!("{name} {from}-{to}: {error}"),
            };
            let seconds = looked_at(&stream, &answer);
            let inside = |&second: &u64| second as f64 >= from && second as f64 <= to;
            assert!(seconds.iter().all(inside), "{name} {from}-{to}: {seconds:?}");
            for stretch in &answer.evidence {
                assert!(stretch.start >= from && stretch.end <= to, "{name}: {stretch:?}");
            }
            looked += usize::from(!seconds.is_empty());
        }
        // Asking so changes nothing.
        let free = |stream: &Stream| stream.ask(&Question::new("what?"), |_| {}).unwrap();
        let before = free(&stream);
        ask(&stream, 20.0, 25.0);
        assert_eq!((free(&stream).ids, free(&stream).evidence), (before.ids, before.evidence));
    }
    assert!(looked >= 2 * Recipe::names().len(), "{looked}");
}

#[test]
fn old_frames_are_found_where_they_are_kept() {
    let model = VideoLlm::load(fixture("ov-even"), &LoadOptions::default()).unwrap();
    let stream = seen(&model, Recipe::named("rekv").unwrap(), &frames(26));
    let answer = ask(&stream, 4.5, 7.0);
    assert_eq!(looked_at(&stream, &answer), BTreeSet::from([5, 6, 7]));
}

#[test]
fn an_answer_is_that_of_the_stretch() {
    let options = toyworld::StreamOptions { frames: 40, ..Default::default() };
    let video = toyworld::Stream::generate(toyworld::seeds::VALIDATION.start + 5, &options);
    let model = toyworld_model();
    let recipe = Recipe::for_model("auto", &model).unwrap();
    let stream = seen(&model, recipe, &common::painted(&video));
    let (mut right, mut asked) = (0, 0);
    for shot in &video.shots {
        let Some(key) = shot.key() else { continue };
        let span = (shot.start as f64, (shot.start + shot.frames - 1) as f64);
        let question = Question::new("what do you see now?").within(span.0, span.1);
        let answer = stream.ask(&question, |_| {}).unwrap();
        right += usize::from(answer.text == key.name());
        asked += 1;
    }
    assert!(asked >= 6 && right + 1 >= asked, "{right} of {asked}");
}

#[test]
fn evidence_of_a_picture_that_stood_still_is_cut() {
    let model = VideoLlm::load(fixture("ov-even"), &LoadOptions::default()).unwrap();
    let skip = SkipOptions { most: 100, tolerance: 0.0 };
    let options = StreamOptions { skip, ..StreamOptions::default() };
    let mut stream = Stream::open(model, Recipe::named("rekv").unwrap(), options).unwrap();
    let still = &frames(1)[0];
    for second in 0..30 {
        let rgb = still.rgb().to_vec();
        stream.push(&Frame::new(rgb, 56, 56, f64::from(second)).unwrap()).unwrap();
    }
    let answer = ask(&stream, 10.0, 12.5);
    let spans: Vec<_> = answer.evidence.iter().map(|e| (e.start, e.end)).collect();
    assert_eq!(spans, [(10.0, 12.5)]);
}

#[test]
fn a_stretch_without_anything_is_named() {
    let model = VideoLlm::load(fixture("ov-even"), &LoadOptions::default()).unwrap();
    let stream = seen(&model, Recipe::named("rekv").unwrap(), &frames(5));
    for (from, to) in [(5.5, 9.0), (3.0, 2.0), (f64::NAN, 2.0)] {
        let error = stream.ask(&Question::new("what?").within(from, to), |_| {}).unwrap_err();
        assert!(matches!(error, EngineError::Question(_)), "{error}");
        assert!(error.to_string().contains("nothing that is remembered"), "{error}");
    }
}
