// SPDX-License-Identifier: MPL-2.0
//! The sparse text stream beside the video.
//!
//! Every rule here was found by a pipeline that hung without it:
//!
//! * The pad pushes from its own task. Pushing from the video's thread deadlocks preroll.
//! * Stream-start, caps, segment and a first GAP go out with the first video frame, or a text sink
//!   never prerolls when nobody asks.
//! * A GAP covers every frame before the frame itself is pushed, also while an answer is on
//!   display, or textoverlay and muxers wait for ever.
//! * When the pipeline pauses, one more GAP follows. A text sink that has rendered what there was waits for
//!   something to pause with, and the video, which stands still by then, would bring it nothing.
//! * Timestamps never go back within a segment, and durations are never zero. Where the video's
//!   times go back (a clock that starts again), so do the text's, in a new segment.
//! * A frame far ahead gets its GAP a little later, in case it is waited for: the next frames may
//!   show that its time was wrong, and a synchronised sink would have slept until then.
//! * In a file, GAPs stop at the oldest question that waits for its answer, so that the answer can
//!   carry the time of its question; live, they go on and the answer carries the time it was ready.
//! * Nothing that happens downstream of this pad reaches the video.
//!
//! The stream's timestamps are running times in one open segment, so that seeks and concatenated
//! streams need no second clock. Its stream time is that of the video's segment with which it began.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use gst::ClockTime;
use gst::prelude::*;
use gstreamer as gst;
use parking_lot::{Condvar, Mutex};

use super::bus::TEXT;
use super::frame_clock::Pass;

/// How long a push may go on before release forces downstream to let go.
const RELEASE_GRACE: Duration = Duration::from_millis(100);
/// How long frames far ahead may wait for their GAP.
const LEAP_GRACE: Duration = Duration::from_millis(300);
/// The video has gone back if its frame begins so long before what text has come to.
const GONE_BACK: ClockTime = ClockTime::from_seconds(2);
/// How long the video's end waits for the last text to be handed over.
const END_GRACE: Duration = Duration::from_millis(200);

pub(super) struct TextPad {
    pad: gst::Pad,
    state: Mutex<State>,
    changed: Condvar,
}

/// Leaf lock; never held across a push.
struct State {
    flushing: bool,
    pushing: bool,
    headers: bool,
    segment: bool,
    /// What the events of one seek have in common, the video's and the text's.
    seqnum: Option<gst::Seqnum>,
    /// What of the video's segment holds for running times.
    times: gst::FormattedSegment<ClockTime>,
    /// The next GAP is sent even if it is empty: the first since a flush, and one at each pause.
    first: bool,
    discont: bool,
    end: End,
    /// End of the newest video frame.
    video: Option<ClockTime>,
    /// End of a frame far ahead, and until when it may have to wait.
    leap: Option<(ClockTime, Instant)>,
    /// How far text and GAPs have come.
    position: Option<ClockTime>,
    /// Waits until everything before it has gone.
    segment_done: Option<gst::Event>,
    /// Questions that wait for an answer, and their times.
    holds: Vec<(u64, ClockTime)>,
    texts: VecDeque<Text>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Asked,
    Sent,
}

struct Text {
    /// `None` is now.
    at: Option<ClockTime>,
    text: String,
    duration: ClockTime,
}

impl State {
    fn new() -> Self {
        Self {
            flushing: true,
            pushing: false,
            headers: true,
            segment: true,
            seqnum: None,
            times: gst::FormattedSegment::new(),
            first: true,
            discont: true,
            end: End::Open,
            video: None,
            leap: None,
            position: None,
            segment_done: None,
            holds: Vec::new(),
            texts: VecDeque::new(),
        }
    }

    /// Forgets what a flush forgets.
    fn flush(&mut self) {
        let headers = self.headers;
        *self = Self { headers, pushing: self.pushing, ..Self::new() };
    }
}

