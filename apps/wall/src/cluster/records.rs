// SPDX-License-Identifier: MPL-2.0
//! What the walls have in common, as it stands in JetStream: one key-value bucket for cameras, leases, walls and
//! snapshots, one for questions, and one object store for memories.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{CameraConfig, StandingConfig};
use crate::hub::{Alert, Answer, Question};

/// `camera.ID`: a camera of the common list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Listed {
    /// How it is watched.
    pub config: CameraConfig,
    /// The hosts whose configurations have it; without any it is not on the list.
    pub from: BTreeSet<String>,
    /// Its place among the cameras of each of them.
    #[serde(default)]
    pub places: BTreeMap<String, usize>,
    /// Standing questions that were added later.
    #[serde(default)]
    pub standing: Vec<StandingConfig>,
    /// Standing questions of the configuration that were taken away later.
    #[serde(default)]
    pub without: BTreeSet<String>,
}

/// `lease.ID`: who may watch a camera. The revision of this record is the fence: whoever writes names the one
/// it has seen last, so of two only one succeeds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    /// The host; none: whoever comes first.
    pub holder: Option<String>,
    /// Which of the host's processes, over all its restarts.
    pub life: String,
    /// Greater than that of every holder before.
    pub epoch: u64,
    /// Without a holder: for whom it was given up.
    pub to: Option<String>,
}

/// `wall.HOST`: a wall that is there. It is written again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Life {
    /// As it is written, of which `key` may be an abridgement.
    pub host: String,
    pub life: String,
    /// Cameras that it takes at most.
    pub max: Option<u32>,
    /// Grows with every writing.
    pub beat: u64,
    /// Cameras that do not start there, and whether they may be tried there again.
    #[serde(default)]
    pub unfit: BTreeMap<String, bool>,
}

/// `memory.ID`: the snapshots of a camera's memory, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Snapshots {
    /// Of the lease under which the newest was made.
    pub epoch: u64,
    pub all: Vec<Snapshot>,
}

/// One of them, in the object store, which keeps a checksum of each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Snapshot {
    pub object: String,
    pub bytes: u64,
    pub at: Timestamp,
}

/// `alert.ID`: what everyone has been told of a camera's alerts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Alerts {
    /// Of the lease under which it was written last.
    pub epoch: u64,
    /// The newest last.
    pub all: Vec<TheAlert>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct TheAlert {
    pub alert: Alert,
    /// When a beginning of its question was last told.
    pub began: Option<Timestamp>,
    /// Which process had the camera.
    pub life: String,
}

impl Alerts {
    /// The newest of a standing question.
    pub fn newest(&self, standing: &str) -> Option<&TheAlert> {
        self.all.iter().rev().find(|one| one.alert.standing == standing)
    }

    /// Leaves the newest `kept`, and the newest of each question that stands.
    pub fn thin(&mut self, kept: usize, stands: impl Fn(&str) -> bool) {
        let recent = self.all.len().saturating_sub(kept);
        let stays = |(at, one): (usize, &TheAlert)| {
            let later = self.all.iter().skip(at + 1);
            let is_newest =
                later.into_iter().all(|later| later.alert.standing != one.alert.standing);
            at >= recent || is_newest && stands(&one.alert.standing)
        };
        let stays: Vec<bool> = self.all.iter().enumerate().map(stays).collect();
        let mut stays = stays.into_iter();
        self.all.retain(|_| stays.next().unwrap_or(true));
    }
}

/// `CAMERA.ID` in the bucket of questions. It becomes `answered` once and for all: by its revision, too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Asked {
    pub question: Question,
    pub asked: Timestamp,
    /// The last word, and whose.
    pub answer: Option<Answer>,
    /// The host that gave it.
    pub by: Option<String>,
    /// Which of its processes.
    pub life: Option<String>,
}

/// What a record of the first bucket is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key<'a> {
    Camera(&'a str),
    Lease(&'a str),
    Wall(&'a str),
    Memory(&'a str),
    Alert(&'a str),
}

impl<'a> Key<'a> {
    pub fn read(key: &'a str) -> Option<Self> {
        let (kind, name) = key.split_once('.')?;
        match kind {
            "camera" => Some(Key::Camera(name)),
            "lease" => Some(Key::Lease(name)),
            "wall" => Some(Key::Wall(name)),
            "memory" => Some(Key::Memory(name)),
            "alert" => Some(Key::Alert(name)),
            _ => None,
        }
    }
}

impl std::fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Key::Camera(name) => write!(f, "camera.{name}"),
            Key::Lease(name) => write!(f, "lease.{name}"),
            Key::Wall(name) => write!(f, "wall.{name}"),
            Key::Memory(name) => write!(f, "memory.{name}"),
            Key::Alert(name) => write!(f, "alert.{name}"),
        }
    }
}
