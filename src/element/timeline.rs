// SPDX-License-Identifier: MPL-2.0
//! Three clocks and how they map.
//!
//! GStreamer's *running time* restarts after a flushing seek, its *stream time* jumps with every
//! seek. The engine wants *engine time*: seconds that never go back, because a memory that is kept
//! over a seek has seen one frame after the other. It passes as element time does (`frame_clock`),
//! which survives wild stamps. An epoch is a stretch in which the clocks run in parallel; evidence is
//! mapped back through the epoch it falls into.

use std::collections::VecDeque;

use gst::ClockTime;
use gstreamer as gst;

/// A camera that reconnects for months must not grow a table for months.
const MAX_EPOCHS: usize = 1024;
/// Clocks that part by less still run in parallel.
const TOLERANCE: ClockTime = ClockTime::from_mseconds(1);

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
}

impl Epoch {
    fn running_at(&self, engine: ClockTime) -> ClockTime {
        self.running.saturating_add(engine.saturating_sub(self.engine))
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
    /// Element time of the newest frame.
    time: ClockTime,
    /// For how long a frame stands.
    period: ClockTime,
    broken: bool,
}

impl Timeline {
    /// The mapping changes before the next frame: segment, source or format are new.
    pub fn break_epoch(&mut self) {
        self.broken = true;
    }

    /// Engine time, in seconds, of a frame at this element time; `gap` is what passes where element
    /// time starts again.
    pub fn enter(&mut self, at: Moment, time: ClockTime, rate: f64, gap: ClockTime) -> f64 {
        let passed = time.checked_sub(self.time);
        (self.time, self.period) = (time, gap);
        let engine = match self.epochs.back() {
            Some(epoch) => {
                let engine = epoch.last.saturating_add(passed.unwrap_or(gap));
                let running = epoch.running_at(engine);
                let apart = running.max(at.running) - running.min(at.running);
                self.broken |= passed.is_none() || apart > TOLERANCE;
                engine
            }
            None => time,
        };
        match self.epochs.back_mut() {
            Some(epoch) if !self.broken => epoch.last = engine,
            _ => {
                if self.epochs.len() == MAX_EPOCHS {
                    self.epochs.pop_front();
                }
                let Moment { running, stream, wall } = at;
                self.epochs.push_back(Epoch { engine, running, stream, wall, rate, last: engine });
                self.broken = false;
            }
        }
        engine.nseconds() as f64 / 1e9
    }

    /// A stretch from one frame to another in engine time. The last frame stands for the time until the
    /// next sample.
    pub fn locate(&self, start: f64, end: f64) -> Stretch {
        let (start, end) = (nanoseconds(start), nanoseconds(end.max(start)));
        let index = self.epochs.partition_point(|epoch| epoch.engine <= start).saturating_sub(1);
        let Some(epoch) = self.epochs.get(index) else {
            let unknown = |running| Moment { running, stream: None, wall: None };
            return Stretch { start: unknown(start), end: unknown(end) };
        };
        let end = end.saturating_add(self.period);
        let next = self.epochs.get(index + 1).map(|next| next.engine).filter(|next| *next > start);
        let end = next.map_or(end, |next| end.min(next));
        let (mut start, mut end) = (epoch.at(start), epoch.at(end));
        if start.stream > end.stream {
            std::mem::swap(&mut start.stream, &mut end.stream);
        }
        Stretch { start, end }
    }

    /// When a frame of this engine time was.
    pub fn moment(&self, engine: f64) -> Moment {
        self.locate(engine, engine).start
    }
}

fn nanoseconds(seconds: f64) -> ClockTime {
    // `as` saturates; the bound keeps sums of two times inside u64.
    ClockTime::from_nseconds(((seconds * 1e9).round().max(0.0) as u64).min(u64::MAX / 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(running: u64, stream: u64) -> Moment {
        Moment {
            running: ClockTime::from_seconds(running),
            stream: Some(ClockTime::from_seconds(stream)),
            wall: None,
        }
    }

    /// Element time is running time here.
    fn enter(timeline: &mut Timeline, at: Moment, rate: f64) -> f64 {
        timeline.enter(at, at.running, rate, ClockTime::SECOND)
    }

    /// Running times, and stream times, of a stretch.
    fn located(timeline: &Timeline, start: f64, end: f64) -> [Option<ClockTime>; 4] {
        let Stretch { start, end } = timeline.locate(start, end);
        [Some(start.running), Some(end.running), start.stream, end.stream]
    }

    #[test]
    fn wall_time_goes_as_running_time_does() {
        let mut timeline = Timeline::default();
        let known = Moment { wall: Some(1_700_000_000_000_000_000), ..at(5, 5) };
        enter(&mut timeline, known, 1.0);
        let Stretch { start, end } = timeline.locate(5.5, 6.0);
        assert_eq!(start.wall, Some(1_700_000_000_500_000_000));
        assert_eq!(end.wall, Some(1_700_000_002_000_000_000));
        assert_eq!(timeline.moment(5.0), known);
    }

    #[test]
    fn a_wild_stamp_has_an_epoch_of_its_own() {
        let mut timeline = Timeline::default();
        let seconds = ClockTime::from_seconds;
        enter(&mut timeline, at(5, 5), 1.0);
        assert_eq!(timeline.enter(at(3605, 3605), seconds(6), 1.0, ClockTime::SECOND), 6.0);
        assert_eq!(enter(&mut timeline, at(7, 7), 1.0), 7.0);
        assert_eq!(timeline.moment(6.0).running, seconds(3605));
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
        assert_eq!(timeline.locate(5.0, 5.0).end.running, ms(5400));
    }

    #[test]
    fn engine_time_goes_on_where_running_time_starts_again() {
        let mut timeline = Timeline::default();
        assert_eq!(enter(&mut timeline, at(0, 10), 1.0), 0.0);
        assert_eq!(enter(&mut timeline, at(5, 15), 1.0), 5.0);
        timeline.break_epoch();
        assert_eq!(enter(&mut timeline, at(0, 100), 2.0), 6.0);
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
}
