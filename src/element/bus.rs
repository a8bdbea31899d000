// SPDX-License-Identifier: MPL-2.0
//! What the element says: its debug category, and messages on the bus.

use std::sync::LazyLock;

use gst::prelude::*;
use gstreamer as gst;

use super::question::without_nul;
use crate::EngineError;

/// The element as a whole.
pub(super) static CAT: LazyLock<gst::DebugCategory> =
    LazyLock::new(|| category("streamkvqa", "Video questions"));
/// What becomes of frames.
pub(super) static FRAMES: LazyLock<gst::DebugCategory> =
    LazyLock::new(|| category("streamkvqa-frames", "Frames that the model looks at"));
/// Who asks what, and when.
pub(super) static QUESTIONS: LazyLock<gst::DebugCategory> =
    LazyLock::new(|| category("streamkvqa-questions", "Questions on their way in"));
/// What the engine does for a question.
pub(super) static ENGINE: LazyLock<gst::DebugCategory> =
    LazyLock::new(|| category("streamkvqa-engine", "What the engine does for a question"));
/// Answers and alerts.
pub(super) static ANSWERS: LazyLock<gst::DebugCategory> =
    LazyLock::new(|| category("streamkvqa-answers", "Answers and alerts on their way out"));
/// The text pad.
pub(super) static TEXT: LazyLock<gst::DebugCategory> =
    LazyLock::new(|| category("streamkvqa-text", "The text pad"));

fn category(name: &str, about: &str) -> gst::DebugCategory {
    gst::DebugCategory::new(name, gst::DebugColorFlags::empty(), Some(about))
}

/// JSON without the fields that are not known.
pub(super) fn known(mut object: serde_json::Value) -> serde_json::Value {
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    object
}

/// Times in JSON.
pub(super) fn seconds(time: gst::ClockTime) -> f64 {
    time.nseconds() as f64 / 1e9
}

pub(super) fn message(element: &gst::Element, structure: gst::Structure) {
    let message = gst::message::Element::builder(structure).src(element).build();
    let _ = element.post_message(message);
}

pub(super) fn progress(element: &gst::Element, kind: gst::ProgressType, code: &str, text: &str) {
    let text = without_nul(text);
    let message = gst::message::Progress::builder(kind, code, &text).src(element).build();
    let _ = element.post_message(message);
}

/// An engine error in GStreamer's words: the domain is what applications choose their remedy by.
pub(super) fn engine_error(element: &gst::Element, error: &EngineError) {
    use gst::{LibraryError, ResourceError};
    let text = without_nul(&error.to_string());
    let detail = format!("{error:?}");
    let resource = match error {
        EngineError::Compute(_) => {
            gst::element_error!(element, LibraryError::Failed, ("{text}"), ["{detail}"]);
            return;
        }
        EngineError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            ResourceError::NotFound
        }
        EngineError::Hub { .. } => ResourceError::NotFound,
        EngineError::Read { .. } => ResourceError::OpenRead,
        EngineError::Snapshot { .. } => ResourceError::OpenReadWrite,
        EngineError::UnknownMethod { .. }
        | EngineError::Option { .. }
        | EngineError::Words { .. } => ResourceError::Settings,
        _ => ResourceError::Failed,
    };
    gst::element_error!(element, resource, ("{text}"), ["{detail}"]);
}

pub(super) fn engine_warning(element: &gst::Element, error: &EngineError) {
    let text = without_nul(&error.to_string());
    gst::element_warning!(element, gst::StreamError::Failed, ("{text}"), ["{error:?}"]);
}
