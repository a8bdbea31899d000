// SPDX-License-Identifier: MPL-2.0
//! Frames that show nothing new: they cost next to nothing, and what is said of the video stays true.

mod common;

use std::time::{Duration, Instant};

use common::{fixture, painted, toyworld_model};
use gststreamkvqa::memory::unit::Kind;
use gststreamkvqa::{
    Cancel, EngineError, Frame, LoadOptions, Question, Recipe, SkipOptions, Stream, StreamOptions,
    VideoLlm,
};

fn stream(model: &VideoLlm, method: &str, most: usize, tolerance: f32) -> Stream {
    let options =
        StreamOptions { skip: SkipOptions { most, tolerance }, ..StreamOptions::default() };
    Stream::open(model.clone(), Recipe::for_model(method, model).unwrap(), options).unwrap()
}

/// A scene in which every picture stands still for so many seconds.
fn halting(seconds: usize, pictures: usize) -> Vec<Frame> {
    let options = toyworld::StreamOptions { frames: 8 * pictures, ..Default::default() };
    let video = toyworld::Stream::generate(toyworld::seeds::VALIDATION.start + 77, &options);
    let mut different = painted(&video);
    different.dedup_by(|a, b| a.rgb() == b.rgb());
    different.truncate(pictures);
    assert_eq!(different.len(), pictures);
    let again = |(at, frame): (usize, &Frame)| -> Vec<Frame> {
        let time = |second: usize| (at * seconds + second) as f64;
        let copy = |second| {
            Frame::new(frame.rgb().to_vec(), frame.width(), frame.height(), time(second)).unwrap()
        };
        (0..seconds).map(copy).collect()
    };
    different.iter().enumerate().flat_map(again).collect()
}

/// Of the units that are frames: numbers of the frames they stand for, and seconds.
fn units(stream: &Stream) -> Vec<(std::ops::Range<u64>, f64, f64)> {
    let frames = stream.memory().units().filter(|unit| unit.kind == Kind::Frame);
    frames.map(|unit| (unit.frames.clone(), unit.start, unit.end)).collect()
}

#[test]
fn a_picture_stands_for_the_time_in_which_nothing_happens_however_frames_come() {
    let model = toyworld_model();
    let frames = halting(4, 6);
    for at_once in [1, 3, 5, 24] {
        for method in ["rekv", "full"] {
            let mut stream = stream(&model, method, 100, 0.0);
            frames.chunks(at_once).for_each(|frames| stream.push_frames(frames).unwrap());
            let stats = stream.stats();
            assert_eq!((stats.frames, stats.skipped), (24, 18), "{method} {at_once}");
            let expected: Vec<_> =
                (0..6u64).map(|i| (4 * i..4 * i + 4, (4 * i) as f64, (4 * i + 3) as f64)).collect();
            assert_eq!(units(&stream), expected, "{method} {at_once}");
            // What it knows is what it would know of the pictures alone.
            let mut alone = self::stream(&model, method, 0, 0.0);
            let firsts: Vec<Frame> = frames.iter().step_by(4).cloned().collect();
            alone.push_frames(&firsts).unwrap();
            let question = Question::new("what is there now?");
            let (found, expected) = (stream.ask(&question, |_| {}), alone.ask(&question, |_| {}));
            let (found, expected) = (found.unwrap(), expected.unwrap());
            assert_eq!(found.ids, expected.ids);
            let last = found.evidence.iter().map(|stretch| stretch.end).fold(0.0, f64::max);
            assert!(last == 23.0, "{method}: looked up to {last}");
        }
    }
}

#[test]
fn segments_end_where_they_do_however_frames_come() {
    let model = toyworld_model();
    let frames = halting(4, 12);
    let segments = |at_once: usize| -> Vec<(u64, f64, f64)> {
        let mut recipe = Recipe::for_model("streamkv", &model).unwrap();
        recipe.set("segment-seconds", "10").unwrap();
        let options = StreamOptions {
            skip: SkipOptions { most: 100, tolerance: 0.0 },
            ..StreamOptions::default()
        };
        let mut stream = Stream::open(model.clone(), recipe, options).unwrap();
        frames.chunks(at_once).for_each(|frames| stream.push_frames(frames).unwrap());
        stream.flush().unwrap();
        stream.memory().units().map(|unit| (unit.segment, unit.start, unit.end)).collect()
    };
    let expected = segments(1);
    assert!(expected.last().unwrap().0 >= 3, "{expected:?}");
    for at_once in [2, 3, 4, 7, 48] {
        assert_eq!(segments(at_once), expected, "{at_once}");
    }
}

