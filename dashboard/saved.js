//! Searches saved by name, per environment, in this browser.
//!
//! In: the address of the search on the screen. Out: links to saved ones, as each of them is only an address.
//! Promise: at most `SAVED_MAX`; a name that exists is replaced; damaged entries are left out.
//! Not here: the state of a search (`route`). Sending a saved search to somebody is sending its address.

import { h, icon, replace, setText, titledDialog } from "./dom.js";
import { plural } from "./format.js";
import { arrowKeys } from "./keys.js";
import { formatRoute, parseRoute } from "./route.js";
import { recall, remember } from "./store.js";

const SAVED_MAX = 100;
const NAME_LETTERS_MAX = 80;

export class SavedDialog {
  /// `current()`: the route on the screen.
  constructor({ place, current }) {
    this.place = place;
    this.current = current;
    this.storeName = `saved.${place.project}/${place.environment}`;
    this.list = h("ul", { class: "saved-list", "aria-label": "Saved searches" });
    arrowKeys(this.list, "a", { stops: true });
    this.name = h("input", { type: "text", class: "text-input", "aria-label": "Name of the search", placeholder: "Name of this search", maxlength: NAME_LETTERS_MAX, autocomplete: "off" });
    this.note = h("p", { class: "muted", role: "status" });
    this.filter = h("code", { class: "saved-filter" });
    const form = h("form", { class: "saved-form", onsubmit: (event) => (event.preventDefault(), this.save()) }, this.name, h("button", { type: "submit", class: "button primary" }, "Save"));
    const kept = h("p", { class: "muted small-text" }, "They are kept in this browser. The address of the page holds the whole search too: copy it to send one.");
    this.node = titledDialog({ name: "saved", title: "Saved searches" }, null, form, this.filter, this.note, this.list, kept);
  }

  open() {
    this.name.value = "";
    setText(this.note, "");
    setText(this.filter, this.current().search.filter.trim() || "no filter: all contexts");
    this.draw();
    this.node.showModal();
    this.name.focus();
  }

  /// `[{name, address}]` by name.
  get entries() {
    try {
      const kept = JSON.parse(recall(this.storeName) ?? "[]");
      const usable = Array.isArray(kept) ? kept.filter((entry) => typeof entry?.name === "string" && typeof entry?.address === "string") : [];
      return usable.slice(0, SAVED_MAX);
    } catch {
      return [];
    }
  }

  keep(entries) {
    remember(this.storeName, JSON.stringify(entries.sort((a, b) => a.name.localeCompare(b.name))));
    this.draw();
  }

  save() {
    const name = this.name.value.trim();
    if (name === "") return setText(this.note, "Give it a name.");
    const others = this.entries.filter((entry) => entry.name !== name);
    if (others.length >= SAVED_MAX) return setText(this.note, `${plural(SAVED_MAX, "search", "searches")} are kept at most: delete one first.`);
    const route = this.current();
    // A saved search starts on its first page, whose place in the results is gone by then.
    const address = formatRoute({ ...route, search: { ...route.search, after: null, page: 1 } });
    const replaced = others.length < this.entries.length;
    this.keep([...others, { name, address }]);
    setText(this.note, replaced ? `“${name}” now is this search.` : `Saved as “${name}”.`);
    this.name.value = "";
  }

  delete(name) {
    this.keep(this.entries.filter((entry) => entry.name !== name));
    setText(this.note, `“${name}” deleted.`);
    (this.list.querySelector("a") ?? this.name).focus();
  }

  draw() {
    const rows = this.entries.map(({ name, address }) => {
      // Only the search is taken over: what is stored may be damaged, and never leads out of this environment.
      const { search } = parseRoute(address);
      const link = h("a", { href: formatRoute({ ...this.place, view: "contexts", search }), onclick: () => this.node.close() }, h("bdi", {}, name));
      const about = h("span", { class: "muted saved-about" }, search.filter.trim() || "all contexts");
      const remove = h("button", { type: "button", class: "icon-button", "aria-label": `Delete ${name}`, title: "Delete", onclick: () => this.delete(name) }, icon("close"));
      return h("li", { class: "saved-row" }, h("span", { class: "saved-name" }, link, about), remove);
    });
    replace(this.list, rows.length === 0 ? h("li", { class: "muted" }, "None yet: name the search on the screen to keep it.") : rows);
  }
}
