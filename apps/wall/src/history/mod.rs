// SPDX-License-Identifier: MPL-2.0
//! Questions, answers, alerts and pictures of the past, in one SQLite database.
//!
//! One thread writes (`writer`); whoever reads opens the file beside it. A disk that is full or gone is a state
//! on the page: what happens meanwhile is told to everyone, and written once there is room.

mod read;
mod record;
mod retention;
mod schema;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::ToSchema;

use self::writer::{Job, Writer};
use crate::config::{HistoryConfig, StandingConfig};
use crate::hub::{Alert, Answer, Event, Hub};
use crate::picture::Picture;

pub use read::{Kind, Moment, Query};

const OPENING: Duration = Duration::from_secs(10);
/// That a question may wait for the disk before it is taken.
const TAKING: Duration = Duration::from_secs(2);
/// Pictures that may wait for the disk. Further ones are lost to the past, and to nobody else.
const MOST_PICTURES: usize = 256;

/// One thing that was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// A question and its answer.
    Answer(Answer),
    /// An alert.
    Alert(Alert),
}

/// Why the past cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// SQLite's.
    #[error("the history cannot be read or written: {0}")]
    Database(#[from] rusqlite::Error),
    /// What is in it is not understood.
    #[error("an entry of the history is not understood: {0}")]
    Entry(#[from] serde_json::Error),
    /// The thread that writes has ended.
    #[error("the history is closed")]
    Closed,
}

/// The past. Clones are the same.
#[derive(Clone)]
pub struct History {
    inner: Arc<Inner>,
}

struct Inner {
    folder: PathBuf,
    picture_every: Mutex<Duration>,
    jobs: mpsc::Sender<Job>,
    waiting_pictures: Arc<AtomicUsize>,
    readers: Mutex<Vec<rusqlite::Connection>>,
}

impl History {
    /// Keeps the past in `folder`, which must be there. Whether it can be written is a state of `hub`.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(folder: &Path, config: &HistoryConfig, hub: &Hub) -> std::io::Result<Self> {
        let (jobs, inbox) = mpsc::channel();
        let waiting_pictures = Arc::new(AtomicUsize::new(0));
        let writer =
            Writer::new(folder, config.clone(), hub.clone(), inbox, waiting_pictures.clone());
        let (ready, is_open) = mpsc::channel();
        std::thread::Builder::new().name("history".into()).spawn(move || writer.run(&ready))?;
        // What is read next is to be there. A disk that hangs holds the start up for a moment only.
        let _ = is_open.recv_timeout(OPENING);
        let inner = Inner {
            folder: folder.to_path_buf(),
            picture_every: Mutex::new(every(config)),
            jobs,
            waiting_pictures,
            readers: Mutex::default(),
        };
        Ok(History { inner: Arc::new(inner) })
    }

    /// Keeps the answers and alerts of a hub, each once however many hubs it goes through. Its listeners hear of
    /// them when they are written, with pictures of the evidence.
    pub fn keep(&self, hub: &Hub) {
        let (jobs, to) = (self.inner.jobs.clone(), hub.clone());
        hub.keep_with(Box::new(move |event| {
            jobs.send(Job::Record(Box::new(event), to.clone())).err().and_then(
                |error| match error.0 {
                    Job::Record(event, _) => Some(*event),
                    _ => None,
                },
            )
        }));
    }

    /// A question is taken; `last` is its last word if the wall is killed before it has another. Waits for the
    /// disk, a moment at most: questions go on where nothing can be written.
    pub async fn open_question(&self, last: Answer) {
        let (reply, done) = oneshot::channel();
        if self.inner.jobs.send(Job::Open(Box::new(last), reply)).is_ok() {
            let _ = tokio::time::timeout(TAKING, done).await;
        }
    }

    /// It was not taken after all.
    pub fn not_taken(&self, id: &str) {
        let _ = self.inner.jobs.send(Job::NotTaken(id.to_owned()));
    }

    /// What a standing question watches for is another thing from now on.
    pub fn forget_alert(&self, camera: &str, standing: &str) {
        let _ = self.inner.jobs.send(Job::ForgetAlert(camera.to_owned(), standing.to_owned()));
    }

    /// The configuration says something else.
    pub fn configure(&self, config: &HistoryConfig) {
        *self.inner.picture_every.lock() = every(config);
        let _ = self.inner.jobs.send(Job::Configure(config.clone()));
    }

    /// Between the pictures that are kept.
    pub fn picture_every(&self) -> Duration {
        *self.inner.picture_every.lock()
    }

    /// Keeps a picture of a camera. Never waits: what the disk has no time for is lost.
    pub fn keep_picture(&self, camera: &str, picture: &Picture) {
        if self.inner.waiting_pictures.fetch_add(1, Ordering::Relaxed) < MOST_PICTURES {
            let job = Job::Picture(camera.to_owned(), picture.clone());
            if self.inner.jobs.send(job).is_ok() {
                return;
            }
        }
        self.inner.waiting_pictures.fetch_sub(1, Ordering::Relaxed);
    }

    /// Keeps a standing question of a camera, until it is forgotten. Waits for the disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_standing(
        &self,
        camera: &str,
        standing: &StandingConfig,
    ) -> Result<(), HistoryError> {
        let (camera, standing) = (camera.to_owned(), standing.clone());
        self.wait(|reply| Job::KeepStanding(camera, standing, reply))
    }

    /// Forgets one. Waits for the disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn forget_standing(&self, camera: &str, id: &str) -> Result<(), HistoryError> {
        let (camera, id) = (camera.to_owned(), id.to_owned());
        self.wait(|reply| Job::ForgetStanding(camera, id, reply))
    }

    /// Writes what waits, and ends. Waits for the disk, a moment at most.
    pub fn close(&self) {
        let (reply, done) = mpsc::channel();
        if self.inner.jobs.send(Job::Close(reply)).is_ok() {
            let _ = done.recv_timeout(Duration::from_secs(10));
        }
    }

    fn wait(
        &self,
        job: impl FnOnce(mpsc::Sender<rusqlite::Result<()>>) -> Job,
    ) -> Result<(), HistoryError> {
        let (reply, done) = mpsc::channel();
        self.inner.jobs.send(job(reply)).map_err(|_| HistoryError::Closed)?;
        let done = done.recv_timeout(Duration::from_secs(10)).map_err(|_| HistoryError::Closed)?;
        Ok(done?)
    }
}

