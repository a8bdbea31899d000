// SPDX-License-Identifier: MPL-2.0
//! Cancellation: one flag shared by whoever runs the model and whoever wants it to stop.
//!
//! The engine looks at the flag between layers, so a flush or a state change waits for at most one
//! layer of one forward pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{EngineError, Result};

/// A flag that, once raised, makes every engine call that holds a clone of it return
/// [`EngineError::Cancelled`].
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the work that holds a clone of this flag to stop. There is no way back: the next piece
    /// of work takes a new flag.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// `Err(Cancelled)` once the flag is raised.
    pub fn check(&self) -> Result<()> {
        if self.is_raised() { Err(EngineError::Cancelled) } else { Ok(()) }
    }
}
