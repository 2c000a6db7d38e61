//! The context search: filter box, result table, paging. Everything it shows follows from the route's search state.
//!
//! In: a `Route`, answers of the search API. Out: new routes through `navigate`.
//! Promise: a newer search abandons an older one; the total is the server's own or is left out; an error stands where the
//! person looks, with its place in the filter if the server named one.

import { ApiError, searchContexts } from "./api.js";
import { ColumnDialog } from "./columns.js";
import { FilterBox } from "./combobox.js";
import { h, icon, replace, setText } from "./dom.js";
import { interpret } from "./filter.js";
import { count, plural } from "./format.js";
import { resultTable } from "./results.js";
import { DEFAULT_COLUMNS, LIMITS } from "./route.js";
import { setupPanel } from "./setup.js";
import { recallList, remember } from "./store.js";
import { Suggestions } from "./suggest.js";

const EMPTY_POLL_MS = 2000;
const TOTAL_MAX = 2147483647;

const SORT_NAMES = [
  ["-ts", "Newest first"],
  ["ts", "Oldest first"],
  ["key", "Kind, then key"],
];

const EXAMPLES = ['kind equals "user"', "user.plan equals gold", 'user.plan anyOf ["gold","silver"], user.beta equals true', "user.email exists false", "user./address/city startsWith rec", "device.os startsWith ios | kind equals org"];

// Whether the server has refused full-text search; then free text looks at keys and names only.
let fullTextMissing = false;
// Whether the server has refused `sort`; then the order is always kind, then key.
let sortMissing = false;

export class SearchView {
  constructor({ place, navigate }) {
    this.place = place;
    this.navigate = navigate;
    this.suggestions = new Suggestions(place);
    this.columnsName = `columns.${place.project}/${place.environment}`;
    this.build();
    this.suggestions.load().catch(() => {});
  }

  build() {
    this.box = new FilterBox({ suggestions: this.suggestions, onsubmit: (text) => this.submit(text), onedit: () => this.showFault(null) });
    this.fault = h("div", { id: "filter-error", class: "fault", role: "alert" });
    this.reading = h("p", { id: "filter-help", class: "reading muted" });
    this.status = h("p", { class: "status", role: "status", "aria-live": "polite" });
    this.sort = select("Sort", SORT_NAMES, (value) => this.change({ sort: value, after: null, page: 1 }));
    this.limit = select("Rows", LIMITS.map((limit) => [String(limit), `${limit} rows`]), (value) => this.change({ limit: Number(value), after: null, page: 1 }));
    this.columnDialog = new ColumnDialog({ suggestions: this.suggestions, onchange: (columns) => this.chooseColumns(columns) });
    const columns = h("button", { type: "button", class: "button", "aria-haspopup": "dialog", "aria-label": "Columns", onclick: () => this.columnDialog.open(this.columns) }, icon("columns"), h("span", {}, "Columns"));
    const refresh = h("button", { type: "button", class: "icon-button", "aria-label": "Search again", title: "Search again", onclick: () => this.search() }, icon("refresh"));
    this.results = h("div", { class: "results-area", "aria-busy": "false" });
    this.previous = pagerButton("Previous", "back", () => this.goBack());
    this.next = pagerButton("Next", "next", () => this.goNext());
    this.position = h("span", { class: "number" });
    this.pager = h("nav", { class: "pager", "aria-label": "Pages", hidden: true }, this.previous, this.position, this.next);
    this.toolbar = h("div", { class: "toolbar" }, this.status, refresh, h("div", { class: "toolbar-controls" }, this.sort.node, this.limit.node, columns));
    const form = h("form", { role: "search", class: "search-form", onsubmit: (event) => (event.preventDefault(), this.box.submit()) }, this.box.node, h("button", { type: "submit", class: "button primary" }, "Search"));
    this.node = h("section", { class: "view search-view", "aria-label": "Contexts" }, h("h1", { class: "visually-hidden", tabindex: "-1" }, "Contexts"), form, this.fault, this.reading, syntaxHelp((text) => this.tryExample(text)), this.toolbar, this.results, this.pager, this.columnDialog.node);
  }

