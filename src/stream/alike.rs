// SPDX-License-Identifier: MPL-2.0
//! Frames that show nothing new: what equals the last picture that was taken in is not looked at
//! again; it lengthens the stretch of time that this picture stands for.

use crate::frame::{Frame, difference};

/// When a frame counts as the picture before it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SkipOptions {
    /// Frames that may be left out one after the other; 0: none ever is.
    pub most: usize,
    /// By how many grey levels of 255 the place of 16 x 16 pixels that differs most may differ, on
    /// average over its pixels and channels. 0: not at all.
    pub tolerance: f32,
}

/// What has been left out behind a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Run {
    pub frames: u64,
    /// Seconds of stream time of the last of them.
    pub end: f64,
}

impl Run {
    fn add(&mut self, frame: &Frame) {
        self.frames += 1;
        self.end = frame.time();
    }
}

/// The frames of one call that are worth a look.
#[derive(Debug, Default)]
pub struct Sifted {
    /// What equals the last frame of the calls before.
    pub before: Run,
    /// The others, each with what equals it behind it.
    pub frames: Vec<(Frame, Run)>,
}

/// Knows what was seen last.
#[derive(Debug, Default)]
pub struct Sieve {
    last: Option<Frame>,
    /// Seconds of stream time up to which nothing else has been seen.
    until: f64,
    /// Frames left out since.
    left_out: usize,
    /// Of all so far.
    total: u64,
}

/// So many times as long as between two frames nobody may look away and still say that nothing happened.
const GAP: f64 = 5.0;

impl Sieve {
    /// Frames left out since the start.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Goes on counting from there.
    pub fn resume(&mut self, total: u64) {
        self.total = total;
    }

    /// What was seen last is no measure any more.
    pub fn forget(&mut self) {
        self.last = None;
    }

    /// Leaves out what shows nothing new. Frames come in units of `per_unit`, of which the first
    /// `open` are there already: only a whole unit can stand for more than itself. Nothing stands for
    /// time in which nobody looked: a break, or a gap of [`GAP`] times `period`, the seconds from one
    /// frame to the next where they are known.
    pub fn sift(
        &mut self,
        frames: &[Frame],
        options: SkipOptions,
        (per_unit, open): (usize, usize),
        period: Option<f64>,
    ) -> Sifted {
        let gap = period.map_or(f64::INFINITY, |period| GAP * period);
        let mut sifted = Sifted::default();
        for frame in frames {
            let between = (open + sifted.frames.len()).is_multiple_of(per_unit.max(1));
            let alike = |last: &Frame| is_like(last, frame, options.tolerance);
            let watched = !frame.is_after_break() && frame.time() - self.until <= gap;
            self.until = frame.time();
            let nothing_new = between
                && watched
                && self.left_out < options.most
                && self.last.as_ref().is_some_and(alike);
            if nothing_new {
                self.left_out += 1;
                self.total += 1;
                sifted.frames.last_mut().map_or(&mut sifted.before, |(_, run)| run).add(frame);
            } else {
                self.left_out = 0;
                self.last = (options.most > 0).then(|| frame.clone());
                sifted.frames.push((frame.clone(), Run::default()));
            }
        }
        sifted
    }
}

/// Side of the places that are compared, in pixels.
const SIDE: usize = 16;

