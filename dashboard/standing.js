//! How far an answer can be trusted: its total, up to when the index has read the log, what may be missing.
//!
//! In: an answer of the search, the state of the pipeline. Out: words, and an element that keeps itself true.
//! Promise: an exact number only where the server counted all; "at least" where it stopped early; nothing for what is not known.

import { pipeline } from "./api.js";
import { h, replace, setText } from "./dom.js";
import { count, plural, seconds } from "./format.js";

const TOTAL_MAX = 2147483647;
const REFRESH_MS = 5000;
const BEHIND_SECONDS = 10;

/// Where the rows stand among all: `1–20 of about 12,300`; `more`: there is a next page.
export function totalText({ totalCount, state }, { first, last, more }) {
  const known = Number.isInteger(totalCount);
  if (first === 1 && !more && state !== "partial") return plural(last, "context");
  const range = `${count(first)}–${count(last)} of `;
  if (!known) return range + (more ? `more than ${count(last)}` : count(last));
  if (totalCount >= TOTAL_MAX) return `${range}more than ${count(TOTAL_MAX)}`;
  return range + (state === "partial" ? "at least " : "") + count(totalCount);
}

/// `state`: of the index, as the header of the answer says.
export function cautionText(state) {
  if (state === "rebuilding") return "The index is being rebuilt: contexts may be missing here until that is done.";
  if (state === "partial") return "The search reached its limit and stopped early: there may be more matches than these. A narrower filter finds all of its own.";
  return "";
}

/// "indexed up to 14:03:22", asked for again while it is on the screen.
export class IndexedUpTo {
  constructor() {
    this.text = h("span", {});
    this.behind = h("span", { class: "behind" });
    this.node = h("p", { class: "indexed muted number", title: "What was accepted before this time can be found" }, this.text, this.behind);
  }

  start() {
    this.running?.abort();
    this.running = new AbortController();
    this.tick();
  }

  stop() {
    this.running?.abort();
    clearTimeout(this.timer);
  }

  async tick() {
    clearTimeout(this.timer);
    const { signal } = this.running;
    try {
      if (!document.hidden) this.draw(await pipeline(signal));
    } catch {
      // The search itself reports what is wrong with the server.
      if (!signal.aborted) replace(this.text);
    }
    if (!signal.aborted) this.timer = setTimeout(() => this.tick(), REFRESH_MS);
  }

  draw({ now, index }) {
    const late = index?.freshnessSeconds;
    const known = Number.isFinite(late) && Number.isFinite(now);
    setText(this.text, known ? `indexed up to ${timeOfDay(new Date(now - late * 1000))}` : "");
    setText(this.behind, known && late >= BEHIND_SECONDS ? `, ${seconds(late)} behind` : "");
  }
}

const timeOfDay = (date) => [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
