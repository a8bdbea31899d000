// SPDX-License-Identifier: MPL-2.0
// The pictures of a whole wall, over one connection: a browser opens six to a server and no more, so a stream a
// camera would leave none for questions. Only cameras that are in sight and live are asked for.

import { api, refusal } from "./api.js";

/** After the cameras in sight have changed; scrolling goes past many. */
const SETTLE_MS = 300;
/** After a connection that could not be had or has broken off. */
const RETRY_MS = 2_000;

class Pump {
  shown = new Set();
  asked = "";

  constructor() {
    document.addEventListener("visibilitychange", () => this.turn());
  }

  /** Shows the camera's pictures in `image`, while `wanted()`, until the returned function is called. */
  show(camera, image, wanted) {
    const one = { camera, image, wanted, inSight: false, url: null };
    const watch = new IntersectionObserver(([entry]) => {
      one.inSight = entry.isIntersecting;
      this.turn();
    }, { rootMargin: "200px" });
    watch.observe(image);
    this.shown.add(one);
    return () => {
      watch.disconnect();
      this.shown.delete(one);
      if (one.url) URL.revokeObjectURL(one.url);
      this.turn();
    };
  }

  /** Asks for what is wanted now, if that is not what is being asked for. */
  turn() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), SETTLE_MS);
  }

  ask() {
    const wanted = document.hidden ? [] : [...this.shown].filter((one) => one.inSight && one.wanted());
    const cameras = [...new Set(wanted.map((one) => one.camera))].sort().join(",");
    if (cameras === this.asked) return;
    this.asked = cameras;
    this.reading?.abort();
    if (cameras) this.read(cameras, (this.reading = new AbortController()));
  }

  async read(cameras, reading) {
    try {
      const response = await fetch(api.pictures(cameras), {
        credentials: "same-origin",
        cache: "no-store",
        signal: reading.signal,
      });
      if (!response.ok) throw await refusal(response);
      const stream = response.body.getReader();
      const parse = parts((camera, jpeg) => this.put(camera, jpeg));
      for (;;) {
        const { done, value } = await stream.read();
        if (done) break;
        parse(value);
      }
    } catch {
      // The connection's state and the cameras' say why; here it is only tried again.
    }
    if (this.reading !== reading || reading.signal.aborted) return;
    this.asked = "";
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), RETRY_MS);
  }

  put(camera, jpeg) {
    for (const one of this.shown) if (one.camera === camera) this.draw(one, jpeg);
  }

  async draw(one, jpeg) {
    // A picture that is not decoded yet is let pass; the next comes soon.
    if (one.busy) return;
    one.busy = true;
    const before = one.url;
    one.url = URL.createObjectURL(new Blob([jpeg], { type: "image/jpeg" }));
    one.image.src = one.url;
    await one.image.decode().catch(() => {});
    if (before) URL.revokeObjectURL(before);
    if (!this.shown.has(one)) URL.revokeObjectURL(one.url);
    one.busy = false;
  }
}

const END_OF_HEAD = [13, 10, 13, 10];

/** A reader of multipart parts that have a content-length and say which camera they are of. */
export function parts(found) {
  let held = new Uint8Array(0);
  const head = new TextDecoder("latin1");
  return (chunk) => {
    const joined = new Uint8Array(held.length + chunk.length);
    joined.set(held);
    joined.set(chunk, held.length);
    let at = 0;
    for (;;) {
      const end = indexOf(joined, END_OF_HEAD, at);
      if (end < 0) break;
      const fields = head.decode(joined.subarray(at, end));
      const length = Number(/^content-length: *(\d+)/im.exec(fields)?.[1] ?? 0);
      const body = end + END_OF_HEAD.length;
      if (joined.length < body + length) break;
      const camera = /^x-camera: *(\S+)/im.exec(fields)?.[1];
      if (camera && length) found(camera, joined.slice(body, body + length));
      at = body + length;
    }
    held = joined.slice(at);
  };
}

function indexOf(bytes, wanted, from) {
  for (let at = bytes.indexOf(wanted[0], from); at >= 0; at = bytes.indexOf(wanted[0], at + 1)) {
    if (wanted.every((byte, index) => bytes[at + index] === byte)) return at;
  }
  return -1;
}

export const pump = new Pump();
