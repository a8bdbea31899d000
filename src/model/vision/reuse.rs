// SPDX-License-Identifier: MPL-2.0
//! Patches that did not change since an earlier frame are not run through the tower again: their keys
//! and values of every layer and what the projector made of them are taken from that frame, the
//! **reference** (the cache of STC, arXiv 2512.00891).
//!
//! Where patches did change, the others' outputs would change too, since every patch looks at all; how
//! much is left out so is measured by `examples/reuse`. Errors do not run on: a frame takes from the
//! last one that went through the tower as a whole, never from one that took itself.

use candle_core::Tensor;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::frame::{Frame, difference};

/// When a frame takes patches from an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ReuseOptions {
    /// Frames that may do so one after the other; 0: none ever does.
    pub most: usize,
    /// By how many grey levels of 255 the quarter of a patch that differs most may differ from the
    /// reference, on average over its pixels and channels. 0: not at all.
    pub tolerance: f32,
}

/// A tower that can do so.
pub trait Reusing {
    /// The tokens `[1, M, C]` of a frame.
    fn tokens(&self, frame: &Frame, reuse: &mut Reuse, cancel: &Cancel) -> Result<Tensor>;
}

/// What one stream has at hand of its reference, and what it saved.
#[derive(Default)]
pub struct Reuse {
    options: ReuseOptions,
    reference: Option<Reference>,
    /// Frames that took from it.
    since: usize,
    /// Patches taken so far.
    total: u64,
}

/// A frame that went through the tower as a whole.
pub(in crate::model) struct Reference {
    pub frame: Origin,
    /// The picture that the tower saw, packed RGB.
    pub rgb: Vec<u8>,
    /// Keys and values of every patch, by layer `[n, 2 * D]`.
    pub keys_values: Vec<Tensor>,
    /// What the projector made of every patch, `[n, C]`.
    pub projected: Tensor,
    /// The tokens `[1, M, C]`.
    pub tokens: Tensor,
}

/// Where the tower's picture came from.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::model) struct Origin {
    size: (usize, usize),
    shape: (usize, usize),
    time: f64,
}

impl Origin {
    pub fn of(frame: &Frame) -> Self {
        Self { size: (frame.width(), frame.height()), shape: frame.shape(), time: frame.time() }
    }

    /// Whether a frame like this may take from one like `self`.
    fn leads_to(&self, later: &Self) -> bool {
        (self.size, self.shape) == (later.size, later.shape) && self.time <= later.time
    }
}

impl Reuse {
    pub fn new(options: ReuseOptions) -> Self {
        Self { options, ..Self::default() }
    }

    pub fn is_on(&self) -> bool {
        self.options.most > 0
    }

    /// Patches taken from earlier frames since the start.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Goes on counting from there.
    pub fn resume(&mut self, total: u64) {
        self.total = total;
    }

    /// The next frame goes through the tower as a whole.
    pub fn forget(&mut self) {
        self.reference = None;
    }

    /// The reference and which patches of `rgb` differ from it, ascending. `None` where the frame has
    /// to go through the tower as a whole: there is no reference for it, too many frames have taken
    /// from it, or so much has changed that it is another scene.
    pub(in crate::model) fn changed(
        &self,
        frame: &Frame,
        rgb: &[u8],
        grid: &Grid,
    ) -> Option<(&Reference, Vec<u32>)> {
        let reference = self.reference.as_ref().filter(|_| self.since < self.options.most)?;
        if !reference.frame.leads_to(&Origin::of(frame)) {
            return None;
        }
        let changed = grid.differing(&reference.rgb, rgb, self.options.tolerance);
        (changed.len() as f64 <= CUT * grid.patches() as f64).then_some((reference, changed))
    }

    /// Notes that a frame took so many patches from the reference.
    pub(in crate::model) fn took(&mut self, patches: usize) {
        self.since += 1;
        self.total += patches as u64;
    }

    pub(in crate::model) fn refer_to(&mut self, reference: Reference) {
        self.reference = Some(reference);
        self.since = 0;
    }
}

