// SPDX-License-Identifier: MPL-2.0
//! The video that passes: every buffer is timed, some are sampled.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gst::ClockTime;
use gst::prelude::*;
use gstreamer as gst;
use parking_lot::Mutex;

use super::bus::FRAMES;
use super::frame_clock::{FrameClock, MAX_TIME, Pass, Tick};
use super::picture::{self, Orientation, Shot, Source};
use super::sampler::{Sampler, Wish};
use super::timeline::Moment;

/// Assumed duration of a frame about which nothing is known.
const DEFAULT_DURATION: ClockTime = ClockTime::from_mseconds(40);

/// What the streaming thread knows of the video. Its lock is held while a due question is looked
/// for on the schedule, and never while something leaves the element.
#[derive(Default)]
pub(super) struct Video(Mutex<State>);

#[derive(Default)]
struct State {
    segment: Option<gst::FormattedSegment<ClockTime>>,
    caps: Option<gst::Caps>,
    /// What frames are read from, or why they cannot be read.
    source: Option<Result<Source, String>>,
    orientation: Orientation,
    /// From the caps; `None` for a variable frame rate.
    frame_duration: Option<ClockTime>,
    clock: FrameClock,
    sampler: Option<(f64, Sampler)>,
    /// `None` until the first frame.
    live: Option<bool>,
    /// There is a new stream: what was true of the last one may not be of this.
    live_uncertain: bool,
    /// The newest time of day that the sender told, and the running time of its frame.
    sent: Option<(ClockTime, u64)>,
    /// Running time and duration of the last buffer.
    last: Option<(ClockTime, ClockTime)>,
    warned_pts: bool,
    warned_map: bool,
    playing: bool,
    ended: bool,
    /// A frame is being looked at, and may have to wait for the engine.
    busy: bool,
    /// When the last frame came, or from when on one was to be expected.
    sign: Option<Instant>,
    /// Usual time between two frames.
    pace: Duration,
    /// The bus has been told that no frame comes.
    told: bool,
}

/// How long no frame has come.
pub(super) struct Quiet {
    pub lasted: Duration,
    /// Usual time between two frames.
    pub pace: Duration,
    /// The bus knows.
    pub told: bool,
}

impl State {
    /// A frame has come. How long none came, if the bus was told.
    fn sign_of_life(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let lasted = self.sign.replace(now).map(|last| now.duration_since(last));
        (self.ended, self.busy) = (false, true);
        if std::mem::take(&mut self.told) {
            return lasted;
        }
        if let Some(lasted) = lasted {
            self.pace = (self.pace * 3 + lasted) / 4;
        }
        None
    }

    fn restart_sampling(&mut self) {
        if let Some((_, sampler)) = &mut self.sampler {
            sampler.restart();
        }
    }

    /// Copies the buffer if it is sampled.
    fn sight(&mut self, buffer: &gst::BufferRef, time: ClockTime, wish: Wish) -> Sight {
        if picture::is_broken(buffer) {
            return Sight::Broken;
        }
        let (Some((_, sampler)), Some(source)) = (&mut self.sampler, &self.source) else {
            return Sight::Unsampled;
        };
        if !sampler.take(time, wish) {
            return Sight::Unsampled;
        }
        let started = Instant::now();
        let source = source.as_ref().map_err(String::clone);
        match source.and_then(|source| source.shoot(buffer, &self.orientation)) {
            Ok(shot) => Sight::Sample(Box::new(Sample {
                shot,
                took: started.elapsed(),
                speed: self.segment.as_ref().map_or(1.0, |s| s.rate() * s.applied_rate()),
                period: sampler.period(),
            })),
            Err(reason) => Sight::Unreadable(reason),
        }
    }
}

/// One buffer as the element saw it.
pub(super) struct Look {
    pub at: Moment,
    /// Element time.
    pub time: ClockTime,
    pub pass: Pass,
    pub duration: ClockTime,
    pub sight: Sight,
    /// How long no frame had come before, if the bus was told so.
    pub away: Option<Duration>,
}

/// What of a buffer the model is to see.
pub(super) enum Sight {
    /// It is not sampled.
    Unsampled,
    Sample(Box<Sample>),
    /// It holds no picture to remember.
    Broken,
    /// Why it cannot be read.
    Unreadable(String),
}

/// A frame that the model is to see.
pub(super) struct Sample {
    pub shot: Shot,
    /// What taking it cost the streaming thread.
    pub took: Duration,
    /// Stream time that passes per running time.
    pub speed: f64,
    /// Between this sample and the next.
    pub period: ClockTime,
}

