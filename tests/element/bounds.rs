// SPDX-License-Identifier: MPL-2.0
//! How much is remembered: a share of the machine where nobody says, and what `max-memory` says.

use gstreamer as gst;

use crate::copy::Copy;
use crate::pipeline::*;

/// An element that is asked nothing and stays, with a model that no other test shares.
fn rig(model: &Copy, properties: &str) -> Rig {
    let rig = Rig::raw(&format!(
        "videotestsrc is-live=true {BALL} ! streamkvqa name=qa sample-rate=10/1 model-path={} \
         {properties} ! fakesink",
        model.dir().display()
    ));
    rig.play();
    rig
}

fn limit(rig: &Rig) -> u64 {
    rig.until("a frame", |stats| stats.get::<u64>("encoded").unwrap() > 0);
    rig.stat("memory-limit")
}

#[test]
fn elements_that_share_a_model_share_half_of_what_is_free() {
    let model = Copy::of("ov-even");
    let first = rig(&model, "");
    let all = limit(&first);
    // Less than half of the machine, and enough to remember something.
    assert!(all > 1 << 20, "{all}");
    let becomes = |rig: &Rig, bytes: u64| {
        rig.until("another share", |stats| stats.get::<u64>("memory-limit").unwrap() == bytes);
    };
    let second = rig(&model, "");
    assert_eq!(limit(&second), all / 2);
    becomes(&first, all / 2);
    // Who says how much takes no share.
    let third = rig(&model, "max-memory=3000000");
    assert_eq!((limit(&third), limit(&second)), (3_000_000, all / 2));
    second.stop();
    becomes(&first, all);
}

/// A stream of sixteen times the bound.
#[test]
fn a_bound_is_kept_and_the_oldest_is_still_there() {
    const FRAMES: u64 = 320;
    let stream = |properties: &str| {
        let rig = Rig::new(&format!(
            "videotestsrc num-buffers={FRAMES} {BALL} ! QA sample-rate=10/1 method=rekv max-queue=1 \
             leaky=never {properties} ! fakesink"
        ));
        rig.play().eos();
        // Answered when all that came before it is seen.
        let id = rig.ask("what was there?");
        let answer = rig.answer();
        assert_eq!((answer.id(), answer.status()), (id, "ok".into()));
        assert_eq!(rig.stat("encoded"), FRAMES);
        let (bytes, limit) = (rig.stat("memory-bytes"), rig.stat("memory-limit"));
        assert!(bytes <= limit, "{bytes} of {limit}");
        (bytes, rig.stat("units"), rig)
    };
    // A window is what new frames see, not what is remembered: it has to have room besides.
    let (free, units, _) = stream("method-options=window=64");
    assert_eq!(units, FRAMES);
    let bound = free / 16;
    let (held, thinned, _) = stream(&format!("max-memory={bound} method-options=window=64"));
    assert!(held > bound / 2, "{held} of {bound}");
    // Thinned and not cut off: it is of more frames than have room.
    let (_, dropped, _) = stream(&format!("max-memory={bound} method-options=window=64,thin=none"));
    assert!(dropped < FRAMES / 8 && thinned > dropped, "{thinned} and {dropped} units");
}

/// What is remembered of an hour and forty minutes, by age.
#[test]
fn stats_say_how_old_what_is_remembered_is() {
    for (method, resident) in [("rekv", false), ("streammem", true)] {
        let rig = Rig::new(&format!(
            "videotestsrc num-buffers=64 pattern=ball ! \
             video/x-raw,width=56,height=56,framerate=1/100 ! QA method={method} max-queue=1 \
             leaky=never ! fakesink"
        ));
        rig.play().eos();
        let ages = |stats: &gst::Structure| -> Vec<(u64, u64, u64)> {
            let list: gst::List = stats.get("ages").unwrap();
            let age = |value: &glib::SendValue| {
                let age: gst::Structure = value.get().unwrap();
                let field = |name| age.get::<u64>(name).unwrap();
                (field("oldest") / 1_000_000_000, field("units"), field("bytes"))
            };
            list.iter().map(age).collect()
        };
        rig.until("ages", |stats| {
            let told: u64 = ages(stats).iter().map(|age| age.1).sum();
            let (seen, units): (u64, u64) =
                (stats.get("encoded").unwrap(), stats.get("units").unwrap());
            seen == 64 && told == units
        });
        let ages = ages(&rig.stats());
        let bytes: u64 = ages.iter().map(|age| age.2).sum();
        let all = rig.stat("memory-bytes");
        assert!(bytes <= all && bytes > all / 4, "{method}: {bytes} of {all}");
        if !resident {
            // A minute, ten, an hour, six: a frame comes every hundred seconds.
            let expected = [(0, 1), (600, 6), (3600, 30), (6300, 27)];
            let told: Vec<_> = ages.iter().map(|&(oldest, units, _)| (oldest, units)).collect();
            assert_eq!(told, expected);
            assert!(ages.iter().all(|age| age.2 / age.1 == ages[0].2), "{ages:?}");
        }
    }
}