  show(route, trail) {
    this.route = route;
    this.trail = Array.isArray(trail) ? trail : null;
    this.state = route.search;
    this.columns = route.search.columns ?? recallList(this.columnsName) ?? DEFAULT_COLUMNS;
    if (route.search.columns === null && this.columns.join("\n") !== DEFAULT_COLUMNS.join("\n")) {
      // Remembered columns go into the address too, so that a copied link shows the same table elsewhere.
      return this.change({ columns: this.columns }, { replace: true });
    }
    this.box.show(this.state.filter);
    this.sort.value = this.state.sort;
    this.limit.value = String(this.state.limit);
    if (this.answer && this.answeredTo === this.question) {
      this.draw();
      if (this.scroll) scrollTo(0, this.scroll);
    } else {
      this.search();
    }
    this.scroll = 0;
  }

  /// What the rows depend on; the columns are not part of it.
  get question() {
    const { filter, sort, limit, after } = this.state;
    return JSON.stringify([filter, sort, limit, after]);
  }

  leave() {
    this.scroll = scrollY;
    this.running?.abort();
    this.results.setAttribute("aria-busy", "false");
    clearTimeout(this.poll);
    this.columnDialog.node.close();
  }

  /// Coming back from a context puts the focus on its row again, at once or when the rows are there.
  focus(from) {
    this.node.querySelector("h1").focus({ preventScroll: true });
    this.cameFrom = from;
    if (this.results.getAttribute("aria-busy") === "false") this.focusRow();
  }

  focusRow() {
    const link = this.cameFrom && this.results.querySelector(`a[href="${CSS.escape(this.cameFrom)}"]`);
    this.cameFrom = null;
    link?.focus({ preventScroll: true });
  }

  focusFilter() {
    this.box.input.focus();
    this.box.input.select();
  }

  change(search, options = {}) {
    const trail = "after" in search ? options.trail : this.trail;
    this.navigate({ ...this.route, search: { ...this.state, columns: this.columns, ...search } }, { replace: options.replace, state: { trail: trail ?? null } });
  }

  submit(text) {
    if (text === this.state.filter && this.state.after === null) this.search();
    else this.change({ filter: text, after: null, page: 1 });
  }

  tryExample(text) {
    this.box.show(text);
    this.submit(text);
    this.box.input.focus();
  }

  chooseColumns(columns) {
    remember(this.columnsName, JSON.stringify(columns));
    this.change({ columns }, { replace: true });
  }

  goNext() {
    const after = this.answer?.continuationToken;
    if (!after) return;
    this.change({ after, page: this.state.page + 1 }, { trail: [...(this.trail ?? (this.state.after ? [null] : [])), this.state.after] });
    this.node.scrollIntoView({ block: "start" });
  }

  // A link that was opened in the middle does not know the pages before it; then back leads to the first one.
  goBack() {
    if (this.state.after === null) return;
    const known = this.trail !== null && this.trail.length === this.state.page - 1;
    const after = known ? this.trail.at(-1) : null;
    this.change({ after, page: after === null ? 1 : this.state.page - 1 }, { trail: known ? this.trail.slice(0, -1) : [] });
    this.node.scrollIntoView({ block: "start" });
  }

  async search({ quiet = false } = {}) {
    this.running?.abort();
    clearTimeout(this.poll);
    const running = new AbortController();
    this.running = running;
    const meaning = interpret(this.state.filter);
    const { question } = this;
    this.results.setAttribute("aria-busy", "true");
    if (!quiet && !this.answer) replace(this.results, skeleton());
    try {
      const answer = await this.ask(meaning, running.signal);
      if (running.signal.aborted) return;
      this.answer = answer;
      this.answeredTo = question;
      this.showFault(null);
      this.draw();
    } catch (error) {
      if (running.signal.aborted || error.name === "AbortError") return;
      this.answer = null;
      this.showFailure(error, meaning);
    } finally {
      if (!running.signal.aborted) this.results.setAttribute("aria-busy", "false");
    }
  }

