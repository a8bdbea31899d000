// SPDX-License-Identifier: MPL-2.0
// One camera of the wall: its picture, name, state, and what it was last asked.

import { Part, fill, h, icon } from "../lib/dom.js";
import { ago, percent } from "../lib/format.js";
import { pump } from "../lib/pump.js";
import { store } from "../lib/store.js";
import { stateDot, stateNote } from "./state-note.js";

class CameraTile extends Part {
  enter() {
    this.camera = this.getAttribute("camera");
    this.image = h("img", { alt: "" });
    this.note = h("div");
    this.name = h("a.name", { href: `#/camera/${encodeURIComponent(this.camera)}`, data: { opens: "" } });
    this.state = h("span.state-place");
    this.alerts = h("div.tile-alerts");
    this.said = h("div.said");
    this.tick = h("input", { type: "checkbox", tabindex: "-1", onchange: () => store.select(this.camera, this.tick.checked) });
    this.pick = h("label.pick", { title: "Select (x)" }, this.tick, icon("tick"));
    fill(
      this,
      h("div.picture", this.image, this.note, this.alerts),
      this.pick,
      h("div.title", h("h2", this.name), this.state),
      this.said,
    );
    const mine = (act) => (happened) => happened.camera === this.camera && act(happened);
    this.when(store, "camera", ({ id }) => id === this.camera && this.update());
    this.when(store, "cameras", () => this.update());
    this.when(store, "token", mine((token) => this.write(token)));
    this.when(store, "answer", mine(() => this.answered()));
    this.when(store, "recent", () => this.answered());
    this.when(store, "alerts", () => this.alerted());
    this.when(store, "selected", () => this.picked());
    this.every(1000, () => this.known?.state !== "live" && this.noted());
    this.every(10_000, () => this.answered());
    this.leavePump = pump.show(this.camera, this.image, () => this.known && !stateNote(this.known));
    this.update();
    this.answered();
    this.alerted();
    this.picked();
  }

  leave() {
    this.leavePump();
  }

  get known() {
    return store.cameras.get(this.camera);
  }

  update() {
    const camera = this.known;
    if (!camera) return;
    this.name.textContent = camera.name;
    this.image.alt = `${camera.name}, live`;
    this.tick.setAttribute("aria-label", `Select ${camera.name}`);
    fill(this.state, stateDot(camera));
    this.noted();
    this.alerted();
    pump.turn();
  }

  noted() {
    const note = this.known && stateNote(this.known);
    this.classList.toggle("off", Boolean(note));
    fill(this.note, note);
  }

  write({ answer, so_far }) {
    // Only a person's question is worth watching here; a standing one would flicker.
    if (!this.asked?.has(answer)) return;
    fill(this.said, h("p.words", so_far));
  }

  /** A question of this page to this camera, whose answer is to be seen as it is written. */
  expect(answer, question) {
    if (store.answered.has(answer)) return this.answered();
    (this.asked ??= new Set()).add(answer);
    fill(this.said, h("p.words.waits", "…"), h("p.meta", h("span.what", question)));
  }

  answered() {
    const last = store.last.get(this.camera);
    if (!last) return fill(this.said, h("p.meta", "Nothing asked yet"));
    if (this.asked?.size && !this.asked.has(last.id)) return;
    this.asked?.delete(last.id);
    fill(
      this.said,
      last.error ? h("p.words.error", last.error) : h("p.words", last.text),
      h(
        "p.meta",
        h("span.what", last.question),
        h("span.when", [percent(last.confidence), ago(last.answered)].filter(Boolean).join(" · ")),
      ),
    );
  }

  alerted() {
    const lasting = store.lasting(this.camera);
    this.classList.toggle("alerted", lasting.length > 0);
    fill(this.alerts, lasting.slice(0, 2).map((alert) => h("p", icon("alert"), h("span", alert.question))));
  }

  picked() {
    this.tick.checked = store.selected.has(this.camera);
    this.classList.toggle("picked", this.tick.checked);
  }
}

customElements.define("camera-tile", CameraTile);
