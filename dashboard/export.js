//! The contexts of the search on the screen as a file: CSV, NDJSON or Parquet, with the columns of the table.
//!
//! In: the question as it was sent, the chosen columns. Out: a file that the browser saves.
//! Promise: a file is saved only when it is whole. Parts that have come are kept, so that a broken connection costs the part under
//! way: "Try again" goes on from there. Parquet comes in one piece, as its end belongs to the whole file.

import { exportContexts } from "./api.js";
import { h, icon, replace, setText, titledDialog } from "./dom.js";
import { count, plural } from "./format.js";

const PART_ROWS = 20000;
const OWN = ["kind", "key"];
const FORMATS = [
  ["csv", "CSV", "For spreadsheets: texts as they are, all other values as JSON."],
  ["ndjson", "NDJSON", "One JSON object a line; numbers, lists and objects stay what they are."],
  ["parquet", "Parquet", "For DuckDB, Polars, Spark: texts as they are, all other values as JSON."],
];

const FIELDS = ["kind", "key", "lastSeen", "applicationId", "context"];

/// A pointer to a top-level attribute as its name, unless that means something else.
function plainName(column) {
  const [, name] = /^\/([^/~.*]+)$/.exec(column) ?? [];
  return name === undefined || FIELDS.includes(name) ? column : name;
}

export class ExportDialog {
  /// `question()`: `{place, filter, keys, columns}`.
  constructor({ question }) {
    this.question = question;
    this.body = h("div", { class: "export-body" });
    this.node = titledDialog({ name: "export", title: "Export all matches", onclose: () => this.stop() }, null, this.body);
  }

  open() {
    const { filter, keys, columns } = this.question();
    this.columns = [...OWN, ...columns.map(plainName).filter((column) => !OWN.includes(column))];
    const choices = FORMATS.map(([value, name, hint], number) => {
      const input = h("input", { type: "radio", name: "export-format", value, checked: number === 0 });
      return h("label", { class: "export-format" }, input, h("span", {}, name, h("span", { class: "muted small-text" }, hint)));
    });
    const form = h(
      "form",
      { onsubmit: (event) => (event.preventDefault(), this.begin(new FormData(form).get("export-format"))) },
      h("p", {}, filter === "" ? "Every context of this environment" : ["Every context that matches ", h("code", {}, filter)], keys ? ` and has one of the ${plural(keys.length, "key")} of the list` : "", ", with the columns ", h("code", {}, this.columns.join(", ")), "."),
      h("fieldset", { class: "export-formats" }, h("legend", { class: "visually-hidden" }, "Format"), choices),
      h("button", { type: "submit", class: "button primary" }, "Export"),
    );
    replace(this.body, form);
    this.node.showModal();
    form.querySelector("input").focus();
  }

  begin(format) {
    const { place, filter, keys } = this.question();
    this.work = { place, body: { filter: filter || undefined, keys: keys ?? undefined, columns: this.columns, format }, parts: [], rows: 0, total: null, token: undefined, type: "" };
    this.bar = h("progress", { class: "export-progress", "aria-label": "Progress of the export" });
    this.status = h("p", { class: "muted number", role: "status" }, "Waiting for the first rows");
    this.actions = h("p", { class: "export-actions" });
    replace(this.body, this.bar, this.status, this.actions);
    this.run();
  }

  async run() {
    const running = new AbortController();
    this.running = running;
    const cancel = h("button", { type: "button", class: "button", onclick: () => this.node.close() }, "Cancel");
    replace(this.actions, cancel);
    cancel.focus();
    try {
      await this.fetchParts(running.signal);
      this.save();
    } catch (error) {
      if (!running.signal.aborted) this.fail(error);
    }
  }

  async fetchParts(signal) {
    const { work } = this;
    const inParts = work.body.format !== "parquet";
    do {
      const body = { ...work.body, limit: inParts ? PART_ROWS : undefined, continuationToken: work.token };
      const { rows, headers } = await exportContexts(work.place, body, signal, (bytes) => this.tell(bytes));
      const number = (name) => (headers.has(name) ? Number(headers.get(name)) : null);
      work.parts.push(rows);
      work.type = headers.get("Content-Type");
      work.total ??= number("X-Tidegate-Total-Count");
      work.rows += number("X-Tidegate-Row-Count") ?? work.total ?? 0;
      work.token = headers.get("X-Tidegate-Continuation-Token");
      this.tell(0);
    } while (work.token !== null);
  }

  /// `bytes`: of the part under way.
  tell(bytes) {
    const { rows, total, body } = this.work;
    if (body.format === "parquet") return setText(this.status, `${count(Math.round(bytes / 1024))} KiB so far`);
    if (total !== null && total > 0) {
      this.bar.max = total;
      this.bar.value = Math.min(rows, total);
    }
    setText(this.status, total === null ? plural(rows, "context") : `${count(rows)} of ${plural(Math.max(rows, total), "context")}`);
  }

  save() {
    const { parts, rows, type, body } = this.work;
    const link = h("a", { download: `contexts.${body.format}` });
    link.href = URL.createObjectURL(new Blob(parts, { type }));
    link.click();
    // The browser reads it from here on by itself.
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    this.work = null;
    this.bar.max = 1;
    this.bar.value = 1;
    setText(this.status, `${plural(rows, "context")} saved as contexts.${body.format}`);
    const done = h("button", { type: "button", class: "button primary", onclick: () => this.node.close() }, "Done");
    replace(this.actions, done);
    done.focus();
  }

  fail(error) {
    setText(this.status, `${error.message} ${plural(this.work.rows, "context")} are here already.`);
    const again = h("button", { type: "button", class: "button primary", onclick: () => this.run() }, icon("refresh"), "Try again");
    replace(this.actions, again);
    again.focus();
  }

  stop() {
    this.running?.abort();
    this.work = null;
  }
}
