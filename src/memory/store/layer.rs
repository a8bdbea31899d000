// SPDX-License-Identifier: MPL-2.0
//! What one layer holds of a stream.

use super::blocks::{Blocks, Found};
use super::pool::Stretch;
use super::window::{ChangedWindow, Window};
use crate::error::Result;
use crate::memory::kv::Kv;
use crate::memory::unit::Geometry;
use crate::snapshot::{Reader, Snapshot};

#[derive(Debug)]
pub struct LayerStore {
    /// The tokens before the video, un-rotated: first part of every context, and attention sinks
    /// once the window has moved past them.
    pub prefix: Option<Kv>,
    /// The same where it lies, to be gathered with blocks.
    pub opening: Option<Stretch>,
    pub window: Window,
    /// The window of changed keys, where new tokens see that.
    pub changed: ChangedWindow,
    pub blocks: Blocks,
}

impl LayerStore {
    /// Nothing yet, with a window of so many tokens; `None`: of all.
    pub fn new(window: Option<usize>) -> Self {
        Self {
            prefix: None,
            opening: None,
            window: Window::new(window),
            changed: ChangedWindow::default(),
            blocks: Blocks::default(),
        }
    }

    /// The tokens before the video, un-rotated.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn open(&mut self, prefix: Stretch) -> Result<()> {
        self.prefix = Some(prefix.kv()?);
        self.opening = Some(prefix);
        Ok(())
    }

    /// The windows, and what blocks are found by; the blocks themselves are the tiers'.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn save(&self, into: &mut Snapshot) -> Result<()> {
        self.window.save(into)?;
        self.changed.save(into)?;
        self.blocks.save(into)
    }

    /// Takes the windows in; what is returned waits for the blocks.
    ///
    /// # Errors
    /// What is wrong with the file, or what the computation fails with.
    pub fn restore(&mut self, from: &mut Reader, geometry: &Geometry) -> Result<Found> {
        self.window.restore(from, geometry)?;
        self.changed = ChangedWindow::restored(from, geometry)?;
        Found::restored(from, geometry)
    }

    /// Bytes of what is not a block.
    pub fn fixed_bytes(&self) -> u64 {
        self.prefix.as_ref().map_or(0, Kv::footprint) + self.window.bytes() + self.changed.bytes()
    }
}
