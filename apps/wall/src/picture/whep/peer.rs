// SPDX-License-Identifier: MPL-2.0
//! One page that looks: its offer, the answer to it, and how the connection is.

use std::time::{Duration, Instant};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_sdp::SDPMessage;
use gstreamer_utils::ConsumptionLink;
use gstreamer_webrtc::{
    WebRTCICEGatheringState, WebRTCPeerConnectionState, WebRTCRTPTransceiver,
    WebRTCRTPTransceiverDirection, WebRTCSDPType, WebRTCSessionDescription,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::Fault;
use super::encoder::{Encoder, app_src, share_time};

/// For each step of the negotiation.
const PATIENCE: Duration = Duration::from_secs(5);
/// From the answer to the first packet.
const CONNECTING: Duration = Duration::from_secs(20);
/// For candidates to be gathered before a pipeline is stopped: long, and then longer.
const NOT_BEGUN: Duration = Duration::from_secs(2);
const NOT_DONE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A peer that says nothing for so long (it reports what it received every few seconds) is gone.
const SILENT: Duration = Duration::from_secs(15);

const PIPELINE: &str = "webrtcbin name=webrtc bundle-policy=max-bundle latency=0 \
    appsrc name=frames ! rtpvp8pay name=pay picture-id-mode=15-bit mtu=1200 ! capsfilter name=caps";

/// What a page offered.
pub struct Offer {
    sdp: SDPMessage,
    /// The payload type that it has for VP8.
    payload: u32,
}

impl Offer {
    /// Reads an offer; it must have video, and VP8 for it.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let fault = |what: &str| Fault::Offer(what.to_owned());
        // GStreamer takes nothing at all for a mistake of ours.
        let sdp = Some(text.as_bytes()).filter(|text| !text.is_empty());
        let sdp = sdp.and_then(|text| SDPMessage::parse_buffer(text).ok());
        let sdp = sdp.ok_or_else(|| fault("no SDP"))?;
        let video = sdp.medias().find(|media| media.media() == Some("video"));
        let video = video.ok_or_else(|| fault("an offer without video"))?;
        let payload = video
            .attributes()
            .filter(|attribute| attribute.key() == "rtpmap")
            .filter_map(|attribute| attribute.value()?.split_once(' '))
            .find(|(_, format)| format.to_ascii_uppercase().starts_with("VP8/90000"))
            .and_then(|(payload, _)| payload.parse().ok().filter(|payload| *payload < 128))
            .ok_or_else(|| fault("an offer without VP8"))?;
        Ok(Offer { sdp, payload })
    }
}

/// A connection to a page, which lasts as long as this.
pub struct Peer {
    pipeline: gst::Pipeline,
    webrtc: gst::Element,
    /// Frames come for as long as this is here.
    _link: ConsumptionLink,
    state: watch::Receiver<WebRTCPeerConnectionState>,
    opened: Instant,
    heard: std::sync::Arc<Mutex<Instant>>,
}

impl Peer {
    /// Answers an offer; returns the answer with its candidates.
    pub async fn connect(encoder: &Encoder, offer: Offer) -> Result<(Self, String), Fault> {
        let failed = |error: &dyn std::fmt::Display| Fault::Failed(error.to_string());
        let pipeline = gst::parse::launch(PIPELINE).map_err(|error| failed(&error))?;
        let pipeline = pipeline
            .downcast::<gst::Pipeline>()
            .map_err(|_| Fault::Failed("no pipeline".into()))?;
        share_time(&pipeline);
        let frames = app_src(&pipeline, "frames").map_err(Fault::Failed)?;
        let part = |name| pipeline.by_name(name).ok_or_else(|| Fault::Failed(format!("no {name}")));
        let (webrtc, pay, caps) = (part("webrtc")?, part("pay")?, part("caps")?);

        pay.set_property("pt", offer.payload);
        let wanted = gst::Caps::builder("application/x-rtp")
            .field("media", "video")
            .field("encoding-name", "VP8")
            .field("clock-rate", 90_000i32)
            .field("payload", i32::try_from(offer.payload).unwrap_or(96))
            .build();
        caps.set_property("caps", &wanted);
        let template = webrtc.pad_template("sink_%u");
        let sink = template.and_then(|pad| webrtc.request_pad(&pad, Some("sink_0"), Some(&wanted)));
        let sink = sink.ok_or_else(|| Fault::Failed("webrtcbin has no pad for video".into()))?;
        let out = caps.static_pad("src").ok_or_else(|| Fault::Failed("no pad".into()))?;
        out.link(&sink).map_err(|error| failed(&error))?;
        let transceiver = sink.property::<WebRTCRTPTransceiver>("transceiver");
        transceiver.set_direction(WebRTCRTPTransceiverDirection::Sendonly);

        let (tell, state) = watch::channel(WebRTCPeerConnectionState::New);
        webrtc.connect_notify(Some("connection-state"), move |webrtc, _| {
            let _ = tell.send(webrtc.property("connection-state"));
        });
        let link = encoder.feed(&frames).map_err(Fault::Failed)?;
        let now = Instant::now();
        let heard = std::sync::Arc::new(Mutex::new(now));
        // From here on, dropping `peer` stops it.
        let peer =
            Peer { pipeline, webrtc: webrtc.clone(), _link: link, state, opened: now, heard };
        peer.pipeline.set_state(gst::State::Playing).map_err(|error| failed(&error))?;
        let answer = negotiate(&webrtc, offer).await?;
        peer.listen(&webrtc);
        Ok((peer, answer))
    }

