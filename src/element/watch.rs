// SPDX-License-Identifier: MPL-2.0
//! A thread for what is to happen while nothing else happens: no frame comes, but time passes.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gstreamer as gst;
use parking_lot::{Condvar, Mutex};

use super::bus::CAT;

/// A turn may ask for the next one no sooner.
const SHORTEST_SLEEP: Duration = Duration::from_millis(10);

/// A leaf lock, not held during a turn.
#[derive(Default)]
pub(super) struct Watch(Mutex<State>);

#[derive(Default)]
enum State {
    /// There is no run that could be watched.
    #[default]
    Closed,
    Open,
    Running(Arc<Bell>, JoinHandle<()>),
}

/// What wakes a thread or ends it. Each has its own, so one that was left behind stays ended.
#[derive(Default)]
struct Bell {
    rings: Mutex<Rings>,
    rung: Condvar,
}

#[derive(Default)]
struct Rings {
    woken: bool,
    stopped: bool,
}

impl Watch {
    /// From now on it may begin.
    pub fn open(&self) {
        *self.0.lock() = State::Open;
    }

    /// Begins, if it has not: `turn` says how long to sleep before the next one; `None`, until woken.
    pub fn start(&self, turn: impl FnMut() -> Option<Duration> + Send + 'static) {
        let mut state = self.0.lock();
        if !matches!(*state, State::Open) {
            return;
        }
        let bell = Arc::new(Bell::default());
        let own = Arc::clone(&bell);
        let thread = std::thread::Builder::new()
            .name("streamkvqa-watch".into())
            .spawn(move || own.run(turn));
        match thread {
            Ok(thread) => *state = State::Running(bell, thread),
            Err(error) => gst::warning!(CAT, "no thread to watch the video: {error}"),
        }
    }

    /// Something has changed: the next turn is now.
    pub fn wake(&self) {
        if let State::Running(bell, _) = &*self.0.lock() {
            bell.ring(|rings| rings.woken = true);
        }
    }

    /// Ends, and does not begin again before it is opened.
    pub fn stop(&self) {
        let state = std::mem::take(&mut *self.0.lock());
        let State::Running(bell, thread) = state else { return };
        bell.ring(|rings| rings.stopped = true);
        // The application may stop the pipeline where a message is posted, on this very thread.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            gst::error!(CAT, "the thread that watches the video panicked");
        }
    }
}

impl Bell {
    fn ring(&self, how: impl FnOnce(&mut Rings)) {
        how(&mut self.rings.lock());
        self.rung.notify_all();
    }

    fn run(&self, mut turn: impl FnMut() -> Option<Duration>) {
        loop {
            let wake = turn().map(|sleep| Instant::now() + sleep.max(SHORTEST_SLEEP));
            let mut rings = self.rings.lock();
            while !rings.woken && !rings.stopped {
                match wake {
                    Some(wake) if self.rung.wait_until(&mut rings, wake).timed_out() => break,
                    Some(_) => {}
                    None => self.rung.wait(&mut rings),
                }
            }
            if rings.stopped {
                return;
            }
            rings.woken = false;
        }
    }
}
