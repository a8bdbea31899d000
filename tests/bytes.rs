// SPDX-License-Identifier: MPL-2.0
//! What a stream's memory says that it holds is what the process holds for it.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{painted, toyworld_model};
use gststreamkvqa::memory::store::StoreOptions;
use gststreamkvqa::{Frame, Recipe, Stream, StreamOptions, VideoLlm};

/// Counts what is allocated.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are this one's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are this one's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn video(frames: usize) -> Vec<Frame> {
    let options = toyworld::StreamOptions { frames, ..Default::default() };
    painted(&toyworld::Stream::generate(toyworld::seeds::VALIDATION.start + 5, &options))
}

fn stream(model: &VideoLlm, method: &str, store: StoreOptions) -> Stream {
    let options = StreamOptions { store, ..StreamOptions::default() };
    Stream::open(model.clone(), Recipe::for_model(method, model).unwrap(), options).unwrap()
}

/// Bytes that the process and the stream's own account grow by between two moments of a stream.
fn growth(stream: &mut Stream, frames: &[Frame], counted: impl Fn(&Stream) -> u64) -> (f64, f64) {
    let (early, late) = frames.split_at(frames.len() / 4);
    let mut measured = Vec::new();
    for part in [early, late] {
        for chunk in part.chunks(8) {
            stream.push_frames(chunk).unwrap();
        }
        measured.push((HELD.load(Ordering::Relaxed) as f64, counted(stream) as f64));
    }
    let n = late.len() as f64;
    ((measured[1].0 - measured[0].0) / n, (measured[1].1 - measured[0].1) / n)
}

/// Goes on with frames of these numbers, by eights.
fn go_on(stream: &mut Stream, frames: &[Frame], numbers: std::ops::Range<usize>) {
    let numbered = |number: usize| {
        let frame = &frames[number % frames.len()];
        Frame::new(frame.rgb().to_vec(), frame.width(), frame.height(), number as f64).unwrap()
    };
    for first in numbers.step_by(8) {
        let chunk: Vec<Frame> = (first..first + 8).map(numbered).collect();
        stream.push_frames(&chunk).unwrap();
    }
}

/// A memory with a bound is full after some hundred frames; however many more come, nothing that this
/// process holds grows with them, the model's tables of positions included.
fn what_is_bounded_stays_within_its_bound(model: &VideoLlm, frames: &[Frame]) {
    const BOUND: u64 = 4 << 20;
    let mut store = StoreOptions::default();
    store.budget.device = Some(BOUND);
    let before = HELD.load(Ordering::Relaxed);
    let mut stream = stream(model, "auto", store);
    go_on(&mut stream, frames, 0..800);
    let full = HELD.load(Ordering::Relaxed) - before;
    go_on(&mut stream, frames, 800..4800);
    let later = HELD.load(Ordering::Relaxed) - before;
    println!("of {BOUND} bytes {full} are held after 800 frames and {later} after 4800");
    assert!(full as u64 <= BOUND, "{full} of {BOUND}");
    assert!(later as f64 <= full as f64 * 1.01, "{full} became {later}");
}

/// One test, because the allocator counts for all.
#[test]
fn what_is_held_is_counted() {
    let model = toyworld_model();
    let frames = video(160);
    // Tables and pools that everything shares are filled first, by whatever thread comes to it.
    let methods = ["auto", "rekv", "streamkv", "mukv", "memstream", "cacheflow"];
    for method in methods.into_iter().chain(["full"]) {
        stream(&model, method, StoreOptions::default()).push_frames(&frames).unwrap();
    }
    for method in methods {
        let mut stream = stream(&model, method, StoreOptions::default());
        let (held, counted) = growth(&mut stream, &frames, |stream| stream.stats().bytes);
        println!("{method}: {held:.0} bytes a frame held, {counted:.0} counted");
        assert!(
            (0.75..1.25).contains(&(held / counted)),
            "{method}: {held} held, {counted} counted"
        );
    }
    what_is_bounded_stays_within_its_bound(&model, &frames);
}
