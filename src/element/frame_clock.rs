// SPDX-License-Identifier: MPL-2.0
//! One idea of time for schedule, sampler, engine and text pad.
//!
//! Stamps of frames cannot be trusted: a camera that reconnects starts at zero again, one frame is
//! an hour ahead, a player loops without a word. *Element time* is the running time of the frames
//! for as long as that is plausible, and goes on where it is not:
//!
//! * A step back is a clock that started again: element time goes on from where it was.
//! * A leap ahead is believed once the next frame follows it. Until then the frame counts as the
//!   next one, so that a single wild stamp makes no question fall due.
//! * Stamps that come back to where they left their course are believed at once.
//! * In a live pipeline the pipeline's clock says how much time has passed where stamps do not, and
//!   element time never lags far behind it.

use gst::ClockTime;
use gstreamer as gst;

/// Times beyond this (146 years) are negative numbers that were taken for positive ones, and no
/// times at all. Sums of four times below it fit u64.
pub(super) const MAX_TIME: ClockTime = ClockTime::from_nseconds(u64::MAX / 4);

/// Frames may be out of order by so much.
const DISORDER: i128 = 200_000_000;
/// The longest hole in a file that its first frame alone is believed.
const LEAP: i128 = 60_000_000_000;
/// How far stamps of a live source may run ahead of the clock from one frame to the next.
const LIVE_LEAP: i128 = 2_000_000_000;
/// A step that is believed at once, but may turn out to have been wild.
const LONG_STEP: i128 = 1_000_000_000;
/// How long a course that was left is remembered.
const MEMORY: i128 = 10_000_000_000;
/// No distance between two frames is expected to be longer.
const LONGEST_STRIDE: i128 = 3_600_000_000_000;
/// More frames in a row whose stamps do not go on are no disorder.
const STUCK: u32 = 16;

/// How a frame came to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Its stamp follows the one before.
    Steady,
    /// So it does, but after more time than there mostly is between two.
    Late,
    /// Its stamp is far ahead; whether to believe it is up to the next frame.
    Leapt,
    /// Stamps went back, or the clock says they are wrong: time goes on.
    Restarted,
    /// Stamps are back where they left their course.
    Returned,
}

/// A frame on element time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tick {
    pub time: ClockTime,
    pub pass: Pass,
}

/// A frame as it was placed, all in ns.
#[derive(Clone, Copy, Debug)]
struct Mark {
    running: i128,
    time: i128,
    /// How far away the next frame may be expected.
    stride: i128,
    /// The clock when it came, in a live pipeline.
    now: Option<i128>,
}

impl Mark {
    /// Element time of a stamp, if it may plausibly follow this one.
    fn follow(&self, running: i128, now: Option<i128>) -> Option<i128> {
        let reach = self.passed(now).map_or(self.stride + LEAP, |passed| passed + LIVE_LEAP);
        let step = running - self.running;
        (-DISORDER..=reach).contains(&step).then_some(self.time + step)
    }

    /// Whether more time lies between than there mostly does.
    fn is_late(&self, running: i128) -> bool {
        running - self.running > self.stride + LONG_STEP
    }

    /// How much time has passed by the clock.
    fn passed(&self, now: Option<i128>) -> Option<i128> {
        Some((now? - self.now?).max(0))
    }
}

/// Stamps left a course lately.
#[derive(Clone, Copy, Debug)]
struct Departure {
    from: Mark,
    /// Element time from which on the new course counts.
    since: i128,
    /// By a leap that the next frame has to confirm.
    unproven: bool,
}

#[derive(Debug, Default)]
pub(super) struct FrameClock {
    last: Option<Mark>,
    departure: Option<Departure>,
    /// The highest stamp of this course, and how many frames in a row did not go beyond it.
    highest: i128,
    stuck: u32,
    told: i128,
}

impl FrameClock {
    /// The next frame; `duration` is its own, `now` the clock in a live pipeline.
    pub fn frame(
        &mut self,
        running: ClockTime,
        duration: ClockTime,
        now: Option<ClockTime>,
    ) -> Tick {
        let (running, now) = (ns(running), now.map(ns));
        let duration = ns(duration).min(LONGEST_STRIDE);
        let Some(last) = self.last else {
            self.last = Some(Mark { running, time: running, stride: duration, now });
            (self.highest, self.told) = (running, running);
            return Tick { time: time(running), pass: Pass::Steady };
        };
        let (mut at, mut pass) = self.place(last, running, now);
        self.stuck = if running > self.highest { 0 } else { self.stuck + 1 };
        match pass {
            Pass::Steady if self.stuck > STUCK => {
                (at, pass) = (self.told + duration.min(LONG_STEP), Pass::Restarted);
                self.stuck = STUCK;
            }
            Pass::Steady | Pass::Late => self.highest = self.highest.max(running),
            _ => (self.highest, self.stuck) = (running, 0),
        }
        let step = if pass == Pass::Returned { 0 } else { running - last.running };
        let stride = duration.max(step.min(LONGEST_STRIDE));
        self.last = Some(Mark { running, time: at, stride, now });
        // Frames out of order do not turn time back.
        self.told = if pass == Pass::Returned { at } else { at.max(self.told) };
        Tick { time: time(self.told), pass }
    }

