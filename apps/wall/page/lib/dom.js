// SPDX-License-Identifier: MPL-2.0
// Elements without markup in strings: text is text, whatever a camera, a model or another person wrote.

/** An element: `h("a.name", { href: "#/", onclick }, "text", child)`. False and null children are left out. */
export function h(what, given, ...children) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.classList.add(...classes);
  const isGiven = given && typeof given === "object" && !(given instanceof Node) && !Array.isArray(given);
  if (isGiven) {
    for (const [name, value] of Object.entries(given)) set(element, name, value);
  } else if (given !== undefined) {
    children.unshift(given);
  }
  element.append(...nodes(children));
  return element;
}

function set(element, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (name === "class") element.classList.add(...value.split(" ").filter(Boolean));
  else if (name === "data") Object.assign(element.dataset, value);
  else if (name === "value") element.value = value;
  else element.setAttribute(name, value === true ? "" : String(value));
}

function nodes(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Puts `children` in place of what `element` holds. */
export function fill(element, ...children) {
  element.replaceChildren(...nodes(children));
}

const SVG = "http://www.w3.org/2000/svg";

/** The same for drawings. */
export function svg(tag, given = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(given)) {
    if (value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...nodes(children));
  return element;
}

const DRAWN = {
  alert: "M12 4 3 19.5h18L12 4Zm0 6v4.5m0 2.4v.1",
  back: "m14.5 5-7 7 7 7",
  bell: "M6 16.5V11a6 6 0 0 1 12 0v5.5l1.5 2h-15l1.5-2Zm4 4.2a2.2 2.2 0 0 0 4 0",
  close: "m6 6 12 12M18 6 6 18",
  dark: "M19.5 14.5A8 8 0 0 1 9.5 4.5a8 8 0 1 0 10 10Z",
  download: "M12 4v11m-4.5-4.5L12 15l4.5-4.5M5 19.5h14",
  help: "M9 9.2a3 3 0 1 1 4.4 2.7c-1 .5-1.4 1-1.4 2.1m0 3.4v.1",
  light: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8Zm0-5v2m0 14v2M3 12h2m14 0h2M5.6 5.6 7 7m10 10 1.4 1.4m0-12.8L17 7M7 17l-1.4 1.4",
  next: "m9.5 5 7 7-7 7",
  plus: "M12 5.5v13m-6.5-6.5h13",
  tick: "m5.5 12.5 4.5 4.5 9-10",
};

/** A line drawing of 24 by 24; it says nothing to a screen reader, the control's label does. */
export function icon(name) {
  const path = svg("path", { d: DRAWN[name] });
  return svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" }, path);
}

/** What is said to a screen reader. The same words twice are said twice. */
export function say(text, urgent = false) {
  const region = document.getElementById(urgent ? "assertive" : "polite");
  if (!region) return;
  region.textContent = "";
  requestAnimationFrame(() => (region.textContent = text));
}

/** A web component in the page's own tree: `this.ends` aborts when it leaves, and takes its listeners along. */
export class Part extends HTMLElement {
  connectedCallback() {
    this.leaving = new AbortController();
    this.ends = this.leaving.signal;
    this.enter();
  }

  disconnectedCallback() {
    this.leaving.abort();
    this.leave();
  }

  enter() {}

  leave() {}

  /** Calls `act` on each `kind` of `source` for as long as this part is in the page. */
  when(source, kind, act) {
    source.addEventListener(kind, (event) => act(event.detail ?? event), { signal: this.ends });
  }

  /** Calls `act` every `ms` for as long as this part is in the page. */
  every(ms, act) {
    const timer = setInterval(act, ms);
    this.ends.addEventListener("abort", () => clearInterval(timer));
  }
}
