// SPDX-License-Identifier: MPL-2.0
// One question to several cameras: their answers side by side.

import { Part, fill, h, icon, say } from "../lib/dom.js";
import { count } from "../lib/format.js";
import { store } from "../lib/store.js";
import { answerCard } from "./answer-card.js";

const THUMBNAILS = 3;

class AskRound extends Part {
  /** What the server said to the question: {question, asked: [{camera, id}], refused: [{camera, reason}]}. */
  set round(round) {
    this.known = round;
  }

  enter() {
    const { question, asked, refused } = this.known;
    const open = new Set(asked.map((one) => one.id).filter((id) => !store.answered.has(id)));
    const progress = h("span.meta");
    const told = () => (progress.textContent = open.size ? `${asked.length - open.size} of ${asked.length} answered` : count(asked.length, "answer"));
    const close = h("button.quiet", { type: "button", "aria-label": "Close these answers", onclick: () => this.remove() }, icon("close"));
    this.setAttribute("aria-label", `Answers to: ${question}`);
    this.setAttribute("role", "region");
    this.tabIndex = -1;
    fill(
      this,
      h("header", h("h2", question), progress, close),
      h("ul.columns", asked.map((one) => this.column(one)), refused.map((one) => this.refusal(one))),
    );
    told();
    this.when(store, "answer", (answer) => {
      if (!open.delete(answer.id)) return;
      told();
      say(`${store.name(answer.camera)}: ${answer.error ?? answer.text}`);
    });
  }

  column({ camera, id }) {
    const card = answerCard({ id, camera, question: this.known.question }, { short: true, most: THUMBNAILS });
    return h("li", h("h3", h("a", { href: `#/camera/${encodeURIComponent(camera)}` }, store.name(camera))), card);
  }

  refusal({ camera, reason }) {
    return h("li.refused", h("h3", store.name(camera)), h("p.error", reason));
  }
}

customElements.define("ask-round", AskRound);
