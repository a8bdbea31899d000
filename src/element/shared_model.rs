// SPDX-License-Identifier: MPL-2.0
//! One loaded model for many elements.
//!
//! A process-wide registry holds what is being loaded, and weak references to what is loaded. The
//! loading thread belongs to the registry, not to the element that came first: it stops when nobody
//! waits any more, and nobody ever waits for it to stop.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::Mutex;

use crate::model::{DTypeChoice, DeviceChoice, HubOptions, LoadProgress, hub};
use crate::{Cancel, EngineError, LoadOptions, VideoLlm};

/// What makes two models the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LoadKey {
    /// Canonical; or a name on the hub that is not in the cache and may be downloaded.
    pub path: PathBuf,
    pub device: DeviceChoice,
    pub dtype: DTypeChoice,
}

/// What a loading thread tells those who wait; called without any lock held.
pub(super) trait Waiter: Send + Sync {
    fn progress(&self, progress: &LoadProgress);
    fn loaded(&self, result: Result<Arc<VideoLlm>, Arc<EngineError>>);
}

enum Slot {
    Loading { serial: u64, cancel: Cancel, waiters: Vec<(u64, Weak<dyn Waiter>)> },
    Loaded(Weak<VideoLlm>),
}

#[derive(Default)]
struct Registry {
    slots: HashMap<LoadKey, Slot>,
    serial: u64,
}

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

/// A place in the queue for a model; dropping it gives the place up.
pub(super) struct Ticket {
    key: LoadKey,
    number: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut registry = REGISTRY.lock();
        let Some(Slot::Loading { cancel, waiters, .. }) = registry.slots.get_mut(&self.key) else {
            return;
        };
        waiters.retain(|(number, _)| *number != self.number);
        if waiters.is_empty() {
            cancel.raise();
            registry.slots.remove(&self.key);
        }
    }
}

pub(super) fn is_loaded(key: &LoadKey) -> bool {
    let registry = REGISTRY.lock();
    matches!(registry.slots.get(key), Some(Slot::Loaded(model)) if model.strong_count() > 0)
}

/// The model if it is loaded; else `waiter` hears of it once it is, as long as the ticket lives.
pub(super) fn request(key: &LoadKey, waiter: &Arc<dyn Waiter>) -> Result<Arc<VideoLlm>, Ticket> {
    let mut registry = REGISTRY.lock();
    registry.serial += 1;
    let number = registry.serial;
    // Not made here: dropping a ticket takes the lock that is held.
    let ticket = || Ticket { key: key.clone(), number };
    match registry.slots.get_mut(key) {
        Some(Slot::Loading { waiters, .. }) => {
            waiters.push((number, Arc::downgrade(waiter)));
            return Err(ticket());
        }
        Some(Slot::Loaded(model)) => {
            if let Some(model) = model.upgrade() {
                return Ok(model);
            }
        }
        None => {}
    }
    let cancel = Cancel::new();
    let slot = Slot::Loading {
        serial: number,
        cancel: cancel.clone(),
        waiters: vec![(number, Arc::downgrade(waiter))],
    };
    registry.slots.insert(key.clone(), slot);
    drop(registry);

    let thread_key = key.clone();
    let spawned = std::thread::Builder::new()
        .name("streamkvqa-load".into())
        .spawn(move || load(&thread_key, number, cancel));
    if let Err(source) = spawned {
        finish(key, number, Err(EngineError::Read { path: key.path.clone(), source }));
    }
    Err(ticket())
}

fn load(key: &LoadKey, serial: u64, cancel: Cancel) {
    let progress_key = key.clone();
    let options = LoadOptions {
        device: key.device,
        dtype: key.dtype,
        progress: Some(Arc::new(move |progress| {
            for waiter in waiters(&progress_key, serial) {
                waiter.progress(progress);
            }
        })),
        cancel,
        hub: HubOptions { download: hub::is_name(&key.path), ..HubOptions::default() },
        made_up: None,
    };
    let loading = std::panic::AssertUnwindSafe(|| VideoLlm::load(&key.path, &options));
    let result = std::panic::catch_unwind(loading).unwrap_or_else(|_| {
        let reason = "loading panicked; please report this with the panic's message".into();
        Err(EngineError::Checkpoint { path: key.path.clone(), reason })
    });
    finish(key, serial, result);
}

/// Those who wait for the load of this number.
fn waiters(key: &LoadKey, serial: u64) -> Vec<Arc<dyn Waiter>> {
    match REGISTRY.lock().slots.get(key) {
        Some(Slot::Loading { serial: current, waiters, .. }) if *current == serial => {
            waiters.iter().filter_map(|(_, waiter)| waiter.upgrade()).collect()
        }
        _ => Vec::new(),
    }
}

fn finish(key: &LoadKey, serial: u64, result: Result<VideoLlm, EngineError>) {
    let result = result.map(Arc::new).map_err(Arc::new);
    let waiters = {
        let mut registry = REGISTRY.lock();
        // A load that everybody gave up may finish after its successor has begun.
        let waiters = match registry.slots.get_mut(key) {
            Some(Slot::Loading { serial: current, waiters, .. }) if *current == serial => {
                std::mem::take(waiters)
            }
            _ => return,
        };
        match &result {
            Ok(model) => {
                registry.slots.insert(key.clone(), Slot::Loaded(Arc::downgrade(model)));
            }
            Err(_) => {
                registry.slots.remove(key);
            }
        }
        registry.slots.retain(|_, slot| match slot {
            Slot::Loading { .. } => true,
            Slot::Loaded(model) => model.strong_count() > 0,
        });
        waiters
    };
    for (_, waiter) in waiters {
        if let Some(waiter) = waiter.upgrade() {
            waiter.loaded(result.clone());
        }
    }
}
