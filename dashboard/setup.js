//! What to do next with a new installation: the keys of this environment, a `curl` line, the lines for an SDK.
//!
//! In: `/api/tidegate/setup`. Out: an element; shown by the empty search and by the Connect view.

import { setup } from "./api.js";
import { copyButton, h, replace, setText } from "./dom.js";
import { formatRoute } from "./route.js";

const LANGUAGES = [
  ["curl", "curl"],
  ["python", "Python"],
  ["node", "Node.js"],
  ["go", "Go"],
];

/// `waiting`: the search shows it until the first context arrives.
export function setupPanel({ place, waiting }) {
  const body = h("div", { class: "setup-body", "aria-busy": "true" }, h("div", { class: "skeleton", "aria-hidden": "true" }, h("div", { class: "skeleton-row" }), h("div", { class: "skeleton-row" })));
  const lead = waiting
    ? [h("h2", {}, "No contexts here yet"), h("p", { class: "muted" }, "Send the first event, or point an SDK at this server. Its users appear here within seconds.")]
    : h("p", { class: "muted" }, "Point an SDK at this server by changing its events URL; nothing else changes. Or send one event by hand.");
  const pulse = waiting ? h("p", { class: "waiting", role: "status" }, h("span", { class: "pulse", "aria-hidden": "true" }), "Waiting for the first context") : null;
  const node = h("div", { class: "setup" }, lead, pulse, body);
  fill(body, place);
  return node;
}

async function fill(body, place) {
  try {
    draw(body, place, await setup());
  } catch (error) {
    const text = error.status === 403 ? "This token may not see SDK keys. Use a token with the role writer, or ask whoever runs this server for the keys." : error.message;
    replace(body, h("p", { class: "muted" }, text));
  } finally {
    body.setAttribute("aria-busy", "false");
  }
}

function draw(body, place, answer) {
  const keys = (answer.environments ?? []).find(({ project, environment }) => project === place.project && environment === place.environment);
  const texts = { curl: inLines(answer.curl ?? ""), ...answer.sdk };
  const known = LANGUAGES.filter(([name]) => texts[name]);
  const others = Object.keys(answer.sdk ?? {}).filter((name) => !LANGUAGES.some(([known]) => known === name));
  replace(body, tabs([...known, ...others.map((name) => [name, name])], texts, swapKeys(answer, place)), h("h3", {}, "Keys"), facts(answer, keys));
}

// One argument a line is easier to read, and the shell takes it all the same.
function inLines(curl) {
  return curl.includes("\n") ? curl : curl.replaceAll(/ (-[Hd]) '/g, " \\\n  $1 '");
}

// The server writes its lines for the first environment that has an SDK key; the same lines serve another one with its own keys.
function swapKeys({ environments = [] }, place) {
  const written = environments.find(({ sdkKey }) => sdkKey);
  const wanted = environments.find(({ project, environment }) => project === place.project && environment === place.environment);
  if (!written || !wanted || written === wanted) return (text) => text;
  const pairs = ["sdkKey", "mobileKey", "clientSideId"].filter((name) => written[name] && wanted[name]).map((name) => [written[name], wanted[name]]);
  return (text) => pairs.reduce((swapped, [from, to]) => swapped.replaceAll(from, to), text);
}

function tabs(languages, texts, swap) {
  const code = h("code", {});
  const panel = h("div", { class: "code-block", id: "setup-code", role: "tabpanel", "aria-labelledby": "" }, copyButton(() => code.textContent, "these lines"), h("pre", { tabindex: "0" }, code));
  const buttons = languages.map(([name, label]) => h("button", { type: "button", role: "tab", id: `setup-tab-${name}`, "aria-controls": "setup-code", onclick: () => choose(name) }, label));
  const choose = (name) => {
    for (const [index, button] of buttons.entries()) {
      const chosen = languages[index][0] === name;
      button.setAttribute("aria-selected", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
    }
    panel.setAttribute("aria-labelledby", `setup-tab-${name}`);
    setText(code, swap(texts[name]));
  };
  const list = h("div", { class: "tabs", role: "tablist", "aria-label": "Ways to send events", onkeydown: (event) => step(event) }, buttons);
  const step = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    const at = buttons.indexOf(document.activeElement);
    const next = (at + by + buttons.length) % buttons.length;
    choose(languages[next][0]);
    buttons[next].focus();
  };
  if (languages.length > 0) choose(languages[0][0]);
  return h("div", {}, list, panel);
}

function facts(answer, keys) {
  const rows = [
    ["Events URL", answer.eventsUrl],
    ["SDK key", keys?.sdkKey],
    ["Mobile key", keys?.mobileKey],
    ["Client-side id", keys?.clientSideId],
  ];
  return h("dl", { class: "facts keys" }, rows.filter(([, value]) => value).map(([name, value]) => h("div", { class: "fact" }, h("dt", {}, name), h("dd", {}, h("code", { class: "break" }, value), copyButton(() => value, name)))));
}

export class ConnectView {
  constructor({ place }) {
    this.title = h("h1", { tabindex: "-1" }, "Connect an SDK");
    const contexts = h("a", { href: formatRoute({ ...place, view: "contexts" }) }, "the contexts of this environment");
    this.node = h("section", { class: "view connect-view", "aria-label": "Connect" }, this.title, setupPanel({ place, waiting: false }), h("p", { class: "muted" }, "Then look at ", contexts, "."));
  }

  show() {}

  leave() {}

  focus() {
    this.title.focus();
  }
}
