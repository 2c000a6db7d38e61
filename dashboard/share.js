//! The search on the screen for other places: as a link, as a call of the search API, as a filter in code.
//!
//! In: the question as it was sent. Out: text to copy. The API token is never in it: a placeholder stands in its place.

import { copyButton, h, replace, titledDialog } from "./dom.js";
import { plural } from "./format.js";

export const TOKEN_PLACEHOLDER = "YOUR_API_TOKEN";

/// A shell takes 128 KiB and more.
const COMMAND_LETTERS_MAX = 20000;

/// A `curl` line for a POSIX shell.
export function curlOf(url, search) {
  return ["curl", `  -H ${quoted(`Authorization: ${TOKEN_PLACEHOLDER}`)}`, `  -H ${quoted("Content-Type: application/json")}`, `  -d ${quoted(JSON.stringify(search))}`, `  ${quoted(url)}`].join(" \\\n");
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export class ShareDialog {
  /// `question()`: `{url, search}` with the path and the body of the search.
  constructor({ question }) {
    this.question = question;
    this.body = h("div", { class: "share-body" });
    this.node = titledDialog({ name: "share", title: "Use this search elsewhere" }, null, this.body);
  }

  open() {
    const { url, search: whole } = this.question();
    const origin = location.origin;
    const filter = whole.filter ?? "";
    const isLong = JSON.stringify(whole.keys ?? []).length > COMMAND_LETTERS_MAX;
    const search = isLong ? { ...whole, keys: ["PUT_THE_KEYS_HERE"] } : whole;
    const keys = isLong ? ` The ${plural(whole.keys.length, "key")} of the list do not fit into a command line: they go into keys.` : "";
    replace(
      this.body,
      block("API call", curlOf(origin + url, search), `Put an API token in the place of ${TOKEN_PLACEHOLDER}.${keys}`),
      filter === "" ? h("p", { class: "muted" }, "Without a filter there is nothing to copy into code.") : block("SDK filter", JSON.stringify(filter), "The filter as text of JSON, which most languages take as it is: the value of filter in the API clients."),
      block("Link", location.href, isLong ? "The address of this page holds the search without the list of keys, which is too long for an address." : "The address of this page holds the whole search."),
    );
    this.node.showModal();
    this.body.querySelector("button").focus();
  }
}

function block(title, text, hint) {
  return h("section", {}, h("h3", {}, title), h("div", { class: "code-block" }, copyButton(() => text, title), h("pre", { tabindex: "0" }, h("code", {}, text))), h("p", { class: "muted small-text" }, hint));
}
