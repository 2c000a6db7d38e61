//! Finds what could come next in the filter box: attribute names, operators, values.
//!
//! In: a slot from `filter.slotAt`, the attribute look-ups of the server. Out: a ranked, bounded list of `Suggestion`
//! `{type, label, detail, insert, caret, more, given}`: `insert` replaces the slot's range, `caret` is counted back from its end,
//! `more` says that completion should go on at once, and `given` is a suggested value itself. The slot's `within` is a filter:
//! names and values are then those of the contexts that it finds.
//! Promise: `local` answers from memory without waiting; `remote` adds what the server knows and can be aborted.
//! Not here: the list on the screen and its keys (`combobox`).

import { attributeNames, attributeValues } from "./api.js";
import { formatField, formatValue, OPERATORS, operatorsOf, OWN_FIELDS, readField } from "./filter.js";
import { about, attributeLabel, compact, plural, valueText } from "./format.js";

const SUGGESTIONS_MAX = 50;
const ANSWERS_MAX = 200;
const KINDS_ASKED_MAX = 8;
const ANSWER_AGE_MS = 15_000;

const OPERATOR_HELP = {
  equals: "is exactly, 44 is not \"44\"",
  notEquals: "is something else or absent",
  anyOf: "is one of a list",
  contains: "list holds all of these",
  startsWith: "text begins with",
  exists: "is there: true or false",
  before: "date at or before",
  after: "date at or after",
};

const FIELD_HELP = {
  kind: "the context's kind",
  key: "the context's key",
  kindKey: "kind:key",
  kinds: "list of kinds",
  kindKeys: "list of kind:key",
  id: "encoded kind:key",
  applicationId: "application or SDK that reported it",
  seen: "when it was last seen",
  q: "text in any attribute",
};

const DATES = [
  ["an hour ago", 3600],
  ["a day ago", 86400],
  ["a week ago", 7 * 86400],
  ["30 days ago", 30 * 86400],
];

export class Suggestions {
  constructor(place) {
    this.place = place;
    this.answers = new Map();
    this.names = [];
  }

  /// Attribute names of the environment as `{kind, pointer, weight, redacted}`, the first hundred of each kind.
  async load(signal) {
    const answer = await this.ask("names", () => attributeNames(this.place, "", "", signal));
    this.names = namesOf(answer);
    return this.names;
  }

  get kinds() {
    return [...new Set(this.names.map((name) => name.kind))];
  }

  /// Whether text that is no filter yet may become one: it begins a field, or an operator after it.
  mayBecomeFilter(text) {
    const [field, operator, ...rest] = text.toLowerCase().trimStart().split(/\s+/);
    const fields = OWN_FIELDS.concat(this.names.flatMap(({ kind, pointer }) => [formatField(kind, pointer), attributeLabel(pointer)]));
    if (operator === undefined) return fields.some((name) => name.toLowerCase().startsWith(field));
    const isField = fields.some((name) => name.toLowerCase() === field);
    return isField && rest.length === 0 && OPERATORS.some((name) => name.toLowerCase().startsWith(operator));
  }

  local(slot) {
    if (slot.slot === "field") return this.fields(slot, this.names);
    if (slot.slot === "operator") return operators(slot);
    if (slot.slot === "joint") return joints(slot);
    return slot.after ? listJoints() : this.ownValues(slot);
  }

  /// The full list for the slot, or `null` when the server has nothing to add.
  async remote(slot, signal) {
    const within = slot.within ?? "";
    try {
      return await this.found(slot, within, signal);
    } catch (error) {
      // The other conditions would cost too much, or are of no use to the server.
      if (within === "" || error.status !== 400) throw error;
      return this.found(slot, "", signal);
    }
  }

  async found(slot, within, signal) {
    if (slot.slot === "field") {
      const [, found] = await Promise.all([this.load(signal), this.moreNames(slot.typed, signal, within)]);
      // What no context has together with the other conditions comes last.
      return this.fields(slot, found.concat(within === "" ? this.names : this.names.map((name) => ({ ...name, weight: 0 }))));
    }
    if (slot.slot !== "value" || slot.after || ["exists", "before", "after"].includes(slot.operator)) return null;
    const { own, kind, pointer } = readField(slot.field, this.kinds);
    if (own !== undefined && own !== "key") return null;
    const name = own === "key" ? "/key" : pointer;
    const answers = await this.valuesIn({ kind, name, typed: slot.typed, within }, signal);
    return values(slot, valuesOf(answers));
  }