impl State {
    /// The video has come to a frame.
    fn follow(&mut self, start: ClockTime, end: ClockTime) {
        let gone_back = |position: ClockTime| position > start.saturating_add(GONE_BACK);
        if self.position.is_some_and(gone_back) {
            self.position = Some(start);
            self.video = None;
            self.segment = true;
            self.discont = true;
        }
        self.position.get_or_insert(start);
        let video = self.video.map_or(end, |video| video.max(end));
        self.video = Some(video);
        // What was asked of a time that never was is answered now.
        let holds = self.holds.iter_mut().map(|(_, at)| at);
        let texts = self.texts.iter_mut().filter_map(|text| text.at.as_mut());
        holds.chain(texts).for_each(|at| *at = video.min(*at));
    }

    /// A frame far ahead has waited long enough.
    fn leap(&mut self, now: Instant) {
        if let Some((end, _)) = self.leap.take_if(|(_, at)| *at <= now) {
            self.video = self.video.max(Some(end));
        }
    }
}

enum Step {
    Headers,
    Segment(gst::Event),
    Gap(ClockTime, ClockTime),
    Text(gst::Buffer),
    SegmentDone(gst::Event),
    Eos(Option<gst::Seqnum>),
}

impl TextPad {
    pub fn new(pad: gst::Pad) -> Arc<Self> {
        Arc::new(Self { pad, state: Mutex::new(State::new()), changed: Condvar::new() })
    }

    pub fn pad(&self) -> &gst::Pad {
        &self.pad
    }

    /// The pad is active: begin to push.
    pub fn start(self: &Arc<Self>) {
        self.state.lock().flushing = false;
        let this: Weak<Self> = Arc::downgrade(self);
        let step = move || match this.upgrade() {
            Some(this) => this.step(),
            None => gst::warning!(TEXT, "the text pad is gone while its task runs"),
        };
        if self.pad.start_task(step).is_err() {
            gst::warning!(TEXT, obj = self.pad, "cannot start the task");
        }
    }

    /// Ends the task; before the parent's state change, which would wait for it.
    pub fn stop(&self) {
        self.state.lock().flushing = true;
        self.changed.notify_all();
        let _ = self.pad.set_active(false);
        // A task that is only paused keeps its thread, and gst_deinit() waits for it.
        let _ = self.pad.stop_task();
        *self.state.lock() = State::new();
    }

    /// Ends the stream and the task while the pipeline plays on.
    pub fn release(&self) {
        let deadline = Instant::now() + RELEASE_GRACE;
        let mut state = self.state.lock();
        let started = !state.headers;
        state.flushing = true;
        self.changed.notify_all();
        while state.pushing && !self.changed.wait_until(&mut state, deadline).timed_out() {}
        let stuck = state.pushing;
        drop(state);
        if stuck {
            self.pad.push_event(gst::event::FlushStart::new());
        }
        let _ = self.pad.pause_task();
        if stuck {
            self.pad.push_event(gst::event::FlushStop::new(false));
        }
        if let (true, Some(peer)) = (started, self.pad.peer()) {
            // Whoever waits for text need not wait any more. A paused sink keeps the event until it
            // plays again, and nobody here may wait for that.
            let end = move || peer.send_event(gst::event::Eos::new());
            if std::thread::Builder::new().name("streamkvqa-eos".into()).spawn(end).is_err() {
                gst::warning!(TEXT, obj = self.pad, "no thread to end the text stream");
            }
        }
        self.stop();
    }

    pub fn flush_start(&self, event: gst::Event) {
        self.state.lock().flushing = true;
        self.changed.notify_all();
        self.pad.push_event(event);
        let _ = self.pad.pause_task();
    }

    pub fn flush_stop(self: &Arc<Self>, event: gst::Event) {
        self.pad.push_event(event);
        self.state.lock().flush();
        self.start();
    }

