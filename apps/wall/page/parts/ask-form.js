// SPDX-License-Identifier: MPL-2.0
// Where one writes a question: to one camera or to several, about everything remembered or a part of it, freely
// or with the answers there are to choose from.

import { api } from "../lib/api.js";
import { Part, fill, h, icon } from "../lib/dom.js";

const PERIODS = [
  ["", "Everything it remembers"],
  ["60", "The last minute"],
  ["600", "The last 10 minutes"],
  ["3600", "The last hour"],
  ["day", "Since midnight"],
  ["between", "From … to …"],
];

class AskForm extends Part {
  /** Says which cameras are asked: `() => [ids]`, or `() => ["*"]`. */
  cameras = () => ["*"];

  enter() {
    const id = `ask-${Math.random().toString(36).slice(2)}`;
    this.field = h("input", {
      id,
      name: "question",
      autocomplete: "off",
      maxlength: "2000",
      required: true,
      enterkeyhint: "send",
      "data-asks": "",
      placeholder: this.getAttribute("placeholder"),
    });
    this.label = h("label.unseen", { for: id }, this.getAttribute("placeholder"));
    this.button = h("button.primary", { type: "submit" }, "Ask");
    this.fault = h("p.fault", { role: "alert" });
    this.form = h(
      "form",
      { onsubmit: (event) => this.ask(event), novalidate: true },
      h("div.ask-line", this.label, this.field, this.button),
      this.options(),
      this.fault,
    );
    fill(this, this.form);
  }

  options() {
    const select = h("select", { name: "period" }, PERIODS.map(([value, text]) => h("option", { value }, text)));
    const between = h(
      "div.between",
      { hidden: true },
      h("label", "From", h("input", { type: "datetime-local", name: "from", step: "1" })),
      h("label", "To", h("input", { type: "datetime-local", name: "to", step: "1" })),
    );
    select.addEventListener("change", () => (between.hidden = select.value !== "between"));
    const choices = h("input", { name: "choices", placeholder: "yes, no", autocomplete: "off", maxlength: "2000" });
    return h(
      "details.options",
      h("summary", icon("next"), "Options"),
      h("div.fields", h("label", "About", select), between, h("label", "Choices, with commas between", choices)),
    );
  }

  set placeholder(text) {
    this.setAttribute("placeholder", text);
    if (!this.field) return;
    this.field.placeholder = text;
    this.label.textContent = text;
  }

  async ask(event) {
    event.preventDefault();
    const question = this.field.value.trim();
    this.fault.textContent = "";
    if (!question) return this.field.focus();
    const { period, from, to, choices } = Object.fromEntries(new FormData(this.form));
    const cameras = this.cameras();
    this.button.disabled = true;
    try {
      const asked = await api.ask({ cameras, question, ...stretch(period, from, to), ...listed(choices) });
      this.field.value = "";
      this.dispatchEvent(new CustomEvent("asked", { detail: { question, ...asked } }));
    } catch (fault) {
      this.fault.textContent = [fault.message, fault.remedy].filter(Boolean).join(". ");
    } finally {
      this.button.disabled = false;
    }
    this.field.focus();
  }
}

function stretch(period, from, to) {
  const iso = (time) => (time ? new Date(time).toISOString() : undefined);
  if (period === "between") return { from: iso(from), to: iso(to) };
  if (period === "day") return { from: iso(new Date().setHours(0, 0, 0, 0)) };
  if (period) return { from: iso(Date.now() - Number(period) * 1000) };
  return {};
}

function listed(choices) {
  const list = (choices ?? "").split(",").map((one) => one.trim()).filter(Boolean);
  return list.length ? { choices: list } : {};
}

customElements.define("ask-form", AskForm);
