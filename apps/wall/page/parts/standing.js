// SPDX-License-Identifier: MPL-2.0
// Questions that stand: what is true now, and a form for another.

import { api } from "../lib/api.js";
import { Part, fill, h, icon, say } from "../lib/dom.js";
import { ago, percent, span } from "../lib/format.js";
import { store } from "../lib/store.js";

const ON = { time: "Every so often", change: "When the picture changes", both: "Either of the two", detection: "When another system says so" };

class StandingList extends Part {
  enter() {
    this.camera = this.getAttribute("camera");
    this.list = h("div");
    this.fault = h("p.fault", { role: "alert" });
    this.form = this.another();
    this.adds = h("details.adds", h("summary", icon("plus"), "Another question"), this.form);
    fill(this, this.list, this.fault, this.adds);
    const mine = ({ id }) => id === this.camera && this.draw();
    this.when(store, "camera", mine);
    this.when(store, "standing", mine);
    this.when(store, "cameras", () => this.draw());
    this.every(10_000, () => this.dated());
    this.draw();
  }

  draw() {
    const standing = store.cameras.get(this.camera)?.standing ?? [];
    const within = this.list.contains(document.activeElement) ? document.activeElement.dataset.id : null;
    this.dates = [];
    fill(this.list, standing.length ? h("ul", standing.map((one) => this.row(one))) : h("p.empty", "None yet. One that stands is asked again and again, and its state is known at any time."));
    this.dated();
    if (within) [...this.list.querySelectorAll("button")].find((button) => button.dataset.id === within)?.focus();
  }

  row(one) {
    const when = h("span.meta");
    this.dates.push([when, one]);
    const holds = one.when && one.state !== null && one.state === one.when;
    return h(
      "li",
      { class: holds ? "holds" : "" },
      h("div.what", h("p.question", one.question), when),
      h("p.now", { title: percent(one.confidence) }, one.state ?? "…"),
      h(
        "button.quiet",
        { type: "button", "aria-label": `Remove: ${one.question}`, title: "Remove", data: { id: one.id }, onclick: () => this.take(one) },
        icon("close"),
      ),
    );
  }

  dated() {
    for (const [place, one] of this.dates) {
      const often = one.every ? `every ${span(one.every)}` : one.on === "change" ? "on change" : one.on === "detection" ? "on detection" : null;
      const since = one.since ? (ago(one.since) === "now" ? "since now" : `since ${ago(one.since)}`) : null;
      place.textContent = [since, often, one.when && `alert when ${one.when}`].filter(Boolean).join(" · ");
    }
  }

  async take(one) {
    this.fault.textContent = "";
    try {
      await api.removeStanding(this.camera, one.id);
      say(`Removed: ${one.question}`);
    } catch (refused) {
      this.fault.textContent = refused.message;
    }
  }

  another() {
    const select = h("select", { name: "on" }, Object.entries(ON).map(([value, text]) => h("option", { value }, text)));
    const every = h("label", "Every, in seconds", h("input", { name: "every", type: "number", min: "1", max: "86400", value: "5", inputmode: "numeric" }));
    every.querySelector("input").value = "5";
    select.addEventListener("change", () => (every.hidden = !["time", "both"].includes(select.value)));
    const fault = h("p.fault", { role: "alert" });
    const number = (name, label) => h("label", label, h("input", { name, type: "number", min: "0", max: "86400", placeholder: "0", inputmode: "numeric" }));
    return h(
      "form",
      { onsubmit: (event) => this.add(event, fault) },
      h("label", "Question", h("input", { name: "question", required: true, maxlength: "2000", autocomplete: "off", placeholder: "is the gate open now?" })),
      h("div.fields", h("label", "Asked", select), every),
      h("label", "Choices, with commas between", h("input", { name: "choices", maxlength: "2000", autocomplete: "off", placeholder: "yes, no" })),
      h("label", "Alert when the answer is", h("input", { name: "when", maxlength: "200", autocomplete: "off", placeholder: "no alert" })),
      h("div.fields", number("for_s", "and has been for, in seconds"), number("cool_down_s", "then quiet for, in seconds")),
      fault,
      h("button.primary", { type: "submit" }, "Let it stand"),
    );
  }

  async add(event, fault) {
    event.preventDefault();
    const form = event.target;
    const given = Object.fromEntries(new FormData(form));
    const timed = ["time", "both"].includes(given.on);
    const number = (text) => (text === "" ? undefined : Number(text));
    fault.textContent = "";
    try {
      await api.addStanding(this.camera, {
        question: given.question.trim(),
        on: given.on,
        every: timed ? number(given.every) : undefined,
        choices: given.choices.split(",").map((one) => one.trim()).filter(Boolean),
        when: given.when.trim() || undefined,
        for_s: number(given.for_s),
        cool_down_s: number(given.cool_down_s),
      });
    } catch (refused) {
      fault.textContent = [refused.message, refused.remedy].filter(Boolean).join(". ");
      return;
    }
    say(`Stands now: ${given.question}`);
    form.reset();
    this.adds.open = false;
    this.adds.querySelector("summary").focus();
  }

  /** Opens the form for another question. */
  write() {
    this.adds.open = true;
    this.form.elements.question.focus();
  }
}

customElements.define("standing-list", StandingList);
