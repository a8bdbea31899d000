// SPDX-License-Identifier: MPL-2.0
//! Which frames the model sees.
//!
//! Sampling goes by running time, never by counting: cameras with a variable frame rate announce
//! 0/1 and mean it.

use gst::ClockTime;
use gstreamer as gst;

/// What speaks for taking a frame off the grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wish {
    #[default]
    None,
    /// A question falls due on it.
    Asked,
    /// Something upstream has seen something new on it.
    Detected,
}

/// Takes frames on a grid of running time that begins with the first one.
#[derive(Debug)]
pub(super) struct Sampler {
    period: ClockTime,
    anchor: Option<ClockTime>,
    due: ClockTime,
    taken: Option<ClockTime>,
}

impl Sampler {
    /// `rate` is in frames per second.
    pub fn new(rate: f64) -> Self {
        let period = (1e9 / rate.clamp(1e-6, 1e6)) as u64;
        Self {
            period: ClockTime::from_nseconds(period.max(1)),
            anchor: None,
            due: ClockTime::ZERO,
            taken: None,
        }
    }

    pub fn period(&self) -> ClockTime {
        self.period
    }

    /// The next frame begins a new grid.
    pub fn restart(&mut self) {
        self.anchor = None;
        self.taken = None;
    }

    /// Whether the frame is taken. A frame on which a question falls due is taken off the grid too,
    /// unless the newest sample is less than half a period old; one with something new on it in any case.
    pub fn take(&mut self, running: ClockTime, wish: Wish) -> bool {
        let anchor = match self.anchor {
            // Time that went back without a new segment: what was due may be hours away.
            Some(anchor)
                if running >= anchor && running.saturating_add(self.period) >= self.due =>
            {
                anchor
            }
            _ => {
                self.anchor = Some(running);
                self.due = running;
                self.taken = None;
                running
            }
        };
        let on_grid = running >= self.due;
        let stale = self.taken.is_none_or(|taken| {
            running.saturating_sub(taken).nseconds() >= self.period.nseconds().div_ceil(2)
        });
        let wanted = match wish {
            Wish::None => on_grid,
            Wish::Asked => on_grid || stale,
            Wish::Detected => true,
        };
        if !wanted {
            return false;
        }
        if on_grid {
            // Late frames skip grid points instead of catching up in a burst.
            let steps = (running - anchor).nseconds() / self.period.nseconds() + 1;
            self.due = anchor.saturating_add(self.period.saturating_mul(steps));
        }
        self.taken = Some(running);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> ClockTime {
        ClockTime::from_mseconds(ms)
    }

    fn taken(sampler: &mut Sampler, times: impl IntoIterator<Item = u64>) -> Vec<u64> {
        times.into_iter().filter(|&time| sampler.take(ms(time), Wish::None)).collect()
    }

    #[test]
    fn frames_are_taken_on_a_grid_of_running_time() {
        let mut sampler = Sampler::new(2.0);
        assert_eq!(taken(&mut sampler, (100..2200).step_by(40)), [100, 620, 1100, 1620, 2100]);
    }

    #[test]
    fn a_gap_is_not_made_up_for_in_a_burst() {
        let mut sampler = Sampler::new(1.0);
        assert_eq!(taken(&mut sampler, [0, 5300, 5400, 5500, 6000, 6100]), [0, 5300, 6000]);
    }

    #[test]
    fn a_frame_on_which_a_question_falls_due_is_taken_if_the_last_is_old() {
        let mut sampler = Sampler::new(1.0);
        assert!(sampler.take(ms(0), Wish::None));
        assert!(!sampler.take(ms(400), Wish::Asked));
        assert!(sampler.take(ms(500), Wish::Asked));
        assert!(!sampler.take(ms(900), Wish::Asked));
        assert!(sampler.take(ms(950), Wish::Detected));
        assert!(sampler.take(ms(1000), Wish::None));
    }

    #[test]
    fn time_that_goes_back_begins_a_new_grid() {
        let mut sampler = Sampler::new(1.0);
        assert_eq!(taken(&mut sampler, [5000, 6000, 100, 500, 1100]), [5000, 6000, 100, 1100]);
        let mut sampler = Sampler::new(1.0);
        assert_eq!(taken(&mut sampler, [0, 9000, 1000, 1500, 2000]), [0, 9000, 1000, 2000]);
    }

    #[test]
    fn no_time_is_too_far_away() {
        let mut sampler = Sampler::new(1e-9);
        for ns in [u64::MAX - 1, 0, u64::MAX / 2, u64::MAX - 1, 1] {
            assert!(sampler.take(ClockTime::from_nseconds(ns), Wish::Asked), "{ns}");
        }
    }
}