    fn place(&mut self, last: Mark, running: i128, now: Option<i128>) -> (i128, Pass) {
        let on = last.follow(running, now);
        let back = self.departure.and_then(|departure| {
            let next = departure.from.follow(running, now)?;
            // Of two long steps the shorter one.
            let shorter = last.is_late(running) && departure.from.running > last.running;
            (on.is_none() || shorter).then_some(next)
        });
        if let Some(next) = back {
            self.departure = None;
            return (next, Pass::Returned);
        }
        if let Some(next) = on {
            return self.go_on(last, running, next, now.is_some());
        }
        let ahead = running > last.running;
        let next = last.time + last.passed(now).unwrap_or(last.stride.min(LONG_STEP));
        // A wild stamp is no course that one could come back to.
        let from = match self.departure {
            Some(Departure { from, unproven: true, .. }) => from,
            _ => last,
        };
        self.departure = Some(Departure { from, since: next, unproven: ahead });
        (next, if ahead { Pass::Leapt } else { Pass::Restarted })
    }

    /// A frame that follows the last one.
    fn go_on(&mut self, last: Mark, running: i128, next: i128, live: bool) -> (i128, Pass) {
        let late = last.is_late(running);
        let pass = if late { Pass::Late } else { Pass::Steady };
        match &mut self.departure {
            Some(departure) if departure.unproven => {
                // The leap was true; live, the clock has the last word.
                let from = departure.from;
                let next = if live { next } else { from.time + running - from.running };
                (departure.unproven, departure.since) = (false, next);
                return (next, pass);
            }
            Some(departure) if next - departure.since > MEMORY => self.departure = None,
            None if late => {
                self.departure = Some(Departure { from: last, since: next, unproven: false });
            }
            _ => {}
        }
        (next, pass)
    }

    /// A gap in the stream explains a hole up to its end.
    pub fn gap(&mut self, end: ClockTime) {
        if let Some(last) = &mut self.last {
            last.stride = last.stride.max(ns(end) - last.running);
        }
    }

    /// Element time by the clock, while no frame comes.
    pub fn estimate(&self, now: ClockTime) -> Option<ClockTime> {
        let passed = self.last?.passed(Some(ns(now)))?;
        Some(time(self.told + passed))
    }
}

fn ns(time: ClockTime) -> i128 {
    time.nseconds().into()
}

