// SPDX-License-Identifier: MPL-2.0
//! Which cameras do not start on this machine, since a device or a model is missing here, or the way to them. Every
//! wall tells the others which these are, and gives them to one that has not tried yet. Where none is left they stay,
//! and go round again after waits that grow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;

use super::clock::Moment;
use crate::backoff::Backoff;
use crate::hub::CameraState;

/// For so long a camera is tried here first.
const TRIED: Duration = Duration::from_secs(8);
/// Waits until it may be tried here again where it starts nowhere else.
const WAITS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// What this machine knows of its cameras.
#[derive(Default)]
pub(super) struct Fitness {
    cameras: Mutex<BTreeMap<String, Tries>>,
}

struct Tries {
    /// Since when it has been here without a picture.
    since: Option<Moment>,
    backoff: Backoff,
    /// It does not start here; until then there is no other try.
    until: Option<Moment>,
}

impl Fitness {
    /// A camera begins here.
    pub fn begins(&self, camera: &str, now: Moment) {
        let mut cameras = self.cameras.lock();
        let new = || Tries { since: None, backoff: Backoff::new(WAITS.0, WAITS.1), until: None };
        cameras.entry(camera.to_owned()).or_insert_with(new).since = Some(now);
    }

    /// One that is here is so.
    pub fn is(&self, camera: &str, state: CameraState, now: Moment) {
        let mut cameras = self.cameras.lock();
        match state {
            CameraState::Live => drop(cameras.remove(camera)),
            CameraState::Waiting => {
                let Some(tries) = cameras.get_mut(camera) else { return };
                let is_tried = tries.since.is_some_and(|since| now.saturating_sub(since) >= TRIED);
                if is_tried && tries.until.is_none_or(|until| until <= now) {
                    tries.until = Some(now + tries.backoff.failed());
                }
            }
            _ => {}
        }
    }

    /// It is not here any more.
    pub fn leaves(&self, camera: &str) {
        if let Some(tries) = self.cameras.lock().get_mut(camera) {
            tries.since = None;
        }
    }

    /// It is another one from now on.
    pub fn forget(&self, camera: &str) {
        self.cameras.lock().remove(camera);
    }

    /// Those that do not start here, and whether they may be tried again.
    pub fn unfit(&self, now: Moment) -> BTreeMap<String, bool> {
        let cameras = self.cameras.lock();
        let failed =
            cameras.iter().filter_map(|(id, tries)| Some((id.clone(), tries.until? <= now)));
        failed.collect()
    }

    /// Those of them that are here and have no picture.
    pub fn failing(&self) -> BTreeSet<String> {
        let cameras = self.cameras.lock();
        let failing =
            cameras.iter().filter(|(_, tries)| tries.since.is_some() && tries.until.is_some());
        failing.map(|(id, _)| id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(1000 + seconds)
    }

    #[test]
    fn a_camera_that_fails_for_a_while_is_unfit_and_one_that_plays_is_not() {
        let fitness = Fitness::default();
        fitness.begins("yard", at(0));
        fitness.is("yard", CameraState::Waiting, at(1));
        assert!(fitness.failing().is_empty(), "it has hardly been tried");
        fitness.is("yard", CameraState::Waiting, at(9));
        assert_eq!(fitness.failing().len(), 1);
        assert_eq!(fitness.unfit(at(10)), [("yard".to_owned(), false)].into());
        assert_eq!(fitness.unfit(at(70)), [("yard".to_owned(), true)].into());
        fitness.leaves("yard");
        assert!(fitness.failing().is_empty());
        assert_eq!(fitness.unfit(at(10)).len(), 1, "that is known here");
        fitness.begins("yard", at(80));
        fitness.is("yard", CameraState::Live, at(81));
        fitness.is("yard", CameraState::Waiting, at(100));
        assert!(fitness.unfit(at(100)).is_empty() && fitness.failing().is_empty());
    }

    #[test]
    fn tries_become_fewer() {
        let fitness = Fitness::default();
        fitness.begins("yard", at(0));
        let (mut tries, mut last) = (0, None);
        for second in (0..24 * 3600).step_by(5) {
            fitness.is("yard", CameraState::Waiting, at(second));
            let until = fitness.cameras.lock()["yard"].until;
            tries += usize::from(until != last);
            last = until;
        }
        assert!((20..60).contains(&tries), "{tries} in a day");
    }
}
