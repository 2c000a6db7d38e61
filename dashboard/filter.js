//! Reads filter text the way the search API does, tolerantly: what is finished, what is being typed, what to colour.
//!
//! In: the text of the filter box, the caret. Out: tokens for colouring, the slot at the caret for completion, and whether
//! the text is a filter at all. Also writes fields and values in the filter's notation.
//! Promise: `scan` accepts what section 6.1 of the search API accepts; a test holds it against the server.
//! Not here: whether an operator fits its field; the server says that, with the place.
//!
//!     filter = or ; or = and {"|" and} ; and = term {"," term} ; term = "(" or ")" | predicate
//!     predicate = field blank operator blank value | field ":" json

export const OPERATORS = ["equals", "notEquals", "anyOf", "contains", "startsWith", "exists", "before", "after"];

const OPERATOR_BY_NAME = new Map(OPERATORS.map((name) => [name.toLowerCase(), name]));

const BLANK = /\s/;
const RESERVED = /[\s,|()!\\]/;

/// The operators that a field takes, the likeliest first.
const FIELD_OPERATORS = new Map([
  ...["kind", "kindKey", "id", "applicationId"].map((field) => [field, ["equals", "notEquals", "anyOf"]]),
  ["key", ["equals", "startsWith", "notEquals", "anyOf"]],
  ["name", ["startsWith", "equals", "contains", "notEquals", "anyOf", "exists"]],
  ...["kinds", "kindKeys"].map((field) => [field, ["contains", "anyOf", "equals"]]),
  ["seen", ["after", "before"]],
  ["q", ["equals"]],
]);

export function operatorsOf(field) {
  return FIELD_OPERATORS.get(field) ?? OPERATORS;
}

/// Fields that are no attributes.
export const OWN_FIELDS = [...FIELD_OPERATORS.keys()].filter((field) => field !== "name");

