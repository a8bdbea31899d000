// SPDX-License-Identifier: MPL-2.0
// The pictures of a whole wall. A browser opens six connections to a server and no more, so sixteen endless
// streams would leave none for questions: single pictures are fetched in turn instead, over a few connections,
// of the cameras that are in sight, and only as fast as they come.

import { api } from "./api.js";

const AT_ONCE = 3;
/** Between two pictures of one camera. */
const EVERY_MS = 500;
/** After a picture that could not be had. */
const RETRY_MS = 3_000;

class Pump {
  shown = new Set();
  running = 0;

  constructor() {
    document.addEventListener("visibilitychange", () => this.turn());
  }

  /** Shows the camera's pictures in `image`, while `wanted()`, until the returned function is called. */
  show(camera, image, wanted) {
    const one = { camera, image, wanted, due: 0, inSight: true, busy: false, url: null };
    const watch = new IntersectionObserver(([entry]) => {
      one.inSight = entry.isIntersecting;
      this.turn();
    }, { rootMargin: "200px" });
    watch.observe(image);
    this.shown.add(one);
    this.turn();
    return () => {
      watch.disconnect();
      this.shown.delete(one);
      one.stop?.abort();
      if (one.url) URL.revokeObjectURL(one.url);
    };
  }

  turn() {
    clearTimeout(this.timer);
    if (document.hidden) return;
    const now = performance.now();
    const waiting = [...this.shown].filter((one) => one.inSight && !one.busy && one.wanted()).sort((a, b) => a.due - b.due);
    for (const one of waiting) {
      if (one.due > now || this.running >= AT_ONCE) break;
      this.fetch(one);
    }
    const next = waiting.find((one) => !one.busy);
    if (next && this.running < AT_ONCE) this.timer = setTimeout(() => this.turn(), Math.max(20, next.due - now));
  }

  async fetch(one) {
    one.busy = true;
    this.running += 1;
    one.stop = new AbortController();
    const started = performance.now();
    let ok = false;
    try {
      const signal = AbortSignal.any([one.stop.signal, AbortSignal.timeout(10_000)]);
      const response = await fetch(api.still(one.camera), { credentials: "same-origin", cache: "no-cache", signal });
      ok = response.ok;
      if (ok) await this.put(one, await response.blob());
    } catch {
      // The next try is due soon; the camera's state says why there is none.
    }
    this.running -= 1;
    one.busy = false;
    one.due = started + (ok ? EVERY_MS : RETRY_MS);
    this.turn();
  }

  async put(one, blob) {
    if (!this.shown.has(one)) return;
    const url = URL.createObjectURL(blob);
    const before = one.url;
    one.url = url;
    one.image.src = url;
    // The picture before is let go when the new one is there, so that nothing flashes.
    await one.image.decode().catch(() => {});
    if (before) URL.revokeObjectURL(before);
  }
}

export const pump = new Pump();
