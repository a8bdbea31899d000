// SPDX-License-Identifier: MPL-2.0
// What this page knows. Whoever shows a part of it listens for that part: `cameras` (which there are), `camera`
// (one has changed), `health`, `standing`, `token`, `answer`, `recent` (what was answered before), `alert`,
// `alerts`, `brokers`, `wall`, `link`, `selected`.

import { api } from "./api.js";
import { Events } from "./events.js";
import { say } from "./dom.js";

/** What a person asked stays on the wall for so long, whatever standing questions answer meanwhile. */
const ASKED_STAYS_MS = 60_000;
const ALERTS_KEPT = 200;
/** Answers, whole or being written, of which no question of ours may be known yet: they can be here sooner than
 * the server's word that it has taken the question. */
const WRITING_KEPT = 64;
const ANSWERED_KEPT = 256;

class Store extends EventTarget {
  wall = { name: "Wall", host: "", version: "" };
  cameras = new Map();
  /** Their ids as the configuration has them. */
  order = [];
  brokers = new Map();
  /** Newest first. */
  alerts = [];
  /** The newest answer of each camera. */
  last = new Map();
  /** Text so far of answers that are being written, by their ids. */
  writing = new Map();
  /** The newest answers, by their ids. */
  answered = new Map();
  link = { state: "connecting", reason: null, next: null };
  selected = new Set();

  start() {
    this.events = new Events("api/events");
    this.events.addEventListener("link", ({ detail }) => {
      this.link = detail;
      this.tell("link", detail);
    });
    this.events.addEventListener("happened", ({ detail: { kind, data } }) => this.take(kind, data));
    this.events.connect();
  }

  tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }

  take(kind, data) {
    const act = this[`on_${kind}`];
    if (act) act.call(this, data);
  }

  on_state(state) {
    this.wall = state.wall;
    this.cameras = new Map(state.cameras.map((camera) => [camera.id, camera]));
    this.order = [...this.cameras.keys()];
    this.brokers = new Map(state.brokers.map((broker) => [broker.name, broker]));
    this.writing.clear();
    for (const id of this.selected) if (!this.cameras.has(id)) this.selected.delete(id);
    this.tell("wall");
    this.tell("cameras");
    this.tell("brokers");
    this.fetchRecent();
  }

  /** What came before this page was opened, or while its connection was lost. */
  async fetchRecent() {
    try {
      const [answers, alerts] = await Promise.all([
        api.history({ kind: "answer", limit: 100 }),
        api.history({ kind: "alert", limit: 50 }),
      ]);
      for (const answer of answers.items.toReversed()) this.keep(answer);
      this.alerts = merge(this.alerts, alerts.items);
      this.tell("alerts");
      this.tell("recent");
    } catch {
      // A wall without a history still has pictures; the history's own page says why.
    }
  }

  on_camera(camera) {
    const known = this.cameras.get(camera.id);
    this.cameras.set(camera.id, camera);
    if (!known) this.on_order({ cameras: this.order });
    else this.tell("camera", camera);
    if (known && known.state !== camera.state && camera.state !== "starting") {
      say(`${camera.name}: ${STATES[camera.state] ?? camera.state}${camera.reason ? `, ${camera.reason}` : ""}`);
    }
  }

  on_gone({ camera }) {
    this.cameras.delete(camera);
    this.selected.delete(camera);
    this.tell("cameras");
  }

  on_health({ camera, health }) {
    const known = this.cameras.get(camera);
    if (!known) return;
    known.health = health;
    this.tell("health", known);
  }

  on_order({ cameras }) {
    const place = new Map(cameras.map((id, at) => [id, at]));
    const at = ([id]) => place.get(id) ?? Infinity;
    this.order = cameras;
    this.cameras = new Map([...this.cameras].toSorted((a, b) => at(a) - at(b) || (a[0] < b[0] ? -1 : 1)));
    this.tell("cameras");
  }

  on_standing({ camera, standing }) {
    const known = this.cameras.get(camera);
    if (!known) return;
    const at = known.standing.findIndex((one) => one.id === standing.id);
    if (at < 0) known.standing.push(standing);
    else known.standing[at] = standing;
    this.tell("standing", known);
  }

  on_token(token) {
    const text = (this.writing.get(token.answer) ?? "") + token.text;
    this.writing.set(token.answer, text);
    bound(this.writing, WRITING_KEPT);
    this.tell("token", { ...token, so_far: text });
  }

  on_answer(answer) {
    this.writing.delete(answer.id);
    this.answered.set(answer.id, answer);
    bound(this.answered, ANSWERED_KEPT);
    this.keep(answer);
    this.tell("answer", answer);
  }

  keep(answer) {
    const before = this.last.get(answer.camera);
    const byPerson = before && before.source !== "standing" && answer.source === "standing";
    if (byPerson && Date.now() - new Date(before.answered) < ASKED_STAYS_MS) return;
    if (answer.error && before) return;
    this.last.set(answer.camera, answer);
  }

  on_alert(alert) {
    this.alerts = merge([alert], this.alerts);
    const camera = this.cameras.get(alert.camera);
    const what = alert.state === "on" ? "Alert" : "Over";
    say(`${what}, ${camera?.name ?? alert.camera}: ${alert.question} ${alert.answer}`, alert.state === "on");
    this.tell("alert", alert);
    this.tell("alerts");
  }

  on_broker(broker) {
    this.brokers.set(broker.name, broker);
    this.tell("brokers");
  }

  /** The alerts of this camera that have begun and not ceased, of questions that still stand. */
  lasting(camera) {
    const seen = new Set();
    const stands = new Set(this.cameras.get(camera)?.standing.map((one) => one.id));
    return this.alerts.filter((alert) => {
      if (alert.camera !== camera || seen.has(alert.standing) || !stands.has(alert.standing)) return false;
      seen.add(alert.standing);
      return alert.state === "on";
    });
  }

  name(camera) {
    return this.cameras.get(camera)?.name ?? camera;
  }

  select(camera, whether) {
    if (whether) this.selected.add(camera);
    else this.selected.delete(camera);
    this.tell("selected");
  }

  selectAll(whether) {
    this.selected = new Set(whether ? this.cameras.keys() : []);
    this.tell("selected");
  }
}

/** The oldest go first. */
function bound(map, most) {
  if (map.size > most) map.delete(map.keys().next().value);
}

function merge(newer, older) {
  const ids = new Set(newer.map((alert) => alert.id));
  return [...newer, ...older.filter((alert) => !ids.has(alert.id))]
    .toSorted((a, b) => new Date(b.at) - new Date(a.at))
    .slice(0, ALERTS_KEPT);
}

/** A camera's states in words. */
export const STATES = {
  starting: "starting",
  live: "live",
  stalled: "no picture",
  waiting: "not reachable",
  stopped: "stopped",
  elsewhere: "on another machine",
};

export const store = new Store();
