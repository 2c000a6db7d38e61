//! Facets: for chosen attributes the most frequent values with their counts; a click narrows the filter to a value.
//!
//! In: the chosen attributes, the weights of the value look-up, the filter's rows. Out: `ontoggle(field, json, operator)`.
//! Promise: says of what the counts are. They are of the contexts that the filter finds; an attribute that the filter itself
//! narrows is counted without that condition, so that its other values can still be chosen. Where the server cannot narrow a
//! look-up, the counts are of all contexts. A newer choice or filter abandons the look-ups of an older one.
//! Not here: the choice of attributes (`columns`), what a click does to the filter's text (`draft`, `search`).

import { searchContexts } from "./api.js";
import { besides, rowOf, showValue, writeRow } from "./draft.js";
import { h, icon, replace } from "./dom.js";
import { formatField, unquote } from "./filter.js";
import { about, attributeLabel, atPointer, compact, plural } from "./format.js";
import { arrowKeys } from "./keys.js";

const VALUES_SHOWN = 6;
const VALUES_MAX = 30;
/// Attributes that are looked at for a first choice, and how many of them are taken.
const TRIED_MAX = 6;
const FIRST_CHOICE = 3;
const SAMPLE = 10;

export class Facets {
  constructor({ place, suggestions, ontoggle, onchoose }) {
    Object.assign(this, { place, suggestions, ontoggle });
    this.chosen = [];
    this.draft = null;
    this.filter = "";
    this.keys = "";
    this.shown = new Map();
    this.body = h("div", { class: "facet-list" });
    this.scope = h("p", { class: "muted small-text facet-scope" });
    this.status = h("p", { class: "muted", role: "status" });
    const choose = h("button", { type: "button", class: "icon-button", "aria-label": "Choose facets", title: "Choose facets", "aria-haspopup": "dialog", onclick: onchoose }, icon("columns"));
    this.node = h("aside", { class: "facets", "aria-label": "Frequent values" }, h("header", { class: "facet-head" }, h("h2", {}, "Frequent values"), choose), this.scope, this.status, this.body);
  }

  leave() {
    this.running?.abort();
  }

  /// `chosen`: `kind` and attribute pointers; `null` lets the counts of all contexts choose.
  async load(chosen) {
    this.running?.abort();
    this.running = new AbortController();
    const { signal } = this.running;
    const { filter, keys } = this;
    try {
      await this.suggestions.load(signal);
      const names = chosen ?? (await this.firstChoice(signal));
      const counted = await Promise.all(names.map((name) => this.counts(name, { filter, keys }, signal)));
      if (signal.aborted) return;
      for (const facet of counted) facet.open = this.shown.get(facet.name)?.open;
      this.shown = new Map(counted.map((facet) => [facet.name, facet]));
      this.chosen = [...this.shown.keys()];
      this.countedFor = JSON.stringify([filter, keys]);
      replace(this.status);
      this.draw();
    } catch (error) {
      if (!signal.aborted) replace(this.status, `They could not be counted: ${error.message}`);
    }
  }

  // Made once: other facets at every filter would make the page jump.
  async firstChoice(signal) {
    if (this.offered) return this.offered;
    const tried = ["kind", ...this.pointers().slice(0, TRIED_MAX)];
    const counted = await Promise.all(tried.map((name) => this.counts(name, { filter: "", keys: "" }, signal)));
    const worth = counted.filter(({ values }, index) => index === 0 || isGrouping(values)).slice(0, FIRST_CHOICE + 1);
    const names = worth.map(({ name }) => name);
    // Before the first context there is nothing to choose from.
    if (worth[0].values.length > 0) this.offered = names;
    return names;
  }

  /// Whether the counts are those of the filter.
  get isCurrent() {
    return this.countedFor === JSON.stringify([this.filter, this.keys]);
  }

  /// Marks the values that the filter names; `draft` is `null` for a filter with a mistake, `filter` what is searched with, `keys` the
  /// list of keys as a filter, `null` if it is too long for one.
  mark(draft, filter, keys) {
    this.draft = draft;
    this.filter = filter;
    this.keys = keys;
    this.draw();
  }

  // Attributes by how many contexts have them; keys and names are different for everyone.
  pointers() {
    const weights = new Map();
    for (const { pointer, weight } of this.suggestions.names) if (!["/key", "/name"].includes(pointer)) weights.set(pointer, (weights.get(pointer) ?? 0) + weight);
    return [...weights.keys()].sort((a, b) => weights.get(b) - weights.get(a) || a.localeCompare(b));
  }

  async counts(name, { filter, keys }, signal) {
    const kinds = [...new Set(this.suggestions.names.filter(({ pointer }) => pointer === name).map(({ kind }) => kind))];
    const kind = kinds.length === 1 ? kinds[0] : null;
    const field = name === "kind" ? "kind" : unquote(formatField(kind, name));
    const look = (within) => (name === "kind" ? this.suggestions.valuesOfKind(within, signal) : this.suggestions.valuesOfAttribute(kind, name, within, signal));
    const { values, partial, narrowed } = await this.narrowed(look, joined(this.withoutOwn(filter, field), keys ?? ""));
    return { name, field, narrowed, partial, values: values.slice(0, VALUES_MAX) };
  }

