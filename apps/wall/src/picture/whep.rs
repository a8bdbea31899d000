// SPDX-License-Identifier: MPL-2.0
//! Live video by WebRTC: a page's offer in, an answer out (WHEP, draft-ietf-wish-whep, without trickling).
//!
//! A camera's video is encoded once, however many look at it, and only while somebody does
//! (`encoder::Encoder`); each page that looks has a pipeline of its own with a `webrtcbin`
//! (`peer::Peer`). Neither is part of the camera's pipeline, which gives away copies of pointers and
//! never waits.

mod encoder;
mod peer;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use gstreamer as gst;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;

use self::encoder::Encoder;
use self::peer::Peer;

/// Media type of offers and answers.
pub const CONTENT_TYPE: &str = "application/sdp";
/// Bytes of the longest offer that is read.
pub const LONGEST_OFFER: usize = 64 * 1024;
/// Sessions at a time; each has some threads of its own.
const MOST: usize = 64;
/// Between two looks at a session.
const TICK: Duration = Duration::from_secs(1);

/// Whether GStreamer has here what this needs. Debian: gstreamer1.0-plugins-bad, gstreamer1.0-plugins-good and
/// gstreamer1.0-nice.
pub fn is_available() -> bool {
    static AVAILABLE: LazyLock<bool> = LazyLock::new(|| {
        let needed = ["webrtcbin", "nicesrc", "dtlssrtpenc", "srtpenc", "rtpbin", "vp8enc"];
        let needed = needed.into_iter().chain(["rtpvp8pay", "videoconvert"]);
        gst::init().is_ok() && { needed }.all(|name| gst::ElementFactory::find(name).is_some())
    });
    *AVAILABLE
}

/// Why a page gets no video by WebRTC. It takes another way to see the camera then.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Parts of GStreamer are missing.
    #[error("this machine has no WebRTC: gstreamer1.0-nice or gstreamer1.0-plugins-bad is missing")]
    Missing,
    /// Others look already.
    #[error("{MOST} pages have video by WebRTC already")]
    TooMany,
    /// The offer is none, or has nothing that can be answered.
    #[error("{0}")]
    Offer(String),
    /// It should have worked.
    #[error("{0}")]
    Failed(String),
}

/// A session that has begun.
#[derive(Debug)]
pub struct Opened {
    /// Ends it, by [`Sessions::close`].
    pub id: String,
    /// SDP, with all candidates.
    pub answer: String,
}

/// All sessions of this process. Clones are the same.
#[derive(Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
}

struct Inner {
    room: Arc<Semaphore>,
    open: Mutex<HashMap<String, (String, CancellationToken)>>,
    encoders: Mutex<HashMap<String, Weak<Slot>>>,
}

/// Where the one encoder of a camera's pipeline is, or is being made.
struct Slot {
    pipeline: gst::Pipeline,
    encoder: OnceCell<Encoder>,
}

impl Default for Sessions {
    fn default() -> Self {
        let room = Arc::new(Semaphore::new(MOST));
        Sessions {
            inner: Arc::new(Inner { room, open: Mutex::default(), encoders: Mutex::default() }),
        }
    }
}

impl Sessions {
    /// Answers an offer with the video of `tee`, an element of `pipeline`, which is `camera`'s. The session
    /// lasts until it is closed, its peer is gone, or no video has come for a while.
    pub async fn open(
        &self,
        camera: &str,
        pipeline: &gst::Pipeline,
        tee: &gst::Element,
        offer: &str,
    ) -> Result<Opened, Fault> {
        if !is_available() {
            return Err(Fault::Missing);
        }
        let room = self.inner.room.clone().try_acquire_owned().map_err(|_| Fault::TooMany)?;
        let offer = peer::Offer::parse(offer)?;
        let slot = self.slot(camera, pipeline);
        let (of, from) = (pipeline.clone(), tee.clone());
        let encoder = slot
            .encoder
            .get_or_try_init(|| async move {
                let made = tokio::task::spawn_blocking(move || Encoder::attach(&of, &from)).await;
                made.map_err(|error| Fault::Failed(error.to_string()))?.map_err(Fault::Failed)
            })
            .await?;
        let (peer, answer) = Peer::connect(encoder, offer).await?;
        let id = crate::hub::new_id();
        let ends = CancellationToken::new();
        self.inner.open.lock().insert(id.clone(), (camera.to_owned(), ends.clone()));
        let (inner, known) = (self.inner.clone(), id.clone());
        tokio::spawn(async move {
            watch(&slot, &peer, &ends).await;
            inner.open.lock().remove(&known);
            drop((peer, slot, room));
        });
        Ok(Opened { id, answer })
    }

    /// Ends a session of a camera; whether there was one.
    pub fn close(&self, camera: &str, id: &str) -> bool {
        let open = self.inner.open.lock();
        let found = open.get(id).filter(|(of, _)| of == camera);
        found.inspect(|(_, ends)| ends.cancel()).is_some()
    }

    /// How many there are now.
    pub fn count(&self) -> usize {
        self.inner.open.lock().len()
    }

    fn slot(&self, camera: &str, pipeline: &gst::Pipeline) -> Arc<Slot> {
        let mut encoders = self.inner.encoders.lock();
        encoders.retain(|_, slot| slot.strong_count() > 0);
        let known = encoders.get(camera).and_then(Weak::upgrade);
        if let Some(slot) = known.filter(|slot| slot.pipeline == *pipeline) {
            return slot;
        }
        let slot = Arc::new(Slot { pipeline: pipeline.clone(), encoder: OnceCell::new() });
        encoders.insert(camera.to_owned(), Arc::downgrade(&slot));
        slot
    }
}

/// Returns when a session is over.
async fn watch(slot: &Slot, peer: &Peer, ends: &CancellationToken) {
    loop {
        tokio::select! {
            () = ends.cancelled() => return,
            () = tokio::time::sleep(TICK) => {}
        }
        let has_video = slot.encoder.get().is_some_and(Encoder::has_video);
        if !has_video || peer.is_gone() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
