// SPDX-License-Identifier: MPL-2.0
//! What the vfuncs do with events and queries, from upstream, downstream and the text pad.

use glib::subclass::prelude::*;
use gst::prelude::*;
use gst_base::prelude::*;
use gstreamer as gst;
use gstreamer_base as gst_base;

use super::StreamKvqa;
use crate::element::detections::{self, Detections};
use crate::element::enums::ResetOn;
use crate::element::frame_clock::Pass;
use crate::element::inlet;

impl StreamKvqa {
    /// An event of the video. What is returned is final; `None` goes on.
    pub(super) fn downstream_event(&self, event: &gst::Event) -> Option<bool> {
        let worker = self.worker();
        let text = self.text();
        match event.view() {
            gst::EventView::StreamStart(_) => {
                self.video.stream_start();
                if let Some(worker) = &worker {
                    worker.break_epoch();
                }
                if let Some(text) = &text {
                    text.stream_start();
                }
                self.reset(ResetOn::StreamStart);
            }
            gst::EventView::Tag(tags) => self.video.tags(tags.tag()),
            gst::EventView::Segment(segment) => {
                self.video.set_segment(segment.segment());
                if let Some(text) = &text {
                    text.segment(segment);
                }
                if let Some(worker) = &worker {
                    worker.break_epoch();
                }
                self.reset(ResetOn::Segment);
            }
            gst::EventView::Gap(gap) => {
                if let (Some(text), Some((start, end))) = (&text, self.video.gap(gap)) {
                    text.video(start, end, Pass::Steady);
                }
            }
            gst::EventView::FlushStart(_) => {
                if let Some(worker) = &worker {
                    worker.flush_start();
                }
                if let Some(text) = &text {
                    text.flush_start(event.clone());
                }
            }
            gst::EventView::FlushStop(flush) => {
                self.video.flush(flush.resets_time());
                *self.detections.lock() = Detections::default();
                if flush.resets_time() {
                    self.inlet.restart();
                }
                if let Some(worker) = &worker {
                    worker.flush_stop();
                }
                if let Some(text) = &text {
                    text.flush_stop(event.clone());
                }
                self.reset(ResetOn::Flush);
            }
            // A player that loops sends this instead of an end.
            gst::EventView::SegmentDone(_) => {
                if let Some(worker) = &worker {
                    self.end(worker);
                }
                if let Some(text) = &text {
                    text.segment_done(event.seqnum());
                }
            }
            gst::EventView::Eos(_) => {
                self.video.end();
                if let Some(worker) = &worker {
                    self.end(worker);
                }
                if let Some(text) = &text {
                    text.end(event.seqnum());
                }
            }
            gst::EventView::CustomDownstream(custom) => return self.ask_event(custom),
            _ => {}
        }
        None
    }

    /// Upstream events of the video's source pad and of the text pad; `Err` goes on.
    pub(super) fn upstream_event(&self, event: gst::Event) -> Result<bool, gst::Event> {
        match event.view() {
            gst::EventView::CustomUpstream(custom) => self.ask_event(custom).ok_or(event),
            // Frames that the element holds back are late for its sake; a decoder that heard of it
            // would skip what is not to be lost.
            gst::EventView::Qos(_) if self.is_lossless() => Ok(true),
            gst::EventView::Seek(_) if !self.inlet.is_new_seek(event.seqnum()) => Ok(true),
            _ => Err(event),
        }
    }

    /// A custom event, from either side; `None` if it is somebody else's.
    fn ask_event(&self, event: &gst::EventRef) -> Option<bool> {
        if inlet::is_for(event, detections::EVENT_NAME, &self.obj().name()).is_some() {
            if self.inlet.is_new_ask(event.seqnum()) {
                self.detections.lock().call();
            }
            return Some(true);
        }
        let structure = inlet::asked_of(event, &self.obj().name())?;
        if self.inlet.is_new_ask(event.seqnum()) {
            self.ask_structure(structure);
        }
        Some(true)
    }

    pub(super) fn text_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        match event.type_() {
            // How late the text is says nothing about the video.
            gst::EventType::Qos | gst::EventType::Reconfigure => return true,
            // The video's source pad forwards it.
            gst::EventType::Latency => return true,
            _ => {}
        }
        match self.upstream_event(event) {
            Ok(handled) => handled,
            Err(event) => gst::Pad::event_default(pad, Some(&*self.obj()), event),
        }
    }

    pub(super) fn text_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::Latency(query) = query.view_mut() {
            let mut upstream = gst::query::Latency::new();
            if !self.obj().sink_pad().peer_query(&mut upstream) {
                return false;
            }
            let (live, min, max) = upstream.result();
            let own = self.settings.lock().latency;
            query.set(live, min.saturating_add(own), max.map(|max| max.saturating_add(own)));
            return true;
        }
        gst::Pad::query_default(pad, Some(&*self.obj()), query)
    }
}
