// SPDX-License-Identifier: MPL-2.0
//! How much is remembered: a share of the machine where nobody says, and what `max-memory` says.

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