fn every(config: &HistoryConfig) -> Duration {
    Duration::try_from_secs_f64(config.picture_every).unwrap_or(Duration::from_secs(1))
}

impl Entry {
    /// Of an event, if it is one to be kept.
    pub fn of(event: &Event) -> Option<Entry> {
        match event {
            Event::Answer(answer) => Some(Entry::Answer(answer.clone())),
            Event::Alert(alert) => Some(Entry::Alert(alert.clone())),
            _ => None,
        }
    }

    /// Its name: unique, over all machines.
    pub fn id(&self) -> &str {
        match self {
            Entry::Answer(answer) => &answer.id,
            Entry::Alert(alert) => &alert.id,
        }
    }

    /// When it happened.
    pub fn at(&self) -> Timestamp {
        match self {
            Entry::Answer(answer) => answer.answered,
            Entry::Alert(alert) => alert.at,
        }
    }
}

/// A picture's name.
fn key(camera: &str, at: i64) -> String {
    format!("{camera}-{at}")
}

/// When a picture of this name was seen, if it is this camera's.
fn at_of(key: &str, camera: &str) -> Option<i64> {
    let (of, at) = key.rsplit_once('-')?;
    at.parse().ok().filter(|_| of == camera)
}

/// Milliseconds, as times are in the database.
fn ms(at: Timestamp) -> i64 {
    at.as_millisecond()
}

#[cfg(test)]
mod tests;