  /// The most frequent values of an attribute among the contexts that `within` finds, `{values: [{value, weight, estimate}],
  /// partial}`; a kind of `null` means every kind.
  async valuesOfAttribute(kind, pointer, within, signal) {
    const answers = await this.valuesIn({ kind, name: pointer, typed: "", within }, signal);
    return { values: valuesOf(answers), partial: answers.some(({ isPartial }) => isPartial === true) };
  }

  /// Kinds among the contexts that `within` finds, `{values, partial}`: every context has a key.
  async valuesOfKind(within, signal) {
    const answer = await this.ask(`kinds ${within}`, () => attributeNames(this.place, 'name startsWith "/key"', within, signal));
    const keys = namesOf(answer).filter(({ pointer }) => pointer === "/key");
    const kinds = keys.map(({ kind, weight, estimate }) => ({ value: kind, weight, estimate }));
    return { values: kinds.sort((a, b) => b.weight - a.weight), partial: answer.isPartial === true };
  }

  // A server of the current API generation wants a kind in every question, so all of them are asked about in turn.
  async valuesIn({ kind, name, typed, within }, signal) {
    const answerFor = (of) => {
      const terms = [of && `kind equals ${JSON.stringify(of)}`, typed && `value startsWith ${JSON.stringify(typed)}`];
      const filter = terms.filter(Boolean).join(",");
      return this.ask(`values ${JSON.stringify([name, filter, within])}`, () => attributeValues(this.place, name, filter, within, SUGGESTIONS_MAX, signal));
    };
    try {
      return [await answerFor(kind)];
    } catch (error) {
      if (kind !== null || error.status !== 400) throw error;
      return Promise.all(this.kinds.slice(0, KINDS_ASKED_MAX).map(answerFor));
    }
  }

  async moreNames(typed, signal, within = "") {
    const { own, kind, pointer } = readField(typed, this.kinds);
    if (within === "" && (own !== undefined || typed === "")) return [];
    const start = typed.includes(".") ? pointer : `/${typed}`;
    const terms = [kind && `kind equals ${JSON.stringify(kind)}`, start !== "/" && `name startsWith ${JSON.stringify(start)}`];
    const filter = terms.filter(Boolean).join(",");
    return namesOf(await this.ask(`names ${JSON.stringify([filter, within])}`, () => attributeNames(this.place, filter, within, signal)));
  }

  fields(slot, names) {
    const typed = slot.typed.toLowerCase();
    const own = OWN_FIELDS.map((field) => ({ field, detail: FIELD_HELP[field], weight: 0, text: field, own: true }));
    const seen = new Set();
    const candidates = own.concat(everyKind(names), names.map(ofKind)).filter(({ field }) => !seen.has(field) && seen.add(field));
    const ranked = candidates.map((candidate) => [rank(candidate, typed), candidate]).filter(([order]) => order !== null);
    ranked.sort(([a, one], [b, other]) => a - b || other.weight - one.weight || one.field.localeCompare(other.field));
    return ranked.slice(0, SUGGESTIONS_MAX).map(([, { field, detail, weight, redacted, own: isOwn }]) => ({
      type: "field",
      label: field,
      detail: detail ?? (redacted ? `${compact(weight)}, private in some` : compact(weight)),
      hint: isOwn ? null : plural(weight, "context"),
      insert: `${field} `,
      more: true,
    }));
  }

  ownValues(slot) {
    if (slot.operator === "exists") return offer(slot, ["true", "false"], { raw: true });
    if (slot.operator === "before" || slot.operator === "after") return dates(slot);
    if (slot.field === "kind" || slot.field === "kinds") return offer(slot, this.kinds);
    return [];
  }

  // Keeps recent answers, so that deleting a letter shows the list of before at once.
  async ask(question, answerOf) {
    const kept = this.answers.get(question);
    if (kept && Date.now() - kept.at < ANSWER_AGE_MS) return kept.answer;
    const answer = await answerOf();
    this.answers.delete(question);
    this.answers.set(question, { at: Date.now(), answer });
    if (this.answers.size > ANSWERS_MAX) this.answers.delete(this.answers.keys().next().value);
    return answer;
  }
}

function namesOf(answer) {
  return (answer.items ?? []).flatMap(({ kind, names }) => names.map(({ name, weight, redacted, isEstimate }) => ({ kind, pointer: name, weight, redacted: redacted === true, estimate: isEstimate === true })));
}