  async ask(meaning, signal) {
    if (meaning.type !== "text") {
      this.explain(meaning);
      return this.askFor(meaning.filter, signal);
    }
    if (!fullTextMissing) {
      try {
        const answer = await this.askFor(meaning.filter, signal);
        this.explain(meaning);
        return answer;
      } catch (error) {
        if (!(error instanceof ApiError) || error.status !== 400) throw error;
      }
    }
    const answer = await this.askFor(meaning.fallback, signal);
    fullTextMissing = true;
    this.explain(meaning);
    return answer;
  }

  // A server of the current API generation knows one order only and refuses to be given another.
  async askFor(filter, signal) {
    const { sort, limit, after } = this.state;
    const search = { filter, limit, continuationToken: after };
    if (sort === "key" || sortMissing) return searchContexts(this.place, search, signal);
    try {
      return await searchContexts(this.place, { ...search, sort }, signal);
    } catch (error) {
      if (error.status !== 400 || !/^sort\b/.test(error.message)) throw error;
      sortMissing = true;
      this.sort.node.hidden = true;
      return searchContexts(this.place, search, signal);
    }
  }

  // Says how the text was read, as free text and filters share the box.
  explain(meaning) {
    const where = fullTextMissing ? "keys and names that begin with" : "text search in keys and attributes for";
    replace(this.reading, meaning.type === "text" ? [`Not a filter, so: ${where} `, h("q", {}, meaning.text)] : []);
  }

  showFault(error) {
    if (error === null) {
      replace(this.fault);
      return;
    }
    const offset = faultOffset(error);
    const at = offset === null ? null : this.box.markFault(offset);
    const go = at === null ? null : h("button", { type: "button", class: "button small", onclick: () => this.box.goTo(at) }, "Show the place");
    const asText = h("button", { type: "button", class: "button small", onclick: () => this.tryExample(`q equals ${JSON.stringify(this.state.filter.trim())}`) }, "Search for it as text");
    replace(this.fault, h("p", { class: "fault-message" }, error.message), at === null ? null : excerpt(this.state.filter, at, this.box.faultEnd), h("div", { class: "fault-actions" }, go, asText));
    if (at !== null && document.activeElement === this.box.input) this.box.input.setSelectionRange(at, at);
  }

  showFailure(error, meaning) {
    this.pager.hidden = true;
    setText(this.status, "");
    const aboutFilter = meaning.type === "filter" && faultOffset(error) !== null;
    if (error.status === 400 && this.state.after !== null && !aboutFilter) return this.showExpired(error);
    if (error.status === 400 && meaning.type === "filter") {
      this.showFault(error);
      setText(this.status, "No results");
      replace(this.results, emptyState("The filter has a mistake", "Mend it above and search again."));
      return;
    }
    const again = h("button", { type: "button", class: "button", onclick: () => this.search() }, icon("refresh"), "Try again");
    const title = error.status === 404 ? "This environment is not known here" : error.status === 0 ? "No connection" : "The search failed";
    replace(this.results, emptyState(title, error.message, again, error.id ? h("p", { class: "muted small-text" }, "Error id ", h("code", {}, error.id)) : null));
  }

  showExpired(error) {
    const first = h("button", { type: "button", class: "button", onclick: () => this.change({ after: null, page: 1 }, { replace: true, trail: [] }) }, "Go to the first page");
    replace(this.results, emptyState("This page is no longer there", error.message, first));
  }

  draw() {
    const { items, totalCount, continuationToken } = this.answer;
    clearTimeout(this.poll);
    if (items.length === 0) return this.drawEmpty();
    const first = (this.state.page - 1) * this.state.limit + 1;
    const last = first + items.length - 1;
    const all = this.state.page === 1 && !continuationToken;
    setText(this.status, all ? plural(totalCount ?? items.length, "context") : `${count(first)}–${count(last)} of ${total(totalCount, continuationToken, last)}`);
    replace(this.results, resultTable({ place: this.place, items, columns: this.columns, sort: sortMissing ? "key" : this.state.sort, sortBy: (sort) => this.change({ sort, after: null, page: 1 }) }));
    this.drawPager(!continuationToken);
    this.focusRow();
  }

