//! Erasing contexts for good: one, or all that the search on the screen matches.
//!
//! In: what is to be erased. Out: an erasure that the server carries out, shown until it is done, with its certificate.
//! Promise: nothing is asked of the server before the person has typed the word. Closing the dialog does not stop an erasure, and
//! says so.

import { erasure, erase } from "./api.js";
import { copyButton, h, icon, replace, setText, titledDialog } from "./dom.js";
import { plural } from "./format.js";

const WORD = "erase";
const LOOK_MILLISECONDS = 500;

const STEPS = {
  scheduled: "Waiting for its time",
  resolving: "Finding the contexts",
  telling: "Telling the index",
  indexing: "Taking them out of the index",
  events: "Waiting for events received before, then rewriting the table of events",
  states: "Rewriting the table of contexts",
  merging: "Merging the index, which frees their bytes",
  copying: "Renewing the copies of the index",
  certifying: "Writing the certificate",
};

export class EraseDialog {
  /// `question()`: `{place, subject, about, after}`: what the API is told, the same for people, and what follows.
  constructor({ question }) {
    this.question = question;
    this.body = h("div", { class: "export-body erase-body" });
    this.node = titledDialog({ name: "erase", title: "Erase for good", onclose: () => this.close() }, null, this.body);
  }

  open() {
    this.asked = this.question();
    const input = h("input", { type: "text", autocomplete: "off", spellcheck: "false", "aria-label": `Type ${WORD} to go on` });
    const submit = h("button", { type: "submit", class: "button primary danger", disabled: true }, "Erase");
    input.oninput = () => (submit.disabled = input.value.trim() !== WORD);
    this.fault = h("p", { class: "fault-message", role: "alert" });
    const form = h(
      "form",
      { onsubmit: (event) => (event.preventDefault(), submit.disabled || this.begin(submit)) },
      h("p", {}, this.asked.about, " goes from the index, its look-ups and copies, and from the tables of contexts and events. Counts of evaluations stay. Nothing takes this back; events received from now on bring a context back."),
      h("label", { class: "erase-word" }, h("span", {}, "Type ", h("code", {}, WORD), " to go on"), input),
      this.fault,
      submit,
    );
    replace(this.body, form);
    this.node.showModal();
    input.focus();
  }

  async begin(submit) {
    const running = new AbortController();
    this.running = running;
    submit.disabled = true;
    try {
      const noted = await erase(this.asked.place, this.asked.subject, running.signal);
      this.bar = h("progress", { class: "export-progress", "aria-label": "Progress of the erasure" });
      this.status = h("p", { class: "muted number", role: "status" });
      const note = h("p", { class: "muted small-text" }, "It goes on when this is closed, as ", h("code", {}, noted.id), ".");
      replace(this.body, this.bar, this.status, note, this.closer("Close"));
      await this.follow(noted, running.signal);
    } catch (error) {
      if (running.signal.aborted) return;
      submit.disabled = false;
      setText(this.status?.isConnected ? this.status : this.fault, error.message);
    }
  }

  async follow(noted, signal) {
    let standing = noted;
    while (standing.state !== "done") {
      this.tell(standing);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MILLISECONDS));
      if (signal.aborted) return;
      try {
        standing = await erasure(this.asked.place, noted.id, signal);
      } catch (error) {
        // A server that is away for a moment goes on where it was.
        if (signal.aborted || error.status !== 0) throw error;
        setText(this.status, error.message);
      }
    }
    this.done(standing.certificate);
  }

  tell({ step, progress, waitsFor }) {
    this.bar.max = progress.steps;
    this.bar.value = progress.stepsDone;
    const named = progress.contexts > 0 ? `${plural(progress.contexts, "context")}: ` : "";
    setText(this.status, `${named}${STEPS[step] ?? step}${waitsFor === undefined ? "" : ` (${waitsFor})`}`);
  }

  done(certificate) {
    const text = JSON.stringify(certificate, null, 2);
    const left = certificate.notReached.map(({ place, until }) => h("li", {}, place, until === undefined ? null : [", until ", h("time", { datetime: until }, until)]));
    replace(
      this.body,
      h("p", { role: "status" }, `${plural(certificate.contexts.count, "context")} erased.`),
      h("h3", {}, "Not reached"),
      h("ul", {}, left),
      h("details", { class: "panel json" }, h("summary", {}, "Certificate"), h("div", { class: "code-block" }, copyButton(() => text, "Certificate"), h("pre", { tabindex: "0" }, h("code", {}, text)))),
      this.closer("Done"),
    );
    this.body.querySelector(".export-actions button").focus();
    this.asked.after();
  }

  closer(label) {
    return h("p", { class: "export-actions" }, h("button", { type: "button", class: "button", onclick: () => this.node.close() }, label));
  }

  close() {
    this.running?.abort();
  }
}

/// A button that opens the dialog.
export function eraseButton(label, open) {
  return h("button", { type: "button", class: "button", "aria-haspopup": "dialog", "aria-label": label, title: label, onclick: open }, icon("erase"), h("span", {}, label));
}
