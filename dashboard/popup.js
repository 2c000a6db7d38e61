//! A list of suggestions under a text field: the listbox half of the ARIA combobox pattern.
//!
//! In: options `{type, label, detail, hint, …}`, keys of the text field. Out: the option that was taken.
//! Promise: the focus stays in the text field; the active option is announced through it; a list that arrives late does not move
//! the choice that the person has already made.
//! Not here: what to suggest (`suggest`), what taking an option does to the text (`combobox`, `pick`).

import { h, replace, setText } from "./dom.js";

let made = 0;

export class OptionList {
  /// `input`: the combobox; `take(index)` is called when an option is clicked.
  constructor({ input, label, take, id = `options-${(made += 1)}`, legend }) {
    this.input = input;
    this.takeOption = take;
    this.id = id;
    this.options = [];
    this.active = -1;
    this.list = h("ul", { id, class: "filter-options", role: "listbox", "aria-label": label });
    this.announcement = h("div", { class: "visually-hidden", role: "status", "aria-live": "polite" });
    // Pressing the mouse on the list must not take the focus out of the field.
    this.node = h("div", { class: "filter-popup", hidden: true, onmousedown: (event) => event.preventDefault() }, this.list, legend);
    for (const [name, value] of [["role", "combobox"], ["aria-autocomplete", "list"], ["aria-expanded", "false"], ["aria-controls", id]]) input.setAttribute(name, value);
  }

  get open() {
    return !this.node.hidden;
  }

  offer(options, typed) {
    const chosen = this.options[this.active]?.insert;
    this.options = options;
    this.active = chosen === undefined ? -1 : options.findIndex(({ insert }) => insert === chosen);
    if (options.length === 0 || document.activeElement !== this.input) return this.close();
    replace(this.list, options.map((option, index) => this.row(option, index, typed)));
    this.node.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    setText(this.announcement, `${options.length} suggestion${options.length === 1 ? "" : "s"}`);
    this.highlight(this.active);
  }

  row(option, index, typed) {
    return h(
      "li",
      { id: `${this.id}-${index}`, class: "filter-option", role: "option", "aria-selected": "false", title: option.hint, onclick: () => this.takeOption(index), onmousemove: () => this.active !== index && this.highlight(index, false) },
      h("span", { class: `option-type option-${option.type}`, "aria-hidden": "true" }),
      h("span", { class: "option-label" }, ...emphasise(option.label, typed)),
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

  /// One step down or up; -1 is the text field itself, between the last and the first option.
  move(down) {
    const last = this.options.length - 1;
    const next = this.active + (down ? 1 : -1);
    this.highlight(next > last ? -1 : next < -1 ? last : next);
  }

  close() {
    this.node.hidden = true;
    this.options = [];
    this.active = -1;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
    setText(this.announcement, "");
  }
}

function emphasise(label, typed) {
  const at = typed === "" ? -1 : label.toLowerCase().indexOf(typed.toLowerCase());
  if (at === -1) return [label];
  return [label.slice(0, at), h("b", {}, label.slice(at, at + typed.length)), label.slice(at + typed.length)];
}
