//! The address of a view and back. The whole search state lives here, so that reload, back and a sent link restore it.
//!
//! In: `location.hash`. Out: a `Route`, and the hash of a `Route`.
//! Everything is in the fragment, never in the path or the query: filters hold e-mail addresses and the like, and a fragment
//! never reaches an access log.
//!
//!     #/<project>/<environment>/contexts?filter=..&sort=..&limit=..&page=..&after=..&column=..&column=..&key=..&key=..
//!     #/<project>/<environment>/contexts/<kind>/<key>
//!     #/<project>/<environment>/pipeline
//!     #/<project>/<environment>/connect

export const DEFAULT_COLUMNS = ["/name", "lastSeen"];
export const DEFAULT_LIMIT = 20;
export const LIMITS = [20, 50];
export const SORTS = ["-ts", "ts", "key"];
/// The order by an attribute, up or down.
export const attributeSort = (pointer, descending = false) => `${descending ? "-" : ""}attr:${pointer}`;
const ATTRIBUTE_SORT = /^-?attr:\/./s;

const VIEWS = ["contexts", "pipeline", "connect"];

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/// `{view, project, environment, kind, key, search}`; unknown views and values fall back to the contexts and the defaults.
export function parseRoute(hash) {
  const [path, query = ""] = hash.replace(/^#/, "").split(/\?(.*)/s);
  const [project = null, environment = null, view, kind, key] = path.split("/").slice(1).map(decode);
  const route = {
    view: VIEWS.includes(view) ? view : "contexts",
    project: project || null,
    environment: environment || null,
    kind: null,
    key: null,
    search: parseSearch(new URLSearchParams(query)),
  };
  if (route.view === "contexts" && kind && key !== undefined) Object.assign(route, { view: "context", kind, key });
  return route;
}

function parseSearch(parameters) {
  const page = Number(parameters.get("page"));
  const limit = Number(parameters.get("limit"));
  const sort = parameters.get("sort");
  const after = parameters.get("after");
  return {
    filter: parameters.get("filter") ?? "",
    // Without one, what is searched for decides.
    sort: SORTS.includes(sort) || ATTRIBUTE_SORT.test(sort ?? "") ? sort : null,
    limit: LIMITS.includes(limit) ? limit : DEFAULT_LIMIT,
    after: after || null,
    page: after && Number.isInteger(page) && page > 1 ? page : 1,
    columns: parameters.has("column") ? parameters.getAll("column").filter(Boolean) : null,
    // A list of keys, or the name of one that is too long for an address (`keylist`).
    keys: parameters.has("key") ? parameters.getAll("key").filter(Boolean) : null,
    keyList: parameters.get("keys") || null,
  };
}

export function formatRoute(route) {
  const parts = [route.project, route.environment, route.view === "context" ? "contexts" : route.view];
  if (route.view === "context") parts.push(route.kind, route.key);
  const query = route.view === "contexts" ? formatSearch(route.search ?? {}) : "";
  return `#/${parts.map((part) => encodeURIComponent(part ?? "")).join("/")}${query && `?${query}`}`;
}

function formatSearch(search) {
  const parameters = new URLSearchParams();
  if (search.filter) parameters.set("filter", search.filter);
  if (search.sort) parameters.set("sort", search.sort);
  if (search.limit && search.limit !== DEFAULT_LIMIT) parameters.set("limit", search.limit);
  if (search.after) {
    parameters.set("page", search.page);
    parameters.set("after", search.after);
  }
  for (const key of search.keys ?? []) parameters.append("key", key);
  if (search.keyList) parameters.set("keys", search.keyList);
  for (const column of chosenColumns(search.columns)) parameters.append("column", column);
  return parameters.toString();
}

// The default columns stay out of the address; a list without any column is written as one empty name.
function chosenColumns(columns) {
  if (!columns || columns.join("\n") === DEFAULT_COLUMNS.join("\n")) return [];
  return columns.length === 0 ? [""] : columns;
}

/// The search API's `site` links have the route as a path; the page keeps it in the fragment.
export function hashOfPath(pathname) {
  const match = /^\/[^/]+\/[^/]+\/contexts(\/[^/]+\/[^/]+)?\/?$/.exec(pathname);
  return match ? `#${pathname.replace(/\/$/, "")}` : null;
}
