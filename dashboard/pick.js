//! A text field with suggestions: one name or one value, as the builder's rows have them.
//!
//! In: keystrokes, `look(typed, signal)`, which yields options and may yield better ones later. Out: `onedit(text)` at every
//! change, `ontake(option)` when one is taken, `onenter()` when Enter is pressed without one.
//! Promise: a newer keystroke abandons the look-up of an older one; without suggestions it is a plain text field.

import { h } from "./dom.js";
import { OptionList } from "./popup.js";

const LOOKUP_DELAY_MS = 120;

export class PickField {
  constructor({ label, placeholder, look, onedit, ontake, onenter, onback }) {
    Object.assign(this, { look, onedit, ontake, onenter, onback });
    this.input = h("input", {
      type: "text",
      class: "text-input pick-input",
      "aria-label": label,
      placeholder,
      autocomplete: "off",
      autocapitalize: "off",
      autocorrect: "off",
      spellcheck: "false",
      enterkeyhint: "search",
      oninput: () => this.edited(),
      onkeydown: (event) => this.key(event),
      onclick: () => this.complete(),
      onblur: () => this.close(),
    });
    this.popup = new OptionList({ input: this.input, label: `Suggestions: ${label}`, take: (index) => this.take(index) });
    this.node = h("div", { class: "pick" }, this.input, this.popup.node, this.popup.announcement);
  }

  get text() {
    return this.input.value;
  }

  /// Shows text that did not come from the keyboard.
  show(text) {
    this.input.value = text;
    this.input.title = text.length > 24 ? text : "";
  }

  edited() {
    this.onedit(this.text);
    this.complete();
  }

  async complete() {
    this.close();
    const lookup = new AbortController();
    this.lookup = lookup;
    const typed = this.text.trim();
    const [first, later] = this.look(typed, lookup.signal);
    this.popup.offer(first, typed);
    this.timer = setTimeout(async () => {
      // Completion is a help, not a need: the search itself reports what is wrong with the server.
      const found = await later().catch(() => null);
      if (found !== null && !lookup.signal.aborted) this.popup.offer(found, typed);
    }, LOOKUP_DELAY_MS);
  }

  close() {
    this.lookup?.abort();
    clearTimeout(this.timer);
    this.popup.close();
  }

  take(index) {
    const option = this.popup.options[index];
    this.close();
    this.ontake(option);
  }

  key(event) {
    if (event.isComposing) return;
    const { popup } = this;
    const handled = (act) => (event.preventDefault(), event.stopPropagation(), act());
    if (event.key === "ArrowDown" || event.key === "ArrowUp") handled(() => (popup.open ? popup.move(event.key === "ArrowDown") : this.complete()));
    else if (event.key === "Escape" && popup.open) handled(() => this.close());
    else if (event.key === "Enter") handled(() => (popup.active >= 0 ? this.take(popup.active) : (this.close(), this.onenter())));
    else if (event.key === "Backspace" && this.text === "" && this.onback) handled(() => this.onback());
  }
}
