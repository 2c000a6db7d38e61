//! Facets: for chosen attributes the most frequent values with their counts; a click narrows the filter to a value.
//!
//! In: the chosen attributes, the weights of the value look-up, the filter's rows. Out: `ontoggle(field, json, operator)`.
//! Promise: says of what the counts are. They are of the whole environment, whatever the filter; a look-up that is narrowed by the
//! filter would be asked for in `counts` and told by `scopeText`. A newer choice abandons the look-ups of an older one.
//! Not here: the choice of attributes (`columns`), what a click does to the filter's text (`draft`, `search`).

import { searchContexts } from "./api.js";
import { rowOf, showValue, writeRow } from "./draft.js";
import { h, icon, replace } from "./dom.js";
import { formatField, unquote } from "./filter.js";
import { attributeLabel, atPointer, compact, plural } from "./format.js";
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

  /// `chosen`: `kind` and attribute pointers; `null` lets the counts choose.
  async load(chosen) {
    this.running?.abort();
    this.running = new AbortController();
    const { signal } = this.running;
    try {
      await this.suggestions.load(signal);
      const tried = chosen ?? ["kind", ...this.pointers().slice(0, TRIED_MAX)];
      const counted = await Promise.all(tried.map((name) => this.counts(name, signal)));
      if (signal.aborted) return;
      const worth = chosen === null ? counted.filter(({ values }, index) => index === 0 || isGrouping(values)).slice(0, FIRST_CHOICE + 1) : counted;
      this.shown = new Map(worth.map((facet) => [facet.name, facet]));
      this.chosen = [...this.shown.keys()];
      replace(this.status);
      this.draw();
    } catch (error) {
      if (!signal.aborted) replace(this.status, `They could not be counted: ${error.message}`);
    }
  }

  /// Marks the values that the filter names; `draft` is `null` for a filter with a mistake.
  mark(draft, filtered) {
    this.draft = draft;
    this.filtered = filtered;
    this.draw();
  }

  // Attributes by how many contexts have them; keys and names are different for everyone.
  pointers() {
    const weights = new Map();
    for (const { pointer, weight } of this.suggestions.names) if (!["/key", "/name"].includes(pointer)) weights.set(pointer, (weights.get(pointer) ?? 0) + weight);
    return [...weights.keys()].sort((a, b) => weights.get(b) - weights.get(a) || a.localeCompare(b));
  }

  async counts(name, signal) {
    const { names } = this.suggestions;
    if (name === "kind") {
      // Every context has a key, so its weight is the number of contexts of a kind.
      const kinds = names.filter(({ pointer }) => pointer === "/key").map(({ kind, weight }) => ({ value: kind, weight }));
      return { name, field: "kind", values: kinds.sort((a, b) => b.weight - a.weight) };
    }
    const kinds = [...new Set(names.filter(({ pointer }) => pointer === name).map(({ kind }) => kind))];
    const kind = kinds.length === 1 ? kinds[0] : null;
    return { name, field: unquote(formatField(kind, name)), values: (await this.suggestions.valuesOfAttribute(kind, name, signal)).slice(0, VALUES_MAX) };
  }

  draw() {
    const held = this.body.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    const facets = [...this.shown.values()].filter(({ values }) => values.length > 0);
    replace(this.scope, facets.length === 0 ? "" : scopeText(this.filtered));
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

  button(facet, { value, weight }, most) {
    const json = JSON.stringify(value);
    const held = this.draft !== null && rowOf(this.draft, facet.field)?.values.includes(json);
    const text = showValue(json);
    const act = () => (this.draft === null ? replace(this.status, "Mend the filter first.") : this.toggle(facet, json, held));
    return h(
      "button",
      { type: "button", class: "facet-value", "aria-pressed": String(Boolean(held)), "aria-label": `${text}, ${plural(weight, "context")}`, "data-focus": `${facet.name} ${json}`, title: text.length > 20 ? text.slice(0, 400) : null, onclick: act },
      h("bdi", { class: "facet-text" }, value === "" ? "(empty text)" : text),
      h("span", { class: "number muted" }, compact(weight)),
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

function scopeText(filtered) {
  return filtered ? "Counts of all contexts here, not only of those found; large ones are estimates." : "Counts of all contexts here; large ones are estimates.";
}
