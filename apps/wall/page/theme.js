// SPDX-License-Identifier: MPL-2.0
// Which of light and dark someone chose here before; without a choice the system's goes.
"use strict";
try {
  const chosen = localStorage.getItem("wall-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage can be forbidden; the system's choice is a good one.
}
