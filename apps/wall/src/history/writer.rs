// SPDX-License-Identifier: MPL-2.0
//! The thread that writes. Answers and alerts are told to everyone once they are in the file, or once it is clear
//! that they cannot be for now.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::record::{self, Record};
use super::{retention, schema};
use crate::config::{HistoryConfig, StandingConfig};
use crate::hub::{Answer, AnswerId, Broker, BrokerKind, BrokerState, Event, Hub};
use crate::picture::Picture;

const SWEEP_EVERY: Duration = Duration::from_secs(15);
const TRY_EVERY: Duration = Duration::from_secs(5);
/// Written in one go.
const BATCH: usize = 256;
/// Entries that may wait for a disk; further ones are told and forgotten.
const MOST_WAITING: usize = 10_000;

/// What is to be written.
pub enum Job {
    Record(Box<Event>, Hub),
    Open(Box<Answer>, oneshot::Sender<()>),
    NotTaken(AnswerId),
    ForgetAlert(String, String),
    Picture(String, Picture),
    KeepStanding(String, StandingConfig, Sender<rusqlite::Result<()>>),
    ForgetStanding(String, String, Sender<rusqlite::Result<()>>),
    Configure(HistoryConfig),
    Close(Sender<()>),
}

pub struct Writer {
    folder: PathBuf,
    config: HistoryConfig,
    hub: Hub,
    inbox: Receiver<Job>,
    waiting_pictures: Arc<AtomicUsize>,
    connection: Option<Connection>,
    /// Told already, not written yet.
    waiting: VecDeque<Event>,
    /// Why nothing can be written, and when it is tried again.
    fault: Option<(String, Instant)>,
    told: Option<(Option<String>, usize)>,
    next_sweep: Instant,
}

impl Writer {
    pub fn new(
        folder: &Path,
        config: HistoryConfig,
        hub: Hub,
        inbox: Receiver<Job>,
        waiting_pictures: Arc<AtomicUsize>,
    ) -> Self {
        Writer {
            folder: folder.to_path_buf(),
            config,
            hub,
            inbox,
            waiting_pictures,
            connection: None,
            waiting: VecDeque::new(),
            fault: None,
            told: None,
            next_sweep: Instant::now(),
        }
    }

