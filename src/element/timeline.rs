// SPDX-License-Identifier: MPL-2.0
//! Three clocks and how they map.
//!
//! GStreamer's *running time* restarts after a flushing seek, its *stream time* jumps with every
//! seek. The engine wants *engine time*: seconds that never go back, because a memory that is kept
//! over a seek has seen one frame after the other. An epoch is a stretch in which the three run in
//! parallel; evidence is mapped back through the epoch it falls into.

use std::collections::VecDeque;

use gst::ClockTime;
use gstreamer as gst;

/// A camera that reconnects for months must not grow a table for months.
const MAX_EPOCHS: usize = 1024;

/// When something was: on the running clock and, where it is known, on the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moment {
    pub running: ClockTime,
    pub stream: Option<ClockTime>,
    /// Nanoseconds since 1970, from the sender's reference timestamp or the local clock.
    pub wall: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Epoch {
    engine: ClockTime,
    running: ClockTime,
    stream: Option<ClockTime>,
    /// Stream time that passes per running time; negative in reverse playback.
    rate: f64,
    /// The newest frame of the epoch.
    last: ClockTime,
}

impl Epoch {
    fn running_at(&self, engine: ClockTime) -> ClockTime {
        self.running.saturating_add(engine.saturating_sub(self.engine))
    }

    fn last_running(&self) -> ClockTime {
        self.running_at(self.last)
    }
}

#[derive(Debug, Default)]
pub(super) struct Timeline {
    epochs: VecDeque<Epoch>,
    broken: bool,
}

impl Timeline {
    /// The mapping changes before the next frame: segment, source or format are new.
    pub fn break_epoch(&mut self) {
        self.broken = true;
    }

    /// Engine time, in seconds, of a frame; `gap` parts epochs that would overlap.
    pub fn enter(&mut self, at: Moment, rate: f64, gap: ClockTime) -> f64 {
        let engine = match self.epochs.back_mut() {
            Some(epoch) => {
                // Running time that goes on keeps its distance to the last frame.
                let passed = at.running.checked_sub(epoch.last_running());
                self.broken |= passed.is_none();
                epoch.last.saturating_add(passed.unwrap_or(gap))
            }
            None => at.running,
        };
        match self.epochs.back_mut() {
            Some(epoch) if !self.broken => epoch.last = engine,
            _ => {
                if self.epochs.len() == MAX_EPOCHS {
                    self.epochs.pop_front();
                }
                let (running, stream) = (at.running, at.stream);
                self.epochs.push_back(Epoch { engine, running, stream, rate, last: engine });
                self.broken = false;
            }
        }
        engine.nseconds() as f64 / 1e9
    }

    /// Running times of a stretch of engine time, and stream times where there are any.
    pub fn locate(
        &self,
        start: f64,
        end: f64,
    ) -> (ClockTime, ClockTime, Option<(ClockTime, ClockTime)>) {
        let (start, end) = (nanoseconds(start), nanoseconds(end.max(start)));
        let index = self.epochs.partition_point(|epoch| epoch.engine <= start).saturating_sub(1);
        let Some(epoch) = self.epochs.get(index) else { return (start, end, None) };
        let end = self.epochs.get(index + 1).map_or(end, |next| end.min(next.engine)).max(start);
        let stream = |engine: ClockTime| {
            let passed = engine.saturating_sub(epoch.engine).nseconds() as f64 * epoch.rate;
            epoch.stream.map(|base| nanoseconds((base.nseconds() as f64 + passed) / 1e9))
        };
        let streams = stream(start).zip(stream(end)).map(|(a, b)| (a.min(b), a.max(b)));
        (epoch.running_at(start), epoch.running_at(end), streams)
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

    #[test]
    fn engine_time_goes_on_where_running_time_starts_again() {
        let mut timeline = Timeline::default();
        let gap = ClockTime::SECOND;
        assert_eq!(timeline.enter(at(0, 10), 1.0, gap), 0.0);
        assert_eq!(timeline.enter(at(5, 15), 1.0, gap), 5.0);
        timeline.break_epoch();
        assert_eq!(timeline.enter(at(0, 100), 2.0, gap), 6.0);
        assert_eq!(timeline.enter(at(2, 104), 2.0, gap), 8.0);

        let seconds = ClockTime::from_seconds;
        let (start, end, stream) = timeline.locate(1.0, 5.5);
        assert_eq!((start.seconds(), end), (1, ClockTime::from_mseconds(5500)));
        assert_eq!(stream, Some((seconds(11), ClockTime::from_mseconds(15500))));
        let (start, end, stream) = timeline.locate(6.0, 7.0);
        assert_eq!((start, end), (seconds(0), seconds(1)));
        assert_eq!(stream, Some((seconds(100), seconds(102))));
    }

    #[test]
    fn running_time_that_goes_back_without_notice_opens_an_epoch() {
        let mut timeline = Timeline::default();
        timeline.enter(at(7, 7), 1.0, ClockTime::SECOND);
        assert_eq!(timeline.enter(at(3, 3), 1.0, ClockTime::SECOND), 8.0);
        assert_eq!(timeline.locate(8.0, 9.0).0.seconds(), 3);
    }

    #[test]
    fn the_table_of_epochs_is_bounded() {
        let mut timeline = Timeline::default();
        for _ in 0..3 * MAX_EPOCHS {
            timeline.break_epoch();
            timeline.enter(at(0, 0), 1.0, ClockTime::SECOND);
        }
        assert_eq!(timeline.epochs.len(), MAX_EPOCHS);
    }
}
