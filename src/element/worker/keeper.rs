// SPDX-License-Identifier: MPL-2.0
//! Keeps the memory in a file: reads it at the start, writes it beside everything else and at the stop.
//!
//! The inference thread takes a snapshot, which costs milliseconds, and goes on; a thread of its own
//! writes it. What is asked for while one is being written waits, and is one when its turn comes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gstreamer as gst;

use super::Shared;
use crate::element::bus::{ENGINE, known};
use crate::element::timeline::Saved;
use crate::snapshot::{Claim, Snapshot};
use crate::{EngineError, Stream};

/// What the inference thread knows of the file.
pub struct Keeper {
    claim: Claim,
    interval: Option<Duration>,
    /// When the last snapshot was taken, or the run began.
    last: Instant,
    /// Something has been seen or forgotten since.
    pub changed: bool,
    /// Another one is to be taken when this one is written.
    wanted: bool,
    writing: Option<Writing>,
}

/// A file that is being written.
struct Writing {
    thread: JoinHandle<()>,
    /// The next one may be taken.
    done: Arc<AtomicBool>,
    /// What it was to hold is in no file.
    failed: Arc<AtomicBool>,
}

impl Keeper {
    pub fn new(claim: Claim, interval: Option<gst::ClockTime>) -> Self {
        let interval = interval.map(Duration::from);
        let (changed, wanted, writing) = (false, false, None);
        Self { claim, interval, last: Instant::now(), changed, wanted, writing }
    }

    fn is_writing(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| !writing.done.load(Ordering::Acquire))
    }

    /// When the next snapshot is to be taken, by itself or because it waits. `None`: not before something
    /// happens, of which the end of what is being written is one.
    pub fn due(&self) -> Option<Instant> {
        match (self.is_writing(), self.wanted) {
            (true, _) => None,
            (false, true) => Some(Instant::now()),
            (false, false) => {
                self.interval.filter(|_| self.is_unsaved()).map(|after| self.last + after)
            }
        }
    }

    /// Whether there is anything that no file has, nor one that is being written.
    fn is_unsaved(&self) -> bool {
        let failed = |writing: &Writing| writing.failed.load(Ordering::Acquire);
        self.changed || self.writing.as_ref().is_some_and(failed)
    }

    /// Waits until the file is written.
    fn join(&mut self) {
        if let Some(writing) = self.writing.take() {
            // It says itself what went wrong.
            let died = writing.thread.join().is_err();
            self.changed |= died || writing.failed.load(Ordering::Acquire);
        }
    }

    /// What there is now; `None` while one is being written, and then behind it.
    fn take(&mut self, shared: &Shared, stream: &Stream) -> Option<Result<Taken, EngineError>> {
        self.wanted = self.is_writing();
        if self.wanted {
            return None;
        }
        self.join();
        self.last = Instant::now();
        let timeline = shared.timeline.lock().saved();
        let stats = stream.stats();
        let snapshot = stream.snapshot_with(Some(timeline));
        self.changed = snapshot.is_err();
        let pause = self.last.elapsed();
        shared.queue.lock().counters.save_pause = pause;
        let (frames, units) = (stats.frames, stats.units);
        Some(snapshot.map(|snapshot| Taken { snapshot, frames, units }))
    }
}

/// A snapshot, and of how much.
struct Taken {
    snapshot: Snapshot,
    frames: u64,
    units: u64,
}

impl Shared {
    /// Reads the file, if there is one.
    pub(super) fn restore(&self, claim: &Claim, stream: &mut Stream) -> Result<(), EngineError> {
        let path = claim.path();
        let begun = Instant::now();
        // What the file is for: read now, before the first frame, and not when something is to be saved. Of a
        // large model that takes seconds.
        self.post_step(&format!("Reading the model's files, for {}", path.display()));
        stream.model().fingerprint()?;
        let bytes = match path.metadata() {
            Ok(meta) => meta.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(EngineError::Read { path: path.to_owned(), source }),
        };
        self.post_step(&format!("Restoring {}", path.display()));
        let saved = stream.restore_with::<Option<Saved>>(path)?;
        let saved = saved.flatten().unwrap_or_default();
        if let Some(end) = stream.end() {
            self.timeline.lock().resume(&saved, end);
        }
        let stats = stream.stats();
        let told = [("frames", stats.frames), ("units", stats.units), ("bytes", bytes)];
        self.tell("restored", path, told, begun.elapsed());
        Ok(())
    }

    /// Takes a snapshot and has it written, or makes a note of it.
    pub(super) fn save(self: &Arc<Self>, keeper: &mut Keeper, stream: &Stream) {
        let taken = match keeper.take(self, stream) {
            None => return,
            Some(Err(error)) => return self.outlet.warn(&error),
            Some(Ok(taken)) => taken,
        };
        let (shared, path) = (Arc::clone(self), keeper.claim.path().to_owned());
        let done = Arc::new(AtomicBool::new(false));
        let failed = Arc::new(AtomicBool::new(false));
        let (written, lost) = (Arc::clone(&done), Arc::clone(&failed));
        let write = move || {
            lost.store(!shared.write(taken, &path), Ordering::Release);
            // Under the lock, or whoever is about to wait for it would miss it.
            let queue = shared.queue.lock();
            written.store(true, Ordering::Release);
            drop(queue);
            shared.changed.notify_all();
        };
        match std::thread::Builder::new().name("streamkvqa-save".into()).spawn(write) {
            Ok(thread) => keeper.writing = Some(Writing { thread, done, failed }),
            Err(error) => {
                keeper.changed = true;
                self.outlet.warn(&EngineError::Snapshot {
                    path: keeper.claim.path().to_owned(),
                    reason: format!("cannot be written, since there is no thread for it: {error}"),
                });
            }
        }
    }

    /// The last one, on this thread: the run is over when it is written.
    pub(super) fn save_last(&self, mut keeper: Keeper, stream: &Stream) {
        keeper.join();
        if !keeper.changed && !keeper.wanted {
            return;
        }
        match keeper.take(self, stream) {
            None => {}
            Some(Err(error)) => self.outlet.warn(&error),
            Some(Ok(taken)) => {
                self.write(taken, keeper.claim.path());
            }
        }
    }

    /// Whether it is in the file now.
    fn write(&self, Taken { snapshot, frames, units }: Taken, path: &Path) -> bool {
        let begun = Instant::now();
        match snapshot.write(path) {
            Ok(bytes) => {
                let took = begun.elapsed();
                {
                    let counters = &mut self.queue.lock().counters;
                    counters.saves += 1;
                    (counters.save_bytes, counters.save_took) = (bytes, took);
                }
                let told = [("frames", frames), ("units", units), ("bytes", bytes)];
                self.tell("saved", path, told, took);
                true
            }
            Err(error) => {
                self.outlet.warn(&error);
                false
            }
        }
    }

    fn tell(&self, status: &str, path: &Path, numbers: [(&str, u64); 3], took: Duration) {
        let (path, took) = (path.to_string_lossy(), took.as_secs_f64() * 1e3);
        self.outlet
            .log(*ENGINE, format_args!("memory {status}, {path} {numbers:?} in {took:.1} ms"));
        let mut json = serde_json::json!({ "status": status, "path": path, "took-ms": took });
        let mut structure = gst::Structure::builder("streamkvqa/memory")
            .field("status", status)
            .field("path", &*path)
            .field("took-ms", took)
            .build();
        for (name, number) in numbers {
            structure.set(name, number);
            json[name] = number.into();
        }
        self.outlet.post(structure, known(json));
    }
}
