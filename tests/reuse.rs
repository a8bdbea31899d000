// SPDX-License-Identifier: MPL-2.0
//! Patches that did not change are taken from an earlier frame: nothing else is lost by it, and what it
//! costs in exactness is bounded.

mod common;

use common::{assert_close, fixture, painted, toyworld_model};
use gststreamkvqa::model::vision::reuse::Reuse;
use gststreamkvqa::{
    Cancel, EngineError, Frame, LoadOptions, Question, Recipe, ReuseOptions, Stream, StreamOptions,
    VideoLlm,
};

const SIDE: usize = 56;
const PATCH: usize = 14;
const PATCHES: u64 = 16;

fn options(most: usize, tolerance: f32) -> ReuseOptions {
    ReuseOptions { most, tolerance }
}

fn stream(model: &VideoLlm, method: &str, reuse: ReuseOptions) -> Stream {
    let options = StreamOptions { reuse, ..StreamOptions::default() };
    Stream::open(model.clone(), Recipe::for_model(method, model).unwrap(), options).unwrap()
}

/// A picture of the toy world as large as its tower takes it, so that pixels can be told by patches.
fn scene(seed: u64) -> Vec<u8> {
    let options = toyworld::StreamOptions { frames: 1, ..Default::default() };
    toyworld::Stream::generate(toyworld::seeds::VALIDATION.start + seed, &options)
        .frame(0, SIDE, SIDE)
}

fn frame(rgb: &[u8], time: f64) -> Frame {
    Frame::new(rgb.to_vec(), SIDE, SIDE, time).unwrap()
}

/// The picture with these patches inverted.
fn inverted(rgb: &[u8], patches: &[usize]) -> Vec<u8> {
    let of = |at: usize| {
        let (x, y) = (at / 3 % SIDE, at / 3 / SIDE);
        y / PATCH * (SIDE / PATCH) + x / PATCH
    };
    let grey = |(at, &grey): (usize, &u8)| if patches.contains(&of(at)) { !grey } else { grey };
    rgb.iter().enumerate().map(grey).collect()
}

/// The tokens of each frame, as a stream makes them.
fn tokens(model: &VideoLlm, frames: &[Frame], reuse: &mut Reuse) -> Vec<Vec<f32>> {
    let picture = model.picture(&frames[0]).unwrap();
    let tokens = model.encode_reusing(frames, &picture, reuse, &Cancel::new()).unwrap();
    tokens.flatten_from(1).unwrap().to_vec2().unwrap()
}

fn whole(model: &VideoLlm, frames: &[Frame]) -> Vec<Vec<f32>> {
    tokens(model, frames, &mut Reuse::default())
}

/// Length of the difference over the length of what is right.
fn error(found: &[f32], right: &[f32]) -> f32 {
    let square = |x: f32| x * x;
    let difference: f32 = found.iter().zip(right).map(|(a, b)| square(a - b)).sum();
    (difference / right.iter().copied().map(square).sum::<f32>()).sqrt()
}

#[test]
fn a_picture_that_is_seen_again_costs_nothing_and_gives_the_same() {
    let model = toyworld_model();
    let still = scene(1);
    let frames: Vec<Frame> = (0..6).map(|i| frame(&still, f64::from(i))).collect();
    let mut reuse = Reuse::new(options(100, 0.0));
    let found = tokens(&model, &frames, &mut reuse);
    assert_eq!(reuse.total(), 5 * PATCHES);
    assert!(found.iter().all(|tokens| *tokens == found[0]));
    assert_close(&found[0], &whole(&model, &frames[..1])[0], 1e-6, "the reference");
}

#[test]
fn what_changed_is_seen_as_it_is() {
    let model = toyworld_model();
    let first = scene(2);
    let changed = inverted(&first, &[5, 6, 9]);
    let frames = [frame(&first, 0.0), frame(&changed, 1.0), frame(&first, 2.0)];
    let mut reuse = Reuse::new(options(100, 4.0));
    let found = tokens(&model, &frames, &mut reuse);
    assert_eq!(reuse.total(), 2 * PATCHES - 3);
    let right = whole(&model, &frames);
    let (lost, moved) = (error(&found[1], &right[1]), error(&right[0], &right[1]));
    println!("relative error of the tokens {lost:.4}, and {moved:.4} if nothing had been seen");
    // Nothing is taken from the tokens of a frame that took itself.
    assert_eq!(found[2], found[0]);
    assert!(lost < moved, "{lost} of {moved}");
}

#[test]
fn where_nothing_can_be_taken_the_frame_is_exact() {
    let model = toyworld_model();
    let first = scene(3);
    // A quarter of the patches may change; one more is a cut.
    let some = inverted(&first, &(0..4).collect::<Vec<_>>());
    let more = inverted(&first, &(0..5).collect::<Vec<_>>());
    let frames = [&first, &some, &more, &more].map(|rgb| frame(rgb, 0.0));
    let mut reuse = Reuse::new(options(100, 0.0));
    let found = tokens(&model, &frames, &mut reuse);
    assert_eq!(reuse.total(), PATCHES - 4 + PATCHES);
    let right = whole(&model, &frames);
    assert_close(&found[2], &right[2], 1e-6, "after a cut");
    assert_eq!(found[3], found[2], "the cut is the new reference");
    assert!(error(&found[1], &right[1]) > 1e-4, "not all of it was looked at");

    // Another size, another shape, a time that goes back, and after what is not remembered.
    let small = Frame::new(vec![9; 3 * 28 * 28], 28, 28, 1.0).unwrap();
    let wide = frame(&more, 2.0).shown_as(70, 56).unwrap();
    for next in [small, wide, frame(&more, -1.0)] {
        let before = reuse.total();
        tokens(&model, &[next], &mut reuse);
        assert_eq!(reuse.total(), before);
    }
    let before = reuse.total();
    reuse.forget();
    tokens(&model, &[frame(&more, 3.0)], &mut reuse);
    assert_eq!(reuse.total(), before);
}

