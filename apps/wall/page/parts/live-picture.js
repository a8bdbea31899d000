// SPDX-License-Identifier: MPL-2.0
// One camera, live and large: WebRTC where both ends have it, else a stream of JPEG pictures. When the camera
// is not live, its last picture stays, dimmed, under the reason and the time of the next try.

import { api } from "../lib/api.js";
import { Part, fill, h } from "../lib/dom.js";
import { store } from "../lib/store.js";
import { play } from "../lib/whep.js";
import { stateNote } from "./state-note.js";

const AGAIN_MS = 3_000;

class LivePicture extends Part {
  enter() {
    this.camera = this.getAttribute("camera");
    this.how = null;
    this.webrtc = typeof RTCPeerConnection === "function";
    this.stage = h("div.frame");
    this.note = h("div");
    this.way = h("span.way");
    fill(this, this.stage, this.note, this.way);
    this.when(store, "camera", (camera) => camera.id === this.camera && this.update());
    this.when(store, "cameras", () => this.update());
    this.when(store, "link", ({ state }) => state === "open" && this.restart());
    this.when(document, "visibilitychange", () => (document.hidden ? this.stop() : this.update()));
    this.every(1000, () => this.tick());
    this.update();
  }

  leave() {
    this.stop();
  }

  get known() {
    return store.cameras.get(this.camera);
  }

  update() {
    const live = this.known?.state === "live" || (this.known?.state === "elsewhere" && this.known.live?.mjpeg);
    this.classList.toggle("off", !live);
    this.tick();
    if (!live) this.stop();
    else if (!this.how && !document.hidden) this.start();
  }

  tick() {
    fill(this.note, this.known && stateNote(this.known));
  }

  restart() {
    this.stop();
    this.update();
  }

  start() {
    const run = (this.run = new AbortController());
    if (this.webrtc && this.known.live?.whep) this.startVideo(run);
    else this.startPictures(run);
  }

  stop() {
    clearTimeout(this.again);
    this.run?.abort();
    this.how = null;
  }

  async startVideo(run) {
    this.how = "webrtc";
    const name = store.name(this.camera);
    const video = h("video", { muted: true, autoplay: true, playsinline: true, "aria-label": `${name}, live` });
    video.muted = true;
    const fallBack = () => {
      this.webrtc = false;
      if (this.run === run && !run.signal.aborted) this.restart();
    };
    // Not in the page before its first picture, so that the last one stays until then.
    video.classList.add("unseen");
    this.stage.append(video);
    run.signal.addEventListener("abort", () => this.freeze(video));
    try {
      await play(this.camera, video, fallBack, run.signal);
      video.classList.remove("unseen");
      fill(this.stage, video);
      this.fits(video.videoWidth, video.videoHeight);
      this.way.textContent = "WebRTC";
    } catch {
      video.remove();
      fallBack();
    }
  }

  startPictures(run) {
    this.how = "mjpeg";
    const image = h("img", { alt: `${store.name(this.camera)}, live` });
    const arrived = setInterval(() => {
      if (!image.naturalWidth) return;
      clearInterval(arrived);
      fill(this.stage, image);
      this.fits(image.naturalWidth, image.naturalHeight);
      this.way.textContent = "MJPEG";
    }, 100);
    image.addEventListener("error", () => {
      if (this.run === run) this.again = setTimeout(() => this.run === run && this.restart(), AGAIN_MS);
    });
    run.signal.addEventListener("abort", () => {
      clearInterval(arrived);
      this.freeze(image);
    });
    image.src = api.mjpeg(this.camera);
  }

  /** Ends a stream and leaves its last picture. */
  freeze(source) {
    const width = source.videoWidth || source.naturalWidth;
    const height = source.videoHeight || source.naturalHeight;
    if (width && source.parentElement) {
      const canvas = h("canvas", { width, height, "aria-hidden": "true" });
      canvas.getContext("2d").drawImage(source, 0, 0, width, height);
      source.replaceWith(canvas);
    }
    if (source.localName === "img") source.removeAttribute("src");
    else source.srcObject = null;
    this.way.textContent = "";
  }

  fits(width, height) {
    if (width && height) this.style.setProperty("--aspect", String(width / height));
  }
}

customElements.define("live-picture", LivePicture);
