// SPDX-License-Identifier: MPL-2.0
//! When another thread is worth waking.

/// Multiply-adds that take about as long as waking a thread and letting it fall asleep again, some tens of
/// microseconds of processor time.
const WAKING: usize = 1 << 20;

/// How many items a task of a parallel loop holds at least, where one item takes `work` multiply-adds. A loop
/// with fewer stays in its own thread, and rayon's threads stay asleep: a small model that looks at a frame a
/// second would else spend more on waking them than on the frame.
pub(crate) fn items(work: usize) -> usize {
    WAKING / work.clamp(1, WAKING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_items_go_together_and_a_large_one_alone() {
        assert_eq!(items(0), WAKING);
        assert_eq!(items(WAKING / 3), 3);
        assert_eq!(items(WAKING), 1);
        assert_eq!(items(usize::MAX), 1);
    }
}
