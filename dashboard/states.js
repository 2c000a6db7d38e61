//! What stands where rows would be: nothing found, something wrong, not there yet.

import { h } from "./dom.js";

export function emptyState(title, text, ...more) {
  return h("div", { class: "empty" }, h("h2", {}, title), h("p", { class: "muted" }, text), more);
}

export function skeleton(rows) {
  return h("div", { class: "skeleton", "aria-hidden": "true" }, Array.from({ length: rows }, () => h("div", { class: "skeleton-row" })));
}
