//! What the page remembers between visits: token, theme, last environment, chosen columns and facets, saved searches.
//!
//! In and out: localStorage, under names that start with `tidegate.`.
//! Promise: works (and forgets) where storage is switched off; a damaged entry counts as absent.

const memory = new Map();

export function recall(name) {
  try {
    return localStorage.getItem(`tidegate.${name}`);
  } catch {
    return memory.get(name) ?? null;
  }
}

export function remember(name, text) {
  memory.set(name, text);
  try {
    localStorage.setItem(`tidegate.${name}`, text);
  } catch {
    // Kept in memory for this visit.
  }
}

export function forget(name) {
  memory.delete(name);
  try {
    localStorage.removeItem(`tidegate.${name}`);
  } catch {
    // Nothing was kept.
  }
}

export function recallList(name) {
  try {
    const list = JSON.parse(recall(name) ?? "null");
    return Array.isArray(list) && list.every((entry) => typeof entry === "string") ? list : null;
  } catch {
    return null;
  }
}