  drawPager(lastPage) {
    this.pager.hidden = lastPage && this.state.after === null;
    this.previous.setAttribute("aria-disabled", String(this.state.after === null));
    this.next.setAttribute("aria-disabled", String(lastPage));
    const known = this.state.after === null || (this.trail !== null && this.trail.length === this.state.page - 1);
    setText(this.previous.querySelector("span"), known ? "Previous" : "First page");
    setText(this.position, `Page ${count(this.state.page)}`);
  }

  drawEmpty() {
    this.pager.hidden = true;
    if (this.state.after !== null) {
      setText(this.status, "No more contexts");
      this.pager.hidden = false;
      this.drawPager(true);
      replace(this.results, emptyState("Nothing more on this page", "The contexts that were here have been seen again or have expired."));
    } else if (interpret(this.state.filter).type === "all") {
      setText(this.status, "No contexts yet");
      if (!this.results.querySelector(".setup")) replace(this.results, setupPanel({ place: this.place, waiting: true }));
      this.poll = setTimeout(() => (document.hidden ? this.pollLater() : this.search({ quiet: true })), EMPTY_POLL_MS);
    } else {
      setText(this.status, "No context matches");
      const clear = h("button", { type: "button", class: "button", onclick: () => this.box.erase() }, "Clear the filter");
      replace(this.results, emptyState("No context matches", "Text values are compared by letter and case: gold is not Gold, 44 is not \"44\". Anonymous contexts are not listed.", clear));
    }
  }

  pollLater() {
    document.addEventListener("visibilitychange", () => this.node.isConnected && this.search({ quiet: true }), { once: true });
  }
}

// The message may name other places on its way to the one at its end.
function faultOffset({ message }) {
  const offset = [...message.matchAll(/\boffset (\d+)/g)].at(-1)?.[1];
  return offset === undefined ? null : Number(offset);
}

function total(totalCount, more, last) {
  if (totalCount === undefined || totalCount === null) return more ? `more than ${count(last)}` : count(last);
  return totalCount >= TOTAL_MAX ? `more than ${count(TOTAL_MAX)}` : count(totalCount);
}

function excerpt(filter, at, end) {
  const [from, to] = [Math.max(0, at - 40), Math.min(filter.length, end + 30)];
  const fault = filter.slice(at, end);
  return h("code", { class: "fault-place" }, from > 0 ? "…" : "", filter.slice(from, at), h("mark", {}, fault === "" ? "⎵" : fault), filter.slice(end, to), to < filter.length ? "…" : "");
}

export function emptyState(title, text, ...more) {
  return h("div", { class: "empty" }, h("h2", {}, title), h("p", { class: "muted" }, text), more);
}

function skeleton() {
  return h("div", { class: "skeleton", "aria-hidden": "true" }, Array.from({ length: 8 }, () => h("div", { class: "skeleton-row" })));
}

function select(label, options, onchange) {
  const control = h("select", { "aria-label": label, onchange: () => onchange(control.value) }, options.map(([value, text]) => h("option", { value }, text)));
  return {
    node: h("span", { class: "select" }, control),
    set value(value) {
      control.value = value;
    },
  };
}

function pagerButton(label, name, act) {
  const text = h("span", {}, label);
  const button = h("button", { type: "button", class: "button", onclick: () => button.getAttribute("aria-disabled") !== "true" && act() }, name === "back" ? [icon(name), text] : [text, icon(name)]);
  return button;
}

function syntaxHelp(use) {
  const example = (text) => h("li", {}, h("button", { type: "button", class: "example", onclick: () => use(text) }, h("code", {}, text)));
  return h(
    "details",
    { class: "syntax" },
    h("summary", {}, "How to write a filter"),
    h("p", {}, h("code", {}, "field operator value"), ", joined by a comma for ", h("em", {}, "and"), ", by ", h("code", {}, "|"), " for ", h("em", {}, "or"), ", grouped by parentheses. A field is ", h("code", {}, "kind.attribute"), ", ", h("code", {}, "*.attribute"), " for any kind, or ", h("code", {}, "kind./nested/name"), ". Text with blanks needs quotes. Anything that is no filter is searched as text."),
    h("ul", { class: "examples" }, EXAMPLES.map(example)),
  );
}
