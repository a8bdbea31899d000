// SPDX-License-Identifier: MPL-2.0
//! One loaded pair for all streams of a model.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::TextImage;
use crate::cancel::Cancel;
use crate::error::Result;

/// How often who waits for another's load looks whether it may give up.
const PATIENCE: Duration = Duration::from_millis(50);

enum Slot {
    Loading,
    Loaded(Weak<TextImage>),
}

/// Pairs by folder. The lock is held to look and to note, never while a pair loads.
#[derive(Default)]
pub(in crate::model) struct TextImages {
    slots: Mutex<HashMap<PathBuf, Slot>>,
    changed: Condvar,
}

/// A folder's place while it loads: gives the place up unless a pair has taken it.
struct Place<'a> {
    pairs: &'a TextImages,
    dir: &'a Path,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut slots = self.pairs.slots.lock();
        if matches!(slots.get(self.dir), Some(Slot::Loading)) {
            slots.remove(self.dir);
        }
        drop(slots);
        self.pairs.changed.notify_all();
    }
}

impl TextImages {
    /// The pair of this folder, by `load` if nobody has it or is about to.
    ///
    /// # Errors
    /// [`Cancelled`](crate::EngineError::Cancelled) while another loads it, or those of `load`.
    pub fn get(
        &self,
        dir: &Path,
        cancel: &Cancel,
        load: impl FnOnce() -> Result<TextImage>,
    ) -> Result<Arc<TextImage>> {
        let mut slots = self.slots.lock();
        loop {
            match slots.get(dir) {
                Some(Slot::Loading) => {
                    cancel.check()?;
                    self.changed.wait_for(&mut slots, PATIENCE);
                }
                Some(Slot::Loaded(pair)) => match pair.upgrade() {
                    Some(pair) => return Ok(pair),
                    None => break,
                },
                None => break,
            }
        }
        slots.insert(dir.to_owned(), Slot::Loading);
        drop(slots);
        let place = Place { pairs: self, dir };
        let pair = Arc::new(load()?);
        self.slots.lock().insert(dir.to_owned(), Slot::Loaded(Arc::downgrade(&pair)));
        drop(place);
        Ok(pair)
    }
}
