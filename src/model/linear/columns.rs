// SPDX-License-Identifier: MPL-2.0
//! What products by columns share: threads that write side by side, and when rows are few.

/// Up to this many rows a product is bound by reading the weights.
pub const FEW: usize = 4;

/// A pointer into a matrix of which each thread writes other columns.
pub struct Shared(pub *mut f32);

// SAFETY: whoever has one says so where the pointer is used.
unsafe impl Sync for Shared {}

impl Shared {
    /// Through a method, so that closures borrow the whole and not the bare pointer.
    pub fn get(&self) -> *mut f32 {
        self.0
    }
}