    /// Writes until it is closed; tells once it is clear whether it can.
    pub fn run(mut self, ready: &Sender<()>) {
        self.open();
        let _ = ready.send(());
        loop {
            let next = self.fault.as_ref().map_or(self.next_sweep, |(_, at)| *at);
            match self.inbox.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(job) => {
                    if let Some(closed) = self.work(job) {
                        // The file is then as small as it can be, and of one piece.
                        drop(self.connection.take());
                        let _ = closed.send(());
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.look_after(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Takes a job and those behind it; what to tell if one of them is the end.
    fn work(&mut self, first: Job) -> Option<Sender<()>> {
        let mut jobs = vec![first];
        jobs.extend(self.inbox.try_iter().take(BATCH));
        let (mut records, mut pictures, mut closed) = (Vec::new(), Vec::new(), None);
        for job in jobs {
            match job {
                Job::Record(event, hub) => {
                    records.push(Record { event: *event, hub, is_known: false });
                }
                Job::Open(last, reply) => {
                    self.note(|connection| record::open_question(connection, &last));
                    let _ = reply.send(());
                }
                Job::NotTaken(id) => {
                    self.note(|connection| record::close_question(connection, &id))
                }
                Job::ForgetAlert(camera, standing) => {
                    self.note(|connection| record::forget_alert(connection, &camera, &standing));
                }
                Job::Picture(camera, picture) => pictures.push((camera, picture)),
                Job::Configure(config) => {
                    self.config = config;
                    self.next_sweep = Instant::now();
                }
                Job::KeepStanding(camera, standing, reply) => {
                    let kept = self.connection().and_then(|connection| {
                        record::keep_standing(connection, &camera, &standing)
                    });
                    let _ = reply.send(kept);
                }
                Job::ForgetStanding(camera, id, reply) => {
                    let forgotten = self
                        .connection()
                        .and_then(|connection| record::forget_standing(connection, &camera, &id));
                    let _ = reply.send(forgotten);
                }
                Job::Close(reply) => closed = Some(reply),
            }
        }
        self.waiting_pictures.fetch_sub(pictures.len(), Ordering::Relaxed);
        self.write(records, &pictures);
        if self.fault.is_none() && self.next_sweep <= Instant::now() {
            self.look_after();
        }
        closed
    }

    /// The pictures first: evidence may be among them.
    fn write(&mut self, mut records: Vec<Record>, pictures: &[(String, Picture)]) {
        if records.is_empty() && (pictures.is_empty() || self.fault.is_some()) {
            return;
        }
        let result = match (&mut self.connection, &self.fault) {
            (Some(connection), None) => record::commit(connection, &mut records, pictures),
            _ => Ok(false),
        };
        let written = match result {
            Ok(written) => written,
            Err(error) => {
                self.fail(&error);
                false
            }
        };
        if !written {
            let room = MOST_WAITING.saturating_sub(self.waiting.len());
            self.waiting.extend(records.iter().take(room).map(|record| record.event.clone()));
        }
        self.tell();
        for record in records.into_iter().filter(|record| !written || !record.is_known) {
            record.hub.announce(record.event);
        }
    }

    /// Makes room, and tries again what did not work.
    fn look_after(&mut self) {
        if self.fault.is_some() || self.connection.is_none() {
            self.fault = None;
            self.retry();
        }
        self.next_sweep = Instant::now() + SWEEP_EVERY;
        let Some(connection) = self.connection.as_mut().filter(|_| self.fault.is_none()) else {
            return;
        };
        if let Err(error) = retention::sweep(connection, &self.config) {
            self.fail(&error);
        }
    }

    fn retry(&mut self) {
        if self.connection.is_none() {
            self.open();
        }
        let Some(connection) = &mut self.connection else { return };
        if !self.waiting.is_empty() {
            let hub = &self.hub;
            let record =
                |event: &Event| Record { event: event.clone(), hub: hub.clone(), is_known: true };
            let mut records: Vec<Record> = self.waiting.iter().map(record).collect();
            match record::commit(connection, &mut records, &[]) {
                Ok(_) => self.waiting.clear(),
                Err(error) => return self.fail(&error),
            }
        } else if let Err(error) = probe(connection) {
            return self.fail(&error);
        }
        self.tell();
    }

    fn open(&mut self) {
        match schema::open(&self.folder) {
            Ok(connection) => self.connection = Some(connection),
            Err(error) if schema::is_damaged(&error) => {
                if let Err(error) = put_aside(&self.folder) {
                    self.fail(&rusqlite::Error::ToSqlConversionFailure(Box::new(error)));
                    return;
                }
                match schema::open(&self.folder) {
                    Ok(connection) => self.connection = Some(connection),
                    Err(error) => self.fail(&error),
                }
            }
            Err(error) => self.fail(&error),
        }
        self.tell();
    }

    fn fail(&mut self, error: &rusqlite::Error) {
        let mut reason =
            format!("the history in {} cannot be written: {error}", self.folder.display());
        if schema::is_full(error) {
            reason = format!(
                "the disk of {} is full; make room on it. Nothing is lost that was stored",
                self.folder.display()
            );
            if let Some(connection) = &mut self.connection {
                // Pages of pictures are of use to answers; where that does not help, somebody has to.
                let _ = retention::thin_pictures(connection);
            }
        }
        if schema::is_damaged(error) {
            self.connection = None;
        }
        tracing::warn!("{reason}");
        self.fault = Some((reason, Instant::now() + TRY_EVERY));
        self.tell();
    }

    /// Tells how it is, where that has changed.
    fn tell(&mut self) {
        let now = (self.fault.as_ref().map(|(reason, _)| reason.clone()), self.waiting.len());
        if self.told.as_ref() == Some(&now) {
            return;
        }
        let failed = self.fault.is_some();
        self.hub.announce(Event::Broker(Broker {
            name: "history".into(),
            kind: BrokerKind::History,
            state: if failed { BrokerState::Failed } else { BrokerState::Connected },
            reason: now.0.clone(),
            next_try: failed.then(|| {
                Timestamp::now().checked_add(TRY_EVERY).unwrap_or_else(|_| Timestamp::now())
            }),
            waiting: now.1 as u64,
        }));
        self.told = Some(now);
    }

    /// Writes something small, of which nobody is told where it cannot be.
    fn note(&self, write: impl FnOnce(&Connection) -> rusqlite::Result<()>) {
        if self.fault.is_some() {
            return;
        }
        if let Err(error) = self.connection().and_then(write) {
            tracing::warn!("the history in {} cannot be written: {error}", self.folder.display());
        }
    }

    fn connection(&self) -> rusqlite::Result<&Connection> {
        self.connection.as_ref().ok_or(rusqlite::Error::InvalidQuery)
    }
}

/// Whether it can be written.
fn probe(connection: &Connection) -> rusqlite::Result<()> {
    let touch = "INSERT OR REPLACE INTO standing (camera, id, json) VALUES ('', '', '')";
    connection.execute(touch, [])?;
    connection.execute("DELETE FROM standing WHERE camera = ''", []).map(drop)
}

/// A damaged file is kept for whoever knows how to read it; the wall begins a new one.
fn put_aside(folder: &Path) -> std::io::Result<()> {
    let name = format!("{}.damaged-{}", schema::FILE, Timestamp::now().as_second());
    tracing::error!("{} is damaged; it is now {name}", folder.join(schema::FILE).display());
    std::fs::rename(folder.join(schema::FILE), folder.join(&name))?;
    for end in ["-wal", "-shm"] {
        let _ = std::fs::rename(
            folder.join(format!("{}{end}", schema::FILE)),
            folder.join(format!("{name}{end}")),
        );
    }
    Ok(())
}
