//! The context search: filter box, builder, facets, result table, paging. All it shows follows from the route's search state.
//!
//! In: a `Route`, answers of the search API. Out: new routes through `navigate`.
//! Promise: what is typed is searched for when the hands rest, unless it may yet become something else; a newer search abandons an
//! older one, and no answer shows that is not the newest's; box and builder always say the same; the total is the server's own or is left
//! out; an error stands where the person looks, with its place in the filter if the server named one.

import { ask, defaultOrder, filterOf, keysFilter, knowsFullText, knowsSort, orderOf, requestOf } from "./ask.js";
import { Builder } from "./builder.js";
import { ColumnDialog } from "./columns.js";
import { FilterBox } from "./combobox.js";
import { h, icon, replace, setText } from "./dom.js";
import { readDraft, toggleValue, writeDraft } from "./draft.js";
import { EraseDialog, eraseButton } from "./erase.js";
import { ExportDialog } from "./export.js";
import { Facets } from "./facets.js";
import { FaultLine, faultOffset } from "./fault.js";
import { interpret, scan } from "./filter.js";
import { plural } from "./format.js";
import { KeyDialog } from "./keydialog.js";
import { keysForAddress, keysOf, lengthOf } from "./keylist.js";
import { Pager } from "./pager.js";
import { columnLabel, resultTable } from "./results.js";
import { attributeSort, DEFAULT_COLUMNS, LIMITS } from "./route.js";
import { SavedDialog } from "./saved.js";
import { setupPanel } from "./setup.js";
import { ShareDialog } from "./share.js";
import { cautionText, IndexedUpTo, totalText } from "./standing.js";
import { emptyState, skeleton } from "./states.js";
import { recall, recallList, remember } from "./store.js";
import { Suggestions } from "./suggest.js";
import { syntaxHelp } from "./syntax.js";

const EMPTY_POLL_MS = 2000;
/// A pause in typing after which the text is searched for.
const TYPING_PAUSE_MS = 150;

/// The orders that the rows can have; on a phone, where no headings are, this is the only choice of them.
function orderNames(columns, order, isText) {
  const attributes = columns.filter((column) => column.startsWith("/"));
  const current = /^-?attr:(.*)/s.exec(order)?.[1];
  if (current !== undefined && !attributes.includes(current)) attributes.push(current);
  const ofAttribute = (column) => [
    [attributeSort(column), `${columnLabel(column)}, ascending`],
    [attributeSort(column, true), `${columnLabel(column)}, descending`],
  ];
  return [["-ts", "Newest first"], ["ts", "Oldest first"], ["key", isText ? "Best match" : "Kind, then key"], ...attributes.flatMap(ofAttribute)];
}

export class SearchView {
  constructor({ place, navigate }) {
    this.place = place;
    this.navigate = navigate;
    this.suggestions = new Suggestions(place);
    this.columnsName = `columns.${place.project}/${place.environment}`;
    this.facetsName = `facets.${place.project}/${place.environment}`;
    this.buildFilter();
    this.buildDialogs();
    this.buildResults();
    this.buildPanels();
    const form = h("form", { role: "search", class: "search-form", onsubmit: (event) => (event.preventDefault(), this.box.submit()) }, this.box.node, h("button", { type: "submit", class: "button primary" }, "Search"));
    const main = h("div", { class: "search-main" }, this.toolbar, this.caution, this.results, this.pager.node);
    const dialogs = this.dialogs.map(({ node }) => node);
    this.node = h("section", { class: "view search-view", "aria-label": "Contexts" }, h("h1", { class: "visually-hidden", tabindex: "-1" }, "Contexts"), form, this.fault.node, this.reading, this.keys.line, this.builder.node, syntaxHelp((text) => this.use(text)), h("div", { class: "search-columns" }, this.facets.node, main), dialogs);
    this.suggestions.load().catch(() => {});
  }

  buildFilter() {
    this.box = new FilterBox({ suggestions: this.suggestions, onsubmit: (text) => this.submit(text), onedit: () => this.edited(this.box.text) });
    this.fault = new FaultLine({ box: this.box, searchAsText: () => this.use(`q equals ${JSON.stringify(this.state.filter.trim())}`) });
    this.reading = h("p", { id: "filter-help", class: "reading muted" });
    this.builder = new Builder({
      suggestions: this.suggestions,
      filterOf,
      ontext: (text) => {
        this.box.show(text);
        this.fault.clear();
      },
      onsearch: () => this.box.text !== this.state.filter && this.submit(this.box.text),
    });
    this.facets = new Facets({ place: this.place, suggestions: this.suggestions, ontoggle: (...value) => this.narrow(...value), onchoose: () => this.facetDialog.open(this.facets.chosen) });
  }

