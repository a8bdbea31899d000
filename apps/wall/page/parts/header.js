// SPDX-License-Identifier: MPL-2.0
// The wall's name, where one can go, alerts, brokers, and the switch of light and dark.

import { Part, fill, h, icon } from "../lib/dom.js";
import { left } from "../lib/format.js";
import { shortcut } from "../lib/keys.js";
import { store } from "../lib/store.js";
import { openAlerts, unseenAlerts } from "./alerts.js";
import { openHelp } from "./help.js";

/** Parts of the wall itself: they are spoken of where they fail. */
const OWN = ["history", "config"];

class WallHeader extends Part {
  enter() {
    this.setAttribute("role", "banner");
    this.home = h("a.home", { href: "#/" });
    this.links = [h("a", { href: "#/" }, "Wall"), h("a", { href: "#/history" }, "History")];
    this.brokers = h("div.brokers");
    this.badge = h("span.badge", { hidden: true });
    this.bell = h("button.quiet.bell", { type: "button", onclick: openAlerts }, icon("bell"), this.badge);
    this.theme = h("button.quiet", { type: "button", onclick: () => this.switchTheme() });
    const help = h("button.quiet.help", { type: "button", "aria-label": "Keyboard shortcuts", title: "Keyboard shortcuts (?)", onclick: openHelp }, icon("help"));
    fill(this, this.home, h("nav", { "aria-label": "Pages" }, this.links), this.brokers, h("div.tools", this.bell, this.theme, help));
    this.when(store, "wall", () => this.named());
    this.when(store, "brokers", () => this.brokered());
    this.when(store, "alerts", () => this.alerted());
    this.when(window, "hashchange", () => this.located());
    this.when(window, "alerts-seen", () => this.alerted());
    this.when(matchMedia("(prefers-color-scheme: dark)"), "change", () => this.themed());
    this.every(1000, () => this.waiting && this.brokered());
    shortcut("n", "Alerts", openAlerts, this.ends);
    shortcut("t", "Light or dark", () => this.switchTheme(), this.ends);
    this.named();
    this.located();
    this.alerted();
    this.themed();
  }

  named() {
    fill(this.home, h("span", store.wall.name), store.wall.host && h("span.host", store.wall.host));
  }

  located() {
    const [, view] = location.hash.split(/[/?]/);
    const at = view === "history" ? 1 : view === "camera" ? -1 : 0;
    this.links.forEach((link, index) => (index === at ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current")));
  }

  /** Those that are connected are a quiet dot; those that are not say why. */
  brokered() {
    const brokers = [...store.brokers.values()].filter((broker) => !OWN.includes(broker.kind) || broker.state !== "connected");
    this.waiting = brokers.some((broker) => broker.state !== "connected");
    fill(this.brokers, brokers.map((broker) => {
      const next = broker.next_try ? `, next try in ${left(broker.next_try)} s` : "";
      const waits = broker.waiting ? `, ${broker.waiting} waiting` : "";
      const text = `${broker.name} (${broker.kind}): ${broker.state}${broker.reason ? `, ${broker.reason}` : ""}${waits}${next}`;
      return h("span.broker", { data: { state: broker.state }, title: text, tabindex: "0", role: "img", "aria-label": text }, broker.name);
    }));
  }

  alerted() {
    const number = unseenAlerts();
    this.badge.hidden = number === 0;
    this.badge.textContent = number > 99 ? "99+" : String(number);
    const label = number ? `Alerts, ${number} new` : "Alerts";
    this.bell.setAttribute("aria-label", label);
    this.bell.title = `${label} (n)`;
  }

  get dark() {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  switchTheme() {
    const to = this.dark ? "light" : "dark";
    document.documentElement.dataset.theme = to;
    try {
      localStorage.setItem("wall-theme", to);
    } catch {
      // Kept for this visit only.
    }
    this.themed();
  }

  themed() {
    const to = this.dark ? "light" : "dark";
    this.theme.setAttribute("aria-label", `Switch to ${to}`);
    this.theme.title = `Switch to ${to} (t)`;
    fill(this.theme, icon(to));
  }
}

customElements.define("wall-header", WallHeader);
