// SPDX-License-Identifier: MPL-2.0
// All cameras, and one question to all or some of them.

import { Part, fill, h, say } from "../lib/dom.js";
import { count } from "../lib/format.js";
import { shortcut } from "../lib/keys.js";
import { store } from "../lib/store.js";
import "./ask-form.js";
import "./ask-round.js";
import "./camera-tile.js";

/** Rounds of answers that stay above the pictures. */
const ROUNDS = 3;

class WallView extends Part {
  enter() {
    this.form = h("ask-form", { placeholder: "Ask every camera" });
    this.form.cameras = () => (store.selected.size ? [...store.selected] : ["*"]);
    this.form.addEventListener("asked", ({ detail }) => this.asked(detail));
    this.picked = h("p.picked-line", { role: "status" });
    this.rounds = h("div.rounds");
    this.tiles = h("ul.tiles", { "aria-label": "Cameras" });
    this.empty = h("p.empty");
    fill(this, h("h1.unseen", "Cameras"), h("div.ask-place", this.form, this.picked), this.rounds, this.tiles, this.empty);
    this.when(store, "cameras", () => this.draw());
    this.when(store, "link", () => this.draw());
    this.when(store, "selected", () => this.selected());
    this.tiles.addEventListener("keydown", (event) => this.step(event));
    this.keys();
    this.draw();
    this.selected();
  }

  keys() {
    const here = () => document.activeElement?.closest("camera-tile");
    shortcut("x", "Select the camera in focus", () => {
      const tile = here();
      if (!tile) return false;
      store.select(tile.camera, !store.selected.has(tile.camera));
      say(`${store.name(tile.camera)} ${store.selected.has(tile.camera) ? "selected" : "not selected"}`);
    }, this.ends);
    shortcut("a", "Select all cameras, or none", () => store.selectAll(store.selected.size < store.cameras.size), this.ends);
    shortcut("Escape", "Select none", () => store.selectAll(false), this.ends);
    shortcut("ArrowRight", null, (event) => !here() && this.focusFirst(event), this.ends);
    shortcut("j", "Go through the cameras (also arrow keys)", () => this.move(1), this.ends);
    shortcut("k", null, () => this.move(-1), this.ends);
  }

  links() {
    return [...this.tiles.querySelectorAll("[data-opens]")];
  }

  focusFirst() {
    const [first] = this.links();
    if (!first) return false;
    first.focus();
    return true;
  }

  move(by) {
    const links = this.links();
    const at = links.indexOf(document.activeElement);
    links[Math.min(links.length - 1, Math.max(0, at < 0 ? 0 : at + by))]?.focus();
  }

  /** Arrow keys go where they point, also from row to row. */
  step(event) {
    const links = this.links();
    const at = links.indexOf(event.target);
    if (at < 0) return;
    const columns = getComputedStyle(this.tiles).gridTemplateColumns.split(" ").length;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -at, End: links.length - 1 - at }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    links[at + by]?.focus();
  }

  draw() {
    const known = new Map([...this.tiles.children].map((item) => [item.firstElementChild.getAttribute("camera"), item]));
    const wanted = [...store.cameras.keys()].map((camera) => known.get(camera) ?? h("li", h("camera-tile", { camera })));
    // What is there stays where it is: a picture that moves in the tree loses its focus.
    if (wanted.length !== known.size || wanted.some((item, at) => this.tiles.children[at] !== item)) fill(this.tiles, wanted);
    const loading = store.link.state !== "open" && !store.cameras.size;
    this.empty.hidden = wanted.length > 0;
    this.empty.textContent = loading ? "" : "No cameras yet. They are listed in the wall’s configuration file; it is read again when it changes.";
  }

  selected() {
    const number = store.selected.size;
    this.form.placeholder = number ? `Ask ${count(number, "selected camera")}` : "Ask every camera";
    this.classList.toggle("selecting", number > 0);
    fill(
      this.picked,
      number > 0 && [
        h("span", [...store.selected].map((camera) => store.name(camera)).join(", ")),
        h("button.link", { type: "button", onclick: () => store.selectAll(false) }, "Ask every camera instead"),
      ],
    );
  }

  asked({ question, asked, refused }) {
    const round = h("ask-round");
    round.round = { question, asked, refused: refused ?? [] };
    this.rounds.prepend(round);
    [...this.rounds.children].slice(ROUNDS).forEach((old) => old.remove());
    for (const { camera, id } of asked) {
      [...this.tiles.querySelectorAll("camera-tile")].find((tile) => tile.camera === camera)?.expect(id, question);
    }
  }
}

customElements.define("wall-view", WallView);
