//! A filter as rows: what the builder and the facets change, read from the filter's text and written back to it.
//!
//! In: filter text. Out: a `Draft`, or `null` for text that is no complete filter; and the text of a `Draft`.
//! Promise: writing what was read gives a filter that finds the same contexts; what does not fit into rows is kept as it was
//! written and never lost. Rows that are not complete yet are left out of the text.
//!
//!     Draft  {joiner, parts: [Row | Group | Kept]}     joiner: "all" (comma) or "any" (|)
//!     Group  {parts: [Row | Kept]}                     joined the other way
//!     Row    {field, operator, values: [JSON text]}    one value, or several where the operator takes a list
//!     Kept   {text, joined}                            filter text; `joined` tells that it needs parentheses among others

import { endOfJson, endOfString, formatValue, isJson, OPERATORS, quoteField, scan, unquote } from "./filter.js";

export const LIST_OPERATORS = ["anyOf", "contains"];

// As much as the server reads; what is longer is left as text.
const TEXT_MAX = 8192;

const SIGNS = { all: ", ", any: " | " };

export const otherJoiner = (joiner) => (joiner === "all" ? "any" : "all");

export const isRow = (part) => part.field !== undefined;

export const isGroup = (part) => part.parts !== undefined;

export const emptyRow = () => ({ field: "", operator: "equals", values: [] });

/// The rows of `text`; `null` when it is no complete filter.
export function readDraft(text) {
  if (text.length > TEXT_MAX) return null;
  const { tokens, error } = scan(text);
  if (error !== null) return null;
  if (tokens.length === 0) return { joiner: "all", parts: [] };
  const root = new Reader(text, tokens).joined("any");
  if (!root.joiner) return { joiner: "all", parts: [partOf(text, root)] };
  const parts = root.nodes.map((node) => (node.joiner ? { parts: node.nodes.map((inner) => partOf(text, inner)) } : partOf(text, node)));
  return { joiner: root.joiner, parts };
}

// Nodes: `{joiner, nodes, start, end}` or `{field, operator, value, start, end}`; a node never has its own joiner inside.
class Reader {
  constructor(text, tokens) {
    this.text = text;
    this.tokens = tokens;
    this.at = 0;
  }

  joined(joiner) {
    const sign = SIGNS[joiner].trim();
    const next = () => (joiner === "any" ? this.joined("all") : this.term());
    const found = [next()];
    while (this.sliceOf(this.tokens[this.at]) === sign && this.tokens[this.at].type === "joint") {
      this.at += 1;
      found.push(next());
    }
    if (found.length === 1) return found[0];
    const nodes = found.flatMap((node) => (node.joiner === joiner ? node.nodes : [node]));
    return { joiner, nodes, start: found[0].from ?? found[0].start, end: found.at(-1).to ?? found.at(-1).end };
  }

  term() {
    const token = this.tokens[this.at];
    if (token.type !== "paren") return this.predicate();
    this.at += 1;
    const inner = this.joined("any");
    const closing = this.tokens[this.at];
    this.at += 1;
    // The outermost parentheses count: what stands between two nodes must not cut into them.
    return { ...inner, from: token.start, to: closing.end };
  }

  predicate() {
    const [field, operator, value] = this.tokens.slice(this.at, this.at + 3);
    this.at += 3;
    return { field, operator, value, start: field.start, end: value.end };
  }

  sliceOf(token) {
    return token && this.text.slice(token.start, token.end);
  }
}

function partOf(text, node) {
  if (node.joiner) return { text: text.slice(node.start, node.end), joined: true };
  const written = text.slice(node.operator.start, node.operator.end);
  const operator = OPERATORS.find((name) => name.toLowerCase() === written.toLowerCase());
  // The older notation may hold several operators for one field.
  if (operator === undefined) return { text: text.slice(node.start, node.end), joined: false };
  const raw = text.slice(node.value.start, node.value.end);
  const listed = LIST_OPERATORS.includes(operator) && raw.startsWith("[");
  return { field: unquote(text.slice(node.field.start, node.field.end)), operator, values: listed ? elementsOf(raw) : [jsonOf(raw)] };
}

