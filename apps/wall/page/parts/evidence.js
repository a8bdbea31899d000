// SPDX-License-Identifier: MPL-2.0
// What an answer rests on: thumbnails in the order of time, each led to its place on the line from the first of
// them to the moment that was asked about.

import { api } from "../lib/api.js";
import { Part, fill, h, svg } from "../lib/dom.js";
import { moment, percent, span, timeOfDay } from "../lib/format.js";
import { store } from "../lib/store.js";
import { openMoment } from "./moment.js";

/** The strongest are shown. */
const SHOWN = 6;
const SHOWN_ON_A_PHONE = 4;
const phone = matchMedia("(max-width: 480px)");
const HEIGHT = 18;
/** Thumbnails are no wider than so many side by side; shares of the line's width. */
const FEW = 4;
const GAP = 1.2;
/** What was just now is seen to be just now. */
const SHORTEST_MS = 30_000;

const ms = (time) => new Date(time).getTime();

class EvidenceLine extends Part {
  /** `answer` or an alert: camera, evidence, and when it was asked. */
  set of(answer) {
    this.answer = answer;
    if (this.isConnected) this.enter();
  }

  enter() {
    const { evidence = [], camera } = this.answer ?? {};
    const most = Number(this.getAttribute("most")) || (phone.matches ? SHOWN_ON_A_PHONE : SHOWN);
    const strongest = [...evidence].sort((a, b) => (b.score ?? 0) - (a.score ?? 0)).slice(0, most);
    const shown = strongest.sort((a, b) => ms(a.from) - ms(b.from));
    this.hidden = shown.length === 0;
    if (this.hidden) return fill(this);
    const end = Math.max(ms(this.answer.asked ?? this.answer.at), ...shown.map((one) => ms(one.to)));
    const begin = Math.min(ms(shown[0].from), end - SHORTEST_MS);
    const places = spread(shown.map((one) => at(one, begin, end)), Math.min(most, FEW));
    const top = Math.max(...shown.map((one) => one.score ?? 0)) || 1;
    fill(
      this,
      h("ol.thumbs", shown.map((one, index) => placed(h("li", this.thumbnail(one, camera, shown)), places, index))),
      this.line(shown, places, begin, end, top),
      h("div.ends", { "aria-hidden": "true" }, h("span", moment(begin)), h("span", `${span((end - begin) / 1000)} to the question`)),
    );
  }

  thumbnail(one, camera, all) {
    const at = moment(one.from);
    const weight = one.score === null || one.score === undefined ? "" : `, weight ${percent(one.score)}`;
    return h(
      "button.thumb",
      {
        type: "button",
        "aria-label": `${store.name(camera)} at ${at}${weight}: see that moment`,
        title: weight.slice(2),
        onclick: () => openMoment({ camera, at: one.from, picture: one.picture, evidence: all }),
      },
      one.picture
        ? h("img", { src: api.picture(one.picture), alt: "", loading: "lazy", decoding: "async" })
        : h("span.nothing", "no picture kept"),
      h("span.time", { "aria-hidden": "true" }, timeOfDay(one.from)),
    );
  }

  line(shown, places, begin, end, top) {
    const marks = shown.map((one, index) => {
      const middle = places.left[index] + places.width / 2;
      const [from, to] = [one.from, one.to].map((time) => ((ms(time) - begin) / (end - begin)) * 100);
      const strong = 0.35 + 0.65 * ((one.score ?? top) / top);
      return [
        svg("path", { class: "lead", d: `M${middle} 0 L${(from + to) / 2} ${HEIGHT - 3}`, "stroke-opacity": strong }),
        svg("path", { class: "stretch", d: `M${from} ${HEIGHT - 1} H${Math.max(to, from + 0.8)}`, "stroke-opacity": strong }),
      ];
    });
    const axis = svg("path", { class: "axis", d: `M0 ${HEIGHT - 1} H100` });
    return svg(
      "svg",
      { class: "line", viewBox: `0 0 100 ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      axis,
      marks,
    );
  }
}

/** The middle of a stretch on a line from 0 to 100. */
function at(one, begin, end) {
  return (((ms(one.from) + ms(one.to)) / 2 - begin) / (end - begin)) * 100;
}

/** Where thumbnails lie: each over its time where there is room, else pushed aside, none over another. */
function spread(middles, few) {
  const many = Math.max(few, middles.length);
  const width = (100 - GAP * (many - 1)) / many;
  const left = [];
  for (const middle of middles) {
    const free = left.length ? left.at(-1) + width + GAP : 0;
    left.push(Math.max(free, middle - width / 2));
  }
  for (let limit = 100 - width, index = left.length - 1; index >= 0; index -= 1, limit -= width + GAP) {
    left[index] = Math.max(0, Math.min(left[index], limit));
  }
  return { width, left };
}

function placed(item, { width, left }, index) {
  item.style.width = `${width}%`;
  item.style.marginLeft = `${left[index] - (index ? left[index - 1] + width : 0)}%`;
  return item;
}

customElements.define("evidence-line", EvidenceLine);

/** An evidence line of an answer or an alert. */
export function evidenceLine(answer, most) {
  const line = h("evidence-line", { most });
  line.of = answer;
  return line;
}
