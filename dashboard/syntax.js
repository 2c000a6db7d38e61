//! The short course in the filter language that the search offers, with examples to try.

import { h } from "./dom.js";

const EXAMPLES = ['kind equals "user"', "user.plan equals gold", 'user.plan anyOf ["gold","silver"], user.beta equals true', "user.email exists false", "user./address/city startsWith rec", "device.os startsWith ios | kind equals org"];

/// `use(text)` is called with the example that was clicked.
export function syntaxHelp(use) {
  const example = (text) => h("li", {}, h("button", { type: "button", class: "example", onclick: () => use(text) }, h("code", {}, text)));
  return h(
    "details",
    { class: "syntax" },
    h("summary", {}, "How to write a filter"),
    h("p", {}, h("code", {}, "field operator value"), ", joined by a comma for ", h("em", {}, "and"), ", by ", h("code", {}, "|"), " for ", h("em", {}, "or"), ", grouped by parentheses. A field is ", h("code", {}, "kind.attribute"), ", ", h("code", {}, "*.attribute"), " for any kind, or ", h("code", {}, "kind./nested/name"), ". Text with blanks needs quotes. Anything that is no filter is searched as text."),
    h("ul", { class: "examples" }, EXAMPLES.map(example)),
  );
}
