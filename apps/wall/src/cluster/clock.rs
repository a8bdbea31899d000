// SPDX-License-Identifier: MPL-2.0
//! Durations by this machine's own clock, which goes on while the process is stopped and the machine asleep. No
//! machine's idea of the time of day takes part in who may hold what.

use std::time::Duration;

/// A moment, as a duration since this machine was started.
pub(super) type Moment = Duration;

/// This one.
pub(super) fn now() -> Moment {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_forward() {
        let before = now();
        std::thread::sleep(Duration::from_millis(20));
        let went = now() - before;
        assert!(went >= Duration::from_millis(20) && went < Duration::from_secs(20), "{went:?}");
    }
}
