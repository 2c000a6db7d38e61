//! Starts the page: header, API token, environment, and the view that the address names.
//!
//! Walk of a visit: `theme.js` has set the colours; the environments are asked for, which asks for the token once; the route is
//! completed with the last environment; `render` builds the view or hands it the new route. Everything after that is a new
//! address: links change the fragment, views call `navigate`, back and reload come in through `popstate`.

import { environments, forgetToken, onTokenNeeded, tokenAccepted } from "./api.js";
import { h, icon, replace, setText, tickTimes } from "./dom.js";
import { DetailView } from "./detail.js";
import { PipelineView } from "./pipeline.js";
import { formatRoute, hashOfPath, parseRoute } from "./route.js";
import { SearchView } from "./search.js";
import { ConnectView } from "./setup.js";
import { emptyState } from "./states.js";
import { forget, recall, remember } from "./store.js";

const TIME_TICK_MS = 5000;
const VIEWS = { contexts: SearchView, context: DetailView, pipeline: PipelineView, connect: ConnectView };
const TITLES = { contexts: "Contexts", pipeline: "Pipeline", connect: "Connect" };
const THEMES = ["auto", "light", "dark"];
const THEME_ICONS = { auto: "auto", light: "sun", dark: "moon" };

const main = document.querySelector("main");
const chooser = document.querySelector("#environment");
const views = new Map();
let places = [];
let current = null;
let currentView = null;

const placeName = ({ project, environment }) => `${project}/${environment}`;

function completed(route) {
  const named = route.project !== null && route.environment !== null;
  if (named) return route;
  const last = recall("environment");
  return { ...route, ...(places.find((place) => placeName(place) === last) ?? places[0]) };
}

function navigate(route, { replace: inPlace = false, state = {} } = {}) {
  history[inPlace ? "replaceState" : "pushState"](state, "", formatRoute(route));
  render();
}

function render() {
  const parsed = parseRoute(location.hash);
  const route = completed(parsed);
  if (route.project !== parsed.project || route.environment !== parsed.environment) {
    history.replaceState(history.state ?? {}, "", formatRoute(route));
  }
  const place = { project: route.project, environment: route.environment };
  const before = current;
  const changed = before === null || before.view !== route.view || placeName(before) !== placeName(place);
  current = route;
  drawHeader(route);
  if (changed || currentView === null) {
    currentView?.leave();
    currentView = viewOf(route, place);
    replace(main, currentView.node);
  }
  currentView.show(route, history.state?.trail);
  // A new view takes the focus, as a new page would; the first one leaves it where the browser starts.
  if (changed && before !== null && before.view !== route.view) currentView.focus(formatRoute(before));
}

// The search of an environment is kept, so that coming back from a context shows the same rows at once.
function viewOf(route, place) {
  const make = () => new VIEWS[route.view]({ place, navigate, back: goBack });
  if (route.view !== "contexts") return make();
  const name = placeName(place);
  if (!views.has(name)) views.set(name, make());
  return views.get(name);
}

// Only a context that was opened from the search goes back in the history; a sent link has something else behind it.
function goBack() {
  if (!history.state?.fromSearch) return false;
  history.back();
  return true;
}

function drawHeader(route) {
  remember("environment", placeName(route));
  document.title = `${route.view === "context" ? route.key : TITLES[route.view]} · Tidegate`;
  document.querySelector(".brand").setAttribute("href", formatRoute({ ...route, view: "contexts", search: {} }));
  for (const link of document.querySelectorAll("nav a[data-view]")) {
    link.setAttribute("href", formatRoute({ ...route, view: link.dataset.view, search: {} }));
    const here = link.dataset.view === route.view || (route.view === "context" && link.dataset.view === "contexts");
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const known = places.some((place) => placeName(place) === placeName(route));
  const listed = known ? places : [...places, route];
  const options = listed.map((place) => h("option", { value: placeName(place) }, `${place.project} / ${place.environment}`));
  replace(chooser, options);
  chooser.value = placeName(route);
}

function chooseEnvironment() {
  const place = places.find((candidate) => placeName(candidate) === chooser.value);
  if (!place) return;
  const view = current.view === "context" ? "contexts" : current.view;
  navigate({ ...current, ...place, view, search: { ...current.search, after: null, page: 1, columns: null } });
}

function cycleTheme() {
  const next = THEMES[(THEMES.indexOf(recall("theme") ?? "auto") + 1) % THEMES.length];
  if (next === "auto") forget("theme");
  else remember("theme", next);
  drawTheme(next);
}

function drawTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const button = document.querySelector("#theme");
  replace(button, icon(THEME_ICONS[theme]));
  button.setAttribute("aria-label", `Colours: ${theme}`);
  button.title = `Colours: ${theme}`;
}

function askForToken(refused) {
  const dialog = document.querySelector("#token-dialog");
  const input = dialog.querySelector("input");
  const fault = dialog.querySelector(".fault-message");
  const button = dialog.querySelector("button[type=submit]");
  setText(fault, refused ? "The server does not know this token, or no longer." : "");
  input.value = "";
  if (!dialog.open) dialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    let done = false;
    // Nothing works without a token, so Escape does not lead anywhere.
    dialog.oncancel = (event) => event.preventDefault();
    dialog.onclose = () => done || dialog.showModal();
    dialog.querySelector("form").onsubmit = async (event) => {
      event.preventDefault();
      const given = input.value.trim();
      if (given === "") return setText(fault, "Paste a token.");
      button.disabled = true;
      const problem = await tokenAccepted(given).then(
        (accepted) => (accepted ? null : "The server does not know this token."),
        (error) => error.message,
      );
      button.disabled = false;
      setText(fault, problem ?? "");
      if (problem !== null) return input.select();
      done = true;
      dialog.close();
      resolve(given);
    };
  });
}

async function start() {
  const hash = hashOfPath(location.pathname);
  if (hash !== null) history.replaceState(null, "", `/${hash}`);
  onTokenNeeded(askForToken);
  drawTheme(recall("theme") ?? "auto");
  document.querySelector("#theme").addEventListener("click", cycleTheme);
  document.querySelector("#forget-token").addEventListener("click", () => (forgetToken(), location.reload()));
  chooser.addEventListener("change", chooseEnvironment);
  addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, select, textarea, dialog");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey || current?.view !== "contexts") return;
    event.preventDefault();
    currentView.focusFilter();
  });
  document.querySelector("#skip").addEventListener("click", (event) => {
    // The fragment is the route, so the skip link may not change it.
    event.preventDefault();
    main.focus();
  });
  await loadEnvironments();
}

async function loadEnvironments() {
  replace(main, h("p", { class: "muted view" }, "Connecting…"));
  try {
    places = (await environments()).items;
  } catch (error) {
    const again = h("button", { type: "button", class: "button", onclick: () => loadEnvironments() }, icon("refresh"), "Try again");
    return replace(main, emptyState("The environments could not be read", error.message, again));
  }
  if (places.length === 0) return replace(main, emptyState("No environment is configured", "Add an [[environments]] section to the configuration and start again."));
  render();
  addEventListener("popstate", () => {
    // A followed link has no state yet; back and forward bring theirs along.
    if (history.state === null) history.replaceState({ fromSearch: current.view === "contexts" }, "");
    render();
  });
  setInterval(tickTimes, TIME_TICK_MS);
}

start();