#[test]
fn what_was_lost_stands_for_nothing() {
    let model = toyworld_model();
    let frames = halting(4, 2);
    let mut stream = stream(&model, "rekv", 100, 0.0);
    stream.push(&frames[0]).unwrap();
    // A flush comes while the next picture is looked at.
    let cancel = Cancel::new();
    cancel.raise();
    stream.set_cancel(cancel);
    assert!(matches!(stream.push(&frames[4]), Err(EngineError::Cancelled)));
    stream.set_cancel(Cancel::new());
    stream.push_frames(&frames[5..]).unwrap();
    let seen: Vec<_> = units(&stream).into_iter().map(|(_, start, end)| (start, end)).collect();
    assert_eq!(seen, [(0.0, 0.0), (5.0, 7.0)]);
}

#[test]
fn every_method_takes_it() {
    let model = toyworld_model();
    let frames = halting(5, 9);
    for method in Recipe::names() {
        let mut stream = stream(&model, method, 3, 0.0);
        frames.chunks(7).for_each(|frames| stream.push_frames(frames).unwrap());
        // A picture of five seconds is looked at twice: three may be skipped.
        assert_eq!(stream.stats().skipped, 9 * 3, "{method}");
        let answer = stream.ask(&Question::new("what is there now?"), |_| {}).unwrap();
        let last = answer.evidence.iter().map(|stretch| stretch.end).fold(0.0, f64::max);
        assert!(last <= 44.0, "{method}: {last}");
        stream.clear().unwrap();
        assert_eq!(stream.stats().skipped, 0, "{method}");
    }
}

#[test]
fn units_of_two_frames_are_finished_first() {
    let model = VideoLlm::load(fixture("qwen-wide"), &LoadOptions::default()).unwrap();
    let frames = halting(5, 4);
    let mut stream = stream(&model, "rekv", 100, 0.0);
    frames.chunks(3).for_each(|frames| stream.push_frames(frames).unwrap());
    stream.flush().unwrap();
    let stood: Vec<_> = units(&stream).into_iter().map(|(frames, ..)| frames).collect();
    assert_eq!(stood, [0..5, 5..10, 10..15, 15..20]);
}

#[test]
fn noise_is_forgiven_and_a_small_thing_is_not() {
    let model = toyworld_model();
    let still = &halting(1, 1)[0];
    let noisy = |time: f64, more: &dyn Fn(usize) -> u8| {
        let rgb = still.rgb().iter().enumerate();
        let rgb = rgb.map(|(at, grey)| grey.saturating_add(more(at))).collect();
        Frame::new(rgb, still.width(), still.height(), time).unwrap()
    };
    let mut stream = stream(&model, "rekv", 100, 4.0);
    stream.push(still).unwrap();
    stream.push(&noisy(1.0, &|at| (at % 7) as u8)).unwrap();
    assert_eq!(stream.stats().skipped, 1);
    // Something of four pixels each way, of 19,200.
    let width = still.width();
    let thing = |at: usize| {
        let (x, y) = (at / 3 % width, at / 3 / width);
        if (40..44).contains(&x) && (40..44).contains(&y) { 120 } else { 0 }
    };
    stream.push(&noisy(2.0, &thing)).unwrap();
    assert_eq!(stream.stats().skipped, 1);
}

#[test]
fn what_is_skipped_costs_a_twentieth_at_most() {
    let model = toyworld_model();
    let frames = halting(1, 64);
    let still = halting(640, 1);
    let cost = |frames: &[Frame], most: usize| -> Duration {
        let mut stream = stream(&model, "rekv", most, 4.0);
        stream.push(&frames[0]).unwrap();
        let begun = Instant::now();
        frames[1..].chunks(8).for_each(|frames| stream.push_frames(frames).unwrap());
        begun.elapsed() / (frames.len() - 1) as u32
    };
    // The best of several: others may want the processor too.
    let best = |frames: &[Frame], most| (0..5).map(|_| cost(frames, most)).min().unwrap();
    let (seen, skipped) = (best(&frames, 0), best(&still, usize::MAX));
    println!("{seen:?} a frame, {skipped:?} one that is skipped");
    assert!(skipped * 20 <= seen, "{skipped:?} is more than a twentieth of {seen:?}");
}
