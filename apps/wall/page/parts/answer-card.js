// SPDX-License-Identifier: MPL-2.0
// A question and its answer, while it is written and after.

import { Part, fill, h } from "../lib/dom.js";
import { moment, percent, span } from "../lib/format.js";
import { store } from "../lib/store.js";
import { evidenceLine } from "./evidence.js";

const SOURCES = { api: "over the API", broker: "over a broker", cluster: "from another machine", standing: "standing question" };

class AnswerCard extends Part {
  /** What is known of it: at least {id, camera, question}. `short` leaves the question to whoever shows the card. */
  set answer(answer) {
    this.known = store.answered.get(answer.id) ?? answer;
    this.draw();
  }

  get answer() {
    return this.known;
  }

  enter() {
    this.when(store, "token", (token) => token.answer === this.known?.id && this.write(token.so_far));
    this.when(store, "answer", (answer) => answer.id === this.known?.id && (this.answer = answer));
  }

  draw() {
    const { id, question, text, error, answered, source, asked } = this.known;
    const done = Boolean(answered);
    this.classList.toggle("writing", !done);
    this.classList.toggle("failed", Boolean(error));
    this.setAttribute("aria-busy", String(!done));
    this.words = h("p.words", done ? text : (store.writing.get(id) ?? ""));
    fill(
      this,
      !this.hasAttribute("short") &&
        h("p.question", h("span", question), h("span.meta", [SOURCES[source], moment(asked)].filter(Boolean).join(" · "))),
      error ? h("p.error", error) : this.words,
      done && !error && this.facts(),
      done && !error && evidenceLine(this.known, this.getAttribute("most")),
    );
  }

  write(text) {
    this.words.textContent = text;
  }

  facts() {
    const { confidence, first_token_ms, choice, text } = this.known;
    return h(
      "p.facts",
      confidenceOf(confidence),
      choice && choice !== text && h("span", `taken as “${choice}”`),
      typeof first_token_ms === "number" && h("span.meta", `first word after ${latency(first_token_ms)}`),
    );
  }
}

function latency(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : span(ms / 1000);
}

/** A share of one as a short bar and in per cent. */
export function confidenceOf(share) {
  const text = percent(share);
  if (!text) return null;
  const bar = h("span.bar", { "aria-hidden": "true" });
  bar.style.setProperty("--share", String(share));
  return h("span.confidence", bar, h("span.unseen", "confidence "), text);
}

customElements.define("answer-card", AnswerCard);

/** A card of this answer; `short` has no question, `most` thumbnails at most. */
export function answerCard(answer, { short = false, most } = {}) {
  const card = h("answer-card", { short, most });
  card.answer = answer;
  return card;
}