/// Whether two frames differ nowhere by more than so many grey levels, place by place.
fn is_like(a: &Frame, b: &Frame, tolerance: f32) -> bool {
    let same_shape = |f: &Frame| (f.width(), f.height(), f.shape());
    if same_shape(a) != same_shape(b) {
        return false;
    }
    if tolerance <= 0.0 {
        return a.rgb() == b.rgb();
    }
    let bytes = 3 * a.width();
    let band = SIDE * bytes;
    let mut sums = vec![0u32; a.width().div_ceil(SIDE)];
    a.rgb().chunks(band).zip(b.rgb().chunks(band)).all(|(a, b)| {
        sums.fill(0);
        for (a, b) in a.chunks_exact(bytes).zip(b.chunks_exact(bytes)) {
            let places = a.chunks(3 * SIDE).zip(b.chunks(3 * SIDE));
            for (sum, (a, b)) in sums.iter_mut().zip(places) {
                *sum += difference(a, b);
            }
        }
        let rows = a.len() / bytes;
        let pixels = |at: usize| rows * (3 * SIDE).min(bytes - 3 * SIDE * at);
        sums.iter().enumerate().all(|(at, &sum)| sum as f32 <= tolerance * pixels(at) as f32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A grey picture with one pixel of another level.
    fn frame(time: f64, (x, y): (usize, usize), level: u8) -> Frame {
        let (width, height) = (50, 35);
        let mut rgb = vec![100; 3 * width * height];
        rgb[3 * (y * width + x)] = level;
        Frame::new(rgb, width, height, time).unwrap()
    }

    #[test]
    fn one_place_that_differs_is_enough_wherever_it_is() {
        let plain = frame(0.0, (0, 0), 100);
        for at in [(0, 0), (15, 15), (16, 0), (49, 34), (48, 3), (7, 33)] {
            let other = frame(1.0, at, 200);
            assert!(!is_like(&plain, &other, 0.0), "{at:?}");
            // A place at the edge has fewer pixels, and one of them weighs more.
            let (wide, high) = ((50 - at.0 / 16 * 16).min(16), (35 - at.1 / 16 * 16).min(16));
            let mean = 100.0 / (3 * wide * high) as f32;
            assert!(is_like(&plain, &other, mean * 1.001), "{at:?}");
            assert!(!is_like(&plain, &other, mean * 0.999), "{at:?}");
        }
        assert!(is_like(&plain, &plain, 0.0));
        let other = Frame::new(vec![100; 3 * 35 * 50], 35, 50, 0.0).unwrap();
        assert!(!is_like(&plain, &other, 255.0));
        let shown = plain.clone().shown_as(100, 35).unwrap();
        assert!(!is_like(&plain, &shown, 255.0));
    }

    fn times(sifted: &Sifted) -> Vec<(f64, u64, f64)> {
        sifted.frames.iter().map(|(frame, run)| (frame.time(), run.frames, run.end)).collect()
    }

    #[test]
    fn so_many_are_left_out_and_no_more() {
        let still: Vec<Frame> = (0..9).map(|i| frame(f64::from(i), (0, 0), 100)).collect();
        let options = SkipOptions { most: 3, tolerance: 0.0 };
        let mut sieve = Sieve::default();
        let sifted = sieve.sift(&still[..6], options, (1, 0), None);
        assert_eq!(times(&sifted), [(0.0, 3, 3.0), (4.0, 1, 5.0)]);
        // The next call goes on where this one ended.
        let sifted = sieve.sift(&still[6..], options, (1, 0), None);
        assert_eq!(
            (sifted.before, times(&sifted)),
            (Run { frames: 2, end: 7.0 }, vec![(8.0, 0, 0.0)])
        );
        assert_eq!(sieve.total(), 6);
        let all = Sieve::default().sift(&still, SkipOptions::default(), (1, 0), None);
        assert_eq!(all.frames.len(), 9);
        sieve.forget();
        assert_eq!(sieve.sift(&still[..1], options, (1, 0), None).frames.len(), 1);
    }

    #[test]
    fn a_unit_is_finished_before_it_stands_for_more() {
        let still: Vec<Frame> = (0..5).map(|i| frame(f64::from(i), (0, 0), 100)).collect();
        let options = SkipOptions { most: 9, tolerance: 0.0 };
        let sifted = Sieve::default().sift(&still, options, (2, 0), None);
        assert_eq!(times(&sifted), [(0.0, 0, 0.0), (1.0, 3, 4.0)]);
        let mut sieve = Sieve::default();
        sieve.sift(&still[..1], options, (2, 0), None);
        assert_eq!(times(&sieve.sift(&still[1..], options, (2, 1), None)), [(1.0, 3, 4.0)]);
    }

    #[test]
    fn time_in_which_nobody_looked_is_not_stood_for() {
        let options = SkipOptions { most: 9, tolerance: 0.0 };
        let still = |time: f64| frame(time, (0, 0), 100);
        let frames = [still(0.0), still(1.0), still(2.0).after_break(), still(7.0), still(12.1)];
        let sifted = Sieve::default().sift(&frames, options, (1, 0), Some(1.0));
        assert_eq!(times(&sifted), [(0.0, 1, 1.0), (2.0, 1, 7.0), (12.1, 0, 0.0)]);
        // How far frames are apart is not always known.
        let sifted = Sieve::default().sift(&frames, options, (1, 0), None);
        assert_eq!(times(&sifted), [(0.0, 1, 1.0), (2.0, 2, 12.1)]);
    }
}
