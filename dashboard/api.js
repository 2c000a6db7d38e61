//! Talks to the server: one function per question, one error type for every way it can go wrong.
//!
//! In: the API token (asked once, kept by `store`), arguments of the views. Out: parsed answers or an `ApiError`.
//! Promise: a 401 asks for the token again and repeats the request; a request given an abort signal can be abandoned at any time.
//! Not here: what an answer means; the views know.

import { forget, recall, remember } from "./store.js";

export class ApiError extends Error {
  /// `status` is 0 when the server could not be reached.
  constructor(status, message, { code = "", id = "" } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.id = id;
  }
}

let askForToken = () => Promise.reject(new ApiError(401, "no API token"));
let asking = null;

/// `ask(refused)` resolves with a token that the user gave; `refused` tells that the last one was not accepted.
export function onTokenNeeded(ask) {
  askForToken = ask;
}

export function forgetToken() {
  forget("token");
}

// Requests that run side by side share one dialog.
async function token(refused) {
  const kept = recall("token");
  if (kept && kept !== refused) return kept;
  asking ??= askForToken(refused !== null)
    .then((given) => remember("token", given))
    .finally(() => (asking = null));
  await asking;
  return recall("token");
}

export async function request(path, options) {
  return (await exchange(path, options)).answer;
}

/// `{answer, headers}`.
async function exchange(path, { method = "GET", query = {}, body, signal } = {}) {
  const parameters = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== null && value !== undefined));
  const url = parameters.size > 0 ? `${path}?${parameters}` : path;
  let refused = null;
  for (;;) {
    const credential = await token(refused);
    const response = await send(url, method, body, signal, credential);
    if (response.status === 401) {
      refused = credential;
      continue;
    }
    return { answer: await read(response), headers: response.headers };
  }
}

/// As `exchange`, with the body as bytes; `onbytes` is told how many have come.
async function download(path, body, signal, onbytes) {
  let refused = null;
  for (;;) {
    const credential = await token(refused);
    const response = await send(path, "POST", body, signal, credential);
    if (response.status === 401) {
      refused = credential;
      continue;
    }
    if (!response.ok) await read(response);
    return { rows: await gathered(response, onbytes), headers: response.headers };
  }
}

async function gathered(response, onbytes) {
  const chunks = [];
  let bytes = 0;
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return new Blob(chunks);
      chunks.push(value);
      onbytes((bytes += value.length));
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The connection broke off.");
  }
}

/// Whether the server knows this token; network trouble is thrown, as it says nothing about the token.
export async function tokenAccepted(credential) {
  const response = await send("/api/tidegate/environments", "GET", undefined, undefined, credential);
  if (response.status === 401) return false;
  await read(response);
  return true;
}

async function send(url, method, body, signal, credential) {
  const headers = { Accept: "application/json" };
  // A header holds no line breaks or letters beyond Latin-1; such a token cannot be right, and fetch would throw on it.
  if (/^[\x21-\x7e]+$/.test(credential)) headers.Authorization = credential;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  try {
    const text = body === undefined ? undefined : JSON.stringify(body);
    return await fetch(url, { method, headers, body: text, signal, credentials: "omit", cache: "no-store", referrerPolicy: "no-referrer" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server could not be reached. Is tidegate running?");
  }
}

async function read(response) {
  const answer = await response.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    return null;
  });
  if (response.ok && answer !== null) return answer;
  const message = answer?.message ?? `The server answered ${response.status} without an explanation.`;
  throw new ApiError(response.status, message, answer ?? {});
}

const segment = encodeURIComponent;

// Browsers resolve these as steps in the path, escaped or not.
const fitsPath = (name) => !["", ".", ".."].includes(name);

function base({ project, environment }) {
  return `/api/v2/projects/${segment(project)}/environments/${segment(environment)}`;
}

export const environments = () => request("/api/tidegate/environments");
export const setup = (signal) => request("/api/tidegate/setup", { signal });
export const pipeline = (signal) => request("/api/tidegate/pipeline", { signal });
export const deadLetters = (limit, signal) => request("/api/tidegate/dead-letters", { query: { limit }, signal });
export const deadLetter = (id, signal) => request(`/api/tidegate/dead-letters/${segment(id)}`, { signal });

/// Path of the search and its body; `search`: `{filter, sort, limit, continuationToken, keys}`, absent fields left out.
export function searchRequest(place, search) {
  const body = Object.fromEntries(Object.entries(search).filter(([, value]) => value !== null && value !== undefined && value !== ""));
  return { url: `${base(place)}/contexts/search`, search: body };
}

/// The answer, and as its `state` what the server says of the index: `rebuilding`, `partial` or nothing.
export async function searchContexts(place, given, signal) {
  const { url, search } = searchRequest(place, given);
  const { answer, headers } = await exchange(url, { method: "POST", body: search, signal });
  return { ...answer, state: headers.get("X-Tidegate-Index") ?? "" };
}

/// A part of an export, or all of it: `{rows, headers}`, `rows` a Blob. Absent fields of `body` are left out.
export function exportContexts(place, body, signal, onbytes) {
  return download(`${base(place)}/contexts/export`, body, signal, onbytes);
}

/// Notes an erasure. `subject`: `{filter}` or `{contexts: [{kind, key}]}`.
export function erase(place, subject, signal) {
  return request(`${base(place)}/contexts/erasures`, { method: "POST", body: subject, signal });
}

export function erasure(place, id, signal) {
  return request(`${base(place)}/contexts/erasures/${segment(id)}`, { signal });
}

export function contextVersions(place, kind, key, signal) {
  if (!fitsPath(kind) || !fitsPath(key)) {
    const filter = `kind equals ${JSON.stringify(kind)},key equals ${JSON.stringify(key)}`;
    return searchContexts(place, { filter }, signal);
  }
  return request(`${base(place)}/contexts/${segment(kind)}/${segment(key)}`, { query: { limit: 50 }, signal });
}

export function evaluations(place, kind, key, limit, signal) {
  const { project, environment } = place;
  const path = `/api/tidegate/projects/${segment(project)}/environments/${segment(environment)}/contexts/${segment(kind)}/${segment(key)}/evaluations`;
  return request(path, { query: { limit }, signal });
}

/// `within`: a filter of the contexts that count; empty for all.
export function attributeNames(place, filter, within, signal) {
  return request(`${base(place)}/context-attributes`, { query: { filter: filter || null, withFilter: within || null }, signal });
}

export function attributeValues(place, name, filter, within, limit, signal) {
  return request(`${base(place)}/context-attributes/${segment(name)}`, { query: { filter: filter || null, withFilter: within || null, limit }, signal });
}
