//! The dialog that chooses attributes and their order: the columns of the result table, the facets.
//!
//! In: what is chosen, the attribute names that `Suggestions` knows. Out: `onchange(columns)` at every change.
//! Columns are attribute pointers, and `own` ones that are no attributes: `lastSeen`, `applicationId`, `kind`.

import { h, icon, replace, titledDialog } from "./dom.js";
import { compact } from "./format.js";
import { columnLabel } from "./results.js";

const LISTED_MAX = 200;
const LOOKUP_DELAY_MS = 150;

export class ColumnDialog {
  /// `none`: says what an empty choice means; `defaults`: what Reset chooses.
  constructor({ suggestions, onchange, title, own, none, defaults = null }) {
    Object.assign(this, { suggestions, onchange, title, own, none, defaults });
    this.columns = [];
    this.names = [];
    this.build();
  }

  build() {
    this.chosen = h("ul", { class: "columns-chosen", "aria-label": `Shown ${this.title.toLowerCase()}` });
    this.available = h("ul", { class: "columns-available", "aria-label": "Attributes" });
    this.search = h("input", { type: "search", class: "text-input", "aria-label": "Find an attribute", placeholder: "Find an attribute", autocomplete: "off", spellcheck: "false", oninput: () => this.find() });
    this.note = h("p", { class: "muted", role: "status" });
    const reset = this.defaults && h("button", { type: "button", class: "button small", onclick: () => this.change([...this.defaults]) }, "Reset");
    const id = `${this.title.toLowerCase()}-title`;
    this.node = titledDialog({ name: "columns", title: this.title, id }, reset, this.chosen, this.search, this.available, this.note);
  }

  async open(columns) {
    this.columns = [...columns];
    this.search.value = "";
    this.names = this.suggestions.names;
    this.draw();
    this.node.showModal();
    this.search.focus();
    try {
      this.names = await this.suggestions.load();
      this.draw();
    } catch (error) {
      this.note.textContent = error.message;
    }
  }

  // The first list holds a hundred names of each kind; what is typed may be beyond them.
  find() {
    this.draw();
    clearTimeout(this.timer);
    const typed = this.search.value.trim();
    if (typed === "") return;
    this.timer = setTimeout(async () => {
      const found = await this.suggestions.moreNames(typed).catch(() => []);
      this.names = this.names.concat(found);
      if (this.search.value.trim() === typed) this.draw();
    }, LOOKUP_DELAY_MS);
  }

  change(columns, focus) {
    this.columns = columns;
    this.draw();
    this.onchange([...columns]);
    if (focus) this.node.querySelector(`[data-focus="${CSS.escape(focus)}"]`)?.focus();
  }

  draw() {
    replace(this.chosen, this.columns.map((column, index) => this.chosenRow(column, index)));
    if (this.columns.length === 0) replace(this.chosen, h("li", { class: "muted" }, this.none));
    const typed = this.search.value.trim().toLowerCase();
    const all = [...this.own, ...this.pointers()].filter((column) => columnLabel(column).toLowerCase().includes(typed) || column.toLowerCase().includes(typed));
    replace(this.available, all.slice(0, LISTED_MAX).map((column) => this.availableRow(column)));
    this.note.textContent = all.length > LISTED_MAX ? `${all.length - LISTED_MAX} more: type to find them` : all.length === 0 ? "No attribute has this in its name" : "";
  }

  pointers() {
    this.weights = new Map();
    const kinds = new Set();
    for (const { kind, pointer, weight } of this.names) {
      if (kinds.has(`${kind} ${pointer}`) || pointer === "/key") continue;
      kinds.add(`${kind} ${pointer}`);
      this.weights.set(pointer, (this.weights.get(pointer) ?? 0) + weight);
    }
    return [...this.weights.keys()].sort((a, b) => this.weights.get(b) - this.weights.get(a) || a.localeCompare(b));
  }

  chosenRow(column, index) {
    const label = columnLabel(column);
    const move = (to, name) => {
      const columns = this.columns.filter((other) => other !== column);
      columns.splice(to, 0, column);
      this.change(columns, `${name} ${column}`);
    };
    const button = (name, text, disabled, act) => h("button", { type: "button", class: "icon-button", "aria-label": `${text} ${label}`, "data-focus": `${name} ${column}`, disabled, onclick: act }, icon(name));
    return h(
      "li",
      { class: "columns-row" },
      h("bdi", { class: "columns-name" }, label),
      button("up", "Move up", index === 0, () => move(index - 1, "up")),
      button("down", "Move down", index === this.columns.length - 1, () => move(index + 1, "down")),
      button("close", "Remove", false, () => this.change(this.columns.filter((other) => other !== column))),
    );
  }

  availableRow(column) {
    const toggle = () => this.change(this.columns.includes(column) ? this.columns.filter((other) => other !== column) : [...this.columns, column], `pick ${column}`);
    const box = h("input", { type: "checkbox", "data-focus": `pick ${column}`, onchange: toggle });
    box.checked = this.columns.includes(column);
    const weight = this.weights.get(column);
    return h("li", {}, h("label", { class: "columns-pick" }, box, h("bdi", { class: "columns-name" }, columnLabel(column)), weight === undefined ? null : h("span", { class: "muted number" }, compact(weight))));
  }
}
