//! Turns numbers, times and attribute values into the words on the screen.
//!
//! In: answers of the server, where a number that is not known may be absent. Out: short text; `–` for the unknown.

export const UNKNOWN = "–";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

const known = (number) => typeof number === "number" && Number.isFinite(number);

export function count(number) {
  return known(number) ? whole.format(number) : UNKNOWN;
}

export function compact(number) {
  if (!known(number)) return UNKNOWN;
  return number < 10000 ? whole.format(number) : short.format(number);
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/// A count that was not counted to the end is marked.
export function about(text, estimate) {
  return estimate ? `~${text}` : text;
}

/// A rate per second: one decimal while small, so that a trickle does not read as silence.
export function rate(number) {
  if (!known(number)) return UNKNOWN;
  if (number > 0 && number < 0.05) return "<0.1";
  return number < 10 ? String(Math.round(number * 10) / 10) : compact(number);
}

export function bytes(number) {
  if (!known(number)) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let value = number;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

export function seconds(number) {
  if (!known(number)) return UNKNOWN;
  if (number < 9.95) return `${number.toFixed(1)} s`;
  if (number < 90) return `${Math.round(number)} s`;
  if (number < 90 * 60) return `${Math.round(number / 60)} min`;
  if (number < 36 * 3600) return `${Math.round(number / 3600)} h`;
  return `${Math.round(number / 86400)} d`;
}

/// Epoch milliseconds, digit text or RFC 3339 text; `null` when it is none of them. A time without a zone is UTC.
export function parseTime(value) {
  const text = typeof value === "string" && /T[\d:.]+$/.test(value) ? `${value}Z` : value;
  const ms = typeof text === "string" && !/^\d+$/.test(text) ? Date.parse(text) : Number(text ?? NaN);
  return Number.isFinite(ms) ? new Date(ms) : null;
}

const two = (number) => String(number).padStart(2, "0");

/// `2026-03-01 10:00:00` in the reader's time zone: sorts by eye, reads the same everywhere.
export function clock(date) {
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

export function ago(date, now = Date.now()) {
  const elapsed = (now - date.getTime()) / 1000;
  if (elapsed < -5) return clock(date);
  if (elapsed < 2) return "just now";
  return elapsed < 14 * 86400 ? `${seconds(elapsed).replace(/\.\d /, " ")} ago` : clock(date).slice(0, 10);
}

/// An attribute's value as text: strings as they are, everything else as JSON.
export function valueText(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

/// The value at a JSON pointer, or `undefined`; looks at own fields only.
export function atPointer(object, pointer) {
  let value = object;
  for (const segment of pointer.split("/").slice(1)) {
    const name = segment.replaceAll("~1", "/").replaceAll("~0", "~");
    if (value === null || typeof value !== "object" || Array.isArray(value) || !Object.hasOwn(value, name)) return undefined;
    value = value[name];
  }
  return value;
}

/// `[pointer, value]` of each leaf; arrays and empty objects count as leaves.
export function leaves(object, prefix = "") {
  return Object.entries(object).flatMap(([name, value]) => {
    const pointer = `${prefix}/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
    const nested = value !== null && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length > 0;
    return nested ? leaves(value, pointer) : [[pointer, value]];
  });
}

/// A pointer as people write it: `plan` for `/plan`, `/address/city` stays.
export function attributeLabel(pointer) {
  const literal = pointer.slice(1).replaceAll("~1", "/").replaceAll("~0", "~");
  return pointer.indexOf("/", 1) === -1 && literal !== "" && !literal.startsWith("/") ? literal : pointer;
}
