// SPDX-License-Identifier: MPL-2.0
//! Three clocks and how they map.
//!
//! GStreamer's *running time* restarts after a flushing seek, its *stream time* jumps with every
//! seek. The engine wants *engine time*: seconds that never go back, because a memory that is kept
//! over a seek has seen one frame after the other. It passes as element time does (`frame_clock`),
//! which survives wild stamps. An epoch is a stretch in which the clocks run in parallel; evidence is
//! mapped back through the epoch it falls into.

mod saved;

use std::collections::VecDeque;

use gst::ClockTime;
use gstreamer as gst;

pub(super) use self::saved::Saved;
use super::question::Bound;

/// A camera that reconnects for months must not grow a table for months: beyond so many, the one is given up
/// that its neighbour stands in for with the least error.
const MAX_EPOCHS: usize = 1024;
/// Clocks that part by less still run in parallel.
const TOLERANCE: ClockTime = ClockTime::from_mseconds(1);
/// The time of day is not looked at so closely: it is read, set and slewed while the video runs.
const WALL_TOLERANCE: ClockTime = ClockTime::from_mseconds(500);

/// A clock that is not known is as wrong as one that is off by so much.
const UNTOLD: ClockTime = ClockTime::from_seconds(24 * 3600);

/// When something was: on the running clock and, where it is known, on the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moment {
    pub running: ClockTime,
    pub stream: Option<ClockTime>,
    /// Nanoseconds since 1970, from the sender's reference timestamp or the local clock.
    pub wall: Option<u64>,
}

/// From one moment to another. Stream time runs forwards here, however it was played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stretch {
    pub start: Moment,
    pub end: Moment,
    /// It was seen in an earlier run, of which the memory was kept in a file: its running time is that
    /// run's.
    pub restored: bool,
}

#[derive(Clone, Copy, Debug)]
struct Epoch {
    engine: ClockTime,
    running: ClockTime,
    stream: Option<ClockTime>,
    wall: Option<u64>,
    /// Stream time that passes per running time; negative in reverse playback.
    rate: f64,
    /// The newest frame of the epoch.
    last: ClockTime,
    /// For how long a frame stands.
    period: ClockTime,
    /// Of an earlier run.
    restored: bool,
}

impl Epoch {
    fn running_at(&self, engine: ClockTime) -> ClockTime {
        self.running.saturating_add(engine.saturating_sub(self.engine))
    }

    /// Whether a frame tells another time of day than this epoch would, or the first one.
    fn is_corrected(&self, engine: ClockTime, wall: Option<u64>) -> bool {
        let passed = engine.saturating_sub(self.engine).nseconds();
        let apart = |wall: u64| match self.wall {
            Some(known) => known.saturating_add(passed).abs_diff(wall),
            None => u64::MAX,
        };
        wall.is_some_and(|wall| apart(wall) > WALL_TOLERANCE.nseconds())
    }

    /// What would be told wrongly if its frames went by the clocks of another epoch before it: by how much,
    /// times for how long, in units that only compare.
    fn apart(&self, before: &Self) -> u128 {
        let told = before.at(self.engine);
        let clock = |told: Option<u64>, is: Option<u64>| match (told, is) {
            (Some(told), Some(is)) => told.abs_diff(is),
            (None, None) => 0,
            _ => UNTOLD.nseconds(),
        };
        let nanoseconds = |time: Option<ClockTime>| time.map(ClockTime::nseconds);
        let by = [
            clock(Some(told.running.nseconds()), Some(self.running.nseconds())),
            clock(nanoseconds(told.stream), nanoseconds(self.stream)),
            clock(told.wall, self.wall),
        ];
        // Another run, or another speed, is never told as this one.
        let alike = before.restored == self.restored && before.rate == self.rate;
        let by = by.into_iter().map(u128::from).max().unwrap_or(0);
        if alike { by.saturating_mul(self.lasts().nseconds().into()) } else { u128::MAX }
    }

    /// For how long it lasts, its last frame included.
    fn lasts(&self) -> ClockTime {
        self.last.saturating_sub(self.engine).saturating_add(self.period)
    }

    fn at(&self, engine: ClockTime) -> Moment {
        let passed = engine.saturating_sub(self.engine);
        let stream = self.stream.map(|base| {
            let passed = passed.nseconds() as f64 * self.rate;
            nanoseconds((base.nseconds() as f64 + passed) / 1e9)
        });
        let wall = self.wall.map(|wall| wall.saturating_add(passed.nseconds()));
        Moment { running: self.running_at(engine), stream, wall }
    }
}

