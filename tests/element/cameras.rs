// SPDX-License-Identifier: MPL-2.0
//! Many live cameras on one model, for a day that takes a minute: their clock goes as much faster.

use gst::prelude::*;
use gstreamer as gst;

use crate::pipeline::*;

const CAMERAS: usize = 16;
const SECONDS_A_FRAME: u64 = 60;
const FRAMES: u64 = 86_400 / SECONDS_A_FRAME;
/// As many frames wait, and as many are at hand.
const MOST_WAITING: u64 = 1;
/// For a day, on a machine that is busy with other things.
const LONGEST: gst::ClockTime = gst::ClockTime::from_seconds(300);
/// Seconds of the cameras' time in one of ours.
const PACE: u64 = 2_000;

/// A day of all cameras, each asked once an hour.
fn day() -> Rig {
    let camera = |at: usize| {
        format!(
            "videotestsrc is-live=true num-buffers={FRAMES} pattern=ball ! \
             video/x-raw,width=56,height=56,framerate=1/{SECONDS_A_FRAME} ! \
             streamkvqa name=camera{at} max-tokens=3 model-path={} sample-rate=1/{SECONDS_A_FRAME} \
             max-skip=0 max-queue={MOST_WAITING} question=\"what is here now?\" question-interval=3600000000000 ! fakesink ",
            model()
        )
    };
    let rig = Rig::raw(&(0..CAMERAS).map(camera).collect::<String>());
    let clock: gst::SystemClock = glib::Object::new();
    let now = clock.internal_time();
    clock.set_calibration(now, now, PACE, 1);
    rig.pipeline.use_clock(Some(&clock));
    rig.play();
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = rig.bus.timed_pop_filtered(LONGEST, &ends).expect("the day ends");
    assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
    rig
}

#[test]
fn sixteen_live_cameras_pass_a_day_at_full_rate_and_share_the_model_fairly() {
    let rig = day();
    let stats: Vec<gst::Structure> =
        (0..CAMERAS).map(|at| rig.element(&format!("camera{at}")).property("stats")).collect();
    let all = |name: &str| -> Vec<u64> { stats.iter().map(|s| s.get(name).unwrap()).collect() };
    assert_eq!(all("frames-in"), [FRAMES; CAMERAS]);
    assert_eq!(all("sampled"), [FRAMES; CAMERAS]);
    // The end of a live stream does not wait for the newest frames: those that wait, and those at hand.
    let (encoded, dropped) = (all("encoded"), all("dropped"));
    for (encoded, dropped) in encoded.iter().zip(&dropped) {
        let rest = FRAMES - encoded - dropped;
        assert!(rest <= 2 * MOST_WAITING, "{encoded} and {dropped} of {FRAMES}");
    }
    let (least, most) = (encoded.iter().min().unwrap(), encoded.iter().max().unwrap());
    // Who gets a core is not ours to say; who gets the model is.
    assert!(*least > 0 && *most <= least * 3, "{encoded:?}");
    // What is due while the one before is still to be answered is asked once.
    let answers = all("answers");
    assert!(answers.iter().all(|answers| *answers >= 12), "{answers:?}");
    let waits: Vec<f64> = stats.iter().map(|s| s.get("answer-ms-p95").unwrap()).collect();
    let (shortest, longest) =
        waits.iter().fold((f64::MAX, 0.0f64), |(a, b), wait| (a.min(*wait), b.max(*wait)));
    assert!(longest <= 4.0 * shortest + 50.0, "{waits:?}");
    assert_eq!(all("model-users"), [CAMERAS as u64; CAMERAS]);
}