function valuesOf(answers) {
  const byValue = new Map();
  const listed = answers.flatMap(({ items }) => items ?? []).flatMap(({ values: list }) => list);
  for (const { name, weight, isEstimate } of listed) {
    const id = JSON.stringify(name);
    const known = byValue.get(id);
    byValue.set(id, { value: name, weight: (known?.weight ?? 0) + weight, estimate: known?.estimate === true || isEstimate === true });
  }
  return [...byValue.values()].sort((a, b) => b.weight - a.weight || valueText(a.value).localeCompare(valueText(b.value)));
}

const ofKind = ({ kind, pointer, weight, redacted }) => ({ field: formatField(kind, pointer), text: attributeLabel(pointer), kind, weight, redacted });

// An attribute that several kinds have can be searched in all of them at once.
function everyKind(names) {
  const byPointer = new Map();
  for (const { kind, pointer, weight } of names) {
    const entry = byPointer.get(pointer) ?? { kinds: new Set(), weight: 0 };
    if (!entry.kinds.has(kind)) entry.weight += weight;
    byPointer.set(pointer, { kinds: entry.kinds.add(kind), weight: entry.weight });
  }
  return [...byPointer]
    .filter(([, { kinds }]) => kinds.size > 1)
    .map(([pointer, { weight }]) => ({ field: formatField(null, pointer), text: attributeLabel(pointer), kind: "*", weight }));
}

// Lower is better; `null` is no match. The whole field beats the attribute's name, a beginning beats a middle.
function rank({ field, text, own }, typed) {
  if (typed === "") return own ? 1 : 0;
  const whole = field.toLowerCase();
  const name = text.toLowerCase();
  if (whole === typed) return 0;
  if (whole.startsWith(typed)) return own ? 1 : 2;
  if (name.startsWith(typed) || name.startsWith(`/${typed}`)) return 3;
  if (!own && new RegExp(`[/ _.-]${escape(typed)}`).test(name)) return 4;
  return !own && whole.includes(typed) ? 5 : null;
}

const escape = (text) => text.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&");

function operators({ field, typed }) {
  return operatorsOf(field)
    .filter((operator) => operator.toLowerCase().startsWith(typed.toLowerCase()))
    .map((operator) => ({ type: "operator", label: operator, detail: OPERATOR_HELP[operator], insert: `${operator} `, more: true }));
}

function joints({ depth }) {
  const close = { type: "joint", label: ")", detail: "close the group", insert: ") ", more: true };
  return [
    ...(depth > 0 ? [close] : []),
    { type: "joint", label: ",", detail: "and", insert: ", ", more: true },
    { type: "joint", label: "|", detail: "or", insert: "| ", more: true },
  ];
}

function listJoints() {
  return [
    { type: "joint", label: ",", detail: "another value", insert: ", ", more: true },
    { type: "joint", label: "]", detail: "close the list", insert: "] ", more: true },
  ];
}

function offer(slot, texts, { raw = false } = {}) {
  return texts.filter((text) => text.toLowerCase().startsWith(slot.typed.toLowerCase())).map((text) => value(slot, text, "", raw));
}

function values(slot, found) {
  return found.slice(0, SUGGESTIONS_MAX).map((entry) => ({ ...value(slot, entry.value, about(compact(entry.weight), entry.estimate)), hint: about(plural(entry.weight, "context"), entry.estimate) }));
}

function value(slot, given, detail, raw = false) {
  const text = raw ? given : formatValue(given, { quoted: slot.quoted || slot.list });
  const listed = !slot.list && ["anyOf", "contains"].includes(slot.operator);
  const type = typeof given === "string" ? "value" : typeof given;
  return { type, label: valueText(given), given: raw ? JSON.parse(given) : given, detail, insert: listed ? `[${formatValue(given, { quoted: true })}] ` : slot.list ? text : `${text} `, caret: listed ? 2 : 0, more: false };
}

function dates(slot) {
  return DATES.map(([label, seconds]) => [label, `${new Date(Date.now() - seconds * 1000).toISOString().slice(0, 19)}Z`])
    .filter(([label, time]) => time.startsWith(slot.typed) || label.startsWith(slot.typed))
    .map(([label, time]) => ({ type: "value", label: time, detail: label, given: time, insert: `${JSON.stringify(time)} `, more: false }));
}
