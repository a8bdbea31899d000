// SPDX-License-Identifier: MPL-2.0
// What happens on the wall, as it happens. Read by `fetch` and not by EventSource, which tells neither why a
// connection failed nor that the server's comments have ceased, and so takes a dead connection for a quiet one.

import { Refused, refusal } from "./api.js";

/** The server says something every 15 s. */
const SILENT_MS = 40_000;
const WAITS_MS = [1_000, 2_000, 4_000, 8_000, 15_000];

/** Fires `happened` with {kind, data}, and `link` with {state: "connecting"|"open"|"lost", reason, next}. */
export class Events extends EventTarget {
  constructor(path) {
    super();
    this.path = path;
    this.failed = 0;
    this.link = { state: "connecting", reason: null, next: null };
    addEventListener("online", () => this.now());
    document.addEventListener("visibilitychange", () => document.hidden || this.now());
  }

  /** Connects, unless it is already doing so. */
  now() {
    if (this.link.state === "lost" || !this.reading) this.connect();
  }

  async connect() {
    clearTimeout(this.timer);
    this.reading?.abort();
    const reading = (this.reading = new AbortController());
    this.tell(this.failed ? { ...this.link, state: "connecting" } : { state: "connecting", reason: null, next: null });
    let reason;
    try {
      reason = await this.read(reading);
    } catch (fault) {
      reason = fault;
    }
    if (this.reading !== reading) return;
    this.reading = null;
    const wait = WAITS_MS[Math.min(this.failed, WAITS_MS.length - 1)];
    this.failed += 1;
    this.tell({ state: "lost", reason: reasonOf(reason), next: Date.now() + wait });
    this.timer = setTimeout(() => this.connect(), wait);
  }

  async read(reading) {
    const alive = () => {
      clearTimeout(this.watch);
      this.watch = setTimeout(() => reading.abort(new Refused(0, "The wall has gone silent")), SILENT_MS);
    };
    alive();
    try {
      const response = await fetch(this.path, {
        headers: { accept: "text/event-stream" },
        credentials: "same-origin",
        cache: "no-store",
        signal: reading.signal,
      });
      if (!response.ok) throw await refusal(response);
      this.failed = 0;
      this.tell({ state: "open", reason: null, next: null });
      const text = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const parse = lines((kind, data) => this.dispatchEvent(new CustomEvent("happened", { detail: { kind, data } })));
      for (;;) {
        const { done, value } = await text.read();
        if (done) return new Refused(0, "The wall has closed the connection");
        alive();
        parse(value);
      }
    } finally {
      clearTimeout(this.watch);
    }
  }

  tell(link) {
    this.link = link;
    this.dispatchEvent(new CustomEvent("link", { detail: link }));
  }
}

function reasonOf(fault) {
  if (fault instanceof Refused) return fault.message;
  return "The wall does not answer";
}

/** A reader of the event stream's lines; chunks may end anywhere, also between CR and LF. */
export function lines(happened) {
  let rest = "";
  let kind = "message";
  let data = [];
  return (chunk) => {
    rest += chunk;
    const held = rest.endsWith("\r") ? rest.length - 1 : rest.length;
    const whole = rest.slice(0, held).split(/\r\n|\r|\n/);
    rest = whole.pop() + rest.slice(held);
    for (const line of whole) {
      if (line === "") {
        if (data.length) happened(kind, JSON.parse(data.join("\n")));
        kind = "message";
        data = [];
      } else if (line.startsWith("event:")) {
        kind = line.slice(6).trim();
      } else if (line.startsWith("data:")) {
        data.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
  };
}
