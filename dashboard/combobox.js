//! The filter box: colours what is typed, completes it, marks the place of an error.
//!
//! In: keystrokes, `Suggestions`. Out: `onsubmit(text)` when the person wants the search.
//! Promise: the ARIA combobox pattern with a listbox (`popup`), everything by keyboard; a newer keystroke abandons the look-up of
//! an older one; without suggestions it is a plain text field that always works.
//! Colours are painted by a twin element below a transparent input, so that selection, undo, and input methods stay the
//! browser's own. An editable element instead was not tried: those break one by one there.

import { h, icon, replace } from "./dom.js";
import { conditionsBefore, positionOfByte, scan, slotAt } from "./filter.js";
import { OptionList } from "./popup.js";

const LOOKUP_DELAY_MS = 120;

export class FilterBox {
  constructor({ suggestions, onsubmit, onedit }) {
    this.suggestions = suggestions;
    this.onsubmit = onsubmit;
    this.onedit = onedit;
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
      "aria-label": "Filter contexts",
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
    const legend = h("p", { class: "filter-legend", "aria-hidden": "true" }, key("↑"), key("↓"), " choose ", key("Tab"), " take ", key("Enter"), " search ", key("Esc"), " close");
    this.popup = new OptionList({ input: this.input, id: "filter-options", label: "Suggestions", legend, take: (index) => this.take(index) });
    const field = h("div", { class: "filter-field" }, this.paint, this.input);
    this.node = h("div", { class: "filter-box" }, icon("search"), field, this.clear, this.popup.node, this.popup.announcement);
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
    this.slot.within = conditionsBefore(this.text, this.slot.start);
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

  offer(options) {
    const { start, end, typed } = this.slot;
    this.popup.offer(options.filter(({ insert }) => insert.trim() !== this.text.slice(start, end) || options.length > 1), typed);
  }

  close() {
    this.lookup?.abort();
    clearTimeout(this.timer);
    this.popup.close();
  }

  key(event) {
    if (event.isComposing) return;
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") this.move(event);
    else if (event.key === " " && event.ctrlKey) this.handled(event, () => this.complete());
    else if (event.key === "Escape" && this.popup.open) this.handled(event, () => this.close());
    else if (event.key === "Enter") this.handled(event, () => (this.popup.active >= 0 ? this.take(this.popup.active) : this.submit()));
    else if (event.key === "Tab" && plain && !event.shiftKey && this.popup.open && this.takesTab()) this.handled(event, () => this.take(Math.max(this.popup.active, 0)));
    else if (["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) setTimeout(() => this.popup.open && this.complete());
  }

  move(event) {
    this.handled(event, () => {
      if (this.popup.open) this.popup.move(event.key === "ArrowDown");
      else this.complete();
    });
  }

  // Tab takes a suggestion only when one is chosen or a word is half typed; otherwise it leaves the field as everywhere.
  takesTab() {
    return this.popup.active >= 0 || (this.slot.typed !== "" && this.popup.options[0].label.toLowerCase() !== this.slot.typed.toLowerCase());
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
    const { insert, caret = 0, more } = this.popup.options[index];
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