/// Where a larger share of the patches has changed it is another scene. Twice the share would save little
/// more, and errors be twice as large (docs/performance.md).
const CUT: f64 = 0.25;

/// How a square picture falls into patches; what is beyond the last whole one is dropped.
#[derive(Clone, Copy, Debug)]
pub(in crate::model) struct Grid {
    /// Pixels along a side of the picture.
    pub picture: usize,
    /// Pixels along a side of a patch.
    pub patch: usize,
    /// Patches along a side.
    pub side: usize,
}

impl Grid {
    pub fn patches(&self) -> usize {
        self.side * self.side
    }

    /// The patches of which a quarter differs by more than so many grey levels, in row-major order.
    fn differing(&self, a: &[u8], b: &[u8], tolerance: f32) -> Vec<u32> {
        let (bytes, line) = (3 * self.patch, 3 * self.picture);
        // Of a patch of odd sides the quarters differ by a line of pixels.
        let half = self.patch.div_ceil(2);
        let mut changed = vec![false; self.patches()];
        let bands = a.chunks_exact(self.patch * line).zip(b.chunks_exact(self.patch * line));
        for (marks, (a, b)) in changed.chunks_exact_mut(self.side).zip(bands) {
            for (a, b) in a.chunks(half * line).zip(b.chunks(half * line)) {
                let mut sums = vec![[0u32; 2]; self.side];
                for (a, b) in a.chunks_exact(line).zip(b.chunks_exact(line)) {
                    let patches = a.chunks_exact(bytes).zip(b.chunks_exact(bytes));
                    for (sums, (a, b)) in sums.iter_mut().zip(patches) {
                        let halves = a.chunks(3 * half).zip(b.chunks(3 * half));
                        for (sum, (a, b)) in sums.iter_mut().zip(halves) {
                            *sum += difference(a, b);
                        }
                    }
                }
                let lines = a.len() / line;
                let limits =
                    [half, self.patch - half].map(|width| tolerance * (3 * lines * width) as f32);
                for (mark, sums) in marks.iter_mut().zip(sums) {
                    *mark |= sums.iter().zip(limits).any(|(&sum, limit)| sum as f32 > limit);
                }
            }
        }
        (0..).zip(changed).filter_map(|(at, changed)| changed.then_some(at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_has_changed_where_a_quarter_of_it_has() {
        // Patches of 5 pixels, 3 x 3 of them and a rest of 2 pixels.
        let grid = Grid { picture: 17, patch: 5, side: 3 };
        let plain = vec![100u8; 3 * 17 * 17];
        let with = |x: usize, y: usize| {
            let mut rgb = plain.clone();
            rgb[3 * (17 * y + x) + 1] = 190;
            rgb
        };
        assert!(grid.differing(&plain, &plain, 0.0).is_empty());
        // Where a pixel is, its patch, and the pixels of the quarter it is in.
        for ((x, y), patch, pixels) in [
            ((0, 0), 0, 9),
            ((2, 2), 0, 9),
            ((3, 0), 0, 6),
            ((4, 4), 0, 4),
            ((5, 4), 1, 6),
            ((14, 14), 8, 4),
            ((0, 5), 3, 9),
        ] {
            let other = with(x, y);
            let mean = 90.0 / (3 * pixels) as f32;
            assert_eq!(grid.differing(&plain, &other, 0.0), [patch], "{x} {y}");
            assert_eq!(grid.differing(&plain, &other, mean * 0.999), [patch], "{x} {y}");
            assert!(grid.differing(&plain, &other, mean * 1.001).is_empty(), "{x} {y}");
        }
        // The tower does not see the rest.
        assert!(grid.differing(&plain, &with(15, 3), 0.0).is_empty());
        assert!(grid.differing(&plain, &with(3, 16), 0.0).is_empty());
        let all: Vec<u8> = plain.iter().map(|grey| grey + 5).collect();
        assert_eq!(grid.differing(&plain, &all, 4.9), (0..9).collect::<Vec<u32>>());
        assert!(grid.differing(&plain, &all, 5.0).is_empty());
    }
}