  buildDialogs() {
    const { suggestions, place } = this;
    this.columnDialog = new ColumnDialog({ suggestions, title: "Columns", own: ["lastSeen"], none: "Kind and key only", defaults: DEFAULT_COLUMNS, onchange: (columns) => this.chooseColumns(columns) });
    this.facetDialog = new ColumnDialog({ suggestions, title: "Facets", own: ["kind"], none: "None", onchange: (facets) => this.chooseFacets(facets) });
    this.saved = new SavedDialog({ place, current: () => ({ ...this.route, search: { ...this.state, columns: this.columns } }) });
    this.share = new ShareDialog({ question: () => requestOf(place, this.state) });
    this.exports = new ExportDialog({ question: () => ({ place, filter: requestOf(place, this.state).search.filter ?? "", keys: keysOf(this.state) ?? null, columns: this.columns }) });
    this.keys = new KeyDialog({ place, onkeys: (keys) => this.change({ ...keysForAddress(keys), after: null, page: 1 }) });
    this.erasing = new EraseDialog({ question: () => this.erasure() });
    this.dialogs = [this.keys, this.columnDialog, this.facetDialog, this.saved, this.share, this.exports, this.erasing];
  }

  buildResults() {
    this.status = h("p", { class: "status", role: "status", "aria-live": "polite" });
    this.indexed = new IndexedUpTo();
    this.caution = h("p", { class: "caution", role: "status" });
    this.results = h("div", { class: "results-area", "aria-busy": "false" });
    this.pager = new Pager({ turn: (change, trail) => this.turn(change, trail) });
    this.sort = select("Sort", [], (value) => this.sortBy(value));
    this.limit = select("Rows", LIMITS.map((limit) => [String(limit), `${limit} rows`]), (value) => this.change({ limit: Number(value), after: null, page: 1 }));
    const refresh = h("button", { type: "button", class: "icon-button", "aria-label": "Search again", title: "Search again", onclick: () => this.search() }, icon("refresh"));
    const opens = (label, name, open) => h("button", { type: "button", class: "button", "aria-haspopup": "dialog", "aria-label": label, title: label, onclick: open }, icon(name), h("span", {}, label));
    const keys = opens("Keys", "keys", () => this.keys.open());
    const columns = opens("Columns", "columns", () => this.columnDialog.open(this.columns));
    const saved = opens("Saved", "bookmark", () => this.saved.open());
    const share = opens("Copy", "share", () => this.share.open());
    const exporting = opens("Export", "export", () => this.exports.open());
    this.erase = eraseButton("Erase", () => this.erasing.open());
    this.panelButtons = h("div", { class: "panel-buttons" });
    this.toolbar = h("div", { class: "toolbar" }, h("div", { class: "standing" }, this.status, refresh, this.indexed.node), h("div", { class: "toolbar-controls" }, this.sort.node, this.limit.node, this.panelButtons, keys, columns, saved, share, exporting, this.erase));
  }

  // Everything is a lot to erase by leaving something out: there has to be a filter.
  erasure() {
    const filter = requestOf(this.place, this.state).search.filter ?? "";
    const about = ["Every context that matches ", h("code", {}, filter)];
    return { place: this.place, subject: { filter }, about, after: () => this.search() };
  }

  // Builder and facets can be put away; what a person chose is remembered, else there has to be room for them.
  buildPanels() {
    const toggle = (label, name, panel, roomy, onopen = () => {}) => {
      const kept = recall(`panel.${name}`);
      const draw = (open) => {
        panel.hidden = !open;
        button.setAttribute("aria-pressed", String(open));
      };
      const press = () => {
        draw(panel.hidden);
        remember(`panel.${name}`, panel.hidden ? "closed" : "open");
        if (!panel.hidden) onopen();
      };
      const button = h("button", { type: "button", class: "button", "aria-label": label, title: label, onclick: press }, icon(name), h("span", {}, label));
      draw(kept === null ? matchMedia(`(min-width: ${roomy}px)`).matches : kept === "open");
      return button;
    };
    replace(this.panelButtons, toggle("Builder", "rows", this.builder.node, 720), toggle("Facets", "facets", this.facets.node, 1000, () => this.loadFacets()));
  }

