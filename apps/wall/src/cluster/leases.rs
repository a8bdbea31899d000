// SPDX-License-Identifier: MPL-2.0
//! The leases that this wall holds. Whatever leaves the wall in a camera's name asks here first, and here the
//! clock decides: a process that was stopped for longer than a lease finds, at its first question, that it no
//! longer holds it.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::clock::{Moment, now};
use super::records::{Lease, Listed};

/// How far a lease has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its memory is being fetched.
    Beginning,
    /// It is watched.
    Watching,
    /// It is being given up.
    Leaving,
}

/// A lease of this wall.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// Of its record.
    pub revision: u64,
    /// The fence: greater than that of every holder before.
    pub epoch: u64,
    /// The wall may act for the camera until then, which is earlier than anyone else may take it.
    pub until: Moment,
    pub phase: Phase,
    /// What it is watched by.
    pub listed: Listed,
}

/// All of them.
pub(super) struct Leases {
    /// How long a lease lasts for those who see it.
    pub lasts: Duration,
    held: Mutex<BTreeMap<String, Held>>,
}

impl Leases {
    pub fn new(lasts: Duration) -> Self {
        Leases { lasts, held: Mutex::default() }
    }

    /// How long it lasts for its holder, from before it is written: a fifth is left for stopping.
    fn holders(&self) -> Duration {
        self.lasts.mul_f64(0.8)
    }

    /// A claim that was written after `sent` stands.
    pub fn take(&self, camera: &str, revision: u64, epoch: u64, listed: Listed, sent: Moment) {
        let until = sent + self.holders();
        let held = Held { revision, epoch, until, phase: Phase::Beginning, listed };
        self.held.lock().insert(camera.to_owned(), held);
    }

    /// A renewal that was written after `sent` stands. Of a lease that is no longer held, or has run out
    /// meanwhile, it changes nothing.
    pub fn renewed(&self, camera: &str, epoch: u64, revision: u64, sent: Moment) {
        if let Some(held) = self.held.lock().get_mut(camera)
            && held.epoch == epoch
            && held.until > now()
        {
            held.revision = revision;
            held.until = held.until.max(sent + self.holders());
        }
    }

    /// The record has another revision than was thought, and is this lease's all the same.
    pub fn revised(&self, camera: &str, epoch: u64, revision: u64) {
        if let Some(held) = self.held.lock().get_mut(camera).filter(|held| held.epoch == epoch) {
            held.revision = held.revision.max(revision);
        }
    }

    /// The fence under which this wall may act for a camera at this moment.
    pub fn holds(&self, camera: &str) -> Option<u64> {
        let held = self.held.lock();
        held.get(camera).filter(|held| held.until > now()).map(|held| held.epoch)
    }

    /// The same for a camera that is not being given up.
    pub fn keeps(&self, camera: &str) -> Option<u64> {
        let held = self.held.lock();
        let held =
            held.get(camera).filter(|held| held.until > now() && held.phase != Phase::Leaving)?;
        Some(held.epoch)
    }

    pub fn phase(&self, camera: &str, epoch: u64, phase: Phase) {
        if let Some(held) = self.held.lock().get_mut(camera).filter(|held| held.epoch == epoch) {
            held.phase = phase;
        }
    }

    pub fn listed(&self, camera: &str, epoch: u64, listed: Listed) {
        if let Some(held) = self.held.lock().get_mut(camera).filter(|held| held.epoch == epoch) {
            held.listed = listed;
        }
    }

    /// It is no longer held; what it was.
    pub fn drop(&self, camera: &str, epoch: u64) -> Option<Held> {
        let mut held = self.held.lock();
        if held.get(camera).is_some_and(|held| held.epoch == epoch) {
            held.remove(camera)
        } else {
            None
        }
    }

    /// Those that have run out, which are no longer held.
    pub fn expired(&self) -> Vec<(String, Held)> {
        let moment = now();
        let mut held = self.held.lock();
        let over: Vec<String> = held
            .iter()
            .filter(|(_, held)| held.until <= moment)
            .map(|(camera, _)| camera.clone())
            .collect();
        over.into_iter().filter_map(|camera| held.remove_entry(&camera)).collect()
    }

    pub fn all(&self) -> BTreeMap<String, Held> {
        self.held.lock().clone()
    }
}

impl Held {
    /// Its record.
    pub fn record(&self, host: &str, life: &str) -> Lease {
        Lease { holder: Some(host.into()), life: life.into(), epoch: self.epoch, to: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_over_for_its_holder_before_it_is_for_others() {
        let leases = Leases::new(Duration::from_millis(100));
        let sent = now();
        leases.take("yard", 3, 3, Listed::default(), sent);
        assert_eq!(leases.holds("yard"), Some(3));
        while leases.holds("yard").is_some() {
            assert!(now() - sent < Duration::from_millis(100), "others may take it now");
            std::thread::sleep(Duration::from_millis(1));
        }
        // What comes too late brings nothing back.
        leases.renewed("yard", 3, 4, now());
        assert_eq!(leases.holds("yard"), None);
        assert_eq!(leases.expired().len(), 1);
    }

    #[test]
    fn a_renewal_counts_from_when_it_was_sent() {
        let leases = Leases::new(Duration::from_secs(100));
        let sent = now();
        leases.take("yard", 3, 3, Listed::default(), sent);
        leases.renewed("yard", 3, 4, sent + Duration::from_secs(10));
        let held = leases.all()["yard"].clone();
        assert_eq!((held.revision, held.until), (4, sent + Duration::from_secs(90)));
        leases.renewed("yard", 2, 9, sent + Duration::from_secs(20));
        assert_eq!(leases.all()["yard"].revision, 4, "of another lease");
    }
}
