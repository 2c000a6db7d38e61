//! The filter box: colours what is typed, completes it, marks the place of an error.
//!
//! In: keystrokes, `Suggestions`. Out: `onsubmit(text)` when the person wants the search.
//! Promise: the ARIA combobox pattern with a listbox, everything by keyboard; a newer keystroke abandons the look-up of an older
//! one; without suggestions it is a plain text field that always works.
//! Colours are painted by a twin element below a transparent input, so that selection, undo, and input methods stay the
//! browser's own. An editable element instead was not tried: those break one by one there.

import { h, icon, replace, setText } from "./dom.js";
import { positionOfByte, scan, slotAt } from "./filter.js";

const LOOKUP_DELAY_MS = 120;

export class FilterBox {
  constructor({ suggestions, onsubmit, onedit }) {
    this.suggestions = suggestions;
    this.onsubmit = onsubmit;
    this.onedit = onedit;
    this.options = [];
    this.active = -1;
    this.slot = null;
    this.fault = null;
    this.build();
  }

  build() {
    this.paint = h("div", { class: "filter-paint", "aria-hidden": "true" });
    this.input = h("input", {
      id: "filter",
      class: "filter-input",
      type: "text",
      role: "combobox",
      "aria-label": "Filter contexts",
      "aria-autocomplete": "list",
      "aria-expanded": "false",
      "aria-controls": "filter-options",
      "aria-describedby": "filter-error filter-help",
      autocomplete: "off",
      autocapitalize: "off",
      autocorrect: "off",
      spellcheck: "false",
      enterkeyhint: "search",
      placeholder: "user.plan equals gold, or any text",
      oninput: () => this.edited(),
      onkeydown: (event) => this.key(event),
      onclick: () => this.complete(),
      onselectionchange: () => this.align(),
      onkeyup: () => this.align(),
      onblur: () => this.close(),
      onscroll: () => this.align(),
    });
    this.clear = h("button", { type: "button", class: "icon-button filter-clear", "aria-label": "Clear the filter", onclick: () => this.erase() }, icon("close"));
    this.list = h("ul", { id: "filter-options", class: "filter-options", role: "listbox", "aria-label": "Suggestions" });
    this.legend = h("p", { class: "filter-legend", "aria-hidden": "true" }, key("↑"), key("↓"), " choose ", key("Tab"), " take ", key("Enter"), " search ", key("Esc"), " close");
    this.popup = h("div", { class: "filter-popup", hidden: true, onmousedown: (event) => event.preventDefault() }, this.list, this.legend);
    this.announcement = h("div", { class: "visually-hidden", role: "status", "aria-live": "polite" });
    const field = h("div", { class: "filter-field" }, this.paint, this.input);
    this.node = h("div", { class: "filter-box" }, icon("search"), field, this.clear, this.popup, this.announcement);
    this.colour();
  }

  get text() {
    return this.input.value;
  }

  /// Shows text that did not come from the keyboard.
  show(text) {
    if (this.text !== text) this.input.value = text;
    this.markFault(null);
    this.close();
  }

  erase() {
    this.input.value = "";
    this.input.focus();
    this.edited();
    this.onsubmit("");
  }

  edited() {
    this.markFault(null);
    this.onedit();
    this.complete();
  }

  /// Marks a fault at a byte offset of the text; `null` removes the mark. Returns the position in the text.
  markFault(offset) {
    this.faultOffset = offset;
    this.fault = offset === null ? null : Math.min(positionOfByte(this.text, offset), this.text.length);
    this.input.setAttribute("aria-invalid", String(this.fault !== null));
    this.colour();
    const place = this.paint.querySelector(".token-fault");
    if (place) this.input.scrollLeft = Math.max(0, place.offsetLeft - this.input.clientWidth / 2);
    this.align();
    return this.fault;
  }

  /// The end of the word that the fault begins with; what follows it may be right.
  get faultEnd() {
    return this.fault + /^(\s*[^\s,|()]+|.)?/su.exec(this.text.slice(this.fault))[0].length;
  }

  goTo(position) {
    this.input.focus();
    this.input.setSelectionRange(position, this.faultEnd);
    this.markFault(this.faultOffset);
    this.close();
  }

  colour() {
    const { tokens } = scan(this.text);
    const plain = tokens.every(({ type }) => type !== "operator");
    const parts = [];
    let at = 0;
    for (const { type, start, end } of tokens) {
      parts.push(...this.piece(at, start, null), ...this.piece(start, end, plain ? null : `token-${type}`));
      at = end;
    }
    parts.push(...this.piece(at, this.text.length, null));
    if (this.fault !== null && this.fault >= this.text.length) parts.push(h("span", { class: "token-fault" }, " "));
    replace(this.paint, parts);
    this.clear.hidden = this.text === "";
    this.align();
  }

  // One stretch of text in one colour, cut where the fault begins and ends.
  piece(start, end, type) {
    const within = (position) => Math.min(Math.max(position, start), end);
    const [from, to] = this.fault === null ? [end, end] : [within(this.fault), within(this.faultEnd)];
    const span = (left, right, fault) => (left < right ? [h("span", { class: fault ? "token-fault" : type }, this.text.slice(left, right))] : []);
    return [...span(start, from, false), ...span(from, to, true), ...span(to, end, false)];
  }

