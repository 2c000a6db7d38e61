//! Asks the search API what the search on the screen means, also where the server knows less than this page.
//!
//! In: the search state of a route. Out: an answer, and how the text was read.
//! A server may have no full-text search: free text then looks at keys and names only. One of the current API generation has one
//! order only and refuses to be given another. Both are learnt from its first refusal.

import { ApiError, searchContexts, searchRequest } from "./api.js";
import { interpret } from "./filter.js";
import { keysOf } from "./keylist.js";

let fullTextMissing = false;
let sortMissing = false;

export const knowsFullText = () => !fullTextMissing;
export const knowsSort = () => !sortMissing;

/// The order of a search: the chosen one, else the best matches of a text first, else what was seen last.
export const orderOf = ({ filter, sort }) => sort ?? defaultOrder(filter);

export const defaultOrder = (filter) => (interpret(filter).type === "text" ? "key" : "-ts");

/// The filter that stands for a text of the box.
export function filterOf(text) {
  const meaning = interpret(text);
  return meaning.type === "text" && fullTextMissing ? meaning.fallback : meaning.filter;
}

/// A list of keys as a filter; `null` if it is too long for one, empty without a list.
export function keysFilter(keys) {
  if (!keys) return "";
  const filter = `key anyOf ${JSON.stringify(keys)}`;
  return keys.length <= 1000 && filter.length <= 4000 ? filter : null;
}

/// The request for the first page, as it would be sent now.
export function requestOf(place, { filter, sort, limit, ...list }) {
  const keys = keysOf(list);
  const order = orderOf({ filter, sort });
  return searchRequest(place, { filter: filterOf(filter).trim(), sort: order === "key" || sortMissing ? null : order, limit, keys });
}

export async function ask(place, state, signal) {
  const meaning = interpret(state.filter);
  if (meaning.type !== "text") return askFor(place, meaning.filter, state, signal);
  if (!fullTextMissing) {
    try {
      return await askFor(place, meaning.filter, state, signal);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 400) throw error;
    }
  }
  const answer = await askFor(place, meaning.fallback, state, signal);
  fullTextMissing = true;
  return answer;
}

async function askFor(place, filter, state, signal) {
  const search = { filter, limit: state.limit, continuationToken: state.after, keys: keysOf(state) };
  const order = orderOf(state);
  if (order === "key" || sortMissing) return searchContexts(place, search, signal);
  try {
    return await searchContexts(place, { ...search, sort: order }, signal);
  } catch (error) {
    // An attribute may be one that nothing can be ordered by.
    if (error.status !== 400 || !/^sort\b/.test(error.message) || order.includes(":")) throw error;
    sortMissing = true;
    return searchContexts(place, search, signal);
  }
}
