// SPDX-License-Identifier: MPL-2.0
//! The video that passes: every buffer is timed, some are sampled, and the questions that fall due
//! with them are asked.

use std::time::{SystemTime, UNIX_EPOCH};

use glib::subclass::prelude::*;
use gst::ClockTime;
use gst::prelude::*;
use gst_base::prelude::*;
use gstreamer as gst;
use gstreamer_base as gst_base;

use super::imp::{CAT, StreamKvqa};
use super::sampler::{Reader, Sampler};
use super::settings::DEFAULT_RATE;
use super::timeline::Moment;
use super::worker::{Drained, Refused, Worker};
use super::{Leaky, ResetOn, TextTimestamp};
use crate::Frame;

/// Assumed duration of a frame about which nothing is known.
const DEFAULT_DURATION: ClockTime = ClockTime::from_mseconds(40);

/// What the streaming thread knows of the video.
#[derive(Default)]
pub(super) struct Video {
    pub segment: Option<gst::FormattedSegment<ClockTime>>,
    pub caps: Option<gst::Caps>,
    pub reader: Option<Reader>,
    /// From the caps; `None` for a variable frame rate.
    pub frame_duration: Option<ClockTime>,
    pub sampler: Option<(f64, Sampler)>,
    /// `None` until the first frame, and again after a new stream-start.
    pub live: Option<bool>,
    /// Running time and duration of the last buffer.
    pub last: Option<(ClockTime, ClockTime)>,
    pub warned_pts: bool,
    pub warned_map: bool,
}
/// The video that passes.
impl StreamKvqa {
    /// Looks at one buffer; may wait for the engine where nothing may be lost.
    pub(super) fn observe(&self, worker: &Worker, buffer: &gst::BufferRef) -> Result<(), Refused> {
        worker.count(|counters| counters.frames_in += 1);
        let settings = self.settings();
        let live = self.is_live();
        let lossless = self.is_lossless();
        if lossless && settings.rate().is_none() {
            // The model says how often it wants to look; until then no frame may be judged.
            worker.wait_for_model()?;
        }
        let clock = live.then(|| self.obj().current_running_time()).flatten();
        let rate = settings.rate().or_else(|| worker.recommended_rate()).unwrap_or(DEFAULT_RATE);
        let Some(seen) = self.look(worker, buffer, rate, clock) else { return Ok(()) };
        if let Some(frame) = seen.frame {
            worker.push(frame, lossless)?;
        }
        worker.enter(seen.at)?;
        loop {
            let due = self.schedule.lock().next_due(seen.at.running);
            let Some(question) = due else { break };
            if lossless && let Err(refused) = worker.wait_for_room() {
                self.schedule.lock().add(question);
                return Err(refused);
            }
            self.ask_now(worker, question);
        }
        if let Some(text) = self.text() {
            text.video(seen.at.running, seen.at.running.saturating_add(seen.duration));
        }
        Ok(())
    }

    /// Times the buffer and, if it is sampled, reads it. `None` for one outside of its segment.
    fn look(
        &self,
        worker: &Worker,
        buffer: &gst::BufferRef,
        rate: f64,
        clock: Option<ClockTime>,
    ) -> Option<Look> {
        let mut guard = self.video.lock();
        let video = &mut *guard;
        let mut warn_pts = false;
        let running = match (buffer.pts(), &video.segment) {
            (Some(pts), Some(segment)) => segment.to_running_time(pts)?,
            _ => {
                warn_pts = !std::mem::replace(&mut video.warned_pts, true);
                // Live buffers belong to now; others follow each other.
                let next = video.last.map(|(start, duration)| start.saturating_add(duration));
                clock.or(next).unwrap_or_default()
            }
        };
        let known = buffer.duration().filter(|duration| *duration > ClockTime::ZERO);
        let spacing = video.last.and_then(|(last, _)| running.checked_sub(last));
        let duration = known
            .or(video.frame_duration)
            .or(spacing.filter(|spacing| *spacing > ClockTime::ZERO))
            .unwrap_or(DEFAULT_DURATION)
            .min(ClockTime::from_seconds(1));
        video.last = Some((running, duration));
        let stream = match (buffer.pts(), &video.segment) {
            (Some(pts), Some(segment)) => segment.to_stream_time(pts),
            _ => None,
        };
        let at = Moment { running, stream, wall: wall_clock(buffer, running, clock) };

        if video.sampler.as_ref().is_none_or(|(old, _)| *old != rate) {
            video.sampler = Some((rate, Sampler::new(rate)));
        }
        let asked = self.schedule.lock().is_due(running);
        let mut frame = None;
        let mut unreadable = None;
        if let (Some((_, sampler)), Some(reader)) = (&mut video.sampler, &video.reader)
            && sampler.take(running, asked)
        {
            match reader.read(buffer) {
                Ok(picture) => {
                    let speed = video.segment.as_ref().map_or(1.0, |s| s.rate() * s.applied_rate());
                    let time = worker.engine_time(at, speed, sampler.period());
                    frame = Frame::new(picture.rgb, picture.width, picture.height, time).ok();
                }
                Err(reason) => {
                    worker.count(|counters| counters.unreadable += 1);
                    if !std::mem::replace(&mut video.warned_map, true) {
                        unreadable = Some((reason, video.caps.clone()));
                    }
                }
            }
        }
        drop(guard);
        if warn_pts {
            gst::element_imp_warning!(
                self,
                gst::StreamError::Format,
                ("buffers without timestamps: their times are guessed")
            );
        }
        if let Some((reason, caps)) = unreadable {
            let caps = caps.map(|caps| caps.to_string()).unwrap_or_default();
            gst::element_imp_warning!(
                self,
                gst::StreamError::Format,
                ("cannot read a frame of {caps}: {reason}; the video goes on, the model misses frames")
            );
        }
        Some(Look { frame, at, duration })
    }

