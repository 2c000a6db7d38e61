//! One page of found contexts as a table; on a phone the same table reads as cards.
//!
//! In: the `items` of a search answer, the chosen columns, the order. Out: an element. Values are text, whatever they hold.

import { h, icon, timeAgo } from "./dom.js";
import { atPointer, attributeLabel, valueText } from "./format.js";
import { arrowKeys } from "./keys.js";
import { attributeSort, formatRoute } from "./route.js";

const CELL_LETTERS_MAX = 400;
const KEY_LETTERS_MAX = 120;

/// `sortBy(sort)` is called by the headings that sort; `sorts`: whether those of attributes do.
export function resultTable({ place, items, columns, sort, sorts, sortBy }) {
  const shown = items.some(({ applicationId }) => applicationId) && !columns.includes("applicationId") ? [...columns, "applicationId"] : columns;
  const head = h("tr", {}, heading("Context", { sort, sortBy, ascending: "key" }), shown.map((column) => columnHeading(column, { sort, sortBy, sorts })));
  const body = h("tbody", {}, items.map((item) => row(place, item, shown)));
  arrowKeys(body, "a", { stops: true });
  return h(
    "div",
    { class: "table-scroll", role: "region", "aria-label": "Found contexts", tabindex: "0" },
    h("table", { class: "results" }, h("thead", {}, head), body),
  );
}

export function columnLabel(column) {
  if (column === "lastSeen") return "Last seen";
  if (column === "applicationId") return "Application";
  return column === "kind" ? "kind" : attributeLabel(column);
}

function columnHeading(column, { sort, sortBy, sorts }) {
  if (column === "lastSeen") return heading("Last seen", { sort, sortBy, ascending: "ts", descending: "-ts", class: "column-time" });
  const ordered = { sort, sortBy, ascending: attributeSort(column), descending: attributeSort(column, true), first: attributeSort(column), class: "column-attribute" };
  if (sorts && column.startsWith("/")) return heading(columnLabel(column), ordered);
  return h("th", { scope: "col", class: column.startsWith("/") ? "column-attribute" : null }, columnLabel(column));
}

/// `first`: the order of the first click.
function heading(label, { sort, sortBy, ascending, descending, first = descending ?? ascending, class: kind }) {
  const direction = sort === ascending ? "ascending" : sort === descending ? "descending" : "none";
  const next = direction === "none" ? first : direction === "descending" || !descending ? ascending : descending;
  const arrow = direction === "none" ? null : icon(direction === "ascending" ? "up" : "down");
  const button = h("button", { type: "button", class: "sort", onclick: () => sortBy(next) }, label, arrow);
  return h("th", { scope: "col", class: kind, "aria-sort": direction }, button);
}

function row(place, item, columns) {
  const { kind, key } = item.context;
  const href = formatRoute({ ...place, view: "context", kind, key });
  const identity = h("th", { scope: "row", class: "identity" }, kindBadge(kind), h("a", { href, class: "context-key", title: key.length > KEY_LETTERS_MAX ? key : null }, h("bdi", {}, key === "" ? "(empty key)" : cut(key, KEY_LETTERS_MAX))));
  const open = (event) => {
    // A click anywhere opens the context, but selecting text to copy it does not.
    if (event.target.closest("a, button") || String(getSelection()) !== "") return;
    identity.querySelector("a").click();
  };
  return h("tr", { onclick: open }, identity, columns.map((column) => cell(item, column)));
}

export function kindBadge(kind) {
  return h("span", { class: "badge" }, kind);
}

function cell(item, column) {
  const label = columnLabel(column);
  if (column === "lastSeen") return h("td", { "data-label": label, class: "column-time" }, timeAgo(item.lastSeen));
  if (column === "applicationId") return h("td", { "data-label": label }, h("bdi", {}, item.applicationId ?? ""));
  const value = atPointer(item.context, column);
  if (value === undefined || value === null) return h("td", { "data-label": label, class: "absent" }, redactedIn(item.context).includes(column) ? privateBadge() : "–");
  return h("td", { "data-label": label, title: valueText(value).length > 30 ? cut(valueText(value)) : null, class: `value value-${kindOf(value)}` }, valueNode(value));
}

export function kindOf(value) {
  return Array.isArray(value) ? "list" : value === null ? "null" : typeof value;
}

export function valueNode(value, most = CELL_LETTERS_MAX) {
  if (Array.isArray(value) && value.length > 0 && value.every((element) => typeof element !== "object")) {
    const few = value.slice(0, most === Infinity ? value.length : 8);
    return h("span", { class: "list" }, few.map((element) => h("bdi", { class: "list-element" }, scalarText(element, most))), few.length < value.length ? `+${value.length - few.length}` : null);
  }
  if (value === "") return h("span", { class: "absent" }, "(empty text)");
  return h("bdi", {}, scalarText(value, most));
}

// The text "44" is not the number 44 to a filter, so it is shown in quotes.
function scalarText(value, most) {
  const looksTyped = typeof value === "string" && /^(-?\d+(\.\d+)?([eE][+-]?\d+)?|true|false|null)$/.test(value);
  return looksTyped ? JSON.stringify(value) : cut(valueText(value), most);
}

function cut(text, most = CELL_LETTERS_MAX) {
  return text.length > most ? `${text.slice(0, most)}…` : text;
}

export function privateBadge() {
  return h("span", { class: "badge private", title: "Private attribute: its value is never stored" }, icon("lock"), "private");
}

/// Names of the attributes that the SDK held back, as pointers.
export function redactedIn(context) {
  const names = context._meta?.redactedAttributes;
  if (!Array.isArray(names)) return [];
  return names.map((name) => (name.startsWith("/") ? name : `/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`));
}