#[derive(Debug, Default)]
pub(super) struct Timeline {
    epochs: VecDeque<Epoch>,
    /// Engine time at which this run began: behind all that was restored.
    base: ClockTime,
    /// Element time of the newest frame.
    time: ClockTime,
    broken: bool,
}

impl Timeline {
    /// The mapping changes before the next frame: segment, source or format are new.
    pub fn break_epoch(&mut self) {
        self.broken = true;
    }

    /// Seconds of engine time at which this run began.
    pub fn base(&self) -> f64 {
        seconds(self.base)
    }

    /// Seconds of engine time from the beginning of this run to a frame at this element time; `gap` is what
    /// passes where element time starts again.
    pub fn enter(&mut self, at: Moment, time: ClockTime, rate: f64, gap: ClockTime) -> f64 {
        let passed = time.checked_sub(self.time);
        self.time = time;
        let engine = match self.epochs.back().filter(|epoch| !epoch.restored) {
            Some(epoch) => {
                let engine = epoch.last.saturating_add(passed.unwrap_or(gap));
                let running = epoch.running_at(engine);
                let apart = running.max(at.running) - running.min(at.running);
                self.broken |=
                    passed.is_none() || apart > TOLERANCE || epoch.is_corrected(engine, at.wall);
                engine
            }
            None => {
                self.broken = true;
                self.base.saturating_add(time)
            }
        };
        match self.epochs.back_mut() {
            Some(epoch) if !self.broken => (epoch.last, epoch.period) = (engine, gap),
            _ => {
                let Moment { running, stream, wall } = at;
                let (last, period, restored) = (engine, gap, false);
                let epoch = Epoch { engine, running, stream, wall, rate, last, period, restored };
                self.epochs.push_back(epoch);
                self.broken = false;
                self.bound();
            }
        }
        seconds(engine.saturating_sub(self.base))
    }

    /// Gives up epochs beyond the most that are kept. What was seen in them is told by the clocks of the one
    /// before, so the ones that differ least go first, and the newest never does.
    fn bound(&mut self) {
        while self.epochs.len() > MAX_EPOCHS {
            let pairs = self.epochs.iter().zip(self.epochs.iter().skip(1)).enumerate();
            let inner = pairs.take(self.epochs.len().saturating_sub(2));
            let least = inner.min_by_key(|(_, (before, epoch))| epoch.apart(before));
            let Some(at) = least.map(|(before, _)| before + 1) else { return };
            let given_up = self.epochs.remove(at);
            if let Some((epoch, before)) = given_up.zip(self.epochs.get_mut(at - 1)) {
                (before.last, before.period) = (epoch.last, epoch.period);
            }
        }
    }

    /// Whether the clocks broke between two frames of these engine times.
    pub fn parts(&self, before: f64, at: f64) -> bool {
        let epoch = |time| {
            let time = nanoseconds(time);
            self.epochs.partition_point(|epoch| epoch.engine <= time)
        };
        epoch(before) != epoch(at)
    }

    /// A stretch from one frame to another in engine time. The last frame stands for the time until the
    /// next sample, but not beyond `until`.
    pub fn locate(&self, start: f64, end: f64, until: f64) -> Stretch {
        let until = nanoseconds(until.max(end));
        let (start, end) = (nanoseconds(start), nanoseconds(end.max(start)));
        let index = self.epochs.partition_point(|epoch| epoch.engine <= start).saturating_sub(1);
        let Some(epoch) = self.epochs.get(index) else {
            let unknown = |running| Moment { running, stream: None, wall: None };
            return Stretch { start: unknown(start), end: unknown(end), restored: false };
        };
        let end = end.saturating_add(epoch.period).min(until);
        let next = self.epochs.get(index + 1).map(|next| next.engine).filter(|next| *next > start);
        let end = next.map_or(end, |next| end.min(next));
        let restored = epoch.restored;
        let (mut start, mut end) = (epoch.at(start), epoch.at(end));
        if start.stream > end.stream {
            std::mem::swap(&mut start.stream, &mut end.stream);
        }
        Stretch { start, end, restored }
    }

