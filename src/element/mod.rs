// SPDX-License-Identifier: MPL-2.0
//! The upper storey: everything that names GStreamer.
//!
//! The element looks at the video that passes, hands sampled frames to an engine
//! [`Stream`](crate::Stream) on a thread of its own, and carries questions in and answers out. A
//! frame's way through the rooms, and a question's:
//!
//! ```text
//! imp (vfuncs) --video, sampler--> shot --worker queue--> RGB frame --> engine
//!      inlet (who asks what, schedule: when) --^                           |
//!                                   bus, signals, meta, text_pad <-- outlet
//! ```
//!
//! Each room owns its state and offers functions on it; `imp` is the only one that knows all of
//! them, and below it arrows run one way (docs/design.md has the plan).

use glib::prelude::*;
use gstreamer as gst;
use gstreamer_base as gst_base;

pub use enums::{DType, Leaky, PromptStyle, ResetOn, Store, TextFormat, TextTimestamp};

mod answer;
mod bus;
mod condition;
mod detections;
mod enums;
mod frame_clock;
mod imp;
mod inlet;
mod options;
mod outlet;
mod picture;
mod properties;
mod question;
mod questions_file;
mod sampler;
mod schedule;
mod settings;
mod shared_model;
mod stats;
mod text_pad;
mod timeline;
mod video;
mod watch;
mod worker;

glib::wrapper! {
    pub struct StreamKvqa(ObjectSubclass<imp::StreamKvqa>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    // Several copies of the plugin may be asked to register in one process (static and dynamic).
    if !gst::meta::CustomMeta::is_registered(answer::META_NAME) {
        gst::meta::CustomMeta::register(answer::META_NAME, &[]);
    }
    enums::register();
    gst::Element::register(Some(plugin), "streamkvqa", gst::Rank::NONE, StreamKvqa::static_type())
}
