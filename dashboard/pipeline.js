//! The pipeline at a glance: rates, lag, freshness, answers, dead letters; asked again every two seconds while in view.
//!
//! In: successive answers of `/api/tidegate/pipeline`. Out: an element whose numbers change in place.
//! Promise: rates are differences of the server's counters over the server's own clock; a restart shows a gap, not a spike.

import { pipeline } from "./api.js";
import { Sparkline } from "./chart.js";
import { h, icon, replace, setText } from "./dom.js";
import { bytes, compact, count, rate, seconds, UNKNOWN } from "./format.js";
import { DeadLetters } from "./letters.js";

const REFRESH_MS = 2000;
const LETTERS_EVERY = 3;
const SAMPLES_MAX = 60;
const LAG_WARN_SECONDS = 60;

export class PipelineView {
  constructor() {
    this.before = null;
    this.ticks = 0;
    this.letters = new DeadLetters();
    this.build();
  }

  build() {
    this.title = h("h1", { tabindex: "-1" }, "Pipeline");
    this.status = h("p", { class: "muted", role: "status" }, "Reading…");
    this.pause = h("button", { type: "button", class: "button small", "aria-pressed": "false", onclick: () => this.toggle() });
    this.requests = new Figure("Requests", "/s", true);
    this.events = new Figure("Events", "/s", true);
    this.evaluations = new Figure("Evaluations represented", "/s", true);
    this.bytes = new Figure("Bytes in", "/s", true);
    this.flow = Object.fromEntries(["ingest", "log", "table", "index"].map((name) => [name, new Stage(name)]));
    const { ingest, log, table, index } = this.flow;
    this.answers = h("tbody");
    this.reasons = h("tbody");
    this.partitions = h("tbody");
    this.totals = h("dl", { class: "facts ledger" });
    this.node = h(
      "section",
      { class: "view pipeline-view", "aria-label": "Pipeline" },
      h("header", { class: "view-head" }, this.title, this.status, this.pause),
      h("div", { class: "figures" }, [this.events, this.evaluations, this.requests, this.bytes].map((figure) => figure.node)),
      h("div", { class: "flow", role: "group", "aria-label": "Stages" }, ingest.node, h("div", { class: "flow-arrow", "aria-hidden": "true" }, icon("next")), log.node, h("div", { class: "flow-arrow", "aria-hidden": "true" }, icon("next")), h("div", { class: "flow-ends" }, table.node, index.node)),
      h("div", { class: "panels" }, panel("Answers by status", ["Status", "Total", "Per second"], this.answers), panel("Dead letters by reason", ["Reason", "Total"], this.reasons), h("section", { class: "panel" }, h("h2", {}, "Since the start"), this.totals)),
      this.letters.node,
      panel("Log partitions", ["Topic", "Partition", "First kept", "Next", "Records kept"], this.partitions),
    );
    this.drawPause(false);
  }

  show() {
    this.running?.abort();
    this.running = new AbortController();
    const { signal } = this.running;
    document.addEventListener("visibilitychange", () => this.tick(), { signal });
    this.tick();
  }

  leave() {
    this.running?.abort();
    clearTimeout(this.timer);
    this.before = null;
    if (this.letters.dialog.open) this.letters.dialog.close();
  }

  focus() {
    this.title.focus();
  }

  toggle() {
    this.paused = !this.paused;
    this.drawPause(this.paused);
    this.before = null;
    this.tick();
  }

  drawPause(paused) {
    this.pause.setAttribute("aria-pressed", String(paused));
    replace(this.pause, icon(paused ? "play" : "pause"), paused ? "Paused" : "Pause");
  }

  async tick() {
    clearTimeout(this.timer);
    const { signal } = this.running;
    if (this.paused || document.hidden || signal.aborted || this.asking) return;
    this.asking = true;
    try {
      const answer = await pipeline(signal);
      if (signal.aborted) return;
      this.draw(answer);
      this.ticks += 1;
      // The letters come from the table: a question of another size than the counters.
      if (this.ticks % LETTERS_EVERY === 1) await this.letters.refresh(signal);
    } catch (error) {
      if (!signal.aborted) setText(this.status, error.message);
      this.before = null;
    } finally {
      this.asking = false;
    }
    if (!signal.aborted) this.timer = setTimeout(() => this.tick(), REFRESH_MS);
  }

  draw(answer) {
    const { ingest = {}, log = {}, table = {}, index = {} } = answer;
    const per = ratesSince(this.before, answer);
    this.before = answer;
    setText(this.status, [answer.version && `version ${answer.version}`, `up ${seconds(answer.uptimeSeconds)}`].filter(Boolean).join(", "));
    this.events.show(per("eventsTotal"), rate);
    this.evaluations.show(per("representedEvaluationsTotal"), rate);
    this.requests.show(per("requestsTotal"), rate);
    this.bytes.show(per("bytesTotal"), bytes);
    const records = sum((log.partitions ?? []).map(({ earliest, next }) => next - earliest));
        const lost = sum(Object.values(ingest.deadLettersTotal ?? {}));
    this.flow.ingest.show("good", [["Connections", count(ingest.connections)], ["Bytes in flight", bytes(ingest.bytesInFlight)], ["Repeats dropped", count(ingest.deduplicatedPayloadsTotal)], ["Dead letters", count(lost)]]);
    const { spill } = log;
    const spilled = spill ? [["On local disk", `${compact(spill.records)}, ${bytes(spill.bytes)}`], ["Kafka", spill.breaker === "closed" ? "takes records" : "is away"]] : [];
    this.flow.log.show(spill?.spilling ? "late" : "good", [...spilled, ["Size", bytes(log.bytes)], ["Records kept", compact(records)], ["Partitions", count(log.partitions?.length)], ["Records written", compact(sum((log.partitions ?? []).map(({ next }) => next)))]]);
    this.flow.table.show(health(table), [["Freshness", seconds(table.freshnessSeconds)], ["Lag", lag(table)], ["Last commit", since(table.lastCommitMs, answer.now)], ["Files", `${compact(table.files)}, ${bytes(table.bytes)}`]]);
    setText(this.flow.table.note, [table.stopped ?? []].flat().join("; "));
    this.flow.index.show(health(index), [["Freshness", seconds(index.freshnessSeconds)], ["Lag", lag(index)], ["Last commit", since(index.lastCommitMs, answer.now)], ["Contexts", `${compact(index.contexts)}, ${bytes(index.bytes)}`]]);
    this.drawTables(ingest, log, per);
  }