  show(route, trail) {
    // A search that came of typing must not disturb the one who types.
    const typed = this.typing;
    this.typing = false;
    this.typedEntry = typed;
    clearTimeout(this.pause);
    this.route = route;
    this.trail = Array.isArray(trail) ? trail : null;
    this.state = route.search;
    this.columns = route.search.columns ?? recallList(this.columnsName) ?? DEFAULT_COLUMNS;
    if (route.search.columns === null && this.columns.join("\n") !== DEFAULT_COLUMNS.join("\n")) {
      // Remembered columns go into the address too, so that a copied link shows the same table elsewhere.
      return this.change({ columns: this.columns }, { replace: true });
    }
    if (!typed) this.box.show(this.state.filter);
    this.builder.show(this.state.filter);
    this.markFacets();
    this.sort.offer(orderNames(this.columns, this.order, defaultOrder(this.state.filter) === "key"));
    this.sort.value = this.order;
    this.limit.value = String(this.state.limit);
    // A list of keys narrows what is shown, not what the filter alone would erase.
    this.erase.disabled = this.state.filter.trim() === "" || Boolean(keysOf(this.state));
    this.indexed.start();
    if (this.answer && this.answeredTo === this.question) {
      this.draw();
      if (this.scroll) scrollTo(0, this.scroll);
    } else {
      this.search({ typed });
    }
    this.scroll = 0;
    if (!this.facets.node.hidden && !this.facets.isCurrent) this.loadFacets();
  }

  /// What the rows depend on; the columns are not part of it.
  get question() {
    const { filter, limit, after, keys, keyList } = this.state;
    return JSON.stringify([filter, this.order, limit, after, keys, keyList]);
  }

  get order() {
    return orderOf(this.state);
  }

