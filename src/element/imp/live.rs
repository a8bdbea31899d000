// SPDX-License-Identifier: MPL-2.0
//! A live source: whether the video is one, and what goes on while no frame comes.

use std::time::Duration;

use glib::subclass::prelude::*;
use gst::ClockTime;
use gst::prelude::*;
use gst_base::prelude::*;
use gstreamer as gst;
use gstreamer_base as gst_base;

use super::StreamKvqa;
use crate::element::bus;
use crate::element::enums::Leaky;

/// Name of the element message that says that the video stopped or came back.
const MESSAGE_NAME: &str = "streamkvqa/video";
/// A frame is late, and the clock takes over, after twice the usual time, but within these.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));
/// So many times the usual time without a frame is no stall, whatever `stall-timeout` says.
const PACES: u32 = 3;

impl StreamKvqa {
    /// Whether a full queue holds the video back.
    pub(super) fn is_lossless(&self) -> bool {
        let leaky = self.settings.lock().leaky;
        match leaky {
            Leaky::Auto => !self.is_live(),
            Leaky::Never => true,
            Leaky::Always => false,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        if let Some(live) = self.video.live_for_certain() {
            return live;
        }
        let sink = self.obj().sink_pad().clone();
        let mut query = gst::query::Latency::new();
        let known = sink.peer_query(&mut query);
        let live = known && query.result().0;
        // Before there is a stream, nobody may know yet.
        let news = (known || sink.has_current_caps()) && self.video.set_live(live);
        if live && news {
            self.begin_watch();
            self.tell_of_late_question();
        }
        live
    }

    fn begin_watch(&self) {
        let element = self.obj().downgrade();
        self.watch.start(move || element.upgrade()?.imp().keep_watch());
        self.watch.wake();
    }

    /// What is surprising about a question that was meant to be asked now.
    fn tell_of_late_question(&self) {
        let settings = self.settings();
        if settings.question.is_some() && settings.question_interval == ClockTime::ZERO {
            gst::element_imp_info!(
                self,
                gst::ResourceError::Settings,
                ("`question` without `question-interval` is asked at the end of this live stream")
            );
        }
    }

    /// Frames are to be expected from now on.
    pub(super) fn expect_video(&self) {
        self.video.play(true);
        self.is_live();
        // Where nobody knows yet, the watch asks again.
        if self.video.live() != Some(false) {
            self.begin_watch();
        }
    }

    /// Frames are not to be expected any more.
    pub(super) fn expect_no_video(&self) {
        self.video.play(false);
    }

    /// Asks what falls due and says that the video has stopped, if no frame comes that would do so.
    /// How long until the next look; `None` where there is nothing to watch.
    fn keep_watch(&self) -> Option<Duration> {
        let worker = self.worker()?;
        match self.video.live() {
            Some(true) => {}
            Some(false) => return None,
            None if self.is_live() => {}
            None => return Some(PATIENCE.1),
        }
        let Some(quiet) = self.video.quiet() else { return Some(PATIENCE.1) };
        let patience = (quiet.pace * 2).clamp(PATIENCE.0, PATIENCE.1);
        if let Some(left) = patience.checked_sub(quiet.lasted).filter(|left| !left.is_zero()) {
            return Some(left);
        }
        let now = self.obj().current_running_time();
        let time = now.filter(|_| worker.has_seen()).and_then(|now| self.video.estimate(now));
        if let Some(time) = time {
            let text = self.waiting_text();
            // What cannot be asked is reported, and a run that ends needs no questions.
            let _ = self.inlet.ask_due(time, false, self.way(&worker, &text));
        }
        let due = time.zip(self.inlet.next_time());
        let due = due.map(|(time, due)| Duration::from(due.saturating_sub(time)));
        let stall = self.settings.lock().stall_timeout;
        let stall = stall.map(|stall| Duration::from(stall).max(quiet.pace * PACES));
        let stalled = stall.filter(|_| !quiet.told).and_then(|stall| {
            let left = stall.saturating_sub(quiet.lasted);
            if left.is_zero() && self.video.tell_stopped() {
                self.post_video("stopped", quiet.lasted);
                return None;
            }
            Some(left)
        });
        due.into_iter().chain(stalled).min()
    }

    /// The video has come back after so long.
    pub(super) fn video_resumed(&self, lasted: Duration) {
        self.post_video("resumed", lasted);
        self.watch.wake();
    }

    fn post_video(&self, status: &str, lasted: Duration) {
        let age = u64::try_from(lasted.as_nanos()).unwrap_or(u64::MAX);
        let obj = self.obj();
        let last = self.video.last();
        gst::info!(bus::CAT, imp = self, "the video has {status} after {lasted:?}");
        let json = bus::known(serde_json::json!({
            "element": obj.name().as_str(),
            "status": status,
            "last-frame": last.map(bus::seconds),
            "frame-age": lasted.as_secs_f64(),
        }));
        let structure = gst::Structure::builder(MESSAGE_NAME)
            .field("element", obj.name())
            .field("status", status)
            .field_if_some("last-frame", last.map(ClockTime::nseconds))
            .field("frame-age", age)
            .field("json", json.to_string())
            .build();
        bus::message(obj.upcast_ref(), structure);
    }
}
