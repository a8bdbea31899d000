// SPDX-License-Identifier: MPL-2.0
//! One pipeline a camera, watched over: states, retries, standing questions.
//!
//! Each camera has a thread of its own (`camera::Camera`), which alone knows its pipeline; the rest of the
//! wall talks to it by messages. So whatever one camera does, or waits for, disturbs no other.

mod alarm;
mod camera;
mod fleet;
pub mod plugin;
mod reason;
mod says;
mod source;
mod standing;
mod watcher;

use gstreamer as gst;
use tokio::sync::oneshot;

use crate::config::{CameraConfig, StandingConfig};
use crate::hub::{AnswerId, Question, Refused, Standing};

pub use fleet::{Cameras, Settings};
pub use reason::hide_passwords;
pub use watcher::Video;

/// Who talks to a camera's thread has one of these.
type Sender = std::sync::mpsc::Sender<Input>;

/// What comes in at a camera's thread. The numbers say which of its pipelines or sources it is from, since
/// those before may still have something to say.
enum Input {
    /// From the bus.
    Message(u64, gst::Message),
    /// A piece of an answer.
    Token(u64, u64, String),
    /// The first frame since it was waited for.
    Flowing(u64),
    /// The source's stream is at its end.
    SourceEnded(u64),
    /// The source cannot go on.
    SourceFailed(u64, String),
    /// Somebody asks.
    Ask(Question, oneshot::Sender<Result<AnswerId, Refused>>),
    /// Another standing question.
    AddStanding(StandingConfig, oneshot::Sender<Result<Standing, Refused>>),
    /// One fewer.
    RemoveStanding(String, oneshot::Sender<Result<(), Refused>>),
    /// The file says something else of its name or its standing questions.
    Configure(Box<CameraConfig>),
    /// The end; told to whoever waits once the memory is saved.
    Stop(oneshot::Sender<()>),
}