  leave() {
    this.scroll = scrollY;
    this.running?.abort();
    clearTimeout(this.pause);
    this.facets.leave();
    this.indexed.stop();
    this.results.setAttribute("aria-busy", "false");
    clearTimeout(this.poll);
    this.keys.leave();
    for (const { node } of this.dialogs) node.close();
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

  // Other ways to another search.

  change(search, options = {}) {
    const trail = "after" in search ? options.trail : this.trail;
    this.navigate({ ...this.route, search: { ...this.state, columns: this.columns, ...search } }, { replace: options.replace, state: { trail: trail ?? null } });
  }

  // The order that goes with what is searched for stays out of the address.
  sortBy(order) {
    this.change({ sort: order === defaultOrder(this.state.filter) ? null : order, after: null, page: 1 });
  }

  edited(text) {
    this.fault.clear();
    this.builder.show(text);
    clearTimeout(this.pause);
    if (text.trim() !== this.state.filter.trim() && this.isReady(text)) this.pause = setTimeout(() => this.searchTyped(text), TYPING_PAUSE_MS);
  }

  // Half a filter would be searched for as text.
  isReady(text) {
    const { type } = interpret(text);
    return type === "text" ? !this.suggestions.mayBecomeFilter(text) : type === "all" || scan(text).error === null;
  }

  // All that is typed in one go is one step of the history.
  searchTyped(text) {
    this.typing = true;
    this.change({ filter: text, after: null, page: 1 }, { replace: this.typedEntry });
  }

  submit(text) {
    clearTimeout(this.pause);
    this.typedEntry = false;
    if (text === this.state.filter && this.state.after === null) this.search();
    else this.change({ filter: text, after: null, page: 1 });
  }

  use(text) {
    this.box.show(text);
    this.submit(text);
    this.box.input.focus();
  }

  narrow(field, json, operator) {
    const draft = readDraft(filterOf(this.box.text));
    if (draft !== null) this.submit(writeDraft(toggleValue(draft, field, json, operator)));
  }

  turn(change, trail) {
    this.change(change, { trail });
    this.node.scrollIntoView({ block: "start" });
  }

  chooseColumns(columns) {
    remember(this.columnsName, JSON.stringify(columns));
    this.change({ columns }, { replace: true });
  }

  chooseFacets(facets) {
    remember(this.facetsName, JSON.stringify(facets));
    this.loadFacets();
  }

  loadFacets() {
    this.facets.load(recallList(this.facetsName));
  }

  markFacets() {
    const filter = filterOf(this.state.filter).trim();
    this.facets.mark(readDraft(filter), filter, keysFilter(keysOf(this.state)));
  }

  // Asking, and showing what came.

  /// `typed`: nobody has said yet that the text is what it should be.
  async search({ quiet = false, typed = false } = {}) {
    this.running?.abort();
    clearTimeout(this.poll);
    const running = new AbortController();
    this.running = running;
    const { question } = this;
    const keys = keysOf(this.state);
    if (keys === undefined) return this.showUnknownList();
    this.keys.show(keys, this.answeredTo === question);
    this.results.setAttribute("aria-busy", "true");
    if (!quiet && !this.answer) replace(this.results, skeleton(8));
    try {
      const answer = await ask(this.place, this.state, running.signal);
      if (running.signal.aborted) return;
      this.answer = answer;
      this.answeredTo = question;
      this.fault.clear();
      this.draw();
    } catch (error) {
      if (running.signal.aborted || error.name === "AbortError") return;
      // What was found before stays until the filter is right.
      if (typed && error.status === 400) return;
      this.answer = null;
      this.showFailure(error);
    } finally {
      if (!running.signal.aborted) this.results.setAttribute("aria-busy", "false");
    }
  }

  // Says how the text was read, as free text and filters share the box.
  explain() {
    const meaning = interpret(this.state.filter);
    const where = knowsFullText() ? "text search in keys and attributes for" : "keys and names that begin with";
    replace(this.reading, meaning.type === "text" ? [`Not a filter, so: ${where} `, h("q", {}, meaning.text)] : []);
    this.sort.node.hidden = !knowsSort();
  }

  showFailure(error) {
    const isFilter = interpret(this.state.filter).type === "filter";
    this.pager.hide();
    setText(this.status, "");
    setText(this.caution, "");
    this.explain();
    const aboutFilter = isFilter && faultOffset(error) !== null;
    if (error.status === 400 && this.state.after !== null && !aboutFilter) return this.showExpired(error);
    if (error.status === 400 && isFilter) {
      this.fault.show(error, this.state.filter);
      setText(this.status, "No results");
      replace(this.results, emptyState("The filter has a mistake", "Mend it above and search again."));
      return;
    }
    const again = h("button", { type: "button", class: "button", onclick: () => this.search() }, icon("refresh"), "Try again");
    const title = error.status === 404 ? "This environment is not known here" : error.status === 0 ? "No connection" : "The search failed";
    replace(this.results, emptyState(title, error.message, again, error.id ? h("p", { class: "muted small-text" }, "Error id ", h("code", {}, error.id)) : null));
  }

  // An address that came from elsewhere.
  showUnknownList() {
    this.answer = null;
    this.keys.show(null);
    this.pager.hide();
    setText(this.status, "");
    const length = lengthOf(this.state.keyList);
    const paste = h("button", { type: "button", class: "button primary", onclick: () => this.keys.open() }, "Paste the list");
    const without = h("button", { type: "button", class: "button", onclick: () => this.change({ keys: null, keyList: null, after: null, page: 1 }) }, "Search without it");
    replace(this.results, emptyState("This search had a list of keys", `An address cannot hold ${length === null ? "it" : plural(length, "key")}: paste them again to look them up.`, paste, without));
    this.results.setAttribute("aria-busy", "false");
  }

  showExpired(error) {
    const first = h("button", { type: "button", class: "button", onclick: () => this.change({ after: null, page: 1 }, { replace: true, trail: [] }) }, "Go to the first page");
    replace(this.results, emptyState("This page is no longer there", error.message, first));
  }

  draw() {
    const { items, continuationToken, state } = this.answer;
    clearTimeout(this.poll);
    this.explain();
    setText(this.caution, cautionText(state));
    if (items.length === 0) return this.drawEmpty();
    const first = (this.state.page - 1) * this.state.limit + 1;
    setText(this.status, totalText(this.answer, { first, last: first + items.length - 1, more: Boolean(continuationToken) }));
    replace(this.results, resultTable({ place: this.place, items, columns: this.columns, sort: knowsSort() ? this.order : "key", sorts: knowsSort(), sortBy: (order) => this.sortBy(order) }));
    this.pager.show(this.state, continuationToken, this.trail);
    this.focusRow();
    // The first context has arrived: there are names and values now.
    if (!this.facets.node.hidden && this.suggestions.names.length === 0) this.loadFacets();
  }

  drawEmpty() {
    this.pager.hide();
    if (this.state.after !== null) {
      setText(this.status, "No more contexts");
      this.pager.show(this.state, null, this.trail);
      replace(this.results, emptyState("Nothing more on this page", "The contexts that were here have been seen again or have expired."));
    } else if (interpret(this.state.filter).type === "all" && keysOf(this.state) === null) {
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

function select(label, options, onchange) {
  const control = h("select", { "aria-label": label, onchange: () => onchange(control.value) });
  const offer = (choices) => replace(control, choices.map(([value, text]) => h("option", { value }, text)));
  offer(options);
  return {
    node: h("span", { class: "select" }, control),
    offer,
    set value(value) {
      control.value = value;
    },
  };
}