impl Video {
    /// A new run.
    pub fn begin(&self) {
        *self.0.lock() = State::default();
    }

    /// Video of these caps comes next; whether they are other ones than before. A pipeline that
    /// works without us works with us: what cannot be read passes unseen.
    pub fn set_caps(&self, caps: &gst::Caps) -> bool {
        let source = Source::new(caps);
        let fps = caps.structure(0).and_then(|caps| caps.get::<gst::Fraction>("framerate").ok());
        let fps = fps.filter(|fps| fps.numer() > 0 && fps.denom() > 0);
        let mut state = self.0.lock();
        state.frame_duration = fps.and_then(|fps| {
            ClockTime::SECOND
                .mul_div_floor(fps.denom().unsigned_abs().into(), fps.numer().unsigned_abs().into())
        });
        state.source = Some(source);
        state.warned_map = false;
        state.caps.replace(caps.clone()).is_some_and(|old| old != *caps)
    }

    pub fn tags(&self, tags: &gst::TagListRef) {
        self.0.lock().orientation.tag(tags);
    }

    pub fn stream_start(&self) {
        let mut state = self.0.lock();
        state.live_uncertain = true;
        state.ended = false;
        state.orientation = Orientation::default();
        state.sent = None;
        state.restart_sampling();
    }

    pub fn set_segment(&self, segment: &gst::Segment) {
        self.0.lock().segment = segment.downcast_ref::<ClockTime>().cloned();
    }

    pub fn flush(&self, resets_time: bool) {
        let mut state = self.0.lock();
        state.segment = None;
        (state.last, state.sent) = (None, None);
        if resets_time {
            state.clock = FrameClock::default();
        }
        state.restart_sampling();
        state.ended = false;
        state.sign = state.sign.map(|_| Instant::now());
    }

    /// The frame that was looked at goes on.
    pub fn pass(&self) {
        let mut state = self.0.lock();
        if std::mem::take(&mut state.busy) {
            state.sign = state.sign.map(|_| Instant::now());
        }
    }

    /// No frame is to be expected any more.
    pub fn end(&self) {
        self.0.lock().ended = true;
    }

    /// Frames are to be expected, or none.
    pub fn play(&self, playing: bool) {
        let mut state = self.0.lock();
        state.playing = playing;
        state.sign = playing.then(Instant::now);
    }

    /// How long a video that plays has been quiet.
    pub fn quiet(&self) -> Option<Quiet> {
        let state = self.0.lock();
        let expected = state.playing && !state.ended && !state.busy;
        let sign = state.sign.filter(|_| expected)?;
        Some(Quiet { lasted: sign.elapsed(), pace: state.pace, told: state.told })
    }

    /// The bus is to be told that no frame comes; whether it has not been.
    pub fn tell_stopped(&self) -> bool {
        !std::mem::replace(&mut self.0.lock().told, true)
    }

    /// Running time of the newest frame.
    pub fn last(&self) -> Option<ClockTime> {
        self.0.lock().last.map(|(running, _)| running)
    }

    /// Element time by the clock, while no frame comes.
    pub fn estimate(&self, now: ClockTime) -> Option<ClockTime> {
        self.0.lock().clock.estimate(now)
    }

    /// The stretch of running time that a gap covers.
    pub fn gap(&self, gap: &gst::event::Gap) -> Option<(ClockTime, ClockTime)> {
        let (start, duration) = gap.get();
        let mut state = self.0.lock();
        let start = state.segment.as_ref()?.to_running_time(start)?;
        let end = start.saturating_add(duration.unwrap_or_default()).min(MAX_TIME);
        state.clock.gap(end);
        (start < end).then_some((start, end))
    }

    /// Whether the source is live, as far as is known.
    pub fn live(&self) -> Option<bool> {
        self.0.lock().live
    }

    /// Whether this very stream is live, if that is known.
    pub fn live_for_certain(&self) -> Option<bool> {
        let state = self.0.lock();
        state.live.filter(|_| !state.live_uncertain)
    }

    /// Whether that is news.
    pub fn set_live(&self, live: bool) -> bool {
        let mut state = self.0.lock();
        state.live_uncertain = false;
        state.live.replace(live) != Some(live)
    }

