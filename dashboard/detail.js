//! One context: its attributes, the names that were held back, the applications that reported it, its recent evaluations.
//!
//! In: kind and key from the route, the context's versions (search API 4.2), its evaluations from the table. Out: an element.

import { contextVersions, evaluations } from "./api.js";
import { copyButton, h, icon, replace, setText, timeAgo } from "./dom.js";
import { EraseDialog, eraseButton } from "./erase.js";
import { formatField, formatValue } from "./filter.js";
import { attributeLabel, count, leaves, parseTime, plural, UNKNOWN, valueText } from "./format.js";
import { kindBadge, kindOf, privateBadge, redactedIn, valueNode } from "./results.js";
import { formatRoute } from "./route.js";
import { emptyState, skeleton } from "./states.js";

const EVALUATIONS_LISTED = 50;

const KIND_WORDS = { summary: "summary", feature: "evaluation", debug: "debug", identify: "identify", index: "index", custom: "custom event", click: "click", pageview: "page view", click_pageview: "page view", migration_op: "migration" };

export class DetailView {
  constructor({ place, back }) {
    this.place = place;
    const search = formatRoute({ ...place, view: "contexts" });
    this.back = h("a", { href: search, class: "back", onclick: (event) => back() && event.preventDefault() }, icon("back"), "Contexts");
    this.title = h("h1", { tabindex: "-1" });
    this.body = h("div", { class: "detail-body", "aria-busy": "true" });
    this.history = h("div", { class: "evaluations", "aria-live": "polite" });
    this.erasing = new EraseDialog({ question: () => this.erasure() });
    this.node = h("section", { class: "view detail-view", "aria-label": "Context" }, this.back, this.title, this.body, this.erasing.node);
  }

  show(route) {
    this.route = route;
    replace(this.title, kindBadge(route.kind), h("bdi", {}, route.key === "" ? "(empty key)" : route.key));
    replace(this.body, skeleton(6));
    this.load();
  }

  leave() {
    this.running?.abort();
    this.erasing.node.close();
  }

  focus() {
    this.title.focus();
  }

  async load() {
    this.running?.abort();
    this.running = new AbortController();
    const { signal } = this.running;
    const { kind, key } = this.route;
    try {
      const { items } = await contextVersions(this.place, kind, key, signal);
      if (items.length === 0) replace(this.body, emptyState("This context is not in the index", "It was never seen here, is anonymous, or was last seen longer ago than contexts are kept."), this.historyPanel());
      else this.draw(items);
      this.loadEvaluations();
    } catch (error) {
      if (signal.aborted) return;
      const again = h("button", { type: "button", class: "button", onclick: () => this.load() }, icon("refresh"), "Try again");
      replace(this.body, emptyState("The context could not be read", error.message, again));
    } finally {
      if (!signal.aborted) this.body.setAttribute("aria-busy", "false");
    }
  }

  draw(items) {
    const { context, lastSeen } = items[0];
    const name = typeof context.name === "string" ? context.name : null;
    replace(
      this.body,
      h(
        "dl",
        { class: "facts" },
        name === null ? null : fact("Name", h("bdi", {}, name)),
        fact("Last seen", timeAgo(lastSeen)),
        fact("Key", h("code", { class: "break" }, context.key), copyButton(() => context.key, "key")),
      ),
      h("p", { class: "detail-actions" }, eraseButton("Erase this context", () => this.erasing.open())),
      h("div", { class: "detail-columns" }, h("div", {}, this.attributes(context), redactedPanel(context)), h("div", {}, applications(items), jsonPanel(context))),
      this.historyPanel(),
    );
  }

  erasure() {
    const { kind, key } = this.route;
    const about = [kindBadge(kind), " ", h("code", { class: "break" }, h("bdi", {}, key))];
    return { place: this.place, subject: { contexts: [{ kind, key }] }, about, after: () => this.load() };
  }

  attributes(context) {
    const { kind, key, _meta, ...attributes } = context;
    const rows = leaves(attributes).map(([pointer, value]) => this.attribute(kind, pointer, value));
    const empty = h("p", { class: "muted" }, "This context has no attributes but its key.");
    return h("section", { class: "panel" }, h("h2", {}, "Attributes"), rows.length === 0 ? empty : h("table", { class: "attributes" }, h("tbody", {}, rows)));
  }

  attribute(kind, pointer, value) {
    const label = attributeLabel(pointer);
    const filter = filterFor(kind, pointer, value);
    const href = filter && formatRoute({ ...this.place, view: "contexts", search: { filter } });
    const find = href && h("a", { href, class: "icon-button find", "aria-label": `Find contexts with the same ${label}`, title: filter }, icon("filter"));
    return h("tr", {}, h("th", { scope: "row" }, h("bdi", {}, label)), h("td", { class: `value value-${kindOf(value)}` }, valueNode(value, Infinity)), h("td", { class: "find-cell" }, find));
  }

