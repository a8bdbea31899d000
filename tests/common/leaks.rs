// SPDX-License-Identifier: MPL-2.0
//! What GStreamer's own tracer of leaks finds alive when the process of a test binary ends: no element, pad,
//! task, buffer, event, message or query of any test may be.
#![allow(dead_code)] // each test binary uses its part

use std::time::{Duration, Instant};

use gst::prelude::*;
use gstreamer as gst;

/// Switches the tracer on; before `gst::init`.
pub const VARIABLE: (&str, &str) = ("GST_TRACERS", "leaks");

/// Threads that a stopped element does not wait for let go within this time.
const PATIENCE: Duration = Duration::from_secs(10);

unsafe extern "C" {
    fn atexit(callback: extern "C" fn()) -> std::ffi::c_int;
    fn _exit(status: std::ffi::c_int) -> !;
}

/// Looks at the end of the process, when all tests are over; what is alive then makes it fail.
pub fn watch() {
    assert!(tracer().is_some(), "the leaks tracer is not there");
    // SAFETY: a function without arguments that lives as long as the process.
    assert_eq!(unsafe { atexit(check) }, 0);
}

fn tracer() -> Option<gst::Tracer> {
    gst::active_tracers().into_iter().find(|tracer| tracer.type_().name() == "GstLeaksTracer")
}

extern "C" fn check() {
    let deadline = Instant::now() + PATIENCE;
    let mut alive = alive();
    while !alive.is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
        alive = self::alive();
    }
    if !alive.is_empty() {
        eprintln!(
            "error: alive at the end of all tests, by GST_TRACERS=leaks:\n{}",
            alive.join("\n")
        );
        // SAFETY: ends the process; nothing is to run after this.
        unsafe { _exit(101) }
    }
}

/// What belongs to pipelines and is alive. Types, templates and their caps live as long as GStreamer does.
fn alive() -> Vec<String> {
    let Some(tracer) = tracer() else { return vec!["the tracer is gone".into()] };
    let all: gst::Structure = tracer.emit_by_name("get-live-objects", &[]);
    let Ok(all) = all.get::<gst::List>("live-objects-list") else {
        return vec![format!("the tracer says {all}")];
    };
    let of_pipelines = |value: &&glib::SendValue| {
        let object = value.get::<gst::Structure>().ok();
        let kind = object.and_then(|object| Some(object.value("object").ok()?.type_()));
        let Some(kind) = kind else { return true };
        let objects =
            [gst::Element::static_type(), gst::Pad::static_type(), gst::Task::static_type()];
        let minis = ["GstBuffer", "GstEvent", "GstMessage", "GstQuery", "GstSample"];
        objects.iter().any(|wanted| kind.is_a(*wanted)) || minis.contains(&kind.name())
    };
    let list = all.iter().filter(of_pipelines);
    list.map(|value| {
        value.get::<gst::Structure>().map_or_else(|e| e.to_string(), |s| s.to_string())
    })
    .collect()
}
