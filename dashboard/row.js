//! One row of the builder: field, operator, value. Lists are shown as chips.
//!
//! In: a `Row` of a draft, which it changes in place, and `Suggestions`. Out: `onedit()` at every change, `oncommit()` when the
//! person is done with a value, `onremove()`.
//! Not here: what the rows mean together (`builder`), how they are written (`draft`).

import { h, icon, replace } from "./dom.js";
import { LIST_OPERATORS, readValue, showValue } from "./draft.js";
import { operatorsOf, unquote } from "./filter.js";
import { PickField } from "./pick.js";

const OPERATOR_WORDS = {
  equals: "equals",
  notEquals: "does not equal",
  anyOf: "is any of",
  contains: "contains all of",
  startsWith: "starts with",
  exists: "exists",
  before: "is at or before",
  after: "is at or after",
};

const PLACEHOLDERS = { before: "2026-01-31T00:00:00Z", after: "2026-01-31T00:00:00Z", anyOf: "add a value", contains: "add a value" };

export class BuilderRow {
  /// `within()`: the filter of what else must hold, which narrows the suggestions.
  constructor({ row, suggestions, within, onedit, oncommit, onremove }) {
    Object.assign(this, { row, suggestions, within, onedit, oncommit });
    this.field = new PickField({
      label: "Field",
      placeholder: "Field, like user.plan",
      look: (typed, signal) => this.fieldsFor(typed, signal),
      onedit: (text) => this.nameField(text.trim()),
      ontake: (option) => this.takeField(option),
      onenter: () => this.valueFocus(),
    });
    this.field.show(row.field);
    this.operator = h("select", { "aria-label": "Operator", onchange: () => this.chooseOperator() });
    this.value = h("div", { class: "row-value" });
    const remove = h("button", { type: "button", class: "icon-button row-remove", "aria-label": "Remove this condition", title: "Remove this condition", onclick: onremove }, icon("close"));
    this.node = h("div", { class: "row", role: "group" }, this.field.node, h("span", { class: "select row-operator" }, this.operator), this.value, remove);
    this.drawOperators();
    this.drawValue();
  }

  set label(text) {
    this.node.setAttribute("aria-label", text);
  }

  focus() {
    this.field.input.focus();
  }

  fieldsFor(typed, signal) {
    const slot = { slot: "field", typed, within: this.within() };
    return [this.suggestions.local(slot), () => this.suggestions.remote(slot, signal)];
  }

  nameField(field) {
    this.row.field = field;
    this.drawOperators();
    this.onedit();
  }

  takeField(option) {
    this.field.show(unquote(option.label));
    this.nameField(this.field.text);
    this.valueFocus();
  }

  // An operator that does not fit the field stays: the server says so, at its place.
  drawOperators() {
    const fitting = operatorsOf(this.row.field);
    const listed = fitting.includes(this.row.operator) ? fitting : [...fitting, this.row.operator];
    replace(this.operator, listed.map((name) => h("option", { value: name }, OPERATOR_WORDS[name])));
    this.operator.value = this.row.operator;
  }

  chooseOperator() {
    const { row } = this;
    const before = row.operator;
    row.operator = this.operator.value;
    if (row.operator === "exists") row.values = ["true"];
    else if (before === "exists") row.values = [];
    else if (!LIST_OPERATORS.includes(row.operator)) row.values = row.values.slice(0, 1);
    this.drawValue();
    this.onedit();
    if (row.values.length > 0) this.oncommit();
  }

  drawValue() {
    this.pick = null;
    if (this.row.operator === "exists") replace(this.value, this.yesOrNo());
    else if (LIST_OPERATORS.includes(this.row.operator)) this.drawList();
    else this.drawSingle();
  }

  valueFocus() {
    (this.pick?.input ?? this.value.querySelector("select"))?.focus();
  }

  yesOrNo() {
    const control = h("select", { "aria-label": "Value", onchange: () => this.setValues([control.value], true) }, h("option", { value: "true" }, "yes"), h("option", { value: "false" }, "no"));
    control.value = this.row.values[0] ?? "true";
    return h("span", { class: "select" }, control);
  }

  setValues(values, committed) {
    this.row.values = values;
    this.onedit();
    if (committed) this.oncommit();
  }

  valuePick(options) {
    return new PickField({ label: "Value", placeholder: PLACEHOLDERS[this.row.operator] ?? "Value", look: (typed, signal) => this.valuesFor(typed, signal), onenter: () => this.oncommit(), ...options });
  }

  valuesFor(typed, signal) {
    const { field, operator } = this.row;
    if (field === "") return [[], async () => null];
    const slot = { slot: "value", field, operator, typed: typed.startsWith('"') ? unquote(typed) : typed, list: false, quoted: false, within: this.within() };
    return [this.suggestions.local(slot), () => this.suggestions.remote(slot, signal)];
  }

  drawSingle() {
    const one = (json) => (json === "" ? [] : [json]);
    const pick = this.valuePick({
      onedit: (text) => this.setValues(one(readValue(text)), false),
      ontake: (option) => {
        pick.show(showValue(JSON.stringify(option.given)));
        this.setValues([JSON.stringify(option.given)], true);
      },
    });
    pick.input.addEventListener("change", () => this.oncommit());
    pick.show(this.row.values.length > 0 ? showValue(this.row.values[0]) : "");
    this.pick = pick;
    replace(this.value, pick.node);
  }

  drawList() {
    const chips = h("ul", { class: "chips", "aria-label": "Values" });
    const add = (json) => {
      if (json !== "" && !this.row.values.includes(json)) this.setValues([...this.row.values, json], true);
      pick.show("");
      draw();
    };
    const remove = (index) => {
      this.setValues(this.row.values.filter((_, at) => at !== index), true);
      draw();
      pick.input.focus();
    };
    const draw = () => {
      chips.hidden = this.row.values.length === 0;
      replace(chips, this.row.values.map((json, index) => chip(showValue(json), () => remove(index))));
    };
    const pick = this.valuePick({
      onedit: () => {},
      ontake: (option) => add(JSON.stringify(option.given)),
      onenter: () => (pick.text.trim() === "" ? this.oncommit() : add(readValue(pick.text))),
      onback: () => this.row.values.length > 0 && remove(this.row.values.length - 1),
    });
    // Text that was typed and left is meant.
    pick.input.addEventListener("change", () => add(readValue(pick.text)));
    this.pick = pick;
    draw();
    replace(this.value, h("div", { class: "row-list" }, chips, pick.node));
  }
}

function chip(text, remove) {
  return h("li", { class: "chip" }, h("bdi", { title: text.length > 24 ? text : null }, text), h("button", { type: "button", "aria-label": `Remove ${text}`, onclick: remove }, icon("close")));
}
