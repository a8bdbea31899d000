// SPDX-License-Identifier: MPL-2.0
// Alerts as they come: a list, on a camera's page of that camera, and for the whole wall behind the bell.

import { Part, fill, h, icon } from "../lib/dom.js";
import { ago, moment } from "../lib/format.js";
import { store } from "../lib/store.js";
import { evidenceLine } from "./evidence.js";

const SEEN = "wall-alerts-seen";
const SHOWN = 50;

let seen = stored();

function stored() {
  try {
    return Number(localStorage.getItem(SEEN)) || 0;
  } catch {
    return 0;
  }
}

/** Alerts that have begun since this browser last looked at the list. */
export function unseenAlerts() {
  return store.alerts.filter((alert) => alert.state === "on" && new Date(alert.at).getTime() > seen).length;
}

function seeAll() {
  const [newest] = store.alerts;
  if (newest) seen = Math.max(seen, new Date(newest.at).getTime());
  try {
    localStorage.setItem(SEEN, String(seen));
  } catch {
    // Kept for this visit only.
  }
  dispatchEvent(new Event("alerts-seen"));
}

class AlertList extends Part {
  enter() {
    this.only = this.getAttribute("camera");
    this.rows = new Map();
    this.when(store, "alerts", () => this.draw());
    this.every(10_000, () => this.dated());
    this.draw();
  }

  draw() {
    const alerts = store.alerts.filter((alert) => !this.only || alert.camera === this.only).slice(0, SHOWN);
    const rows = alerts.map((alert) => [alert, this.rows.get(alert.id) ?? this.row(alert)]);
    this.rows = new Map(rows.map(([alert, row]) => [alert.id, row]));
    this.dates = rows.map(([alert, row]) => [row.querySelector(".when"), alert.at]);
    fill(this, rows.length ? h("ol", rows.map(([, row]) => row)) : h("p.empty", "None so far"));
    this.dated();
  }

  row(alert) {
    const on = alert.state === "on";
    return h(
      "li",
      { data: { state: alert.state } },
      h("p.head", h("span.mark", on && icon("alert"), on ? "Began" : "Over"), h("time.when", { datetime: alert.at, title: moment(alert.at) })),
      !this.only && h("p", h("a", { href: `#/camera/${encodeURIComponent(alert.camera)}` }, store.name(alert.camera))),
      h("p.question", alert.question, " ", h("strong", alert.answer)),
      on && evidenceLine(alert, 4),
    );
  }

  dated() {
    for (const [place, at] of this.dates ?? []) place.textContent = ago(at);
  }
}

customElements.define("alert-list", AlertList);

/** The list of the whole wall, in a drawer. */
export function openAlerts() {
  const close = () => dialog.close();
  const dialog = h(
    "dialog.drawer",
    { "aria-labelledby": "alerts-title", onclose: () => (seeAll(), dialog.remove()) },
    h("header", h("h2", { id: "alerts-title" }, "Alerts"), h("button.quiet", { type: "button", "aria-label": "Close", onclick: close }, icon("close"))),
    h("alert-list"),
    h("p.more", h("a", { href: "#/history?kind=alert" }, "All of them, in the history")),
  );
  dialog.addEventListener("click", (event) => (event.target === dialog || event.target.closest("a")) && close());
  document.body.append(dialog);
  dialog.showModal();
  seeAll();
}
