// SPDX-License-Identifier: MPL-2.0
// What was asked, answered and alerted, to search and to take along.

import { api, query } from "../lib/api.js";
import { Part, fill, h, icon } from "../lib/dom.js";
import { moment } from "../lib/format.js";
import { store } from "../lib/store.js";
import { confidenceOf } from "./answer-card.js";
import { evidenceLine } from "./evidence.js";

const AT_ONCE = 30;
const PAUSE_MS = 250;

class HistoryView extends Part {
  enter() {
    const given = new URLSearchParams(this.getAttribute("fields"));
    this.search = h("input", { type: "search", name: "q", "data-asks": "", placeholder: "Words of a question or an answer", autocomplete: "off", maxlength: "200" });
    this.search.value = given.get("q") ?? "";
    this.camera = h("select", { name: "camera" });
    this.kind = h("select", { name: "kind" }, [["", "All"], ["answer", "Answers"], ["alert", "Alerts"]].map(([value, text]) => h("option", { value }, text)));
    this.kind.value = given.get("kind") ?? "";
    this.wanted = given.get("camera") ?? "";
    const date = (name) => {
      const field = h("input", { type: "date", name });
      field.value = given.get(name) ?? "";
      return field;
    };
    this.from = date("from");
    this.to = date("to");
    this.exports = h("p.exports");
    this.form = h(
      "form",
      { role: "search", onsubmit: (event) => (event.preventDefault(), this.find()) },
      h("label.wide", h("span", "Search"), this.search),
      h("label", "Camera", this.camera),
      h("label", "Kind", this.kind),
      h("label", "From", this.from),
      h("label", "To", this.to),
    );
    this.list = h("ol.found", { "aria-label": "Found" });
    this.note = h("p.empty", { role: "status" });
    this.more = h("button", { type: "button", hidden: true, onclick: () => this.load() }, "More");
    fill(this, h("div.history-head", h("h1", "History"), this.exports), this.form, this.list, this.note, this.more);
    this.form.addEventListener("input", () => {
      clearTimeout(this.pause);
      this.pause = setTimeout(() => this.find(), PAUSE_MS);
    });
    this.when(store, "cameras", () => this.cameras());
    this.when(store, "link", ({ state }) => state === "open" && !this.list.childElementCount && this.find());
    this.cameras();
    this.find();
  }

  leave() {
    clearTimeout(this.pause);
    this.finding?.abort();
  }

  cameras() {
    const chosen = this.camera.value || this.wanted;
    const cameras = [...store.cameras.values()].map(({ id, name }) => [id, name]);
    // A camera that is gone still has a past.
    if (chosen && !store.cameras.has(chosen)) cameras.push([chosen, chosen]);
    fill(this.camera, [["", "All"], ...cameras].map(([value, text]) => h("option", { value }, text)));
    this.camera.value = chosen;
  }

  fields() {
    const day = (value, plus) => {
      if (!value) return undefined;
      const at = new Date(`${value}T00:00:00`);
      at.setDate(at.getDate() + plus);
      return at.toISOString();
    };
    return {
      q: this.search.value.trim() || undefined,
      camera: this.camera.value || undefined,
      kind: this.kind.value || undefined,
      from: day(this.from.value, 0),
      to: day(this.to.value, 1),
    };
  }

  find() {
    const address = { ...this.fields(), from: this.from.value, to: this.to.value };
    history.replaceState(null, "", `#/history${query(address)}`);
    const link = (kind, text) => h("a", { href: api.export(kind, this.fields()), download: `history.${kind}` }, icon("download"), text);
    fill(this.exports, link("csv", "CSV"), link("json", "JSON"));
    this.next = null;
    return this.load(true);
  }

  async load(anew = false) {
    this.finding?.abort();
    const finding = (this.finding = new AbortController());
    try {
      const { items, next } = await api.history({ ...this.fields(), limit: AT_ONCE, before: this.next }, finding.signal);
      const rows = items.map((item) => this.row(item));
      if (anew) fill(this.list, rows);
      else this.list.append(...rows);
      this.next = next;
      this.more.hidden = !next;
      this.note.textContent = this.list.childElementCount ? "" : "Nothing of this kind is kept.";
    } catch (refused) {
      if (finding.signal.aborted) return;
      this.note.textContent = [refused.message, refused.remedy].filter(Boolean).join(". ");
    }
  }

  row(item) {
    const alert = item.kind === "alert";
    const at = alert ? item.at : item.asked;
    return h(
      "li",
      { data: { kind: item.kind, state: alert ? item.state : "" } },
      h("p.where", h("a", { href: `#/camera/${encodeURIComponent(item.camera)}` }, store.name(item.camera)), h("time", { datetime: at }, moment(at))),
      h(
        "div.said",
        h("p.question", alert && h("span.mark", item.state === "on" && icon("alert"), item.state === "on" ? "Began" : "Over"), item.question),
        item.error ? h("p.error", item.error) : h("p.words", alert ? item.answer : item.text),
        confidenceOf(item.confidence),
      ),
      evidenceLine(item, 3),
    );
  }
}

customElements.define("history-view", HistoryView);
