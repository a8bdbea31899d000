// SPDX-License-Identifier: MPL-2.0
// What the keyboard does, and the switch for letters as shortcuts.

import { h, icon } from "../lib/dom.js";
import { keysAreOn, shortcuts, switchKeys } from "../lib/keys.js";

/** In every dialog and form; not of one view. */
const EVERYWHERE = [
  { keys: "Escape", what: "Leave a field, close what is open" },
  { keys: "← →", what: "Step through the moments of a picture" },
];

export function openHelp() {
  const open = document.querySelector("dialog[open]");
  if (open) {
    if (open.classList.contains("keys")) open.close();
    return;
  }
  const close = () => dialog.close();
  const rows = [...shortcuts(), ...EVERYWHERE].map(({ keys, what }) => [
    h("dt", keys.split(" ").map((key) => h("kbd", key))),
    h("dd", what),
  ]);
  const on = h("input", { type: "checkbox", checked: keysAreOn(), onchange: () => switchKeys(on.checked) });
  const dialog = h(
    "dialog.keys",
    { "aria-labelledby": "keys-title", onclose: () => dialog.remove() },
    h("header", h("h2", { id: "keys-title" }, "Keyboard"), h("button.quiet", { type: "button", "aria-label": "Close", onclick: close }, icon("close"))),
    h("dl", rows),
    h("label.switch", on, "Letters are shortcuts"),
    h("p.more", h("a", { href: "api/docs" }, "The same over HTTP")),
  );
  dialog.addEventListener("click", (event) => event.target === dialog && close());
  document.body.append(dialog);
  dialog.showModal();
}