  async narrowed(look, within) {
    try {
      return { ...(await look(within)), narrowed: within !== "" };
    } catch (error) {
      // A filter that would cost too much, or has a mistake: the search itself says so.
      if (within === "" || error.status !== 400) throw error;
      return { ...(await look("")), narrowed: false };
    }
  }

  // The filter without what it says of the field itself.
  withoutOwn(filter, field) {
    const row = filter !== "" && this.draft !== null ? rowOf(this.draft, field) : undefined;
    return row === undefined ? filter : besides(this.draft, row);
  }

  draw() {
    const held = this.body.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    const facets = [...this.shown.values()].filter(({ values }) => values.length > 0);
    replace(this.scope, facets.length === 0 ? "" : scopeText(facets, this.filter !== "", this.keys));
    replace(this.body, facets.map((facet) => this.section(facet)));
    if (facets.length === 0) replace(this.body, h("p", { class: "muted" }, this.suggestions.names.length === 0 ? "There is nothing to count yet." : "Choose attributes to see their most frequent values."));
    if (held) this.body.querySelector(`[data-focus="${CSS.escape(held)}"]`)?.focus();
  }

  section(facet) {
    const label = facet.name === "kind" ? "kind" : attributeLabel(facet.name);
    const listed = facet.open ? facet.values : facet.values.slice(0, VALUES_SHOWN);
    const most = Math.max(...facet.values.map(({ weight }) => weight), 1);
    const list = h("ul", { class: "facet-values", "aria-label": label }, listed.map((entry) => h("li", {}, this.button(facet, entry, most))));
    arrowKeys(list, "button");
    const more = () => {
      facet.open = !facet.open;
      this.draw();
    };
    const rest = facet.values.length - VALUES_SHOWN;
    const toggle = rest <= 0 ? null : h("button", { type: "button", class: "link small-text", "aria-expanded": String(Boolean(facet.open)), "data-focus": `more ${facet.name}`, onclick: more }, facet.open ? "Fewer" : `${rest} more`);
    return h("section", { class: "facet" }, h("h3", {}, h("bdi", { title: label.length > 24 ? label : null }, label)), list, toggle);
  }

  button(facet, { value, weight, estimate }, most) {
    const json = JSON.stringify(value);
    const held = this.draft !== null && rowOf(this.draft, facet.field)?.values.includes(json);
    const text = showValue(json);
    const act = () => (this.draft === null ? replace(this.status, "Mend the filter first.") : this.toggle(facet, json, held));
    return h(
      "button",
      { type: "button", class: "facet-value", "aria-pressed": String(Boolean(held)), "aria-label": `${text}, ${about(plural(weight, "context"), estimate)}`, "data-focus": `${facet.name} ${json}`, title: text.length > 20 ? text.slice(0, 400) : null, onclick: act },
      h("bdi", { class: "facet-text" }, value === "" ? "(empty text)" : text),
      h("span", { class: "number muted" }, about(compact(weight), estimate)),
      h("progress", { class: "facet-bar", max: most, value: weight, "aria-hidden": "true" }),
    );
  }

  async toggle(facet, json, held) {
    replace(this.status);
    this.ontoggle(facet.field, json, held || facet.field === "kind" ? "equals" : await this.operatorFor(facet, json));
  }

  // The look-up counts the elements of lists, but a list equals only a whole list; whether there are lists, the contexts say.
  async operatorFor({ name, field }, json) {
    const filter = writeRow({ field, operator: "anyOf", values: [json] });
    const { items } = await searchContexts(this.place, { filter, limit: SAMPLE }).catch(() => ({ items: [] }));
    return items.some(({ context }) => Array.isArray(atPointer(context, name))) ? "anyOf" : "equals";
  }
}

// Values that hardly any two contexts share say nothing about them all.
const isGrouping = (values) => values.length > 0 && values.reduce((sum, { weight }) => sum + weight, 0) >= 2 * values.length;

// Both hold.
const joined = (filter, keys) => (filter === "" || keys === "" ? filter + keys : `(${filter}), ${keys}`);

function scopeText(facets, filtered, keys) {
  const narrowed = facets.some((facet) => facet.narrowed);
  const scope = narrowed ? "Counts of the contexts found; a condition on the attribute itself is left out" : filtered ? "Counts of all contexts here, not only of those found" : "Counts of all contexts here";
  const estimates = facets.some(({ values }) => values.some(({ estimate }) => estimate)) ? "; ~ are estimates" : "";
  const list = keys === null ? ", without the list of keys" : "";
  return `${scope}${list}${estimates}.${facets.some(({ partial }) => partial) ? " There may be more values." : ""}`;
}
