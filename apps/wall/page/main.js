// SPDX-License-Identifier: MPL-2.0
// The page: which view the address names, and what goes on under all of them.

import { fill, h } from "./lib/dom.js";
import { shortcut } from "./lib/keys.js";
import { store } from "./lib/store.js";
import { openHelp } from "./parts/help.js";
import "./parts/header.js";
import "./parts/connection.js";
import "./parts/login.js";
import "./parts/wall-view.js";
import "./parts/camera-view.js";
import "./parts/history-view.js";

const main = document.getElementById("main");

/** `#/`, `#/camera/ID`, `#/history?…` */
function route() {
  const [path, fields] = location.hash.replace(/^#/, "").split("?");
  const [, view, id] = path.split("/");
  if (view === "camera" && id) return h("camera-view", { camera: decodeURIComponent(id) });
  if (view === "history") return h("history-view", { fields: fields ?? "" });
  return h("wall-view");
}

function show() {
  const view = route();
  const same = main.firstElementChild;
  // The history's fields are its own business while it is open.
  if (same?.localName === "history-view" && view.localName === "history-view") return;
  document.querySelector("dialog[open]")?.close();
  fill(main, view);
  scrollTo(0, 0);
  if (same) main.focus({ preventScroll: true });
  title();
}

function title() {
  const view = main.firstElementChild;
  const where = { "history-view": "History", "camera-view": store.name(view?.getAttribute("camera")) }[view?.localName];
  const lasting = [...store.cameras.keys()].filter((camera) => store.lasting(camera).length).length;
  document.title = `${lasting ? `(${lasting}) ` : ""}${where ? `${where} · ` : ""}${store.wall.name}`;
}

addEventListener("hashchange", show);
for (const kind of ["wall", "cameras", "alerts"]) store.addEventListener(kind, title);

shortcut("?", "This list", openHelp);
shortcut("g w", "Go to the wall", () => (location.hash = "#/"));
shortcut("g h", "Go to the history", () => (location.hash = "#/history"));
shortcut("/", "Write a question, or search", () => {
  const field = main.querySelector("[data-asks]");
  field?.focus();
  field?.select();
});

show();
store.start();
