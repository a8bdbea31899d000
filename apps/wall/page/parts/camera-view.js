// SPDX-License-Identifier: MPL-2.0
// One camera: its picture, what is true now, what was asked, what happened, how it fares.

import { Part, fill, h, icon } from "../lib/dom.js";
import { shortcut } from "../lib/keys.js";
import { store } from "../lib/store.js";
import "./alerts.js";
import "./conversation.js";
import "./health.js";
import "./live-picture.js";
import "./standing.js";
import { stateDot } from "./state-note.js";

class CameraView extends Part {
  enter() {
    this.camera = this.getAttribute("camera");
    const camera = this.camera;
    this.name = h("h1");
    this.state = h("span");
    this.others = h("nav.others", { "aria-label": "Other cameras" });
    this.standing = h("standing-list", { camera });
    this.gone = h("p.empty", { hidden: true }, "There is no camera of this name on the wall.");
    const section = (title, name, part) => h("section", { class: name, "aria-label": title }, h("h2", title), part);
    this.body = h(
      "div.columns",
      h("live-picture", { camera }),
      section("Conversation", "talks", h("camera-conversation", { camera })),
      section("True now", "standing", this.standing),
      section("Alerts", "alerts", h("alert-list", { camera })),
      section("Health", "health", h("camera-health", { camera })),
    );
    fill(this, h("div.camera-head", h("a.back", { href: "#/", "aria-label": "All cameras", title: "All cameras (g w)" }, icon("back")), this.name, this.state, this.others), this.gone, this.body);
    this.when(store, "camera", ({ id }) => id === camera && this.draw());
    this.when(store, "cameras", () => this.draw());
    shortcut("[", "The camera before", () => this.go(-1), this.ends);
    shortcut("]", "The next camera", () => this.go(1), this.ends);
    shortcut("s", "Another standing question", () => this.standing.write(), this.ends);
    this.draw();
  }

  draw() {
    const known = store.cameras.get(this.camera);
    this.name.textContent = known?.name ?? this.camera;
    fill(this.state, known && stateDot(known));
    this.gone.hidden = Boolean(known) || store.link.state !== "open" || store.cameras.size === 0;
    this.body.hidden = !this.gone.hidden;
    const link = (by, drawn, what) => {
      const camera = this.beside(by);
      return camera && h("a.quiet", { href: `#/camera/${encodeURIComponent(camera)}`, title: `${what}: ${store.name(camera)}`, "aria-label": `${what}: ${store.name(camera)}` }, icon(drawn));
    };
    fill(this.others, store.cameras.size > 1 && [link(-1, "back", "Before"), link(1, "next", "Next")]);
  }

  beside(by) {
    const ids = [...store.cameras.keys()];
    const at = ids.indexOf(this.camera);
    return at < 0 ? ids[0] : ids[(at + by + ids.length) % ids.length];
  }

  go(by) {
    const camera = this.beside(by);
    if (camera) location.hash = `#/camera/${encodeURIComponent(camera)}`;
  }
}

customElements.define("camera-view", CameraView);