#[test]
fn so_many_frames_take_from_one_and_no_more() {
    let model = toyworld_model();
    let first = scene(4);
    let changed = inverted(&first, &[0]);
    // The reference is the first of four.
    let frames: Vec<Frame> =
        (0..9).map(|i| frame(if i % 4 == 0 { &first } else { &changed }, f64::from(i))).collect();
    for at_once in [1, 4, 9] {
        let mut stream = stream(&model, "rekv", options(3, 0.0));
        frames.chunks(at_once).for_each(|frames| stream.push_frames(frames).unwrap());
        assert_eq!(stream.stats().reused, 6 * (PATCHES - 1), "{at_once}");
        // Behind the end of a stretch of video nothing is taken from what was before.
        stream.flush().unwrap();
        stream.push(&frame(&first, 9.0)).unwrap();
        assert_eq!(stream.stats().reused, 6 * (PATCHES - 1), "{at_once}");
        stream.clear().unwrap();
        assert_eq!(stream.stats().reused, 0);
    }
    let mut off = stream(&model, "rekv", ReuseOptions::default());
    off.push_frames(&frames).unwrap();
    assert_eq!(off.stats().reused, 0);
}

#[test]
fn streams_that_share_a_model_do_not_mix() {
    let model = toyworld_model();
    let scenes = [5, 6].map(|seed| {
        let first = scene(seed);
        let changed = inverted(&first, &[3, 7]);
        [frame(&first, 0.0), frame(&changed, 1.0), frame(&first, 2.0)]
    });
    let mut alone = [(); 2].map(|()| Reuse::new(options(9, 0.0)));
    let right: Vec<_> = scenes
        .iter()
        .zip(&mut alone)
        .map(|(frames, reuse)| tokens(&model, frames, reuse))
        .collect();
    let mut both = [(); 2].map(|()| Reuse::new(options(9, 0.0)));
    for at in 0..3 {
        let turns = scenes.iter().zip(&mut both).zip(&right);
        std::thread::scope(|scope| {
            for ((frames, reuse), right) in turns {
                let (model, next) = (&model, &frames[at..=at]);
                scope.spawn(move || {
                    let found = tokens(model, next, reuse);
                    assert_close(&found[0], &right[at], 1e-6, "beside another");
                });
            }
        });
    }
    assert_eq!(both.map(|reuse| reuse.total()), [2 * PATCHES - 2; 2]);
}

#[test]
fn a_call_that_is_cancelled_leaves_the_reference_as_it_was() {
    let model = toyworld_model();
    let first = scene(7);
    let next = frame(&inverted(&first, &[1]), 1.0);
    let picture = model.picture(&next).unwrap();
    let mut reuse = Reuse::new(options(9, 0.0));
    tokens(&model, &[frame(&first, 0.0)], &mut reuse);
    let cancel = Cancel::new();
    cancel.raise();
    let stopped = model.encode_reusing(std::slice::from_ref(&next), &picture, &mut reuse, &cancel);
    assert!(matches!(stopped, Err(EngineError::Cancelled)));
    let found = tokens(&model, std::slice::from_ref(&next), &mut reuse);
    let mut other = Reuse::new(options(9, 0.0));
    let right = tokens(&model, &[frame(&first, 0.0), next], &mut other);
    assert_eq!((&found[0], reuse.total()), (&right[1], other.total()));
}

#[test]
fn every_method_takes_it() {
    let model = toyworld_model();
    let first = scene(8);
    let frames: Vec<Frame> =
        (0..12).map(|i| frame(&inverted(&first, &[i as usize]), f64::from(i))).collect();
    for method in Recipe::names() {
        let mut stream = stream(&model, method, options(5, 2.0));
        frames.chunks(5).for_each(|frames| stream.push_frames(frames).unwrap());
        // The reference of the first six is the first, of the others the seventh; each differs from it
        // by the patch that is inverted there and its own.
        assert_eq!(stream.stats().reused, 10 * (PATCHES - 2), "{method}");
        stream.ask(&Question::new("what is there now?"), |_| {}).unwrap();
    }
}

#[test]
fn a_tower_that_cannot_do_it_says_so_and_sees_everything() {
    let model = VideoLlm::load(fixture("qwen-wide"), &LoadOptions::default()).unwrap();
    let video = toyworld::Stream::generate(
        toyworld::seeds::VALIDATION.start,
        &toyworld::StreamOptions { frames: 2, ..Default::default() },
    );
    let frames = painted(&video);
    let mut stream = stream(&model, "rekv", options(9, 255.0));
    let warnings: Vec<String> = stream.take_warnings().iter().map(ToString::to_string).collect();
    assert!(warnings.iter().any(|warning| warning.contains("tower-reuse")), "{warnings:?}");
    stream.push_frames(&frames).unwrap();
    assert_eq!((stream.stats().reused, stream.stats().units), (0, 1));
    let quiet = self::stream(&model, "rekv", ReuseOptions::default());
    assert!(quiet.take_warnings().iter().all(|warning| !warning.to_string().contains("reuse")));
}
