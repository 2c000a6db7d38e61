//! The builder: the filter as rows to click together, in step with the text of the filter box.
//!
//! In: the text, at every edit of it. Out: `ontext(text)` at every edit of a row, `onsearch()` when a value is settled.
//! Promise: text that the rows already say is not redrawn, so that a half-filled row and the focus survive; text that is no
//! filter leaves nothing to edit and says why; what does not fit into rows is shown as text and kept.
//! Not here: one row (`row`), how a filter is read and written (`draft`).

import { besides, emptyRow, isGroup, isRow, otherJoiner, readDraft, withRow, writeDraft } from "./draft.js";
import { h, icon, replace } from "./dom.js";
import { interpret, scan } from "./filter.js";
import { BuilderRow } from "./row.js";

const WORDS = { all: "and", any: "or" };

export class Builder {
  /// `filterOf(text)`: the filter that free text is searched with.
  constructor({ suggestions, ontext, onsearch, filterOf }) {
    Object.assign(this, { suggestions, ontext, onsearch, filterOf });
    this.text = null;
    this.draft = { joiner: "all", parts: [] };
    this.rows = h("div", { class: "builder-rows" });
    this.note = h("p", { class: "muted builder-note", hidden: true });
    const add = (label, title, act) => h("button", { type: "button", class: "button small", title, onclick: act }, icon("plus"), label);
    this.addRow = add("Condition", "Add a condition", () => this.add());
    this.addGroup = add("Group", "Add conditions of which another combination counts, as (a or b) and c", () => this.addOther());
    this.node = h("div", { class: "builder", role: "group", "aria-label": "Filter as rows" }, this.note, this.rows, h("div", { class: "builder-actions" }, this.addRow, this.addGroup));
  }

  /// Brings the rows in step with the text.
  show(text) {
    if (text === this.text) return;
    this.text = text;
    const draft = readDraft(text);
    this.showNote(text, draft);
    if (draft === null) return replace(this.rows);
    if (this.rows.hasChildNodes() && writeDraft(draft) === writeDraft(this.draft)) return;
    this.draft = draft;
    this.draw();
  }

  showNote(text, draft) {
    const free = draft === null && interpret(text).type === "text";
    const fault = draft === null && !free ? scan(text).error?.message ?? "it is too long" : "";
    replace(this.note, free ? "The text above is no filter and is searched as it is. Add a condition to narrow it." : fault && `The text above cannot be shown as rows yet: ${fault}.`);
    this.note.hidden = draft !== null;
    this.addRow.disabled = this.addGroup.disabled = fault !== "";
    this.addGroup.hidden = draft !== null && draft.parts.length === 0;
  }

  // Free text stays in force: what is added narrows it.
  current() {
    if (readDraft(this.text ?? "") !== null) return this.draft;
    return readDraft(this.filterOf(this.text)) ?? { joiner: "all", parts: [] };
  }

  add(group = null) {
    const row = emptyRow();
    if (group) group.parts.push(row);
    else this.draft = this.draft === this.current() ? { ...this.draft, parts: [...this.draft.parts, row] } : withRow(this.current(), row);
    this.changed(row);
  }

  addOther() {
    const row = emptyRow();
    this.draft = { ...this.current(), parts: [...this.current().parts, { parts: [row, emptyRow()] }] };
    this.changed(row);
  }

  // Draws anew, puts the focus where the person goes on, and tells the text.
  changed(focus) {
    this.draw();
    if (focus) this.drawn.find(({ part }) => part === focus)?.view.focus();
    this.tell();
  }

  tell() {
    this.text = writeDraft(this.draft);
    this.showNote(this.text, this.draft);
    this.ontext(this.text);
  }

  remove(part, from) {
    const at = this.drawn.findIndex((entry) => entry.part === part);
    const kept = from.parts.filter((other) => other !== part);
    from.parts = kept;
    this.draft.parts = this.draft.parts.filter((other) => !isGroup(other) || other.parts.length > 0);
    this.changed(null);
    (this.drawn[at] ?? this.drawn[at - 1])?.removal.focus();
    if (this.drawn.length === 0) this.addRow.focus();
    this.onsearch();
  }

  draw() {
    this.drawn = [];
    const { joiner, parts } = this.draft;
    replace(this.rows, parts.map((part, index) => h("div", { class: "builder-part" }, this.joint(index), isGroup(part) ? this.group(part, otherJoiner(joiner)) : this.part(part, this.draft))));
    this.addGroup.hidden = parts.length === 0;
    for (const [index, { view }] of this.drawn.entries()) view.label = `Condition ${index + 1}`;
  }

  // The first joint says how all of them are; groups are joined the other way round.
  joint(index) {
    const { joiner } = this.draft;
    if (index !== 1) return h("span", { class: "joint" }, index === 0 ? "where" : WORDS[joiner]);
    const choose = () => {
      this.draft.joiner = control.value;
      this.changed(null);
      this.rows.querySelector(".joint select").focus();
      this.onsearch();
    };
    const control = h("select", { "aria-label": "Combine conditions by", onchange: choose }, Object.entries(WORDS).map(([value, word]) => h("option", { value }, word)));
    control.value = joiner;
    return h("span", { class: "joint select" }, control);
  }

  group(group, joiner) {
    const parts = group.parts.map((part, index) => h("div", { class: "builder-part" }, h("span", { class: "joint" }, index === 0 ? "" : WORDS[joiner]), this.part(part, group)));
    const add = h("button", { type: "button", class: "button small", onclick: () => this.add(group) }, icon("plus"), "Condition in this group");
    return h("div", { class: "builder-group", role: "group", "aria-label": `Group, joined by ${WORDS[joiner]}` }, parts, h("div", { class: "builder-actions" }, add));
  }

  part(part, from) {
    const onremove = () => this.remove(part, from);
    const view = isRow(part) ? new BuilderRow({ row: part, suggestions: this.suggestions, within: () => besides(this.draft, part), onedit: () => this.tell(), oncommit: () => this.onsearch(), onremove }) : new KeptText(part, onremove);
    this.drawn.push({ part, view, removal: view.node.querySelector(".row-remove") });
    return view.node;
  }
}

class KeptText {
  constructor({ text }, onremove) {
    const remove = h("button", { type: "button", class: "icon-button row-remove", "aria-label": "Remove this condition", title: "Remove this condition", onclick: onremove }, icon("close"));
    this.node = h("div", { class: "row kept", role: "group" }, h("div", { class: "kept-text" }, h("code", {}, text), h("span", { class: "muted" }, "Too deep for rows: change it in the text above")), remove);
  }

  set label(text) {
    this.node.setAttribute("aria-label", text);
  }

  focus() {
    this.node.querySelector(".row-remove").focus();
  }
}