    /// The stretch of engine time between two bounds of a question that is asked as of `asked`; an end that
    /// is left out, or lies where nothing was seen, is where the nearest frame inside is. Of running times
    /// that have come more than once the newest are meant, and never those of an earlier run: what that
    /// has seen is found by clock time and from now.
    ///
    /// # Errors
    /// There is no clock time in this stream.
    pub fn between(
        &self,
        (from, to): (Option<Bound>, Option<Bound>),
        asked: Option<Moment>,
    ) -> Result<(f64, f64), String> {
        let end = |bound: Bound, name: &str, last: bool| -> Result<f64, String> {
            let at = match bound {
                Bound::At(at) => at.nseconds(),
                Bound::Ago(ago) => {
                    return Ok(seconds(self.asked(asked).saturating_sub(ago)));
                }
                Bound::Wall(wall) => wall,
            };
            let start = |epoch: &Epoch| match bound {
                Bound::Wall(_) => epoch.wall,
                _ => Some(epoch.running.nseconds()),
            };
            let is_wall = matches!(bound, Bound::Wall(_));
            let meant = self.epochs.iter().rev().filter(|epoch| is_wall || !epoch.restored);
            let mut clocked = meant.filter_map(|epoch| Some((epoch, start(epoch)?)));
            // Where what comes before all of these is: nothing, or an earlier run.
            let (nothing, begin) = match self.base() {
                base if !is_wall && base > 0.0 => (base - 1e-9, base),
                _ => (-1.0, 0.0),
            };
            let Some((newest, began)) = clocked.next() else {
                if !is_wall {
                    return Ok(if last { nothing } else { begin });
                }
                return Err(format!("`{name}` is a moment, and this stream tells no clock time"));
            };
            let inside =
                |began: u64, epoch: &Epoch| began <= at && at - began <= epoch.lasts().nseconds();
            let found = std::iter::once((newest, began)).chain(clocked);
            if let Some((epoch, began)) = found.clone().find(|(epoch, began)| inside(*began, epoch))
            {
                return Ok(seconds(epoch.engine) + (at - began) as f64 / 1e9);
            }
            // Between two epochs, before all of them or behind.
            let before = found.clone().find(|(_, began)| *began <= at).map(|(epoch, _)| epoch);
            Ok(match (before, last) {
                (Some(epoch), true) => seconds(epoch.last),
                (Some(epoch), false) => {
                    seconds(epoch.last.saturating_add(ClockTime::from_nseconds(1)))
                }
                (None, true) => nothing,
                (None, false) => begin,
            })
        };
        let from = from.map_or(Ok(0.0), |from| end(from, "from", false))?;
        let to = to.map_or(Ok(f64::MAX), |to| end(to, "to", true))?;
        Ok((from, to))
    }

    /// Engine time as of which something is asked: that of the newest frame where none was looked at then.
    pub fn asked(&self, at: Option<Moment>) -> ClockTime {
        let newest = || self.epochs.back().map_or(ClockTime::ZERO, |epoch| epoch.last);
        at.and_then(|at| self.engine_of(at)).unwrap_or_else(newest)
    }

    /// The newest engine time of a moment.
    fn engine_of(&self, at: Moment) -> Option<ClockTime> {
        let own = self.epochs.iter().rev().filter(|epoch| !epoch.restored);
        let mut passed = own.filter_map(|epoch| {
            let passed = at.running.checked_sub(epoch.running)?;
            (passed <= epoch.lasts()).then(|| epoch.engine.saturating_add(passed))
        });
        passed.next()
    }

    /// When a frame of this engine time was.
    pub fn moment(&self, engine: f64) -> Moment {
        self.locate(engine, engine, f64::MAX).start
    }
}

fn seconds(engine: ClockTime) -> f64 {
    engine.nseconds() as f64 / 1e9
}

