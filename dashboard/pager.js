//! Steps through the pages of an answer, forward by its token and back by the tokens that led here.
//!
//! In: the search state, the answer's token, the trail of tokens. Out: `turn(change, trail)` with the state of another page.
//! A link that was opened in the middle does not know the pages before it; then back leads to the first one.

import { h, icon, setText } from "./dom.js";
import { count } from "./format.js";

export class Pager {
  constructor({ turn }) {
    this.turn = turn;
    this.previous = pagerButton("Previous", "back", () => this.goBack());
    this.next = pagerButton("Next", "next", () => this.goNext());
    this.position = h("span", { class: "number" });
    this.node = h("nav", { class: "pager", "aria-label": "Pages", hidden: true }, this.previous, this.position, this.next);
  }

  hide() {
    this.node.hidden = true;
  }

  /// `token`: of the next page, absent on the last one. `trail`: tokens of the pages before, `null` when they are not known.
  show(state, token, trail) {
    Object.assign(this, { state, token, trail });
    this.node.hidden = !token && state.after === null;
    this.previous.setAttribute("aria-disabled", String(state.after === null));
    this.next.setAttribute("aria-disabled", String(!token));
    setText(this.previous.querySelector("span"), state.after === null || this.knowsTheWay ? "Previous" : "First page");
    setText(this.position, `Page ${count(state.page)}`);
  }

  get knowsTheWay() {
    return this.trail !== null && this.trail.length === this.state.page - 1;
  }

  goNext() {
    const { after, page } = this.state;
    this.turn({ after: this.token, page: page + 1 }, [...(this.trail ?? (after ? [null] : [])), after]);
  }

  goBack() {
    const after = this.knowsTheWay ? this.trail.at(-1) : null;
    this.turn({ after, page: after === null ? 1 : this.state.page - 1 }, this.knowsTheWay ? this.trail.slice(0, -1) : []);
  }
}

function pagerButton(label, name, act) {
  const text = h("span", {}, label);
  const button = h("button", { type: "button", class: "button", onclick: () => button.getAttribute("aria-disabled") !== "true" && act() }, name === "back" ? [icon(name), text] : [text, icon(name)]);
  return button;
}
