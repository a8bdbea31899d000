// SPDX-License-Identifier: MPL-2.0
// What one camera was asked, newest last, and where to ask on.

import { api } from "../lib/api.js";
import { Part, fill, h, say } from "../lib/dom.js";
import { store } from "../lib/store.js";
import { answerCard } from "./answer-card.js";
import "./ask-form.js";

const AT_ONCE = 10;

class CameraConversation extends Part {
  enter() {
    this.camera = this.getAttribute("camera");
    this.cards = new Map();
    this.next = null;
    this.earlier = h("button.link.earlier", { type: "button", hidden: true, onclick: () => this.load() }, "Earlier");
    this.list = h("ol.exchanges", { "aria-label": "Questions and answers" });
    this.note = h("p.empty");
    this.scroller = h("div.scroller", { tabindex: "0", role: "region", "aria-label": "Conversation" }, this.earlier, this.list, this.note);
    this.form = h("ask-form", { placeholder: "Ask about anything it has seen" });
    this.form.cameras = () => [this.camera];
    this.form.addEventListener("asked", ({ detail }) => this.asked(detail));
    fill(this, this.scroller, this.form);
    this.when(store, "answer", (answer) => answer.camera === this.camera && this.answered(answer));
    this.when(store, "token", ({ answer }) => this.cards.has(answer) && this.toEnd());
    this.when(store, "cameras", () => this.fetched || this.load());
    this.load();
  }

  async load() {
    if (this.loading) return;
    this.loading = true;
    try {
      // Standing questions are answered all the time, and have a place of their own.
      const { items, next } = await api.answers(this.camera, { standing: false, limit: AT_ONCE, before: this.next });
      this.fetched = true;
      const wasFirst = this.next === null;
      const height = this.scroller.scrollHeight;
      for (const answer of items) if (!this.cards.has(answer.id)) this.list.prepend(this.item(answer));
      this.next = next;
      this.earlier.hidden = !next;
      if (wasFirst) this.toEnd(true);
      else this.scroller.scrollTop += this.scroller.scrollHeight - height;
      this.noted();
    } catch (refused) {
      this.noted(refused.message);
    }
    this.loading = false;
  }

  noted(text) {
    const none = this.cards.size === 0 && "Nothing asked yet. It remembers what it sees; ask about now or about earlier.";
    this.note.textContent = text || none || "";
    this.note.hidden = !this.note.textContent;
  }

  item(answer) {
    const card = answerCard(answer);
    this.cards.set(answer.id, card);
    return h("li", card);
  }

  asked({ question, asked, refused }) {
    for (const { id } of asked) this.add({ id, camera: this.camera, question, source: "page", asked: new Date().toISOString() });
    for (const { reason } of refused ?? []) {
      const at = new Date().toISOString();
      this.add({ id: `refused-${at}`, camera: this.camera, question, source: "page", asked: at, answered: at, error: reason });
    }
    this.toEnd(true);
  }

  add(answer) {
    if (!this.cards.has(answer.id)) this.list.append(this.item(answer));
    this.noted();
  }

  answered(answer) {
    if (answer.source === "standing") return;
    const mine = this.cards.has(answer.id);
    const end = this.atEnd();
    this.add(answer);
    if (mine) say(answer.error ?? answer.text);
    if (end || mine) requestAnimationFrame(() => this.toEnd(true));
  }

  atEnd() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight < 80;
  }

  /** Follows what is written, unless someone has scrolled up to read. */
  toEnd(surely = false) {
    if (surely || this.atEnd()) this.scroller.scrollTop = this.scroller.scrollHeight;
  }
}

customElements.define("camera-conversation", CameraConversation);