fn nanoseconds(seconds: f64) -> ClockTime {
    // `as` saturates; the bound keeps sums of two times inside u64.
    ClockTime::from_nseconds(((seconds * 1e9).round().max(0.0) as u64).min(u64::MAX / 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn at(running: u64, stream: u64) -> Moment {
        Moment {
            running: ClockTime::from_seconds(running),
            stream: Some(ClockTime::from_seconds(stream)),
            wall: None,
        }
    }

    /// Element time is running time here.
    pub(super) fn enter(timeline: &mut Timeline, at: Moment, rate: f64) -> f64 {
        timeline.enter(at, at.running, rate, ClockTime::SECOND)
    }

    /// Running times, and stream times, of a stretch.
    fn located(timeline: &Timeline, start: f64, end: f64) -> [Option<ClockTime>; 4] {
        let Stretch { start, end, .. } = timeline.locate(start, end, f64::MAX);
        [Some(start.running), Some(end.running), start.stream, end.stream]
    }

    #[test]
    fn wall_time_goes_as_running_time_does() {
        let mut timeline = Timeline::default();
        let known = Moment { wall: Some(1_700_000_000_000_000_000), ..at(5, 5) };
        enter(&mut timeline, known, 1.0);
        let Stretch { start, end, .. } = timeline.locate(5.5, 6.0, f64::MAX);
        assert_eq!(start.wall, Some(1_700_000_000_500_000_000));
        assert_eq!(end.wall, Some(1_700_000_002_000_000_000));
        assert_eq!(timeline.moment(5.0), known);
        // A frame stands for the time behind it, but not where nobody asked for that.
        assert_eq!(timeline.locate(5.0, 6.0, 6.5).end.running, ClockTime::from_mseconds(6500));
        assert_eq!(timeline.locate(5.0, 6.0, 4.0).end.running, ClockTime::from_seconds(6));
    }

    #[test]
    fn the_time_of_day_is_corrected_when_the_sender_tells_it() {
        let mut timeline = Timeline::default();
        let told = |running, wall: Option<u64>| Moment {
            wall: wall.map(|ms| 1_700_000_000_000_000_000 + ms * 1_000_000),
            ..at(running, running)
        };
        let frames = [(0, None), (1, Some(1_000)), (2, Some(2_400)), (3, None), (4, Some(64_000))];
        for (running, wall) in frames {
            enter(&mut timeline, told(running, wall), 1.0);
        }
        enter(&mut timeline, told(5, Some(65_000)), 1.0);
        let wall = |engine| timeline.moment(engine).wall.map(|wall| wall / 1_000_000 % 1_000_000);
        // Not known; known; a little off, and not told, which changes nothing; set; and running on.
        let expected = [None, Some(1_000), Some(2_000), Some(3_000), Some(64_000), Some(65_000)];
        assert_eq!([0.0, 1.0, 2.0, 3.0, 4.0, 5.0].map(wall), expected);
        let clock = Some(Bound::Wall(1_700_000_064_500_000_000));
        assert_eq!(timeline.between((clock, None), None).unwrap().0, 4.5);
    }

    #[test]
    fn a_stretch_is_found_by_running_time_by_clock_time_and_from_now() {
        let mut timeline = Timeline::default();
        let wall = |seconds: u64| 1_700_000_000_000_000_000 + seconds * 1_000_000_000;
        for second in 0..20 {
            let at = Moment { wall: Some(wall(second)), ..at(second, second) };
            enter(&mut timeline, at, 1.0);
        }
        // A camera that was away for a minute, and began anew.
        timeline.break_epoch();
        for second in 0..10 {
            let at = Moment { wall: Some(wall(80 + second)), ..at(second, second) };
            timeline.enter(at, ClockTime::from_seconds(20 + second), 1.0, ClockTime::SECOND);
        }
        let running = |seconds| Some(Bound::At(ClockTime::from_seconds(seconds)));
        let ago = |seconds| Some(Bound::Ago(ClockTime::from_seconds(seconds)));
        let clock = |seconds| Some(Bound::Wall(wall(seconds)));
        let asked = Some(timeline.moment(29.0));
        let find = |from, to| timeline.between((from, to), asked).unwrap();
        assert_eq!(find(running(3), running(5)), (23.0, 25.0));
        assert_eq!(find(running(12), running(15)), (12.0, 15.0));
        assert_eq!(find(ago(4), None), (25.0, f64::MAX));
        // The minute that it was away has not passed for the stream.
        assert_eq!(find(ago(14), ago(12)), (15.0, 17.0));
        assert_eq!(find(None, ago(2)), (0.0, 27.0));
        assert_eq!(find(clock(5), clock(82)), (5.0, 22.0));
        // Nobody was there between.
        let (from, to) = find(clock(30), clock(60));
        assert!(from > 19.0 && from < 20.0 && to == 19.0, "{from} {to}");
        assert!(find(None, Some(Bound::Wall(5))).1 < 0.0);
        let blind = Timeline::default();
        assert!(blind.between((clock(1), None), None).unwrap_err().contains("no clock time"));
        let mut silent = Timeline::default();
        enter(&mut silent, at(0, 0), 1.0);
        assert!(silent.between((clock(1), None), None).unwrap_err().contains("`from`"));
    }

    #[test]
    fn a_wild_stamp_has_an_epoch_of_its_own() {
        let mut timeline = Timeline::default();
        let seconds = ClockTime::from_seconds;
        enter(&mut timeline, at(5, 5), 1.0);
        assert_eq!(timeline.enter(at(3605, 3605), seconds(6), 1.0, ClockTime::SECOND), 6.0);
        assert_eq!(enter(&mut timeline, at(7, 7), 1.0), 7.0);
        assert_eq!(timeline.moment(6.0).running, seconds(3605));
        assert!(timeline.parts(5.0, 6.0) && timeline.parts(6.0, 7.0));
        assert_eq!(timeline.moment(7.0).running, seconds(7));
    }

    #[test]
    fn one_frame_has_a_length() {
        let mut timeline = Timeline::default();
        let ms = ClockTime::from_mseconds;
        enter(&mut timeline, at(5, 50), 1.0);
        let expected = [5000, 6000, 50_000, 51_000].map(|time| Some(ms(time)));
        assert_eq!(located(&timeline, 5.0, 5.0), expected);
        timeline.break_epoch();
        timeline.enter(at(0, 0), ms(5400), 1.0, ClockTime::SECOND);
        assert_eq!(timeline.locate(5.0, 5.0, f64::MAX).end.running, ms(5400));
    }

    #[test]
    fn engine_time_goes_on_where_running_time_starts_again() {
        let mut timeline = Timeline::default();
        assert_eq!(enter(&mut timeline, at(0, 10), 1.0), 0.0);
        assert_eq!(enter(&mut timeline, at(5, 15), 1.0), 5.0);
        assert!(!timeline.parts(0.0, 5.0));
        timeline.break_epoch();
        assert_eq!(enter(&mut timeline, at(0, 100), 2.0), 6.0);
        assert!(timeline.parts(5.0, 6.0));
        assert_eq!(enter(&mut timeline, at(2, 104), 2.0), 8.0);

        let located = |start, end| located(&timeline, start, end).map(|t| t.unwrap().seconds());
        assert_eq!(located(1.0, 4.0), [1, 5, 11, 15]);
        // Not beyond where the next epoch begins.
        assert_eq!(located(1.0, 5.5), [1, 6, 11, 16]);
        assert_eq!(located(6.0, 7.0), [0, 2, 100, 104]);
    }

    #[test]
    fn running_time_that_goes_back_without_notice_opens_an_epoch() {
        let mut timeline = Timeline::default();
        enter(&mut timeline, at(7, 7), 1.0);
        assert_eq!(enter(&mut timeline, at(3, 3), 1.0), 8.0);
        assert_eq!(timeline.moment(8.0).running.seconds(), 3);
    }

    #[test]
    fn the_table_of_epochs_is_bounded() {
        let mut timeline = Timeline::default();
        for _ in 0..3 * MAX_EPOCHS {
            timeline.break_epoch();
            enter(&mut timeline, at(0, 0), 1.0);
        }
        assert_eq!(timeline.epochs.len(), MAX_EPOCHS);
    }

    /// A camera that is lost for ten seconds every ten minutes, for a month.
    #[test]
    fn what_was_seen_thousands_of_breaks_ago_is_still_told_by_its_clock() {
        let mut timeline = Timeline::default();
        let (watched, lost) = (600, 10);
        let mut seen = Vec::new();
        for life in 0..4 * MAX_EPOCHS as u64 {
            timeline.break_epoch();
            for second in [0, watched] {
                let clock = life * (watched + lost) + second;
                let wall = Some(1_700_000_000_000_000_000 + clock * 1_000_000_000);
                let told = Moment { wall, ..at(clock, clock) };
                // What nobody saw has not passed for the element.
                let time = ClockTime::from_seconds(life * (watched + 1) + second);
                seen.push((timeline.enter(told, time, 1.0, ClockTime::SECOND), told));
            }
        }
        assert_eq!(timeline.epochs.len(), MAX_EPOCHS);
        let wrong = |(engine, told): &(f64, Moment)| {
            let found = timeline.moment(*engine);
            let wall = found.wall.unwrap().abs_diff(told.wall.unwrap()) / 1_000_000_000;
            wall.max(found.running.seconds().abs_diff(told.running.seconds()))
        };
        let worst = seen.iter().map(wrong).max().unwrap();
        assert!(worst <= 10 * lost, "{worst} s, of a month");
        assert_eq!(seen.last().map(wrong), Some(0));
    }

    #[test]
    fn what_differs_most_is_kept_longest() {
        let mut timeline = Timeline::default();
        for life in 0..2 * MAX_EPOCHS as u64 {
            timeline.break_epoch();
            // Of the third on, running time begins a day later.
            let running = 2 * life + if life < 3 { 0 } else { 86_400 };
            let time = ClockTime::from_seconds(life);
            timeline.enter(at(running, running), time, 1.0, ClockTime::SECOND);
        }
        let wrong =
            |engine, running: u64| timeline.moment(engine).running.seconds().abs_diff(running) > 5;
        assert!(!wrong(2.0, 4) && !wrong(3.0, 6 + 86_400));
    }
}
