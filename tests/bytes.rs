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
}
