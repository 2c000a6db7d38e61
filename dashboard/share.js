//! The search on the screen for other places: as a link, as a call of the search API, as a filter in code.
//!
//! In: the question as it was sent. Out: text to copy. The API token is never in it: a placeholder stands in its place.

import { copyButton, h, replace, titledDialog } from "./dom.js";

export const TOKEN_PLACEHOLDER = "YOUR_API_TOKEN";

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
    const { url, search } = this.question();
    const origin = location.origin;
    const filter = search.filter ?? "";
    replace(
      this.body,
      block("API call", curlOf(origin + url, search), `Put an API token in the place of ${TOKEN_PLACEHOLDER}.`),
      filter === "" ? h("p", { class: "muted" }, "Without a filter there is nothing to copy into code.") : block("SDK filter", JSON.stringify(filter), "The filter as text of JSON, which most languages take as it is: the value of filter in the API clients."),
      block("Link", location.href, "The address of this page holds the whole search."),
    );
    this.node.showModal();
    this.body.querySelector("button").focus();
  }
}

function block(title, text, hint) {
  return h("section", {}, h("h3", {}, title), h("div", { class: "code-block" }, copyButton(() => text, title), h("pre", { tabindex: "0" }, h("code", {}, text))), h("p", { class: "muted small-text" }, hint));
}