// A bare value that is no JSON is text. Numbers stay as they are written: JavaScript's own would lose their last digits.
const jsonOf = (raw) => (isJson(raw) ? raw : JSON.stringify(unquote(raw)));

function elementsOf(list) {
  const elements = [];
  let from = 1;
  for (let at = 1; at < list.length; at += 1) {
    if (list[at] === '"') at = endOfString(list, at) - 1;
    else if ("[{".includes(list[at])) at = endOfJson(list, at) - 1;
    else if (list[at] === "," || at === list.length - 1) {
      elements.push(list.slice(from, at).trim());
      from = at + 1;
    }
  }
  return elements.filter((element) => element !== "");
}

const isComplete = (part) => (isRow(part) ? part.field !== "" && part.values.length > 0 : !isGroup(part) || part.parts.some(isComplete));

export function writeDraft({ joiner, parts }) {
  const written = parts.filter(isComplete).map((part) => (isGroup(part) ? writeGroup(part, otherJoiner(joiner)) : writePart(part)));
  return written.map(({ text, joined }) => (joined && written.length > 1 ? `(${text})` : text)).join(SIGNS[joiner]);
}

function writeGroup({ parts }, joiner) {
  const written = parts.filter(isComplete).map(writePart);
  if (written.length === 1) return written[0];
  return { text: written.map(({ text, joined }) => (joined ? `(${text})` : text)).join(SIGNS[joiner]), joined: true };
}

function writePart(part) {
  return isRow(part) ? { text: writeRow(part), joined: false } : part;
}

export function writeRow({ field, operator, values }) {
  const value = LIST_OPERATORS.includes(operator) ? `[${values.join(", ")}]` : values[0].startsWith('"') ? formatValue(JSON.parse(values[0])) : values[0];
  return `${quoteField(field)} ${operator} ${value}`;
}

/// What a person typed as a value, as JSON text: numbers, `true`, lists and quoted text as they are, all else is text.
/// Empty for nothing.
export function readValue(typed) {
  const text = typed.trim();
  if (text === "") return "";
  return isJson(text) && text !== "null" ? text : JSON.stringify(text);
}

/// The other way round; text in quotes only where it would be read as something else.
export function showValue(json) {
  if (!json.startsWith('"')) return json;
  const text = JSON.parse(json);
  return readValue(text) === JSON.stringify(text) ? text : json;
}

/// The row that says `field equals …` or `field anyOf …`, if it holds for everything that is found.
export function rowOf({ joiner, parts }, field) {
  if (joiner === "any" && parts.length > 1) return undefined;
  return parts.find((part) => isRow(part) && part.field === field && ["equals", "anyOf"].includes(part.operator) && part.values.length > 0);
}

/// Adds a value to what is found, or takes it out again; a second value of a field widens its row to `anyOf`.
export function toggleValue(draft, field, json, operator) {
  const row = rowOf(draft, field);
  if (row === undefined) return withRow(draft, { field, operator, values: [json] });
  const values = row.values.includes(json) ? row.values.filter((value) => value !== json) : [...row.values, json];
  const changed = { field, operator: values.length > 1 ? "anyOf" : row.operator, values };
  return { ...draft, parts: draft.parts.flatMap((part) => (part !== row ? [part] : values.length === 0 ? [] : [changed])) };
}

/// The filter of what else must hold where `row` does; empty where nothing must.
export function besides({ joiner, parts }, row) {
  const group = parts.find((part) => isGroup(part) && part.parts.includes(row));
  const others = joiner === "all" ? parts.filter((part) => part !== row && part !== group) : (group?.parts ?? []).filter((part) => part !== row);
  return writeDraft({ joiner: "all", parts: others });
}

/// The draft and `row` on top of it.
export function withRow(draft, row) {
  if (draft.joiner === "all" || draft.parts.length < 2) return { joiner: "all", parts: [...draft.parts.flatMap((part) => (draft.joiner === "any" && isGroup(part) ? part.parts : [part])), row] };
  const nested = draft.parts.some(isGroup);
  const before = nested ? { text: writeDraft(draft), joined: true } : { parts: draft.parts };
  return { joiner: "all", parts: [before, row] };
}
