// SPDX-License-Identifier: MPL-2.0
//! Qwen2.5-VL in a pipeline: two frames a unit, pictures of any shape.

use gst::prelude::*;
use gstreamer as gst;
use gststreamkvqa::{LoadOptions, VideoLlm};

use crate::pipeline::*;

/// Five frames of 90 x 64, one a second: an odd number.
const FIXTURE: &str = "tests/fixtures/qwen-wide";

fn rig(method: &str) -> Rig {
    Rig::raw(&format!(
        "appsrc name=source format=time ! streamkvqa name=qa model-path={} method={method} \
         sample-rate=1/1 max-tokens=12 ! fakesink",
        path(FIXTURE)
    ))
}

/// The frame at `second`, packed RGB as GStreamer lays it out, rows aligned to four bytes.
fn push(rig: &Rig, second: u64, rgb: &[u8], width: usize, height: usize) {
    let mut rows = Vec::with_capacity((3 * width).next_multiple_of(4) * height);
    for row in rgb.chunks_exact(3 * width) {
        rows.extend_from_slice(row);
        rows.resize(rows.len().next_multiple_of(4), 0);
    }
    let mut buffer = gst::Buffer::from_mut_slice(rows);
    {
        let buffer = buffer.get_mut().unwrap();
        buffer.set_pts(gst::ClockTime::from_seconds(second));
        buffer.set_duration(gst::ClockTime::from_seconds(1));
    }
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", "RGB")
        .field("width", width as i32)
        .field("height", height as i32)
        .field("framerate", gst::Fraction::new(1, 1))
        .build();
    let sample = gst::Sample::builder().buffer(&buffer).caps(&caps).build();
    let flow: gst::FlowReturn = rig.element("source").emit_by_name("push-sample", &[&sample]);
    assert_eq!(flow, gst::FlowReturn::Ok);
}

fn push_fixture(rig: &Rig) -> u64 {
    let file = path(&format!("{FIXTURE}/expected.safetensors"));
    let tensors = candle_core::safetensors::load(file, &candle_core::Device::Cpu).unwrap();
    let frames = &tensors["frames"];
    let (n, height, width, _) = frames.dims4().unwrap();
    for i in 0..n {
        let rgb = frames.get(i).unwrap().flatten_all().unwrap().to_vec1::<u8>().unwrap();
        push(rig, i as u64, &rgb, width, height);
    }
    n as u64
}

fn end(rig: &Rig) {
    let flow: gst::FlowReturn = rig.element("source").emit_by_name("end-of-stream", &[]);
    assert_eq!(flow, gst::FlowReturn::Ok);
}

/// The whole way: sampling, conversion, the frame without a partner, places in time, prompt.
#[test]
fn a_pipeline_that_keeps_everything_answers_like_stock_generate() {
    let json = std::fs::read(path(&format!("{FIXTURE}/expected.json"))).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let model = VideoLlm::load(path(FIXTURE), &LoadOptions::default()).unwrap();
    for (compat, rule) in [(false, "greedy_ids"), (true, "compat_greedy_ids")] {
        let rig = rig("full");
        let asked = &expected["questions"][0];
        rig.qa().set_property("mrope-compat", compat);
        rig.qa().set_property("question", asked["question"].as_str().unwrap());
        rig.play();
        push_fixture(&rig);
        end(&rig);
        let answer = rig.answers().remove(0);
        let ids: Vec<u32> = serde_json::from_value(asked[rule].clone()).unwrap();
        assert_eq!(answer.text("answer"), model.prompts().decode(&ids).unwrap(), "{rule}");
    }
}

#[test]
fn pictures_may_change_their_shape_in_mid_stream() {
    for method in ["streamkv", "rekv", "sliding-window", "full"] {
        let rig = rig(method);
        rig.qa().set_property("question", "what?");
        rig.play();
        let next = push_fixture(&rig);
        for (second, (width, height)) in (next..).zip([(64, 90), (200, 20), (90, 64)]) {
            push(&rig, second, &vec![200; 3 * width * height], width, height);
        }
        end(&rig);
        let answer = rig.answers().remove(0);
        assert_eq!(answer.status(), "ok", "{method}");
        assert_eq!(rig.stat("encoded"), 8, "{method}");
    }
}
