// SPDX-License-Identifier: MPL-2.0
//! What one wall knows of all, and what it should do. No input or output here, and no clock: whoever calls says
//! what moment it is.
//!
//! A lease has run out when its record has not changed for as long as a lease lasts since it was first *seen*.
//! The holder counts from before it *wrote* that record and stops earlier than that, so the two can never
//! overlap, whatever their clocks show.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::clock::Moment;
use super::records::{Lease, Life, Listed};

/// How long a camera that was given up for one wall waits for it.
const FOR_ONE: Duration = Duration::from_secs(2);
/// After how long a free camera is taken by a wall that has its share already.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long one waits for a wall on which it may start.
const FOR_FIT: Duration = Duration::from_secs(5);

/// A record, and since when it is known.
#[derive(Clone, Debug)]
pub(super) struct Seen<T> {
    pub revision: u64,
    pub value: T,
    pub at: Moment,
}

/// What stands in the common records.
#[derive(Default)]
pub(super) struct View {
    pub cameras: BTreeMap<String, Seen<Listed>>,
    /// `None`: it has been deleted; its revision counts all the same.
    pub leases: BTreeMap<String, Seen<Option<Lease>>>,
    pub walls: BTreeMap<String, Seen<Life>>,
}

/// The wall that decides.
pub(super) struct Me<'a> {
    pub host: &'a str,
    pub life: &'a str,
    pub max: Option<u32>,
    /// Cameras that it holds, and whether it is about to give them up.
    pub held: &'a BTreeMap<String, bool>,
    /// Cameras that do not start here, and whether they may be tried again.
    pub unfit: &'a BTreeMap<String, bool>,
    /// Those of them that it holds.
    pub failing: &'a BTreeSet<String>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Take a camera whose lease has this revision (0: there is none).
    Claim { camera: String, revision: u64 },
    /// Leave one to a wall that has fewer.
    Give { camera: String, to: String },
}

impl View {
    /// Records a change unless it is known already; returns whether it was new.
    pub fn see<T>(
        known: &mut BTreeMap<String, Seen<T>>,
        name: &str,
        revision: u64,
        value: T,
        at: Moment,
    ) -> bool {
        match known.get(name) {
            Some(seen) if seen.revision >= revision => false,
            _ => {
                known.insert(name.to_owned(), Seen { revision, value, at });
                true
            }
        }
    }

    /// The walls that have been heard of within a lease.
    pub fn alive(&self, now: Moment, lease: Duration) -> BTreeMap<&str, &Life> {
        let fresh = self.walls.values().filter(|seen| now.saturating_sub(seen.at) < lease);
        fresh.map(|seen| (seen.value.host.as_str(), &seen.value)).collect()
    }

    /// Who holds a camera, as far as one knows.
    pub fn holder(&self, camera: &str, now: Moment, lease: Duration) -> Option<&Lease> {
        let seen = self.leases.get(camera)?;
        let held = seen.value.as_ref().filter(|lease| lease.holder.is_some())?;
        (now.saturating_sub(seen.at) < lease).then_some(held)
    }

    /// Since when a camera may be taken, and with which revision; none: not yet.
    fn free(&self, camera: &str, me: &Me, now: Moment, lease: Duration) -> Option<(Moment, u64)> {
        let listed = self.cameras.get(camera)?;
        let Some(seen) = self.leases.get(camera) else { return Some((listed.at, 0)) };
        let Some(value) = &seen.value else { return Some((seen.at.max(listed.at), seen.revision)) };
        let since = match (&value.holder, &value.to) {
            // A claim of ours that arrived after we had given up on it.
            (Some(holder), _) if holder == me.host && value.life == me.life => seen.at,
            (Some(_), _) => seen.at + lease,
            (None, Some(to)) if to == me.host => seen.at,
            (None, Some(to)) if self.alive(now, lease).contains_key(to.as_str()) => {
                seen.at + FOR_ONE
            }
            (None, _) => seen.at,
        };
        (since <= now).then_some((since, seen.revision))
    }

