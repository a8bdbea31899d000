// SPDX-License-Identifier: MPL-2.0
// A camera's state in words: a dot and a word where it is live, else the reason and when it is tried again.

import { h } from "../lib/dom.js";
import { ago, left } from "../lib/format.js";
import { STATES, store } from "../lib/store.js";

/** `● live`. The word is there for those who do not see the colour. */
export function stateDot(camera) {
  return h("span.state", { data: { state: camera.state } }, word(camera));
}

/** Over the picture of a camera that is not live; nothing for one that is. */
export function stateNote(camera) {
  if (camera.state === "live" || (camera.state === "elsewhere" && camera.live?.mjpeg)) return null;
  const next = camera.next_try ? left(camera.next_try) : null;
  const tries = next === null ? null : next > 0 ? `Next try in ${next} s` : "Trying again";
  return h(
    "div.state-note",
    h("p.word", capital(word(camera))),
    camera.reason && h("p.reason", camera.reason),
    h("p.next", tries ?? (camera.state === "starting" ? "" : `since ${ago(camera.since)}`)),
  );
}

function word(camera) {
  const state = STATES[camera.state] ?? camera.state;
  if (!camera.host || camera.host === store.wall.host) return state;
  return camera.state === "elsewhere" ? `on ${camera.host}` : `${state} on ${camera.host}`;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