  align() {
    this.paint.scrollLeft = this.input.scrollLeft;
  }

  complete() {
    this.colour();
    this.lookup?.abort();
    clearTimeout(this.timer);
    const collapsed = this.input.selectionStart === this.input.selectionEnd;
    this.slot = collapsed ? slotAt(this.text, this.input.selectionStart) : null;
    if (this.slot === null) return this.close();
    this.offer(this.suggestions.local(this.slot));
    const lookup = new AbortController();
    this.lookup = lookup;
    this.timer = setTimeout(() => this.askServer(this.slot, lookup.signal), LOOKUP_DELAY_MS);
  }

  async askServer(slot, signal) {
    try {
      const found = await this.suggestions.remote(slot, signal);
      if (found !== null && !signal.aborted) this.offer(found);
    } catch {
      // Completion is a help, not a need: the search itself reports what is wrong with the server.
    }
  }

  // A list that arrives late must not move the choice that the person has already made.
  offer(options) {
    const chosen = this.options[this.active]?.insert;
    this.options = options.filter(({ insert }) => insert.trim() !== this.text.slice(this.slot.start, this.slot.end) || options.length > 1);
    this.active = chosen === undefined ? -1 : this.options.findIndex(({ insert }) => insert === chosen);
    if (this.options.length === 0 || document.activeElement !== this.input) return this.close();
    replace(this.list, this.options.map((option, index) => this.row(option, index)));
    this.popup.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    setText(this.announcement, `${this.options.length} suggestion${this.options.length === 1 ? "" : "s"}`);
    this.highlight(this.active);
  }

  row(option, index) {
    return h(
      "li",
      { id: `filter-option-${index}`, class: "filter-option", role: "option", "aria-selected": "false", title: option.hint, onclick: () => this.take(index), onmousemove: () => this.active !== index && this.highlight(index, false) },
      h("span", { class: `option-type option-${option.type}`, "aria-hidden": "true" }),
      h("span", { class: "option-label" }, ...emphasise(option.label, this.slot.typed)),
      h("span", { class: "option-detail" }, option.detail),
    );
  }

  highlight(index, scroll = true) {
    this.active = index;
    for (const [position, row] of [...this.list.children].entries()) row.setAttribute("aria-selected", String(position === index));
    const row = this.list.children[index];
    if (row) this.input.setAttribute("aria-activedescendant", row.id);
    else this.input.removeAttribute("aria-activedescendant");
    if (scroll) row?.scrollIntoView({ block: "nearest" });
  }

  close() {
    this.lookup?.abort();
    clearTimeout(this.timer);
    this.popup.hidden = true;
    this.options = [];
    this.active = -1;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
    setText(this.announcement, "");
  }

  get open() {
    return !this.popup.hidden;
  }

  key(event) {
    if (event.isComposing) return;
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") this.move(event);
    else if (event.key === " " && event.ctrlKey) this.handled(event, () => this.complete());
    else if (event.key === "Escape" && this.open) this.handled(event, () => this.close());
    else if (event.key === "Enter") this.handled(event, () => (this.active >= 0 ? this.take(this.active) : this.submit()));
    else if (event.key === "Tab" && plain && !event.shiftKey && this.open && this.takesTab()) this.handled(event, () => this.take(Math.max(this.active, 0)));
    else if (["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) setTimeout(() => this.open && this.complete());
  }

  move(event) {
    this.handled(event, () => {
      if (!this.open) return this.complete();
      const last = this.options.length - 1;
      // -1 is the text field itself, between the last and the first option.
      const next = event.key === "ArrowDown" ? this.active + 1 : this.active - 1;
      this.highlight(next > last ? -1 : next < -1 ? last : next);
    });
  }

  // Tab takes a suggestion only when one is chosen or a word is half typed; otherwise it leaves the field as everywhere.
  takesTab() {
    return this.active >= 0 || (this.slot.typed !== "" && this.options[0].label.toLowerCase() !== this.slot.typed.toLowerCase());
  }

  handled(event, act) {
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  submit() {
    this.close();
    this.onsubmit(this.text);
  }

  take(index) {
    const { insert, caret = 0, more } = this.options[index];
    const { start, end } = this.slot;
    const rest = insert.endsWith(" ") && this.text[end] === " " ? end + 1 : end;
    this.input.focus();
    this.input.setSelectionRange(start, rest);
    // insertText keeps the browser's undo; where it is missing the text is set directly.
    if (!document.execCommand("insertText", false, insert)) this.input.setRangeText(insert, start, rest, "end");
    this.input.setSelectionRange(start + insert.length - caret, start + insert.length - caret);
    this.edited();
    if (!more && caret === 0) this.close();
    this.input.scrollLeft = this.input.selectionStart === this.text.length ? this.input.scrollWidth : this.input.scrollLeft;
    this.align();
  }
}

const key = (name) => h("kbd", {}, name);

function emphasise(label, typed) {
  const at = typed === "" ? -1 : label.toLowerCase().indexOf(typed.toLowerCase());
  if (at === -1) return [label];
  return [label.slice(0, at), h("b", {}, label.slice(at, at + typed.length)), label.slice(at + typed.length)];
}