fn time(ns: i128) -> ClockTime {
    let ns = u64::try_from(ns.max(0)).unwrap_or(u64::MAX);
    ClockTime::from_nseconds(ns.min(u64::MAX / 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAME: ClockTime = ClockTime::from_mseconds(40);

    fn ms(ms: u64) -> ClockTime {
        ClockTime::from_mseconds(ms)
    }

    /// Element times, in ms, of frames that are stamped with `stamps`, in ms, in a file.
    fn file(stamps: impl IntoIterator<Item = u64>) -> (Vec<u64>, Vec<Pass>) {
        let mut clock = FrameClock::default();
        let ticks = stamps.into_iter().map(|stamp| clock.frame(ms(stamp), FRAME, None));
        ticks.map(|tick| (tick.time.mseconds(), tick.pass)).unzip()
    }

    /// The same in a live pipeline, of pairs of a stamp and the clock.
    fn live(frames: &[(u64, u64)]) -> Vec<u64> {
        let mut clock = FrameClock::default();
        let tick = |&(stamp, now)| clock.frame(ms(stamp), FRAME, Some(ms(now)));
        frames.iter().map(tick).map(|tick| tick.time.mseconds()).collect()
    }

    #[test]
    fn plausible_stamps_are_element_time() {
        for stamps in [[100, 140, 180, 220], [0, 5000, 10_000, 15_000], [0, 40, 50_000, 50_040]] {
            let (times, passes) = file(stamps);
            assert_eq!(times, stamps);
            assert!(passes.iter().all(|pass| matches!(pass, Pass::Steady | Pass::Late)));
            assert_eq!(passes[3], Pass::Steady, "{passes:?}");
        }
    }

    #[test]
    fn a_clock_that_starts_again_goes_on() {
        let (times, passes) = file([4960, 5000, 0, 40, 80]);
        assert_eq!(times, [4960, 5000, 5040, 5080, 5120]);
        assert_eq!(passes[2], Pass::Restarted);
    }

    #[test]
    fn one_wild_stamp_changes_nothing() {
        for wild in [3_690_000, 200_000, 0, 45_000] {
            let (times, passes) = file([89_960, 90_000, wild, 90_080]);
            assert_eq!(times, [89_960, 90_000, 90_040, 90_080], "{wild}");
            assert_eq!(passes[3], Pass::Returned);
        }
    }

    #[test]
    fn a_few_wild_stamps_are_come_back_from() {
        let (times, _) = file([5000, 3_605_000, 3_605_040, 3_605_080, 5160, 5200]);
        assert_eq!(times[4..], [5160, 5200]);
        let (times, _) = file([5000, 35_000, 5080, 5120]);
        assert_eq!(times[2..], [5080, 5120]);
    }

    #[test]
    fn a_true_leap_is_believed_with_its_second_frame() {
        let (times, passes) = file([5000, 605_000, 605_040, 605_080]);
        assert_eq!(times, [5000, 5040, 605_040, 605_080]);
        assert_eq!(passes[1], Pass::Leapt);
        // Slides.
        let (times, _) = file([0, 90_000, 180_000, 270_000]);
        assert_eq!(times[2..], [180_000, 270_000]);
    }

    #[test]
    fn a_gap_explains_a_hole() {
        let mut clock = FrameClock::default();
        clock.frame(ms(0), FRAME, None);
        clock.gap(ms(600_000));
        assert_eq!(clock.frame(ms(600_000), FRAME, None).time, ms(600_000));
    }

    #[test]
    fn frames_out_of_order_do_not_turn_time_back() {
        let (times, _) = file([0, 120, 40, 80, 160]);
        assert_eq!(times, [0, 120, 120, 120, 160]);
    }

    #[test]
    fn stamps_that_stand_still_are_counted() {
        let (times, _) = file([7; 40]);
        assert!(*times.last().unwrap() > 800, "{times:?}");
    }

    #[test]
    fn live_the_clock_says_what_wild_stamps_do_not() {
        // A reconnection after three seconds.
        assert_eq!(live(&[(5000, 5100), (0, 8100), (40, 8140)]), [5000, 8000, 8040]);
        // An hour ahead, and back.
        let times = live(&[(5000, 5100), (3_605_000, 5140), (5080, 5180)]);
        assert_eq!(times, [5000, 5040, 5080]);
        // An hour ahead for good.
        let times = live(&[(5000, 5100), (3_605_000, 5140), (3_605_040, 5180)]);
        assert_eq!(times, [5000, 5040, 5080]);
        // A burst after a stall keeps its stamps.
        let times = live(&[(5000, 5100), (5040, 9000), (5080, 9001), (5120, 9002)]);
        assert_eq!(times, [5000, 5040, 5080, 5120]);
    }

    #[test]
    fn while_no_frame_comes_the_clock_goes_on() {
        let mut clock = FrameClock::default();
        assert_eq!(clock.estimate(ms(1)), None);
        clock.frame(ms(5000), FRAME, Some(ms(5200)));
        assert_eq!(clock.estimate(ms(7200)), Some(ms(7000)));
    }

    proptest! {
        /// Whatever came before, a second of steady frames takes about a second.
        #[test]
        fn no_stamp_stops_time(
            stamps in prop::collection::vec((0..=MAX_TIME.nseconds(), 0..u64::MAX), 0..40),
            start in 0..=MAX_TIME.nseconds() - 2_000_000_000,
            is_live: bool,
        ) {
            let mut clock = FrameClock::default();
            let mut now = 0;
            let mut tick = |stamp: u64, duration: u64| {
                now += 40;
                let clock_now = is_live.then(|| ms(now));
                let duration = ClockTime::from_nseconds(duration);
                clock.frame(ClockTime::from_nseconds(stamp), duration, clock_now).time.mseconds()
            };
            for (stamp, duration) in stamps {
                tick(stamp, duration);
            }
            tick(start, 40_000_000);
            let first = tick(start + 40_000_000, 40_000_000);
            let last = (2..28).map(|k| tick(start + k * 40_000_000, 40_000_000)).last().unwrap();
            prop_assert!(last >= first + 700, "{first} .. {last}");
        }
    }
}
