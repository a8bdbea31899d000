// SPDX-License-Identifier: MPL-2.0
//! The clocks of earlier runs, of which the memory was kept in a file. Engine time goes on behind them, one
//! sample later, however long nobody looked; their running times stay theirs.

use std::collections::VecDeque;

use gst::ClockTime;
use gstreamer as gst;
use serde::{Deserialize, Serialize};

use super::{Epoch, Timeline, nanoseconds};

/// An epoch in a file, in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SavedEpoch {
    engine: u64,
    running: u64,
    stream: Option<u64>,
    wall: Option<u64>,
    rate: f64,
    last: u64,
    period: u64,
}

/// What is kept of a timeline from one run to the next.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::element) struct Saved {
    epochs: Vec<SavedEpoch>,
}

impl Timeline {
    /// What is to be kept of it.
    pub fn saved(&self) -> Saved {
        let epochs = self.epochs.iter().map(|epoch| SavedEpoch {
            engine: epoch.engine.nseconds(),
            running: epoch.running.nseconds(),
            stream: epoch.stream.map(ClockTime::nseconds),
            wall: epoch.wall,
            rate: epoch.rate,
            last: epoch.last.nseconds(),
            period: epoch.period.nseconds(),
        });
        Saved { epochs: epochs.collect() }
    }

    /// Puts an earlier run before this one, which has begun already: it goes on a sample behind the last
    /// frame, however long nobody looked. `end`: seconds of engine time up to which anything is
    /// remembered.
    pub fn resume(&mut self, saved: &Saved, end: f64) {
        let time = |nanoseconds: u64| ClockTime::from_nseconds(nanoseconds.min(u64::MAX / 4));
        let earlier = saved.epochs.iter().map(|epoch| Epoch {
            engine: time(epoch.engine),
            running: time(epoch.running),
            stream: epoch.stream.map(time),
            wall: epoch.wall,
            rate: epoch.rate,
            last: time(epoch.last),
            period: time(epoch.period),
            restored: true,
        });
        let mut all: VecDeque<Epoch> = earlier.collect();
        // A memory without clocks: its seconds are all that is known.
        if all.is_empty() {
            let (engine, period) = (ClockTime::ZERO, ClockTime::SECOND);
            let (running, stream, wall, rate) = (engine, None, None, 1.0);
            let last = nanoseconds(end);
            all.push_back(Epoch {
                engine,
                running,
                stream,
                wall,
                rate,
                last,
                period,
                restored: true,
            });
        }
        let (last, period) =
            all.back().map_or_else(Default::default, |epoch| (epoch.last, epoch.period));
        self.base = last.max(nanoseconds(end)).saturating_add(period);
        all.extend(self.epochs.drain(..).map(|epoch| Epoch {
            engine: epoch.engine.saturating_add(self.base),
            last: epoch.last.saturating_add(self.base),
            ..epoch
        }));
        self.epochs = all;
        self.bound();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, enter};
    use super::super::{Bound, Moment, Stretch};
    use super::*;

    #[test]
    fn an_earlier_run_stays_apart_and_keeps_its_clock() {
        let wall = |seconds: u64| 1_700_000_000_000_000_000 + seconds * 1_000_000_000;
        let known = |second: u64, wall| Moment { wall: Some(wall), ..at(second, second) };
        let mut first = Timeline::default();
        for second in 0..10 {
            enter(&mut first, known(second, wall(second)), 1.0);
        }
        let bytes = serde_json::to_string(&first.saved()).unwrap();
        let saved: Saved = serde_json::from_str(&bytes).unwrap();
        // An hour later; frames have come in before the file was read.
        let mut second = Timeline::default();
        let entered = enter(&mut second, known(3, wall(3603)), 1.0);
        second.resume(&saved, 9.0);
        assert_eq!((second.base(), entered), (10.0, 3.0));
        assert_eq!(enter(&mut second, known(4, wall(3604)), 1.0), 4.0);
        let Stretch { start, restored, .. } = second.locate(5.0, 6.0, f64::MAX);
        assert_eq!((start, restored), (known(5, wall(5)), true));
        let Stretch { start, restored, .. } = second.locate(14.0, 14.0, f64::MAX);
        assert_eq!((start, restored), (known(4, wall(3604)), false));
        let find = |from, to| second.between((from, to), Some(known(4, wall(3604)))).unwrap();
        let running = |seconds| Some(Bound::At(ClockTime::from_seconds(seconds)));
        let clock = |seconds| Some(Bound::Wall(wall(seconds)));
        let ago = |seconds| Some(Bound::Ago(ClockTime::from_seconds(seconds)));
        assert_eq!(find(running(3), running(4)), (13.0, 14.0), "of this run");
        assert_eq!(find(running(0), None).0, 10.0, "not of the earlier one");
        assert_eq!(find(clock(2), clock(5)), (2.0, 5.0));
        assert_eq!(find(clock(2), clock(3604)), (2.0, 14.0));
        // What passed unseen has not passed.
        assert_eq!(find(ago(7), None).0, 7.0);
        // And once more.
        let mut third = Timeline::default();
        third.resume(&second.saved(), 14.0);
        assert_eq!(third.base(), 15.0);
        assert_eq!(enter(&mut third, at(0, 0), 1.0), 0.0);
        assert!(
            third.locate(13.0, 13.0, f64::MAX).restored
                && !third.locate(15.0, 15.0, f64::MAX).restored
        );
        // Of a memory without clocks, the seconds are known.
        let mut bare = Timeline::default();
        bare.resume(&Saved::default(), 7.5);
        assert_eq!((bare.base(), bare.moment(2.0).running), (8.5, ClockTime::from_seconds(2)));
    }
}
