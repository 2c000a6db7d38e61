//! A list of keys that a search is narrowed to: reading what was pasted, keeping it for the address, telling which are not there.
//!
//! In: pasted text. Out: distinct keys; the part of a route's search that stands for them.
//! A short list is in the address itself. A long one is not, as no address holds 10,000 keys: the address names it by its length
//! and a hash, and the list is kept for this tab of the browser. Elsewhere it has to be pasted again, and the page says so.
//! Not here: the dialog (`keydialog`).

import { exportContexts } from "./api.js";

export const KEYS_MAX = 10000;
const ADDRESS_LETTERS_MAX = 1500;

const memory = new Map();

/// One key a line, or in a cell of a spreadsheet; a single line is cut at its commas. `{keys, repeated}`.
export function readKeys(text) {
  const lines = text.split(/[\r\n\t]+/).map((key) => key.trim()).filter(Boolean);
  const cut = lines.length === 1 ? lines[0].split(",").map((key) => key.trim()).filter(Boolean) : lines;
  const keys = [...new Set(cut)];
  return { keys, repeated: cut.length - keys.length };
}

/// The part of a search that stands for the keys.
export function keysForAddress(keys) {
  if (keys.length === 0) return { keys: null, keyList: null };
  if (encodeURIComponent(keys.join("&key=")).length <= ADDRESS_LETTERS_MAX) return { keys, keyList: null };
  const id = `${keys.length}-${hash(keys)}`;
  memory.set(id, keys);
  try {
    sessionStorage.setItem(`tidegate.keys.${id}`, JSON.stringify(keys));
  } catch {
    // Too long for the storage, or there is none: it is kept until the page is loaded anew.
  }
  return { keys: null, keyList: id };
}

/// The keys of a search: `null` if it has none, `undefined` if they are a list that is not known here.
export function keysOf({ keys, keyList }) {
  if (!keyList) return keys ?? null;
  if (memory.has(keyList)) return memory.get(keyList);
  try {
    const kept = JSON.parse(sessionStorage.getItem(`tidegate.keys.${keyList}`));
    return Array.isArray(kept) ? kept : undefined;
  } catch {
    return undefined;
  }
}

/// How many keys a list had that is not known here, as far as its name says.
export const lengthOf = (keyList) => (/^\d+-/.test(keyList) ? Number.parseInt(keyList, 10) : null);

/// The keys that no context has, whatever the filter: `{absent, contexts}` with the number of contexts that have the others.
export async function absentKeys(place, keys, signal) {
  const { rows } = await exportContexts(place, { keys, columns: ["key"], format: "ndjson" }, signal, () => {});
  const found = (await rows.text()).split("\n").filter(Boolean).map((line) => JSON.parse(line).key);
  const present = new Set(found);
  return { absent: keys.filter((key) => !present.has(key)), contexts: found.length };
}

// FNV-1a; it only has to tell the lists of one person apart.
function hash(keys) {
  let [left, right] = [0x811c9dc5, 0x9747b28c];
  for (const key of keys) {
    for (let at = 0; at <= key.length; at += 1) {
      const unit = at < key.length ? key.charCodeAt(at) : 0x110000;
      left = Math.imul(left ^ unit, 0x01000193);
      right = Math.imul(right ^ unit, 0x01000193) + at;
    }
  }
  return (left >>> 0).toString(36) + (right >>> 0).toString(36);
}
