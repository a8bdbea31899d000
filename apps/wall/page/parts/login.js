// SPDX-License-Identifier: MPL-2.0
// Asks for the access token where the wall wants one.

import { access, api } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { store } from "../lib/store.js";

let open = false;

access.addEventListener("needed", () => {
  if (open) return;
  open = true;
  const field = h("input", { type: "password", name: "token", id: "token", autocomplete: "current-password", required: true });
  const fault = h("p.fault", { role: "alert" });
  const dialog = h(
    "dialog.login",
    { "aria-labelledby": "login-title", oncancel: (event) => event.preventDefault() },
    h(
      "form",
      { onsubmit: enter },
      h("h2", { id: "login-title" }, "This wall wants a token"),
      h("p", "It is one of those in the wall’s configuration file."),
      h("label", { for: "token" }, "Token"),
      h("div.ask-line", field, h("button.primary", { type: "submit" }, "Enter")),
      fault,
    ),
  );
  document.body.append(dialog);
  dialog.showModal();

  async function enter(event) {
    event.preventDefault();
    try {
      await api.login(field.value);
    } catch (refused) {
      fault.textContent = refused.message;
      field.select();
      return;
    }
    open = false;
    dialog.close();
    dialog.remove();
    store.events.now();
  }
});
