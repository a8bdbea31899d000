// SPDX-License-Identifier: MPL-2.0
//! What upstream has seen: the regions of interest that detectors put on frames, and custom events.

use std::collections::HashMap;

use gst::ClockTime;
use gstreamer as gst;
use gstreamer_video as gst_video;

/// Name of the custom event that stands for something seen, upstream or downstream.
pub(super) const EVENT_NAME: &str = "streamkvqa/trigger";
/// What has been gone for less has not been gone: detectors miss a frame now and then.
const GONE: ClockTime = ClockTime::from_seconds(1);

/// When each class was there last, in element time.
#[derive(Debug, Default)]
pub(super) struct Detections {
    last: HashMap<String, ClockTime>,
    /// An event has said so since the last frame.
    called: bool,
}

impl Detections {
    /// The next frame is one to look at.
    pub fn call(&mut self) {
        self.called = true;
    }

    /// Whether a class of these has come that was not there before, or somebody has called. `classes` is a
    /// list of names with commas between them; `*` is any, and nothing none.
    pub fn look(&mut self, buffer: &gst::BufferRef, classes: &str, time: ClockTime) -> bool {
        let called = std::mem::take(&mut self.called);
        if classes.is_empty() {
            return called;
        }
        let mut is_new = false;
        for region in buffer.iter_meta::<gst_video::VideoRegionOfInterestMeta>() {
            let class = region.roi_type();
            let meant = |name: &str| matches!(name.trim(), "*") || name.trim() == class;
            if !classes.split(',').any(meant) {
                continue;
            }
            let last = self.last.insert(class.to_owned(), time);
            // Time that goes back is a new beginning.
            let there = |last: ClockTime| last <= time && time - last < GONE;
            is_new |= !last.is_some_and(there);
        }
        called || is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_new_once() {
        gst::init().unwrap();
        let mut detections = Detections::default();
        let mut look = |milliseconds, classes: &str, seen: &[&str]| {
            let mut buffer = gst::Buffer::new();
            for class in seen {
                let rectangle = (0, 0, 8, 8);
                gst_video::VideoRegionOfInterestMeta::add(
                    buffer.get_mut().unwrap(),
                    class,
                    rectangle,
                );
            }
            detections.look(&buffer, classes, ClockTime::from_mseconds(milliseconds))
        };
        assert!(!look(0, "person, car", &["cat"]));
        assert!(look(100, "person, car", &["cat", "car"]));
        assert!(!look(200, "person, car", &["car"]));
        assert!(look(300, "person, car", &["car", "person"]));
        // A frame missed is not a leave.
        assert!(!look(400, "person, car", &[]));
        assert!(!look(1100, "person, car", &["person"]));
        assert!(look(2200, "person, car", &["person"]));
        assert!(look(100, "person, car", &["person"]));
        assert!(!look(200, "", &["dog"]));
        assert!(look(300, "*", &["dog"]));
        detections.call();
        assert!(detections.look(&gst::Buffer::new(), "", ClockTime::ZERO));
        assert!(!detections.look(&gst::Buffer::new(), "", ClockTime::ZERO));
    }
}
