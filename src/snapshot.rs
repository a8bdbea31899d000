// SPDX-License-Identifier: MPL-2.0
//! A memory on its way into a file and back.
//!
//! Taking a [`Snapshot`] is cheap: it holds what does not change any more (blocks, tensors) by its
//! handles, borrows what is large and does change until whoever writes has copied it, and copies the
//! rest. Writing it takes as long as the disk takes, on any thread. A file is
//! replaced as a whole or not at all: the new one is written beside it, brought to the disk and then
//! renamed, so whoever is killed at any moment leaves the newest whole snapshot behind.
//!
//! This room knows files, records and tensors, and nothing of what they mean.

mod file;
mod records;
pub(crate) mod shared;

use std::path::Path;
use std::sync::mpsc;

use candle_core::Tensor;
use serde::Serialize;

pub use file::Claim;
pub use records::{Reader, Writer};

use crate::error::Result;

type Part = Box<dyn FnOnce(&mut Writer) -> Result<()> + Send>;
type Copying = Box<dyn FnOnce() + Send>;

/// What a stream remembers at one moment, to be written at a later one.
#[derive(Default)]
pub struct Snapshot {
    /// What has to be done before anything is written.
    first: Vec<Copying>,
    parts: Vec<Part>,
}

impl Snapshot {
    /// Something that writes itself when its turn comes.
    pub fn add(&mut self, part: impl FnOnce(&mut Writer) -> Result<()> + Send + 'static) {
        self.parts.push(Box::new(part));
    }

    /// Something that is only lent: `copy` is done before anything of the snapshot is written, and gives it back.
    pub fn lent<T: Send + 'static>(
        &mut self,
        copy: impl FnOnce() -> Result<T> + Send + 'static,
        part: impl FnOnce(T, &mut Writer) -> Result<()> + Send + 'static,
    ) {
        let (sender, receiver) = mpsc::channel();
        self.first.push(Box::new(move || {
            // Whoever reads it is in `parts`, and there.
            let _ = sender.send(copy());
        }));
        self.add(move |out| receiver.recv().map_or(Ok(()), |copied| part(copied?, out)));
    }

    pub fn value(&mut self, value: impl Serialize + Send + 'static) {
        self.add(move |out| out.value(&value));
    }

    /// A tensor that nobody writes to any more.
    pub fn tensor(&mut self, tensor: Tensor) {
        self.add(move |out| out.tensor(&tensor));
    }

    /// Writes all of it to a file, in the place of the one that is there; how many bytes these are.
    ///
    /// # Errors
    /// [`EngineError::Snapshot`](crate::EngineError::Snapshot); the file that was there is as it was.
    pub fn write(self, path: &Path) -> Result<u64> {
        let Self { first, parts } = self;
        first.into_iter().for_each(|copy| copy());
        file::replace(path, |mut out| {
            for part in parts {
                part(&mut out)?;
            }
            out.end()
        })
    }
}