  historyPanel() {
    const refresh = h("button", { type: "button", class: "icon-button", "aria-label": "Read the evaluations again", title: "Read again", onclick: () => this.loadEvaluations() }, icon("refresh"));
    return h("section", { class: "panel" }, h("header", { class: "panel-head" }, h("h2", {}, "Recent evaluations and events"), refresh), this.history);
  }

  async loadEvaluations() {
    const { signal } = this.running;
    const { kind, key } = this.route;
    this.history.setAttribute("aria-busy", "true");
    try {
      const { items } = await evaluations(this.place, kind, key, EVALUATIONS_LISTED, signal);
      replace(this.history, items.length === 0 ? noEvaluations() : evaluationTable(items));
    } catch (error) {
      if (signal.aborted) return;
      replace(this.history, h("p", { class: "muted" }, `They could not be read: ${error.message}`));
    } finally {
      this.history.setAttribute("aria-busy", "false");
    }
  }
}

function filterFor(kind, pointer, value) {
  const scalar = ["string", "number", "boolean"].includes(typeof value);
  if (scalar) return `${formatField(kind, pointer)} equals ${formatValue(value)}`;
  return Array.isArray(value) && value.length > 0 ? `${formatField(kind, pointer)} equals ${JSON.stringify(value)}` : null;
}

function fact(name, ...value) {
  return h("div", { class: "fact" }, h("dt", {}, name), h("dd", {}, value));
}

function redactedPanel(context) {
  const names = redactedIn(context);
  if (names.length === 0) return null;
  return h(
    "section",
    { class: "panel" },
    h("h2", {}, "Private attributes"),
    h("p", { class: "muted" }, "The SDK held their values back; only the names are known."),
    h("ul", { class: "redacted" }, names.map((name) => h("li", {}, h("bdi", {}, attributeLabel(name)), " ", privateBadge()))),
  );
}

function applications(items) {
  const rows = items.map(({ applicationId, lastSeen }) => h("tr", {}, h("th", { scope: "row" }, h("bdi", {}, applicationId ?? "not named")), h("td", { class: "number" }, timeAgo(lastSeen))));
  return h("section", { class: "panel" }, h("h2", {}, "Applications"), h("table", { class: "attributes" }, h("tbody", {}, rows)));
}

function jsonPanel(context) {
  const text = JSON.stringify(context, null, 2);
  return h("details", { class: "panel json" }, h("summary", {}, "JSON"), h("div", { class: "code-block" }, copyButton(() => text, "JSON"), h("pre", { tabindex: "0" }, h("code", {}, text))));
}

function noEvaluations() {
  return h("p", { class: "muted" }, "None in the table. Events get there within seconds to a minute of being sent; most summaries do not name contexts, so mainly detailed events are listed here.");
}

function evaluationTable(items) {
  const head = ["Time", "Flag or event", "Value", "Variation", "Reason", "SDK"].map((name) => h("th", { scope: "col" }, name));
  return h(
    "div",
    { class: "table-scroll", role: "region", "aria-label": "Recent evaluations", tabindex: "0" },
    h("table", { class: "results evaluation-table" }, h("caption", { class: "visually-hidden" }, plural(items.length, "event")), h("thead", {}, h("tr", {}, head)), h("tbody", {}, items.map(evaluationRow))),
  );
}

function evaluationRow(event) {
  const cell = (label, ...content) => h("td", { "data-label": label, class: content[0] === UNKNOWN ? "absent" : null }, h("span", {}, content));
  const version = event.version === undefined || event.version === null ? "" : ` (version ${event.version})`;
  const { text, title } = reasonText(event.reason);
  return h(
    "tr",
    {},
    cell("Time", parseTime(event.createdAt) === null ? UNKNOWN : timeAgo(event.createdAt)),
    h("th", { scope: "row", class: "identity" }, h("span", { class: "badge" }, KIND_WORDS[event.kind] ?? event.kind), h("bdi", {}, event.flagKey ?? event.eventKey ?? ""), event.count > 1 ? h("span", { class: "muted number" }, ` × ${count(event.count)}`) : null),
    cell("Value", given(event.value)),
    cell("Variation", given(event.variation), h("span", { class: "muted" }, version)),
    h("td", { "data-label": "Reason", title, class: text === UNKNOWN ? "absent" : null }, h("bdi", {}, text)),
    cell("SDK", [event.sdk, event.sdkVersion].filter(Boolean).join(" ") || UNKNOWN),
  );
}

function given(value) {
  return value === undefined || value === null ? UNKNOWN : h("bdi", {}, valueText(value));
}

// The reason comes as an object or as its JSON text.
function reasonText(reason) {
  if (reason === undefined || reason === null) return { text: UNKNOWN, title: null };
  const title = valueText(reason);
  let parsed = reason;
  try {
    if (typeof reason === "string") parsed = JSON.parse(reason);
  } catch {
    return { text: title, title: null };
  }
  return { text: typeof parsed?.kind === "string" ? parsed.kind.toLowerCase().replaceAll("_", " ") : title, title };
}