    /// Notes when the peer last said something.
    fn listen(&self, webrtc: &gst::Element) {
        let Some(bin) = webrtc.downcast_ref::<gst::Bin>() else { return };
        for element in bin.iterate_recurse().into_iter().flatten() {
            let is_of_ice = element.factory().is_some_and(|factory| factory.name() == "nicesrc");
            let pad = element.static_pad("src").filter(|_| is_of_ice);
            let Some(pad) = pad else { continue };
            let heard = self.heard.clone();
            let kind = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
            pad.add_probe(kind, move |_, _| {
                *heard.lock() = Instant::now();
                gst::PadProbeReturn::Ok
            });
        }
    }

    /// Whether nobody looks any more.
    pub fn is_gone(&self) -> bool {
        match *self.state.borrow() {
            WebRTCPeerConnectionState::Failed | WebRTCPeerConnectionState::Closed => true,
            WebRTCPeerConnectionState::Connected | WebRTCPeerConnectionState::Disconnected => {
                self.heard.lock().elapsed() > SILENT
            }
            _ => self.opened.elapsed() > CONNECTING,
        }
    }
}

impl Drop for Peer {
    /// Never waits; a page can be gone at any time, also before it is answered.
    fn drop(&mut self) {
        let (pipeline, webrtc) = (self.pipeline.clone(), self.webrtc.clone());
        let stop = move || stop(&pipeline, &webrtc);
        let thread = std::thread::Builder::new().name("webrtc end".into()).spawn(stop);
        if let Err(error) = thread {
            tracing::warn!("a page's connection is not stopped: {error}");
        }
    }
}

/// Stops a connection, and waits for what must not be interrupted: GStreamer 1.22 takes the process along where
/// candidates are found for a transport that is gone (gstwebrtcnice, _on_candidate_gathering_done).
pub(super) fn stop(pipeline: &gst::Pipeline, webrtc: &gst::Element) {
    let began = Instant::now();
    loop {
        let patience = match webrtc.property("ice-gathering-state") {
            WebRTCICEGatheringState::New => NOT_BEGUN,
            WebRTCICEGatheringState::Complete => break,
            _ => NOT_DONE,
        };
        if began.elapsed() > patience {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    // What tells so may not have returned yet.
    std::thread::sleep(LOOK_EVERY);
    let _ = pipeline.set_state(gst::State::Null);
}

async fn negotiate(webrtc: &gst::Element, offer: Offer) -> Result<String, Fault> {
    let (tell, mut gathering) = watch::channel(WebRTCICEGatheringState::New);
    webrtc.connect_notify(Some("ice-gathering-state"), move |webrtc, _| {
        let _ = tell.send(webrtc.property("ice-gathering-state"));
    });
    let offer = WebRTCSessionDescription::new(WebRTCSDPType::Offer, offer.sdp);
    ask(webrtc, "set-remote-description", |webrtc, promise| {
        webrtc.emit_by_name::<()>("set-remote-description", &[&offer, promise]);
    })
    .await?;
    let none = None::<gst::Structure>;
    let reply = ask(webrtc, "create-answer", |webrtc, promise| {
        webrtc.emit_by_name::<()>("create-answer", &[&none, promise]);
    })
    .await?;
    let answer = reply.and_then(|reply| reply.get::<WebRTCSessionDescription>("answer").ok());
    let answer =
        answer.ok_or_else(|| Fault::Offer("nothing in the offer can be answered".into()))?;
    ask(webrtc, "set-local-description", |webrtc, promise| {
        webrtc.emit_by_name::<()>("set-local-description", &[&answer, promise]);
    })
    .await?;
    // Candidates that are not found in time are not missed: those of the local network come at once.
    let complete = gathering.wait_for(|state| *state == WebRTCICEGatheringState::Complete);
    let _ = tokio::time::timeout(PATIENCE, complete).await;
    let local = webrtc.property::<Option<WebRTCSessionDescription>>("local-description");
    let local = local.ok_or_else(|| Fault::Failed("no local description".into()))?;
    local.sdp().as_text().map_err(|error| Fault::Failed(error.to_string()))
}

/// What `webrtcbin` says to a signal that takes a promise.
async fn ask(
    webrtc: &gst::Element,
    what: &str,
    emit: impl FnOnce(&gst::Element, &gst::Promise),
) -> Result<Option<gst::Structure>, Fault> {
    let (promise, reply) = gst::Promise::new_future();
    emit(webrtc, &promise);
    let failed = |why: &str| Fault::Failed(format!("{what}: {why}"));
    let reply = tokio::time::timeout(PATIENCE, reply).await.map_err(|_| failed("no reply"))?;
    let reply = reply.map_err(|error| failed(&format!("{error:?}")))?;
    if let Some(error) =
        reply.as_ref().and_then(|reply| reply.get::<gst::glib::Error>("error").ok())
    {
        return Err(Fault::Offer(format!("{what}: {}", error.message())));
    }
    Ok(reply.map(|reply| reply.to_owned()))
}