    /// What `me` should do now.
    pub fn decide(&self, me: &Me, now: Moment, lease: Duration) -> Vec<Act> {
        let alive = self.alive(now, lease);
        let walls = alive.len() + usize::from(!alive.contains_key(me.host));
        let share = self.cameras.len().div_ceil(walls.max(1));
        let max = me.max.map_or(usize::MAX, |max| max as usize);
        let mut mine = me.held.len();
        let mut free: Vec<(&String, Moment, u64)> = self
            .cameras
            .keys()
            .filter(|camera| !me.held.contains_key(*camera))
            .filter_map(|camera| {
                self.free(camera, me, now, lease).map(|(since, rev)| (camera, since, rev))
            })
            .collect();
        if free.is_empty() {
            return self.give(me, &alive, now, lease).into_iter().collect();
        }
        // Each wall begins with others, so that they seldom reach for the same one.
        free.sort_by_key(|(camera, ..)| mix(me.host, camera));
        let mut acts = Vec::new();
        for (camera, since, revision) in free {
            let waits = now.saturating_sub(since);
            // It is for one who can; if nobody comes, for whoever tries.
            let others = alive.iter().filter(|(host, _)| **host != me.host);
            let others_can =
                || others.into_iter().any(|(_, life)| !life.unfit.contains_key(camera));
            if me.unfit.contains_key(camera) && waits < FOR_FIT && others_can() {
                continue;
            }
            let lonely = waits >= PATIENCE;
            if mine < max && (mine < share || lonely) {
                mine += 1;
                acts.push(Act::Claim { camera: camera.clone(), revision });
            }
        }
        acts
    }

    /// One camera that does not start here for a wall that has not tried it, or may try again; else one for the
    /// wall that has the fewest, if that has two less than we.
    fn give(
        &self,
        me: &Me,
        alive: &BTreeMap<&str, &Life>,
        now: Moment,
        lease: Duration,
    ) -> Option<Act> {
        if me.held.values().any(|leaving| *leaving) {
            return None;
        }
        let mut counts: BTreeMap<&str, usize> = alive.keys().map(|host| (*host, 0)).collect();
        for camera in self.cameras.keys() {
            let seen = self.leases.get(camera).and_then(|seen| seen.value.as_ref());
            let held = self.holder(camera, now, lease).and_then(|lease| lease.holder.as_deref());
            let host = held.or_else(|| seen.and_then(|lease| lease.to.as_deref()));
            if let Some(count) = host.and_then(|host| counts.get_mut(host)) {
                *count += 1;
            }
        }
        let room = |host: &str, count: usize| {
            alive.get(host).is_some_and(|life| life.max.is_none_or(|max| count < max as usize))
        };
        let mut others: Vec<(&str, usize)> = counts
            .iter()
            .filter(|(host, count)| **host != me.host && room(host, **count))
            .map(|(host, count)| (*host, *count))
            .collect();
        others.sort_by_key(|(_, count)| *count);
        let unfit = |host: &str, camera: &str| alive.get(host)?.unfit.get(camera).copied();
        for camera in me.failing.iter().filter(|camera| me.held.contains_key(*camera)) {
            let untried = others.iter().find(|(host, _)| unfit(host, camera).is_none());
            let again = || others.iter().find(|(host, _)| unfit(host, camera) == Some(true));
            if let Some((to, _)) = untried.or_else(again) {
                return Some(Act::Give { camera: camera.clone(), to: (*to).to_owned() });
            }
        }
        others.iter().take_while(|(_, count)| me.held.len() >= count + 2).find_map(|(to, _)| {
            let fitting = me.held.keys().filter(|camera| unfit(to, camera).is_none());
            let camera = fitting.max_by_key(|camera| mix(me.host, camera))?;
            Some(Act::Give { camera: camera.clone(), to: (*to).to_owned() })
        })
    }

    /// Cameras of the list, as the configurations have them: by the first place that one of them gives, then by id.
    pub fn order(&self) -> Vec<String> {
        let place = |seen: &Seen<Listed>| seen.value.places.values().min().copied();
        let mut all: Vec<(usize, &String)> =
            self.cameras.iter().map(|(id, seen)| (place(seen).unwrap_or(usize::MAX), id)).collect();
        all.sort();
        all.into_iter().map(|(_, id)| id.clone()).collect()
    }

    /// Cameras of the list.
    pub fn names(&self) -> BTreeSet<String> {
        self.cameras.keys().cloned().collect()
    }
}

/// A number that is the same on all machines and different for each pair (FNV-1a).
fn mix(host: &str, camera: &str) -> u64 {
    let bytes = host.bytes().chain([0]).chain(camera.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
