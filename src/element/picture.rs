// SPDX-License-Identifier: MPL-2.0
//! From a video buffer to the picture a model gets: what a viewer would see of it.
//!
//! The streaming thread does one thing to a sampled frame: it copies the visible part of its planes,
//! as they are ([`shot`]). Upstream's buffers are never kept, because their pools are small and
//! elements behind us want to write to them. Colours, crop and turning wait for the inference thread
//! ([`develop`]). [`source`] says which video can be read and what to put in front of the element
//! where it cannot; [`turn`] says which way up the picture is.

mod develop;
mod shot;
mod source;
mod turn;

pub(super) use develop::Darkroom;
pub(super) use shot::Shot;
pub(super) use source::{Source, withdraw_unreadable};
pub(super) use turn::Orientation;

use gstreamer as gst;

/// Whether a buffer holds no picture to remember: damaged, made up to fill a gap, or there for the
/// decoder only.
pub(super) fn is_broken(buffer: &gst::BufferRef) -> bool {
    let broken =
        gst::BufferFlags::CORRUPTED | gst::BufferFlags::GAP | gst::BufferFlags::DECODE_ONLY;
    buffer.flags().intersects(broken)
}

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}
