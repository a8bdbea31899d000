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

use candle_core::Tensor;
use serde::Serialize;

pub use file::Claim;
pub use records::{Reader, Writer};

use crate::error::Result;

type Write = Box<dyn FnOnce(&mut Writer) -> Result<()> + Send>;

enum Part {
    Ready(Write),
    /// What is to be copied before anything is written.
    Lent(Box<dyn FnOnce() -> Result<Write> + Send>),
}

impl Part {
    fn ready(self) -> Result<Write> {
        match self {
            Self::Ready(write) => Ok(write),
            Self::Lent(copy) => copy(),
        }
    }
}

/// What a stream remembers at one moment, to be written at a later one.
#[derive(Default)]
pub struct Snapshot {
    parts: Vec<Part>,
}

impl Snapshot {
    /// Something that writes itself when its turn comes.
    pub fn add(&mut self, part: impl FnOnce(&mut Writer) -> Result<()> + Send + 'static) {
        self.parts.push(Part::Ready(Box::new(part)));
    }

    /// Something that is only lent: `copy` comes before anything of the snapshot is written, and gives it back;
    /// what it returns writes the copy.
    pub fn lent<W>(&mut self, copy: impl FnOnce() -> Result<W> + Send + 'static)
    where
        W: FnOnce(&mut Writer) -> Result<()> + Send + 'static,
    {
        self.parts.push(Part::Lent(Box::new(move || Ok(Box::new(copy()?)))));
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
    /// [`EngineError::Snapshot`](crate::EngineError::Snapshot), or what the computation fails with where something
    /// is copied; the file that was there is as it was.
    pub fn write(self, path: &Path) -> Result<u64> {
        let parts = self.parts.into_iter().map(Part::ready).collect::<Result<Vec<_>>>()?;
        file::replace(path, |mut out| {
            for part in parts {
                part(&mut out)?;
            }
            out.end()
        })
    }
}
