// SPDX-License-Identifier: MPL-2.0
//! The branch that makes pictures: the newest for whoever looks, and now and then one to be kept.

use std::time::{Duration, Instant};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::picture::{LivePicture, Picture};

/// Pictures a second while somebody looks.
pub const PICTURES_PER_SECOND: u32 = 8;
const PICTURES: &str = "queue name=pictures-in leaky=downstream max-size-buffers=2 max-size-bytes=0 max-size-time=0 ! \
    videoconvertscale ! \
    video/x-raw,format=I420,width=[16,640],height=[16,640],pixel-aspect-ratio=1/1 ! \
    jpegenc quality=80 ! appsink name=pictures sync=false async=false max-buffers=1 drop=true";

/// What to do with pictures.
pub struct Pictures {
    /// Where the newest is shown.
    pub live: LivePicture,
    /// Between those that are kept.
    pub every: Duration,
    /// Takes those.
    pub keep: Box<dyn Fn(&Picture) + Send + Sync>,
}

/// Puts it behind the tee.
pub(super) fn attach(
    pipeline: &gst::Pipeline,
    tee: &gst::Element,
    pictures: Pictures,
) -> Result<(), String> {
    let said = |error: gst::glib::BoolError| error.to_string();
    let branch = gst::parse::bin_from_description(PICTURES, true)
        .map_err(|error| error.message().to_string())?;
    let sink = branch.by_name("pictures").and_then(|sink| sink.downcast::<gst_app::AppSink>().ok());
    let sink = sink.ok_or("there is no appsink")?;
    let way_in = branch
        .by_name("pictures-in")
        .and_then(|queue| queue.static_pad("sink"))
        .ok_or("no queue")?;
    let Pictures { live, every, keep } = pictures;
    // Taken out in front of the queue (`Drop` would have GStreamer free what the binding has freed): what nobody looks at is not even converted.
    let (looked_at, mut last) = (live.clone(), None::<Instant>);
    let often = Duration::from_secs(1) / PICTURES_PER_SECOND;
    let gate = Mutex::new(move || {
        let wait = if looked_at.viewers() > 0 { often.min(every) } else { every };
        let due = last.is_none_or(|last| last.elapsed() + Duration::from_millis(5) >= wait);
        if due {
            last = Some(Instant::now());
        }
        due
    });
    way_in.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        if (gate.lock())() { gst::PadProbeReturn::Ok } else { gst::PadProbeReturn::Handled }
    });
    let mut kept = None::<Instant>;
    let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let Some(buffer) = sample.buffer() else { return Ok(gst::FlowSuccess::Ok) };
        let at =
            buffer.meta::<gst::ReferenceTimestampMeta>().map(|meta| meta.timestamp().nseconds());
        let at = at
            .and_then(|at| Timestamp::from_nanosecond(at.into()).ok())
            .unwrap_or_else(Timestamp::now);
        if let Ok(map) = buffer.map_readable() {
            let picture = Picture { at, jpeg: map.as_slice().into() };
            if kept.is_none_or(|kept| kept.elapsed() + Duration::from_millis(20) >= every) {
                kept = Some(Instant::now());
                keep(&picture);
            }
            live.show(picture);
        }
        Ok(gst::FlowSuccess::Ok)
    });
    sink.set_callbacks(callbacks.build());
    pipeline.add(&branch).map_err(said)?;
    tee.link(&branch).map_err(said)
}
