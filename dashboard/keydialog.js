//! The dialog for a pasted list of keys, and the line above the results that says what became of it.
//!
//! In: the keys of the search on the screen. Out: `onkeys(keys)` with what to search for, none to search without a list.
//! Promise: says how many keys there are while they are pasted, and after the search which of them no context has; a newer list
//! abandons the check of an older one.

import { copyButton, h, icon, replace, setText, titledDialog } from "./dom.js";
import { count, plural } from "./format.js";
import { absentKeys, KEYS_MAX, readKeys } from "./keylist.js";

const SHOWN_MAX = 1000;
/// Browsers insert what is longer line by line, which takes them minutes for 10,000 lines.
const PASTED_LETTERS_MAX = 2000;

export class KeyDialog {
  constructor({ place, onkeys }) {
    Object.assign(this, { place, onkeys });
    this.text = h("textarea", { class: "text-input keys-text", "aria-label": "Keys, one a line", "aria-describedby": "keys-count", rows: "10", spellcheck: "false", autocomplete: "off", autocapitalize: "off", oninput: () => this.tell(), onpaste: (event) => this.paste(event), onkeydown: (event) => this.key(event) });
    this.note = h("p", { id: "keys-count", class: "muted number", role: "status" });
    this.search = h("button", { type: "submit", class: "button primary" }, "Search");
    this.absent = h("section", { class: "keys-absent" });
    const form = h("form", { class: "keys-form", onsubmit: (event) => (event.preventDefault(), this.submit()) }, this.text, this.note, this.search);
    const hint = h("p", { class: "muted small-text" }, "One key a line, or the cells of a spreadsheet; a single line is cut at its commas. A short list is part of the page's address; a long one is kept in this tab alone.");
    this.node = titledDialog({ name: "keys", title: "Look up a list of keys" }, null, form, this.absent, hint);
    this.status = h("span", { role: "status" });
    const open = h("button", { type: "button", class: "link", "aria-haspopup": "dialog", onclick: () => this.open() }, "Show the list");
    const remove = h("button", { type: "button", class: "icon-button", "aria-label": "Search without the list of keys", title: "Search without the list", onclick: () => this.onkeys([]) }, icon("close"));
    this.line = h("p", { class: "keys-line", hidden: true }, this.status, open, remove);
  }

  open() {
    this.text.value = (this.keys ?? []).join("\n");
    this.tell();
    this.node.showModal();
    this.text.focus();
    this.text.select();
  }

  tell() {
    const { keys, repeated } = readKeys(this.text.value);
    const tooMany = keys.length > KEYS_MAX;
    const more = tooMany ? `: at most ${count(KEYS_MAX)} can be looked up at once` : repeated > 0 ? `, ${count(repeated)} more are repeated` : "";
    setText(this.note, keys.length === 0 ? "Paste up to 10,000 keys." : `${plural(keys.length, "distinct key")}${more}`);
    this.note.classList.toggle("fault-message", tooMany);
    this.search.disabled = tooMany || (keys.length === 0 && !this.keys);
    setText(this.search, keys.length === 0 && this.keys ? "Search without a list" : "Search");
    this.drawAbsent();
  }

  paste(event) {
    const pasted = event.clipboardData?.getData("text/plain") ?? "";
    if (pasted.length <= PASTED_LETTERS_MAX) return;
    event.preventDefault();
    this.text.setRangeText(pasted, this.text.selectionStart, this.text.selectionEnd, "end");
    this.tell();
  }

  key(event) {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    if (!this.search.disabled) this.submit();
  }

  submit() {
    this.node.close();
    this.onkeys(readKeys(this.text.value).keys);
  }

  /// `keys`: of the search on the screen, `null` without a list. `again`: what is there may have changed.
  async show(keys, again = false) {
    const known = this.shown === (keys && keys.join("\n"));
    if (known && !again) return;
    this.shown = keys && keys.join("\n");
    this.keys = keys;
    this.missing = [];
    this.running?.abort();
    this.line.hidden = keys === null;
    if (keys === null) return;
    const running = new AbortController();
    this.running = running;
    if (!known) setText(this.status, `Only the ${plural(keys.length, "key")} of a list`);
    try {
      const { absent } = await absentKeys(this.place, keys, running.signal);
      this.missing = absent;
      const rest = absent.length === 0 ? ", all of which are there" : `, ${plural(absent.length, "of them", "of them")} ${absent.length === 1 ? "is" : "are"} not there`;
      setText(this.status, `Only the ${plural(keys.length, "key")} of a list${rest}`);
    } catch (error) {
      if (running.signal.aborted) return;
      setText(this.status, `Only the ${plural(keys.length, "key")} of a list; which of them are not there could not be found out: ${error.message}`);
    }
    if (this.node.open) this.drawAbsent();
  }

  leave() {
    this.running?.abort();
    this.shown = undefined;
  }

  drawAbsent() {
    const missing = this.missing ?? [];
    const isShown = missing.length > 0 && readKeys(this.text.value).keys.join("\n") === this.shown;
    if (!isShown) return replace(this.absent);
    const rest = missing.length - SHOWN_MAX;
    const text = missing.slice(0, SHOWN_MAX).join("\n") + (rest > 0 ? `\n… and ${count(rest)} more` : "");
    replace(this.absent, h("h3", {}, `Not there: ${plural(missing.length, "key")}`), h("div", { class: "code-block" }, copyButton(() => missing.join("\n"), "the missing keys"), h("pre", { tabindex: "0" }, h("code", {}, text))));
  }
}
