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

/// Leaf locks; none is held during a turn.
#[derive(Default)]
pub(super) struct Watch {
    bell: Arc<Bell>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Bell {
    state: Mutex<State>,
    rung: Condvar,
}

#[derive(Default)]
struct State {
    woken: bool,
    stopped: bool,
}

impl Watch {
    /// Begins, if it has not: `turn` says how long to sleep before the next one; `None`, until woken.
    pub fn start(&self, turn: impl FnMut() -> Option<Duration> + Send + 'static) {
        let mut thread = self.thread.lock();
        if thread.is_some() {
            return;
        }
        self.bell.state.lock().stopped = false;
        let bell = Arc::clone(&self.bell);
        let spawned = std::thread::Builder::new()
            .name("streamkvqa-watch".into())
            .spawn(move || bell.run(turn));
        match spawned {
            Ok(handle) => *thread = Some(handle),
            Err(error) => gst::warning!(CAT, "no thread to watch the video: {error}"),
        }
    }

    /// Something has changed: the next turn is now.
    pub fn wake(&self) {
        self.bell.state.lock().woken = true;
        self.bell.rung.notify_all();
    }

    pub fn stop(&self) {
        self.bell.state.lock().stopped = true;
        self.bell.rung.notify_all();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            // The application may stop the pipeline where a message is posted, on this very thread.
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            gst::error!(CAT, "the thread that watches the video panicked");
        }
    }
}

impl Bell {
    fn run(&self, mut turn: impl FnMut() -> Option<Duration>) {
        loop {
            let wake = turn().map(|sleep| Instant::now() + sleep.max(SHORTEST_SLEEP));
            let mut state = self.state.lock();
            while !state.woken && !state.stopped {
                match wake {
                    Some(wake) if self.rung.wait_until(&mut state, wake).timed_out() => break,
                    Some(_) => {}
                    None => self.rung.wait(&mut state),
                }
            }
            if state.stopped {
                return;
            }
            state.woken = false;
        }
    }
}
