// SPDX-License-Identifier: MPL-2.0
//! Many live cameras on one model: a day of a frame a minute, thirty of its minutes in a second.

use gst::prelude::*;
use gstreamer as gst;

use crate::copy::Copy;
use crate::pipeline::*;

const CAMERAS: usize = 16;
const MINUTES: u64 = 24 * 60;
const MINUTES_A_SECOND: u64 = 30;
/// An hour of them.
const HOUR: u64 = 60 * 1_000_000_000 / MINUTES_A_SECOND;
/// As many frames wait, and as many are at hand.
const MOST_WAITING: u64 = 8;
/// For a day, on a machine that is busy with other things.
const LONGEST: gst::ClockTime = gst::ClockTime::from_seconds(300);

/// A day of all cameras, each asked once an hour.
fn day(model: &Copy) -> Rig {
    let camera = |at: usize| {
        format!(
            "videotestsrc is-live=true num-buffers={MINUTES} pattern=ball ! \
             video/x-raw,width=56,height=56,framerate={MINUTES_A_SECOND}/1 ! \
             streamkvqa name=camera{at} max-tokens=3 model-path={} sample-rate={MINUTES_A_SECOND}/1 \
             max-skip=0 max-queue={MOST_WAITING} question=\"what is here now?\" \
             question-interval={HOUR} ! fakesink ",
            model.dir().display()
        )
    };
    let rig = Rig::raw(&(0..CAMERAS).map(camera).collect::<String>());
    rig.play();
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = rig.bus.timed_pop_filtered(LONGEST, &ends).expect("the day ends");
    assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
    rig
}

#[test]
fn sixteen_live_cameras_pass_a_day_at_full_rate_and_share_the_model_fairly() {
    // One that no other test has a part in.
    let model = Copy::of("ov-even");
    let started = std::time::Instant::now();
    let rig = day(&model);
    // Nothing held the video up: the sources are live, and end when the day does.
    let seconds = MINUTES / MINUTES_A_SECOND;
    assert!(started.elapsed().as_secs() < seconds + 15, "{:?}", started.elapsed());
    let stats: Vec<gst::Structure> =
        (0..CAMERAS).map(|at| rig.element(&format!("camera{at}")).property("stats")).collect();
    let all = |name: &str| -> Vec<u64> { stats.iter().map(|s| s.get(name).unwrap()).collect() };
    assert_eq!(all("frames-in"), [MINUTES; CAMERAS]);
    assert_eq!(all("sampled"), [MINUTES; CAMERAS]);
    // The end of a live stream does not wait for the newest frames: those that wait, and those at hand.
    let (encoded, dropped) = (all("encoded"), all("dropped"));
    for (encoded, dropped) in encoded.iter().zip(&dropped) {
        let rest = MINUTES - encoded - dropped;
        assert!(rest <= 2 * MOST_WAITING, "{encoded} and {dropped} of {MINUTES}");
    }
    let (least, most) = (encoded.iter().min().unwrap(), encoded.iter().max().unwrap());
    assert!(*least > 0 && most * 2 <= least * 3, "{encoded:?}");
    // What is due while the one before is still to be answered is asked once.
    let answers = all("answers");
    assert!(answers.iter().all(|answers| *answers >= 16), "{answers:?}");
    let waits: Vec<f64> = stats.iter().map(|s| s.get("answer-ms-p95").unwrap()).collect();
    let (shortest, longest) =
        waits.iter().fold((f64::MAX, 0.0f64), |(a, b), wait| (a.min(*wait), b.max(*wait)));
    assert!(longest <= 4.0 * shortest + 50.0, "{waits:?}");
    assert_eq!(all("model-users"), [CAMERAS as u64; CAMERAS]);
}
