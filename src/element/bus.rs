// SPDX-License-Identifier: MPL-2.0
//! What the element says: its debug category, and messages on the bus.

use std::sync::LazyLock;

use gst::prelude::*;
use gstreamer as gst;

use super::question::without_nul;
use crate::EngineError;

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("streamkvqa", gst::DebugColorFlags::empty(), Some("Video questions"))
});

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
