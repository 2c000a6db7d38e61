//! What is wrong with a filter, said and shown at its place.
//!
//! In: the error of the server, whose message ends with a byte offset of the filter. Out: an element below the filter box, a mark
//! in the box itself.

import { h, replace } from "./dom.js";

const BEFORE = 40;
const BEHIND = 30;

export class FaultLine {
  /// `box`: the `FilterBox`; `searchAsText()` searches for the text as it stands.
  constructor({ box, searchAsText }) {
    this.box = box;
    this.searchAsText = searchAsText;
    this.node = h("div", { id: "filter-error", class: "fault", role: "alert" });
  }

  clear() {
    replace(this.node);
  }

  show(error, filter) {
    const offset = faultOffset(error);
    const at = offset === null ? null : this.box.markFault(offset);
    const go = at === null ? null : h("button", { type: "button", class: "button small", onclick: () => this.box.goTo(at) }, "Show the place");
    const asText = h("button", { type: "button", class: "button small", onclick: () => this.searchAsText() }, "Search for it as text");
    replace(this.node, h("p", { class: "fault-message" }, error.message), at === null ? null : excerpt(filter, at, this.box.faultEnd), h("div", { class: "fault-actions" }, go, asText));
    if (at !== null && document.activeElement === this.box.input) this.box.input.setSelectionRange(at, at);
  }
}

/// The message may name other places on its way to the one at its end.
export function faultOffset({ message }) {
  const offset = [...message.matchAll(/\boffset (\d+)/g)].at(-1)?.[1];
  return offset === undefined ? null : Number(offset);
}

function excerpt(filter, at, end) {
  const [from, to] = [Math.max(0, at - BEFORE), Math.min(filter.length, end + BEHIND)];
  const fault = filter.slice(at, end);
  return h("code", { class: "fault-place" }, from > 0 ? "…" : "", filter.slice(from, at), h("mark", {}, fault === "" ? "⎵" : fault), filter.slice(end, to), to < filter.length ? "…" : "");
}