  drawTables(ingest, log, per) {
    const answers = Object.entries(ingest.answers ?? {});
    rows(this.answers, answers.map(([status, number]) => [h("span", { class: `badge status-${status[0]}` }, status), count(number), rate(per("answers", status))]), "No request yet");
    const reasons = Object.entries(ingest.deadLettersTotal ?? {}).filter(([, number]) => number > 0);
    rows(this.reasons, reasons.map(([reason, number]) => [reason, count(number)]), "None");
    rows(this.partitions, (log.partitions ?? []).map(({ topic, partition, earliest, next }) => [topic, String(partition), count(earliest), count(next), count(next - earliest)]), "No partition");
    const facts = [
      ["Events", count(ingest.eventsTotal)],
      ["Evaluations represented", count(ingest.representedEvaluationsTotal)],
      ["Requests", count(ingest.requestsTotal)],
      ["Bytes in", bytes(ingest.bytesTotal)],
      ["Repeated payloads dropped", count(ingest.deduplicatedPayloadsTotal)],
      ["Dropped by SDKs before sending", count(ingest.sdkDroppedEventsTotal)],
    ];
    replace(this.totals, facts.map(([name, value]) => h("div", { class: "fact" }, h("dt", {}, name), h("dd", { class: "number" }, value))));
  }
}

/// `per(counter, label?)`: increase per second between two answers; `null` without a usable earlier one.
function ratesSince(before, answer) {
  const elapsed = before === null ? 0 : (answer.now - before.now) / 1000;
  const restarted = before !== null && answer.uptimeSeconds < before.uptimeSeconds;
  return (counter, label) => {
    if (elapsed <= 0 || restarted) return null;
    const read = ({ ingest = {} }) => (label === undefined ? ingest[counter] : (ingest[counter]?.[label] ?? 0));
    const increase = read(answer) - read(before);
    return increase >= 0 ? increase / elapsed : null;
  };
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

function lag({ lagRecords, lagSeconds }) {
  if (lagRecords === 0) return "none";
  return `${compact(lagRecords)} records, ${seconds(lagSeconds)}`;
}

function since(ms, now) {
  return typeof ms === "number" && ms > 0 ? `${seconds(Math.max(0, now - ms) / 1000)} ago` : UNKNOWN;
}

function health({ lagRecords, lagSeconds, stopped }) {
  if (stopped?.length > 0) return "stopped";
  if (lagRecords === undefined || lagRecords === null) return "unknown";
  return lagSeconds > LAG_WARN_SECONDS ? "late" : "good";
}

// Rows are rewritten only when a text changed, so that a selection survives the refresh.
function rows(body, cells, empty) {
  const text = cells.map((row) => row.map((cell) => cell.textContent ?? cell).join("\t")).join("\n");
  if (body.dataset.text === text && body.hasChildNodes()) return;
  body.dataset.text = text;
  const line = (row) => h("tr", {}, row.map((cell, index) => (index === 0 ? h("th", { scope: "row" }, cell) : h("td", { class: "number" }, cell))));
  replace(body, cells.length === 0 ? h("tr", {}, h("td", { class: "muted", colspan: "9" }, empty)) : cells.map(line));
}

function panel(title, names, body) {
  const head = names.map((name, index) => h("th", { scope: "col", class: index > 0 ? "number" : null }, name));
  return h("section", { class: "panel" }, h("h2", {}, title), h("table", { class: "counts" }, h("thead", {}, h("tr", {}, head)), body));
}

class Figure {
  constructor(name, unit) {
    this.value = h("span", { class: "figure-value" }, UNKNOWN);
    this.line = new Sparkline(SAMPLES_MAX);
    this.node = h("div", { class: "figure" }, h("span", { class: "figure-name" }, name), h("span", { class: "figure-number" }, this.value, h("span", { class: "figure-unit" }, unit)), this.line.node);
  }

  show(number, format) {
    setText(this.value, format(number));
    this.line.add(number);
  }
}

const STAGE_NAMES = { ingest: "Ingest", log: "Log", table: "Table", index: "Context index" };
const HEALTH_WORDS = { good: "up to date", late: "behind", stopped: "stopped", unknown: "not running" };

class Stage {
  constructor(name) {
    this.light = h("span", { class: "light" });
    this.word = h("span", { class: "visually-hidden" });
    this.facts = h("dl", { class: "facts ledger" });
    this.note = h("p", { class: "stage-note" });
    this.node = h("section", { class: `stage stage-${name}` }, h("h2", {}, this.light, STAGE_NAMES[name], this.word), this.facts, this.note);
  }

  show(state, facts) {
    this.light.className = `light light-${state}`;
    setText(this.word, `, ${HEALTH_WORDS[state]}`);
    if (this.facts.children.length !== facts.length) {
      replace(this.facts, facts.map(([name]) => h("div", { class: "fact" }, h("dt", {}, name), h("dd", { class: "number" }))));
    }
    for (const [index, [, value]] of facts.entries()) setText(this.facts.children[index].lastChild, value);
  }
}
