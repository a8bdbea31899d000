// SPDX-License-Identifier: MPL-2.0
// Shortcuts. A letter alone is one only where nobody is writing, and only while they are switched on (WCAG 2.1.4).

const known = [];
const OFF = "wall-keys-off";
let prefix = null;

/** `keys` as "a", "Shift+A" or "g w"; `what` is its line under "?". Ends with `signal`. */
export function shortcut(keys, what, act, signal) {
  const one = { keys, what, act };
  known.push(one);
  signal?.addEventListener("abort", () => known.splice(known.indexOf(one), 1));
}

export const shortcuts = () => known.filter((one) => one.what);

export const keysAreOn = () => !stored();

export function switchKeys(on) {
  try {
    if (on) localStorage.removeItem(OFF);
    else localStorage.setItem(OFF, "1");
  } catch {
    // Kept for this visit only.
  }
  off = !on;
}

let off = null;

function stored() {
  if (off !== null) return off;
  try {
    off = localStorage.getItem(OFF) === "1";
  } catch {
    off = false;
  }
  return off;
}

function writes(target) {
  return target.closest?.("input:not([type=checkbox]), textarea, select, [contenteditable]");
}

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.key === "Escape" && writes(event.target)) {
    event.target.blur();
    return;
  }
  const bare = event.key.length === 1 || event.key === "?";
  if (writes(event.target) || (bare && !keysAreOn() && event.key !== "?")) return;
  // A dialog has keys of its own.
  if (document.querySelector("dialog[open]") && event.key !== "?") return;
  const pressed = prefix ? `${prefix} ${event.key}` : event.key;
  prefix = null;
  const found = known.findLast((one) => one.keys === pressed);
  if (found) {
    if (found.act(event) !== false) event.preventDefault();
  } else if (known.some((one) => one.keys.startsWith(`${event.key} `))) {
    prefix = event.key;
    setTimeout(() => (prefix = null), 1_500);
  }
});
