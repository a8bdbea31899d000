// SPDX-License-Identifier: MPL-2.0
// Live video by WebRTC, asked for by WHEP (draft-ietf-wish-whep): one offer with all candidates in it, one
// answer. Whatever goes wrong is an error, and the picture falls back to a stream of JPEG pictures.

import { api, refusal } from "./api.js";

const GATHERING_MS = 2_000;
const FIRST_PICTURE_MS = 8_000;

/** Plays the camera in `video`; resolves with the first picture. `lost` is called if it breaks off later. */
export async function play(camera, video, lost, signal) {
  const peer = new RTCPeerConnection();
  let location = null;
  const end = () => {
    peer.close();
    video.srcObject = null;
    if (location) fetch(location, { method: "DELETE", credentials: "same-origin", keepalive: true }).catch(() => {});
    location = null;
    removeEventListener("pagehide", end);
  };
  signal.addEventListener("abort", end, { once: true });
  addEventListener("pagehide", end);
  try {
    peer.addTransceiver("video", { direction: "recvonly" });
    peer.addEventListener("track", ({ track, streams }) => {
      video.srcObject = streams[0] ?? new MediaStream([track]);
      video.play().catch(() => {});
    });
    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer);
    const response = await fetch(api.whep(camera), {
      method: "POST",
      headers: { "content-type": "application/sdp" },
      body: peer.localDescription.sdp,
      credentials: "same-origin",
      signal,
    });
    if (!response.ok) throw await refusal(response);
    const given = response.headers.get("location");
    location = given ? new URL(given, response.url).href : null;
    await peer.setRemoteDescription({ type: "answer", sdp: await response.text() });
    await firstPicture(video, signal);
  } catch (fault) {
    end();
    throw fault;
  }
  peer.addEventListener("connectionstatechange", () => {
    if (["failed", "disconnected", "closed"].includes(peer.connectionState) && !signal.aborted) {
      end();
      lost();
    }
  });
}

function gathered(peer) {
  if (peer.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    peer.addEventListener("icegatheringstatechange", () => peer.iceGatheringState === "complete" && resolve());
    setTimeout(resolve, GATHERING_MS);
  });
}

function firstPicture(video, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("no picture came")), FIRST_PICTURE_MS);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    const came = () => {
      clearTimeout(timer);
      resolve();
    };
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(came);
    else video.addEventListener("playing", came, { once: true });
  });
}