    /// Times the buffer and, if it is sampled, copies it. `None` for one outside of its segment.
    /// `rate` is in samples a second; `None` takes none. `clock` is the running time now, if the
    /// source is live; `wish` says whether somebody wants to see the frame of an element time.
    pub fn look(
        &self,
        element: &gst::Element,
        buffer: &gst::BufferRef,
        rate: Option<f64>,
        clock: Option<ClockTime>,
        wish: impl FnOnce(ClockTime) -> Wish,
    ) -> Option<Look> {
        let mut guard = self.0.lock();
        let video = &mut *guard;
        let away = video.sign_of_life();
        let mut warn_pts = false;
        // A negative stamp that was taken for a positive one is none.
        let pts = buffer.pts().filter(|pts| *pts <= MAX_TIME);
        let stamp = match (pts, &video.segment) {
            (Some(pts), Some(segment)) => Some(segment.to_running_time(pts)?),
            _ => None,
        };
        let running = stamp.filter(|running| *running <= MAX_TIME).unwrap_or_else(|| {
            warn_pts = !std::mem::replace(&mut video.warned_pts, true);
            // Live buffers belong to now; others follow each other.
            let next = video.last.map(|(start, duration)| start.saturating_add(duration));
            clock.or(next).unwrap_or_default()
        });
        let known = buffer.duration().filter(|duration| *duration > ClockTime::ZERO);
        let spacing = video.last.and_then(|(last, _)| running.checked_sub(last));
        let full = known
            .or(video.frame_duration)
            .or(spacing.filter(|spacing| *spacing > ClockTime::ZERO))
            .unwrap_or(DEFAULT_DURATION);
        let duration = full.min(ClockTime::from_seconds(1));
        video.last = Some((running, duration));
        let Tick { time, pass } = video.clock.frame(running, full, clock);
        let stream = match (pts, &video.segment) {
            (Some(pts), Some(segment)) => segment.to_stream_time(pts),
            _ => None,
        };
        let wall = wall_clock(buffer, running, clock, &mut video.sent);
        let at = Moment { running, stream, wall };

        if let Some(rate) = rate
            && video.sampler.as_ref().is_none_or(|(old, _)| *old != rate)
        {
            video.sampler = Some((rate, Sampler::new(rate)));
        }
        if pass == Pass::Leapt {
            // Should the leap be true, this is the first frame after a hole.
            video.restart_sampling();
        }
        let wish = wish(time);
        let sight = match rate {
            Some(_) => video.sight(buffer, time, wish),
            None => Sight::Unsampled,
        };
        let fault = match &sight {
            Sight::Unreadable(reason) if !std::mem::replace(&mut video.warned_map, true) => {
                Some((reason.clone(), video.caps.clone()))
            }
            _ => None,
        };
        drop(guard);
        if warn_pts {
            gst::element_warning!(
                element,
                gst::StreamError::Format,
                ("buffers without timestamps, or with negative ones: their times are guessed")
            );
        }
        if let Some((reason, caps)) = fault {
            let caps = caps.map(|caps| caps.to_string()).unwrap_or_default();
            gst::element_warning!(
                element,
                gst::StreamError::Format,
                ("cannot read a frame of {caps}: {reason}; the video goes on, the model misses frames")
            );
        }
        match &sight {
            Sight::Unsampled => {}
            Sight::Sample(sample) => {
                gst::log!(FRAMES, obj = element, "frame at {running} taken in {:.1?}", sample.took);
            }
            Sight::Broken => gst::log!(FRAMES, obj = element, "frame at {running} is broken"),
            Sight::Unreadable(reason) => {
                gst::log!(FRAMES, obj = element, "frame at {running} cannot be read: {reason}");
            }
        }
        Some(Look { at, time, pass, duration, sight, away })
    }
}

/// Nanoseconds since 1970: from the sender, which need not tell it with every frame, or from the local clock
/// if the buffer belongs to now.
fn wall_clock(
    buffer: &gst::BufferRef,
    at: ClockTime,
    clock: Option<ClockTime>,
    sent: &mut Option<(ClockTime, u64)>,
) -> Option<u64> {
    /// Seconds from 1900, where NTP counts from, to 1970.
    const NTP_TO_UNIX: u64 = 2_208_988_800_000_000_000;
    let told = buffer.iter_meta::<gst::ReferenceTimestampMeta>().find_map(|meta| {
        let time = meta.timestamp().nseconds();
        match meta.reference().structure(0)?.name().as_str() {
            "timestamp/x-ntp" => time.checked_sub(NTP_TO_UNIX),
            "timestamp/x-unix" => Some(time),
            _ => None,
        }
    });
    if let Some(told) = told {
        *sent = Some((at, told));
    }
    let (known, when) = sent
        .or_else(|| {
            let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_nanos());
            Some((clock?, now.ok()?))
        })
        .map(|(known, when)| (known.nseconds(), when))?;
    when.checked_add(at.nseconds())?.checked_sub(known)
}
