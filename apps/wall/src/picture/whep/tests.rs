// SPDX-License-Identifier: MPL-2.0
//! Another webrtcbin looks at a test picture.

use std::time::{Duration, Instant};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_sdp::SDPMessage;
use gstreamer_webrtc::{
    WebRTCICEGatheringState, WebRTCRTPTransceiver, WebRTCRTPTransceiverDirection, WebRTCSDPType,
    WebRTCSessionDescription,
};
use tokio::sync::{mpsc, watch};

use super::{Fault, MOST, Sessions};

const PATIENCE: Duration = Duration::from_secs(60);

struct Camera {
    pipeline: gst::Pipeline,
    tee: gst::Element,
}

impl Camera {
    fn new() -> Self {
        gst::init().unwrap();
        let pipeline = gst::parse::launch(
            "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=25/1 ! \
             tee name=tee allow-not-linked=true",
        );
        let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
        let tee = pipeline.by_name("tee").unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        Camera { pipeline, tee }
    }

    fn is_left_alone(&self) -> bool {
        self.tee.src_pads().is_empty() && self.pipeline.children().len() == 3
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Who looks: a page, as far as the wall can tell.
struct Viewer {
    pipeline: gst::Pipeline,
    webrtc: gst::Element,
    frames: mpsc::UnboundedReceiver<()>,
}

impl Viewer {
    fn new() -> Self {
        let pipeline = gst::Pipeline::new();
        let webrtc = gst::ElementFactory::make("webrtcbin").build().unwrap();
        webrtc.set_property_from_str("bundle-policy", "max-bundle");
        pipeline.add(&webrtc).unwrap();
        let caps = gst::Caps::builder("application/x-rtp")
            .field("media", "video")
            .field("encoding-name", "VP8")
            .field("clock-rate", 90_000i32)
            .field("payload", 102i32)
            .build();
        let direction = WebRTCRTPTransceiverDirection::Recvonly;
        webrtc.emit_by_name::<WebRTCRTPTransceiver>("add-transceiver", &[&direction, &caps]);
        let (seen, frames) = mpsc::unbounded_channel();
        let inside = pipeline.downgrade();
        webrtc.connect_pad_added(move |_, pad| {
            let Some(pipeline) = inside.upgrade() else { return };
            let bin = "rtpvp8depay ! vp8dec ! fakesink name=end sync=false signal-handoffs=true";
            let bin = gst::parse::bin_from_description(bin, true).unwrap();
            let seen = seen.clone();
            let end = bin.by_name("end").unwrap();
            end.connect("handoff", false, move |_| seen.send(()).ok().and(None));
            pipeline.add(&bin).unwrap();
            bin.sync_state_with_parent().unwrap();
            pad.link(&bin.static_pad("sink").unwrap()).unwrap();
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        Viewer { pipeline, webrtc, frames }
    }

    /// Begins to gather candidates.
    async fn gather(&self) -> watch::Receiver<WebRTCICEGatheringState> {
        let (tell, gathering) = watch::channel(WebRTCICEGatheringState::New);
        self.webrtc.connect_notify(Some("ice-gathering-state"), move |webrtc, _| {
            let _ = tell.send(webrtc.property("ice-gathering-state"));
        });
        let (promise, reply) = gst::Promise::new_future();
        self.webrtc.emit_by_name::<()>("create-offer", &[&None::<gst::Structure>, &promise]);
        let reply = reply.await.unwrap().unwrap();
        let offer = reply.get::<WebRTCSessionDescription>("offer").unwrap();
        let none = None::<gst::Promise>;
        self.webrtc.emit_by_name::<()>("set-local-description", &[&offer, &none]);
        gathering
    }

    async fn offer(&self) -> String {
        let mut gathering = self.gather().await;
        let complete = gathering.wait_for(|state| *state == WebRTCICEGatheringState::Complete);
        tokio::time::timeout(PATIENCE, complete).await.unwrap().unwrap();
        let local = self.webrtc.property::<WebRTCSessionDescription>("local-description");
        local.sdp().as_text().unwrap()
    }

    fn take(&self, answer: &str) {
        let sdp = SDPMessage::parse_buffer(answer.as_bytes()).unwrap();
        let answer = WebRTCSessionDescription::new(WebRTCSDPType::Answer, sdp);
        let none = None::<gst::Promise>;
        self.webrtc.emit_by_name::<()>("set-remote-description", &[&answer, &none]);
    }

    async fn sees(&mut self, frames: usize) {
        for _ in 0..frames {
            tokio::time::timeout(PATIENCE, self.frames.recv()).await.unwrap().unwrap();
        }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pages_see_a_camera_that_is_left_as_it_was() {
    let (camera, sessions) = (Camera::new(), Sessions::default());
    let mut first = Viewer::new();
    let offer = first.offer().await;
    let opened = sessions.open("yard", &camera.pipeline, &camera.tee, &offer).await.unwrap();
    first.take(&opened.answer);
    first.sees(5).await;
    assert_eq!(camera.tee.src_pads().len(), 1);

    // One who comes later gets a key frame at once and not a second encoder.
    let mut second = Viewer::new();
    let offer = second.offer().await;
    let later = sessions.open("yard", &camera.pipeline, &camera.tee, &offer).await.unwrap();
    second.take(&later.answer);
    second.sees(5).await;
    assert_eq!((camera.tee.src_pads().len(), sessions.count()), (1, 2));

    assert!(!sessions.close("gate", &opened.id), "another camera's");
    assert!(sessions.close("yard", &opened.id));
    until("a closed session ends", || sessions.count() == 1).await;
    while first.frames.try_recv().is_ok() {}
    second.sees(5).await;

    // One that leaves without a word.
    drop(second);
    until("a peer that is gone ends its session", || sessions.count() == 0).await;
    until("the camera has its pipeline to itself", || camera.is_left_alone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_is_refused() {
    let (camera, sessions) = (Camera::new(), Sessions::default());
    let refused = async |offer: &str| {
        sessions.open("yard", &camera.pipeline, &camera.tee, offer).await.unwrap_err()
    };
    let audio = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n\
                 a=rtpmap:111 OPUS/48000/2\r\n";
    let h264 = audio.replace("audio", "video").replace("OPUS/48000/2", "H264/90000");
    let bare = h264.replace("H264", "VP8");
    for (offer, why) in
        [("", "no SDP"), (audio, "an offer without video"), (&*h264, "an offer without VP8")]
    {
        let Fault::Offer(said) = refused(offer).await else { panic!("{offer}") };
        assert_eq!(said, why, "{offer}");
    }
    // Without fingerprint and ICE there is nobody to talk to.
    assert!(matches!(refused(&bare).await, Fault::Offer(_) | Fault::Failed(_)));
    assert_eq!(sessions.count(), 0);
    until("nothing is left of it", || camera.is_left_alone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_may_leave_before_they_are_answered() {
    let (camera, sessions) = (Camera::new(), Sessions::default());
    let offer = Viewer::new().offer().await;
    for ms in (0..200).step_by(10) {
        let opening = sessions.open("yard", &camera.pipeline, &camera.tee, &offer);
        if let Ok(opened) = tokio::time::timeout(Duration::from_millis(ms), opening).await {
            assert!(sessions.close("yard", &opened.unwrap().id));
        }
    }
    until("nothing is left of them", || sessions.count() == 0 && camera.is_left_alone()).await;
    let opened = sessions.open("yard", &camera.pipeline, &camera.tee, &offer).await;
    assert!(opened.is_ok(), "{opened:?}");
}

/// Whether the process would fall over otherwise is a matter of luck; that it is waited for is none.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_stopped_while_it_gathers_candidates() {
    gst::init().unwrap();
    for _ in 0..5 {
        let viewer = Viewer::new();
        let gathering = viewer.gather().await;
        let (pipeline, webrtc) = (viewer.pipeline.clone(), viewer.webrtc.clone());
        let stop = move || super::peer::stop(&pipeline, &webrtc);
        tokio::task::spawn_blocking(stop).await.unwrap();
        assert_eq!(*gathering.borrow(), WebRTCICEGatheringState::Complete);
        assert_eq!(viewer.pipeline.current_state(), gst::State::Null);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_bounded() {
    let (camera, sessions) = (Camera::new(), Sessions::default());
    let room = sessions.inner.room.clone().try_acquire_many_owned(MOST as u32).unwrap();
    let offer = Viewer::new().offer().await;
    let full = sessions.open("yard", &camera.pipeline, &camera.tee, &offer).await;
    assert!(matches!(full, Err(Fault::TooMany)), "{full:?}");
    drop(room);
    assert!(sessions.open("yard", &camera.pipeline, &camera.tee, &offer).await.is_ok());
}
