// SPDX-License-Identifier: MPL-2.0
// A line across the page while the wall cannot be reached: what is shown is what was last known.

import { Part, fill, h, say } from "../lib/dom.js";
import { left } from "../lib/format.js";
import { store } from "../lib/store.js";

class WallConnection extends Part {
  enter() {
    this.hidden = true;
    this.words = h("p");
    fill(this, this.words, h("button.link", { type: "button", onclick: () => store.events.now() }, "Try now"));
    this.when(store, "link", (link) => this.draw(link));
    this.every(500, () => this.draw(store.link));
  }

  draw({ state, reason, next }) {
    const lost = state === "lost" || (state === "connecting" && reason);
    if (lost && this.hidden) say("The connection to the wall is lost. What is shown may be old.");
    if (!lost && !this.hidden) say("Connected again.");
    this.hidden = !lost;
    document.documentElement.classList.toggle("lost", Boolean(lost));
    if (!lost) return;
    const then = state === "lost" && left(next) > 0 ? `next try in ${left(next)} s` : "trying now";
    const text = `${reason}; ${then}. What you see is what was last known.`;
    if (this.words.textContent !== text) this.words.textContent = text;
  }
}

customElements.define("wall-connection", WallConnection);
