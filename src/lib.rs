// SPDX-License-Identifier: MPL-2.0
#![allow(unused_doc_comments)]
//! Ask a video stream questions while it plays.
//!
//! Two storeys and a front door. The **engine** ([`model`], [`memory`], [`stream`]) runs a
//! Video-LLM and keeps what it has seen as a compact KV memory; it does not know GStreamer. The
//! **element** (`element`, behind the default feature of that name) puts one engine stream into a
//! pipeline; it does not know tensors.
//!
//! ```no_run
//! use gststreamkvqa::{Frame, LoadOptions, Question, Recipe, Stream, VideoLlm};
//!
//! # fn main() -> Result<(), gststreamkvqa::EngineError> {
//! let model = VideoLlm::load("models/toyworld", &LoadOptions::default())?;
//! let mut stream = Stream::new(model, Recipe::named("auto")?)?;
//! let frame = Frame::new(vec![0; 56 * 56 * 3], 56, 56, 0.0)?;
//! stream.push(&frame)?;
//! let answer = stream.ask(&Question::new("what color is the object?"), |token| print!("{token}"))?;
//! println!("{} {:?}", answer.text, answer.evidence);
//! # Ok(())
//! # }
//! ```

pub mod cancel;
pub mod error;
mod evidence;
pub mod frame;
pub mod memory;
pub mod model;
mod notices;
pub mod snapshot;
pub mod stream;

#[cfg(feature = "element")]
pub mod element;

pub use cancel::Cancel;
pub use error::{EngineError, Result};
pub use evidence::Evidence;
pub use frame::Frame;
pub use memory::recipe::Recipe;
pub use model::generate::{Finish, Sampling};
pub use model::verdict::Choice;
pub use model::{LoadOptions, VideoLlm};
pub use snapshot::Snapshot;
pub use stream::{Answer, Question, ReuseOptions, SkipOptions, Stream, StreamOptions};

#[cfg(feature = "element")]
fn plugin_init(plugin: &gst::Plugin) -> std::result::Result<(), glib::BoolError> {
    element::register(plugin)
}

#[cfg(feature = "element")]
use gstreamer as gst;

#[cfg(feature = "element")]
gst::plugin_define!(
    streamkvqa,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
    "MPL",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_REPOSITORY"),
    env!("BUILD_REL_DATE")
);