    /// Whether a full queue holds the video back.
    fn is_lossless(&self) -> bool {
        let leaky = self.settings.lock().leaky;
        match leaky {
            Leaky::Auto => !self.is_live(),
            Leaky::Never => true,
            Leaky::Always => false,
        }
    }

    fn is_live(&self) -> bool {
        if let Some(live) = self.video.lock().live {
            return live;
        }
        let mut query = gst::query::Latency::new();
        let live = self.obj().sink_pad().peer_query(&mut query) && query.result().0;
        self.video.lock().live = Some(live);
        let settings = self.settings();
        if live && settings.question.is_some() && settings.question_interval == ClockTime::ZERO {
            gst::element_imp_info!(
                self,
                gst::ResourceError::Settings,
                ("`question` without `question-interval` is asked at the end of this live stream")
            );
        }
        live
    }

    /// Whether the text stream waits for answers.
    pub(super) fn text_waits(&self) -> bool {
        let timestamp = self.settings.lock().text_timestamp;
        match timestamp {
            TextTimestamp::Question => true,
            TextTimestamp::Answer => false,
            TextTimestamp::Auto => self.video.lock().live != Some(true),
        }
    }

    /// The end: what never fell due is asked now, and pending answers are waited for.
    pub(super) fn end(&self, worker: &Worker) {
        let lossless = self.is_lossless();
        loop {
            let next = self.schedule.lock().next_at_end();
            let Some(question) = next else { break };
            if lossless && worker.wait_for_room().is_err() {
                break;
            }
            self.ask_now(worker, question);
        }
        let timeout = self.settings.lock().eos_timeout;
        if let Drained::TimedOut(pending) = worker.drain(timeout.map(Into::into)) {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Busy,
                ("{pending} questions were not answered within eos-timeout and are cancelled")
            );
        }
    }

    pub(super) fn reset(&self, on: ResetOn) {
        if self.settings.lock().reset_on == on {
            gst::debug!(CAT, imp = self, "forgetting everything: {on:?}");
            self.clear_memory();
        }
    }
}

/// One buffer as the element saw it.
struct Look {
    frame: Option<Frame>,
    at: Moment,
    duration: ClockTime,
}

/// Nanoseconds since 1970: from the sender, or from the local clock if the buffer belongs to now.
fn wall_clock(buffer: &gst::BufferRef, at: ClockTime, clock: Option<ClockTime>) -> Option<u64> {
    /// Seconds from 1900, where NTP counts from, to 1970.
    const NTP_TO_UNIX: u64 = 2_208_988_800_000_000_000;
    let sent = buffer.iter_meta::<gst::ReferenceTimestampMeta>().find_map(|meta| {
        let time = meta.timestamp().nseconds();
        match meta.reference().structure(0)?.name().as_str() {
            "timestamp/x-ntp" => time.checked_sub(NTP_TO_UNIX),
            "timestamp/x-unix" => Some(time),
            _ => None,
        }
    });
    sent.or_else(|| {
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_nanos());
        now.ok()?.checked_add(at.nseconds())?.checked_sub(clock?.nseconds())
    })
}