    /// The video begins anew, perhaps after an end.
    pub fn stream_start(&self) {
        let mut state = self.state.lock();
        if state.end != End::Open {
            state.end = End::Open;
            state.headers = true;
            state.segment = true;
            state.discont = true;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The pipeline pauses, its sinks have been told.
    pub fn pause(&self) {
        self.state.lock().first = true;
        self.changed.notify_all();
    }

    /// The video has got a segment.
    pub fn segment(&self, event: &gst::event::Segment) {
        let mut state = self.state.lock();
        state.seqnum = Some(event.seqnum());
        state.times = in_running_time(event.segment()).unwrap_or_default();
    }

    /// A frame or gap of the video is about to be pushed.
    pub fn video(&self, start: ClockTime, end: ClockTime, pass: Pass) {
        let mut state = self.state.lock();
        let ahead = state.video.is_some_and(|video| start > video.saturating_add(GONE_BACK));
        match state.leap {
            Some((_, at)) if ahead => state.leap = Some((end, at)),
            None if ahead && matches!(pass, Pass::Leapt | Pass::Late) => {
                state.leap = Some((end, Instant::now() + LEAP_GRACE));
            }
            _ => {
                state.leap = None;
                state.follow(start, end);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The answer to an asking will carry this time: let no GAP pass it.
    pub fn hold(&self, number: u64, at: ClockTime) {
        self.state.lock().holds.push((number, at));
    }

    /// An asking has ended, with a text or without.
    pub fn release_hold(&self, number: u64, text: Option<(String, ClockTime)>) {
        let mut state = self.state.lock();
        let held = state.holds.iter().position(|(held, _)| *held == number);
        let at = held.map(|index| state.holds.remove(index).1);
        if let Some((text, duration)) = text {
            state.texts.push_back(Text { at, text, duration });
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The video has ended; nothing is held any more.
    pub fn end(&self, seqnum: gst::Seqnum) {
        let ask = |state: &mut State| (state.end, state.seqnum) = (End::Asked, Some(seqnum));
        self.finish(ask, |state| state.end == End::Sent);
    }

    /// The video's segment is done, and it may go on; nothing is held any more.
    pub fn segment_done(&self, seqnum: gst::Seqnum) {
        let ask = |state: &mut State| {
            let position = state.position.max(state.video).unwrap_or_default();
            let event = gst::event::SegmentDone::builder(position).seqnum(seqnum).build();
            state.segment_done = Some(event);
        };
        self.finish(ask, |state| state.segment_done.is_none());
    }

    /// Waits a moment until the last text is handed over: a muxer does not wait for sparse text
    /// once the video has ended. Only a moment, because a sink that waits for the video's end
    /// holds the text for as long.
    fn finish(&self, ask: impl FnOnce(&mut State), done: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + END_GRACE;
        let mut state = self.state.lock();
        state.holds.clear();
        state.leap = None;
        ask(&mut state);
        self.changed.notify_all();
        while (!done(&state) || state.pushing)
            && !state.flushing
            && !self.changed.wait_until(&mut state, deadline).timed_out()
        {}
    }

    /// One turn of the task.
    fn step(&self) {
        let Some(step) = self.next() else {
            let _ = self.pad.pause_task();
            return;
        };
        match step {
            Step::Headers => self.push_headers(),
            Step::Segment(event) => {
                self.pad.push_event(event);
            }
            Step::Gap(start, end) => {
                let duration = end.saturating_sub(start);
                gst::trace!(TEXT, obj = self.pad, "gap from {start} for {duration}");
                self.pad.push_event(gst::event::Gap::builder(start).duration(duration).build());
            }
            Step::Text(buffer) => {
                gst::debug!(TEXT, obj = self.pad, "pushing {buffer:?}");
                if let Err(error) = self.pad.push(buffer) {
                    gst::debug!(TEXT, obj = self.pad, "downstream did not take the text: {error}");
                }
            }
            Step::SegmentDone(event) => {
                self.pad.push_event(event);
            }
            Step::Eos(seqnum) => {
                self.pad.push_event(gst::event::Eos::builder().seqnum_if_some(seqnum).build());
            }
        }
        self.state.lock().pushing = false;
        self.changed.notify_all();
    }

    /// Waits for something to push; `None` when flushing.
    fn next(&self) -> Option<Step> {
        let mut state = self.state.lock();
        let step = loop {
            if state.flushing {
                return None;
            }
            state.leap(Instant::now());
            if let Some(step) = Self::plan(&mut state) {
                break step;
            }
            match state.leap {
                Some((_, at)) => {
                    self.changed.wait_until(&mut state, at);
                }
                None => self.changed.wait(&mut state),
            }
        };
        state.pushing = true;
        Some(step)
    }

    fn plan(state: &mut State) -> Option<Step> {
        if state.end == End::Sent {
            state.texts.clear();
            return None;
        }
        if state.position.is_none() && state.end == End::Open {
            return None;
        }
        if std::mem::take(&mut state.headers) {
            return Some(Step::Headers);
        }
        if std::mem::take(&mut state.segment) {
            // Nothing may come before its segment.
            let all = state.times.start() <= state.position;
            let times = if all { state.times.clone() } else { gst::FormattedSegment::new() };
            let event = gst::event::Segment::builder(&times).seqnum_if_some(state.seqnum);
            return Some(Step::Segment(event.build()));
        }
        if let Some(position) = state.position {
            let next_text = state.texts.front().and_then(|text| text.at);
            let holds = state.holds.iter().map(|(_, at)| *at);
            let limit = holds.chain(next_text).chain(state.video).min().unwrap_or(position);
            if std::mem::take(&mut state.first) || limit > position {
                let end = position.max(limit);
                state.position = Some(end);
                return Some(Step::Gap(position, end));
            }
            if let Some(text) = state.texts.pop_front() {
                return Some(Step::Text(Self::buffer(state, position, text)));
            }
        }
        if let Some(event) = state.segment_done.take() {
            return Some(Step::SegmentDone(event));
        }
        if state.end == End::Asked {
            state.end = End::Sent;
            return Some(Step::Eos(state.seqnum));
        }
        None
    }

    fn buffer(state: &mut State, position: ClockTime, text: Text) -> gst::Buffer {
        let at = text.at.map_or(position, |at| at.max(position));
        state.position = Some(at);
        let mut buffer = gst::Buffer::from_slice(text.text.into_bytes());
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(at);
            buffer.set_duration(text.duration);
            if std::mem::take(&mut state.discont) {
                buffer.set_flags(gst::BufferFlags::DISCONT);
            }
        }
        buffer
    }

    fn push_headers(&self) {
        let Some(element) = self.pad.parent_element() else { return };
        let upstream = element
            .static_pad("sink")
            .and_then(|sink| sink.sticky_event::<gst::event::StreamStart>(0));
        let group = upstream.and_then(|event| event.group_id()).unwrap_or_else(gst::GroupId::next);
        let stream_id = self.pad.create_stream_id(&element, Some("text"));
        let start = gst::event::StreamStart::builder(&stream_id)
            .group_id(group)
            .flags(gst::StreamFlags::SPARSE)
            .build();
        self.pad.push_event(start);
        let caps = gst::Caps::builder("text/x-raw").field("format", "utf8").build();
        self.pad.push_event(gst::event::Caps::new(&caps));
    }
}

/// A segment whose timestamps are the running times of this one, and whose stream times are the same; `None`
/// where that is not to be had: in other units than time, or backwards.
fn in_running_time(video: &gst::Segment) -> Option<gst::FormattedSegment<ClockTime>> {
    let video = video.downcast_ref::<ClockTime>()?;
    if video.rate() <= 0.0 || video.applied_rate() <= 0.0 {
        return None;
    }
    let first = video.start()?.checked_add(video.offset().unwrap_or_default())?;
    let start = video.to_running_time(first)?;
    let mut times = gst::FormattedSegment::new();
    times.set_applied_rate(video.rate() * video.applied_rate());
    times.set_start(start);
    times.set_base(start);
    times.set_time(video.to_stream_time(first)?);
    Some(times)
}
