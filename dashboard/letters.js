//! The dead letters: what could not be read, why, and its bytes.
//!
//! In: `/api/tidegate/dead-letters`. Out: an element that the pipeline view refreshes; a dialog for one letter.

import { deadLetter, deadLetters } from "./api.js";
import { copyButton, h, icon, replace, timeAgo } from "./dom.js";
import { positionOfByte } from "./filter.js";
import { clock, count, parseTime, plural, UNKNOWN } from "./format.js";

const LISTED = 50;

export class DeadLetters {
  constructor() {
    this.list = h("div", {}, h("p", { class: "muted" }, "Reading…"));
    this.dialogBody = h("div", { class: "dialog-body" });
    this.dialog = h("dialog", { class: "dialog letter-dialog", "aria-labelledby": "letter-title", onclick: (event) => event.target === this.dialog && this.dialog.close() }, this.dialogBody);
    this.node = h("section", { class: "panel" }, h("h2", {}, "Dead letters"), this.list, this.dialog);
    this.shown = null;
  }

  async refresh(signal) {
    try {
      const { items } = await deadLetters(LISTED, signal);
      const ids = items.map(({ id }) => id).join(" ");
      // Rebuilding an unchanged list would take the focus and a selection away every two seconds.
      if (ids === this.shown) return;
      this.shown = ids;
      replace(this.list, items.length === 0 ? nothing() : this.table(items));
    } catch (error) {
      if (signal.aborted) return;
      this.shown = null;
      replace(this.list, h("p", { class: "muted" }, `They could not be read: ${error.message}`));
    }
  }

  table(items) {
    const head = ["Received", "Reason", "What", "Environment"].map((name) => h("th", { scope: "col" }, name));
    return h(
      "div",
      { class: "table-scroll", role: "region", "aria-label": "Dead letters", tabindex: "0" },
      h("table", { class: "results letters" }, h("caption", { class: "visually-hidden" }, items.length === LISTED ? `The newest ${LISTED}` : plural(items.length, "dead letter")), h("thead", {}, h("tr", {}, head)), h("tbody", {}, items.map((item) => this.row(item)))),
    );
  }

  row(letter) {
    const open = h("button", { type: "button", class: "link", onclick: () => this.open(letter.id) }, letter.reason);
    const environment = [letter.project, letter.environment].filter(Boolean).join(" / ") || UNKNOWN;
    return h(
      "tr",
      { onclick: (event) => event.target.closest("button") === null && String(getSelection()) === "" && this.open(letter.id) },
      h("td", { "data-label": "Received", class: "column-time" }, timeAgo(letter.receivedAt)),
      h("th", { scope: "row", class: "identity" }, open),
      h("td", { "data-label": "What", class: "letter-message" }, h("bdi", {}, letter.message ?? ""), h("code", { class: "letter-preview" }, letter.bodyPreview ?? "")),
      h("td", { "data-label": "Environment" }, h("bdi", {}, environment)),
    );
  }

  async open(id) {
    const close = h("button", { type: "button", class: "icon-button", "aria-label": "Close", onclick: () => this.dialog.close() }, icon("close"));
    const head = h("header", { class: "dialog-head" }, h("h2", { id: "letter-title" }, "Dead letter"), close);
    replace(this.dialogBody, head, h("p", { class: "muted" }, "Reading…"));
    this.dialog.showModal();
    try {
      const letter = await deadLetter(id);
      replace(this.dialogBody, head, facts(letter), h("h3", {}, "Body"), body(letter), headers(letter.headers));
    } catch (error) {
      replace(this.dialogBody, head, h("p", { class: "muted" }, error.message));
    }
  }
}

function nothing() {
  return h("p", { class: "muted" }, "None. Everything that arrived could be read.");
}

function facts(letter) {
  const received = parseTime(letter.receivedAt);
  const rows = [
    ["Reason", letter.reason],
    ["Message", letter.message],
    ["At byte", letter.byteOffset === undefined || letter.byteOffset === null ? null : count(letter.byteOffset)],
    ["Received", received && clock(received)],
    ["Path", letter.path],
    ["Environment", [letter.project, letter.environment].filter(Boolean).join(" / ")],
    ["Payload", letter.payloadId],
    ["Place in payload", letter.payloadIndex],
    ["Id", letter.id],
  ];
  return h("dl", { class: "facts" }, rows.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => h("div", { class: "fact" }, h("dt", {}, name), h("dd", { class: "break" }, h("bdi", {}, String(value))))));
}

// Text with its bad byte marked; bytes that are no text are shown as they came, in base64.
function body({ body: text, bodyBase64, byteOffset }) {
  if (typeof text !== "string") return bodyBase64 ? codeBlock(bodyBase64, "body in base64", [bodyBase64]) : h("p", { class: "muted" }, "The body is empty.");
  const at = typeof byteOffset === "number" ? positionOfByte(text, byteOffset) : null;
  const marked = at === null || at > text.length ? [text] : [text.slice(0, at), h("mark", {}, text.slice(at, at + 1) || "⎵"), text.slice(at + 1)];
  return codeBlock(text, "body", marked);
}

function codeBlock(text, what, content) {
  return h("div", { class: "code-block" }, copyButton(() => text, what), h("pre", { tabindex: "0" }, h("code", {}, content)));
}

// Headers come as an object, a list of pairs, or the JSON text of one of them.
function headers(given) {
  let parsed = given;
  try {
    if (typeof given === "string") parsed = JSON.parse(given);
  } catch {
    return h("pre", {}, given);
  }
  if (parsed === null || typeof parsed !== "object") return null;
  const pairs = Array.isArray(parsed) ? parsed.map((pair) => (Array.isArray(pair) ? pair : [pair.name, pair.value])) : Object.entries(parsed);
  return [h("h3", {}, "Headers"), h("table", { class: "attributes" }, h("tbody", {}, pairs.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, h("bdi", {}, String(value)))))))];
}