/// Reads `text` from the left.
///
/// `tokens`: `{type, start, end, open}` with `type` of `field`, `operator`, `value`, `joint`, `paren`, `rest`; `open` marks a
/// quote, list or object that has not been closed. `expect`: what may come next. `predicates`: how many operators were met.
/// `error`: `{at, message}` of the first fault (UTF-16 position), `null` for a complete filter or empty text.
export function scan(text) {
  const tokens = [];
  let expect = "field";
  let depth = 0;
  let predicates = 0;
  let field = null;
  let operator = null;
  let at = 0;

  const push = (type, start, end, open = false) => tokens.push({ type, start, end, open });
  const stop = (start, message) => {
    push("rest", start, text.length);
    return { tokens, expect, field, operator, predicates, error: { at: start, message } };
  };

  for (;;) {
    while (at < text.length && BLANK.test(text[at])) at += 1;
    if (at === text.length) break;
    const start = at;
    const letter = text[at];

    if (expect === "field") {
      if (letter === "(") {
        push("paren", at, (at += 1));
        depth += 1;
        continue;
      }
      if (",|)!\\".includes(letter) && !(letter === "\\" && at + 1 < text.length)) return stop(at, "expected a field");
      at = letter === '"' ? endOfString(text, at) : endOfField(text, at);
      const open = letter === '"' && !closedString(text, start, at);
      push("field", start, at, open);
      field = unquote(text.slice(start, at));
      operator = null;
      if (open) return { tokens, expect, field, operator, predicates, error: { at: start, message: "unclosed quote" } };
      if (text[at] === ":" && /[{["]/.test(text[at + 1] ?? "")) {
        push("operator", at, (at += 1));
        predicates += 1;
        operator = ":";
        expect = "value";
      } else {
        expect = "operator";
        if (at < text.length && !BLANK.test(text[at])) return stop(at, "expected a blank and an operator");
      }
    } else if (expect === "operator") {
      while (at < text.length && !RESERVED.test(text[at])) at += 1;
      operator = OPERATOR_BY_NAME.get(text.slice(start, at).toLowerCase()) ?? null;
      if (operator === null) {
        // Still being typed: completion needs the token, everyone else the error.
        if (at === text.length && at > start) push("operator", start, at, true);
        else push("rest", start, text.length);
        return { tokens, expect, field, operator, predicates, error: { at: start, message: "expected an operator" } };
      }
      push("operator", start, at);
      predicates += 1;
      expect = "value";
      if (at < text.length && !BLANK.test(text[at])) return stop(at, "expected a blank and a value");
    } else if (expect === "value") {
      if (",|()!".includes(letter)) return stop(at, "expected a value");
      const json = '"[{'.includes(letter);
      at = json ? endOfJson(text, at) : endOfBare(text, at);
      const open = json && !isJson(text.slice(start, at));
      push("value", start, at, open);
      if (open) return { tokens, expect, field, operator, predicates, error: { at: start, message: "unfinished value" } };
      if (text.slice(start, at) === "null") return { tokens, expect, field, operator, predicates, error: { at: start, message: "null is no value" } };
      expect = "joint";
    } else if (letter === "," || letter === "|") {
      push("joint", at, (at += 1));
      expect = "field";
    } else if (letter === ")" && depth > 0) {
      push("paren", at, (at += 1));
      depth -= 1;
    } else {
      return stop(at, "expected a comma, | or the end; a value with blanks needs quotes");
    }
  }

  const complete = tokens.length === 0 || (expect === "joint" && depth === 0);
  const wanted = { field: "expected a field", operator: "expected an operator", value: "expected a value", joint: "expected )" };
  return { tokens, expect, field, operator, predicates, depth, error: complete ? null : { at: text.length, message: wanted[expect] } };
}

/// What to send for the text of the box: filters as they are, all other text as a full-text search.
/// Text with a known operator in its place is a filter, though perhaps a faulty one: the server then says what is wrong.
export function interpret(text) {
  const trimmed = text.trim();
  if (trimmed === "") return { type: "all", filter: "" };
  const { tokens, predicates, error } = scan(text);
  const written = error === null && /^q equals [^[{]/.test(trimmed) && tokens.length === 3;
  if (error !== null && predicates === 0) return fullText(trimmed);
  return written ? fullText(unquote(trimmed.slice("q equals ".length))) : { type: "filter", filter: text };
}

/// `fallback` is for a server that has no full-text search yet.
function fullText(text) {
  const quoted = JSON.stringify(text);
  return { type: "text", text, filter: `q equals ${quoted}`, fallback: `key startsWith ${quoted}|name startsWith ${quoted}` };
}

/// What is being typed at the caret: `{slot, start, end, typed, field, operator, quoted, list, depth}`, or `null` where
/// completion has nothing to say. `start..end` is what a completion replaces; `typed` is what is left of the caret, decoded.
export function slotAt(text, caret) {
  const state = scan(text.slice(0, caret));
  const last = state.tokens.at(-1);
  const touching = last !== undefined && last.end === caret;
  if (state.error !== null && last?.type === "rest") return null;
  const about = { field: state.field, operator: state.operator, depth: state.depth ?? 0 };

  if (touching && last.type === "value" && last.open && text[last.start] === "[") {
    return { ...about, slot: "value", list: true, ...listElement(text, last.start, caret) };
  }
  if (touching && ["field", "operator", "value"].includes(last.type)) {
    const raw = text.slice(last.start, caret);
    const quoted = raw.startsWith('"');
    if ((last.type !== "operator" && !last.open && /^["[{]/.test(raw)) || raw === ":") return null;
    if (raw.startsWith("{")) return null;
    return { ...about, slot: last.type, list: false, start: last.start, end: endOfToken(text, caret, quoted), typed: unquote(raw), quoted };
  }
  if (touching && last.type === "paren" && state.expect === "joint") return null;
  return { ...about, slot: state.expect, list: false, start: caret, end: caret, typed: "", quoted: false };
}

/// The conditions left of the one at `caret` that must hold with it; empty where that would take reading parentheses.
export function conditionsBefore(text, caret) {
  const { tokens } = scan(text.slice(0, caret));
  const joints = tokens.filter(({ type }) => type === "joint");
  const last = joints.at(-1);
  if (last === undefined || text[last.start] !== "," || tokens.some(({ type }) => type === "paren")) return "";
  const either = joints.findLast(({ start }) => text[start] === "|");
  return text.slice(either?.end ?? 0, last.start).trim();
}

// The element of an unclosed list that the caret is in; `after` tells that it is complete and wants a comma or the end.
function listElement(text, start, caret) {
  let at = start + 1;
  let from = at;
  while (at < caret) {
    if (text[at] === '"') {
      const end = Math.min(endOfString(text, at), caret);
      if (end === caret && !closedString(text, at, end)) break;
      at = end;
    } else {
      if (text[at] === ",") from = at + 1;
      at += 1;
    }
  }
  while (from < caret && BLANK.test(text[from])) from += 1;
  const raw = text.slice(from, caret);
  const after = raw.startsWith('"') ? closedString(raw, 0, raw.trimEnd().length) : /\s$/.test(raw);
  const quoted = raw.startsWith('"');
  return { start: after ? caret : from, end: after ? caret : endOfToken(text, caret, quoted), typed: unquote(raw), quoted, after };
}

function endOfToken(text, caret, quoted) {
  let end = caret;
  while (end < text.length && !RESERVED.test(text[end]) && !'"]'.includes(text[end])) end += 1;
  return quoted && text[end] === '"' ? end + 1 : end;
}

export function endOfString(text, start) {
  let at = start + 1;
  while (at < text.length && text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
  return Math.min(at + 1, text.length);
}

function closedString(text, start, end) {
  return end - start >= 2 && text[end - 1] === '"' && isJson(text.slice(start, end));
}

function endOfBare(text, start) {
  let at = start;
  while (at < text.length && (text[at] === "\\" || !RESERVED.test(text[at]))) at += text[at] === "\\" ? 2 : 1;
  return Math.min(at, text.length);
}

function endOfField(text, start) {
  let at = start;
  while (at < text.length && (text[at] === "\\" || !RESERVED.test(text[at]))) {
    if (text[at] === ":" && /[{["]/.test(text[at + 1] ?? "")) break;
    at += text[at] === "\\" ? 2 : 1;
  }
  return Math.min(at, text.length);
}

export function endOfJson(text, start) {
  if (text[start] === '"') return endOfString(text, start);
  let at = start;
  let depth = 0;
  while (at < text.length) {
    if (text[at] === '"') {
      at = endOfString(text, at);
      continue;
    }
    if ("[{".includes(text[at])) depth += 1;
    if ("]}".includes(text[at])) depth -= 1;
    at += 1;
    if (depth === 0) return at;
  }
  return text.length;
}

export function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/// The text that a bare or quoted token stands for; an unclosed quote is read as far as it goes.
export function unquote(raw) {
  if (!raw.startsWith('"')) return raw.replace(/\\(.?)/gs, "$1");
  for (const candidate of [raw, `${raw}"`]) {
    try {
      return JSON.parse(candidate);
    } catch {
      // Not closed yet, or an escape is half typed.
    }
  }
  return raw.slice(1);
}

/// `user` and `/address/city` as a field: `user./address/city`; a kind of `null` means every kind.
export function formatField(kind, pointer) {
  const literal = pointer.slice(1).replaceAll("~1", "/").replaceAll("~0", "~");
  const name = pointer.indexOf("/", 1) !== -1 || literal === "" || literal.startsWith("/") ? pointer : literal;
  return quoteField(`${kind ?? "*"}.${name}`);
}

/// A field as the filter language wants it: bare where nothing can be misread, else JSON.
export function quoteField(field) {
  return field === "" || /[\s,|()!\\"]|:$|:[{["]/.test(field) ? JSON.stringify(field) : field;
}

/// A JSON scalar or list as the filter language wants it: bare where nothing can be misread, else JSON.
export function formatValue(value, { quoted = false } = {}) {
  const bare = typeof value === "string" && /^[\p{L}\p{N}_.@/:+-]+$/u.test(value) && !isJson(value);
  return bare && !quoted ? value : JSON.stringify(value);
}

/// Splits a field into `{own}` or `{kind, pointer}`; `kinds` are the known ones, for kinds with a dot in their name.
export function readField(field, kinds) {
  if (FIELD_OPERATORS.has(field) && field !== "name") return { own: field };
  const known = kinds.filter((kind) => field.startsWith(`${kind}.`)).sort((a, b) => b.length - a.length)[0];
  const dot = known === undefined ? field.indexOf(".") : known.length;
  const kind = dot === -1 ? null : field.slice(0, dot);
  const name = field.slice(dot + 1);
  const pointer = name.startsWith("/") ? name : `/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
  return { kind: kind === "*" ? null : kind, pointer };
}

/// The UTF-16 position of a UTF-8 byte offset, as the server's messages count bytes.
export function positionOfByte(text, offset) {
  let bytes = 0;
  let position = 0;
  for (const letter of text) {
    if (bytes >= offset) break;
    bytes += letter.codePointAt(0) < 0x80 ? 1 : letter.codePointAt(0) < 0x800 ? 2 : letter.codePointAt(0) < 0x10000 ? 3 : 4;
    position += letter.length;
  }
  return position;
}
