// SPDX-License-Identifier: MPL-2.0
// How a camera fares: how far its memory is behind, what was dropped, how fast it answers, what it remembers.

import { Part, fill, h } from "../lib/dom.js";
import { bytes, span } from "../lib/format.js";
import { store } from "../lib/store.js";

class CameraHealth extends Part {
  enter() {
    this.camera = this.getAttribute("camera");
    const mine = ({ id }) => id === this.camera && this.draw();
    this.when(store, "health", mine);
    this.when(store, "camera", mine);
    this.when(store, "cameras", () => this.draw());
    this.draw();
  }

  draw() {
    const health = store.cameras.get(this.camera)?.health;
    if (!health) return fill(this, h("p.empty", "Not known yet"));
    fill(this, h("dl.facts", facts(health).map(([name, value, odd]) => h("div", { class: odd ? "odd" : "" }, h("dt", name), h("dd", value)))), chart(health));
  }
}

function facts(health) {
  const ms = (value) => (typeof value === "number" && value > 0 ? (value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`) : "–");
  const lag = health.lag_s ?? 0;
  return [
    ["Behind", lag < 10 ? `${lag.toFixed(1)} s` : span(lag), lag > 10],
    ["Frames seen", number(health.frames)],
    ["Dropped", number(health.dropped), health.dropped > 0 && health.dropped > health.frames / 20],
    ["Waiting", number(health.queue)],
    ["First word", `${ms(health.first_token_p50_ms)}`],
    ["95 of 100 within", ms(health.first_token_p95_ms)],
  ];
}

const number = (value) => (typeof value === "number" ? value.toLocaleString() : "–");

/** Memory by age, as bars for the eye and as a table for others. */
function chart(health) {
  const tiers = [...(health.tiers ?? [])].sort((a, b) => b.age_s - a.age_s);
  const title = h("p.chart-title", h("span", tiers.length ? "Memory by age" : "Memory"), h("span.meta", `${bytes(health.memory_bytes)} in ${number(health.memory_units)} units`));
  if (!tiers.length) return [title];
  const most = Math.max(...tiers.map((tier) => tier.bytes), 1);
  const bars = tiers.map((tier) => {
    const bar = h("div.bar");
    bar.style.setProperty("--share", String(tier.bytes / most));
    return h("div.tier", { title: `${bytes(tier.bytes)} in ${number(tier.units)} units, ${span(tier.age_s)} old` }, bar, h("span", span(tier.age_s)));
  });
  const rows = tiers.map((tier) => h("tr", h("td", span(tier.age_s)), h("td", bytes(tier.bytes)), h("td", number(tier.units))));
  const table = h(
    "table.unseen",
    h("caption", "Memory by age"),
    h("thead", h("tr", ["Age", "Bytes", "Units"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", rows),
  );
  return [title, h("div.chart", { "aria-hidden": "true" }, bars), table];
}

customElements.define("camera-health", CameraHealth);
