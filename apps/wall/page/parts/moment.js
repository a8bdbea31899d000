// SPDX-License-Identifier: MPL-2.0
// One moment of a camera, large, with its neighbours: arrow keys step through them.

import { api } from "../lib/api.js";
import { Part, fill, h, icon, say } from "../lib/dom.js";
import { moment, timeOfDay } from "../lib/format.js";
import { store } from "../lib/store.js";

/** Seconds before and after that are fetched. */
const AROUND = 30;
/** So near to the end of what is here, more is fetched. */
const NEAR = 2;

const ms = (time) => new Date(time).getTime();

class MomentDialog extends Part {
  show({ camera, at, picture, evidence = [] }) {
    this.camera = camera;
    this.evidence = evidence;
    this.moments = picture ? [{ at, picture }] : [];
    this.here = 0;
    this.exhausted = new Set();
    this.picture = h("img", { alt: "" });
    this.dateline = h("h2");
    this.note = h("p.note");
    this.strip = h("div.strip", { role: "group", "aria-label": "Moments around it" });
    this.steps = [this.step(-1, "back", "Earlier"), this.step(1, "next", "Later")];
    this.dialog = h(
      "dialog.moment",
      { "aria-label": `A moment of ${store.name(camera)}`, onclose: () => this.remove(), onkeydown: (event) => this.key(event) },
      h("header", h("div", h("p.camera", store.name(camera)), this.dateline), this.closer()),
      h("div.stage", this.steps[0], this.picture, this.steps[1]),
      this.note,
      this.strip,
    );
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.append(this.dialog);
    document.body.append(this);
    this.dialog.showModal();
    this.draw();
    this.fetch(at);
  }

  closer() {
    const close = () => this.dialog.close();
    return h("button.quiet", { type: "button", "aria-label": "Close", title: "Close (Esc)", onclick: close }, icon("close"));
  }

  step(by, drawn, what) {
    return h("button.step", { type: "button", "aria-label": what, onclick: () => this.go(this.here + by) }, icon(drawn));
  }

  key(event) {
    const to = { ArrowLeft: this.here - 1, ArrowRight: this.here + 1, Home: 0, End: this.moments.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.go(to);
  }

  async fetch(at) {
    if (this.exhausted.has(at)) return;
    this.exhausted.add(at);
    try {
      const found = await api.moments(this.camera, at, AROUND, this.ends);
      const now = this.moments[this.here];
      const all = new Map([...this.moments, ...found.items].map((one) => [one.picture, one]));
      this.moments = [...all.values()].sort((a, b) => ms(a.at) - ms(b.at));
      this.here = Math.max(0, this.moments.findIndex((one) => one.picture === now?.picture));
      if (!now) this.here = nearest(this.moments, at);
      this.note.textContent = this.moments.length ? "" : "No pictures are kept of this time.";
    } catch (fault) {
      if (fault.name !== "AbortError") this.note.textContent = fault.message;
    }
    if (this.isConnected) this.draw(true);
  }

  go(to) {
    if (to < 0 || to >= this.moments.length || to === this.here) return;
    this.here = to;
    this.draw();
    say(timeOfDay(this.moments[to].at));
    const ahead = to < NEAR ? this.moments[0] : to >= this.moments.length - NEAR ? this.moments.at(-1) : null;
    if (ahead) this.fetch(ahead.at);
  }

  draw(stripToo = !this.strip.childElementCount) {
    const now = this.moments[this.here];
    this.steps[0].disabled = this.here <= 0;
    this.steps[1].disabled = this.here >= this.moments.length - 1;
    if (!now) return;
    this.dateline.textContent = moment(now.at);
    this.picture.src = api.picture(now.picture);
    this.picture.alt = `${store.name(this.camera)} at ${moment(now.at)}`;
    if (stripToo) fill(this.strip, this.moments.map((one, at) => this.small(one, at)));
    [...this.strip.children].forEach((small, at) => {
      if (at === this.here) small.setAttribute("aria-current", "true");
      else small.removeAttribute("aria-current");
    });
    const small = this.strip.children[this.here];
    if (small) this.strip.scrollTo({ left: small.offsetLeft - (this.strip.clientWidth - small.clientWidth) / 2 });
  }

  small(one, at) {
    const weighed = this.evidence.some((part) => ms(part.from) <= ms(one.at) && ms(one.at) <= ms(part.to));
    return h(
      "button",
      {
        type: "button",
        tabindex: "-1",
        class: weighed ? "weighed" : "",
        "aria-label": `${timeOfDay(one.at)}${weighed ? ", evidence" : ""}`,
        onclick: () => this.go(at),
      },
      h("img", { src: api.picture(one.picture), alt: "", loading: "lazy", decoding: "async" }),
    );
  }
}

function nearest(moments, at) {
  let best = 0;
  moments.forEach((one, index) => {
    if (Math.abs(ms(one.at) - ms(at)) < Math.abs(ms(moments[best].at) - ms(at))) best = index;
  });
  return best;
}

customElements.define("moment-dialog", MomentDialog);

/** Shows what `camera` showed at `at`; `picture` is that moment's key, where it is known. */
export function openMoment(what) {
  document.createElement("moment-dialog").show(what);
}
