//! Builds and replaces elements. The only way the page makes markup.
//!
//! In: tag names, attributes, text. Out: DOM nodes.
//! Promise: text from events reaches the document as text nodes only; nothing here parses HTML, and attributes that could
//! run or style something are refused, so the page lives under its Content-Security-Policy whatever an event contains.

import { ago, parseTime, UNKNOWN } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") {
      node.addEventListener(name.slice(2), value);
    } else if (/^(on|style$|srcdoc$)/i.test(name) || (name === "href" && !/^(#|\/(?!\/))/.test(value))) {
      throw new Error(`attribute ${name} is not allowed`);
    } else {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/// `h("a", {href: "#/", onclick: f}, "text", node)`: functions become listeners, `false` and `null` are left out.
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

export function replace(node, ...children) {
  node.replaceChildren();
  append(node, children);
  return node;
}

/// Sets the text only when it differs, so that a screen reader and a selection are not disturbed by every refresh.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const ICONS = {
  search: "M7 12.5a5.5 5.5 0 1 0 0-11 5.5 5.5 0 0 0 0 11Zm4-1.5 3.5 3.5",
  close: "m4 4 8 8m0-8-8 8",
  copy: "M5.5 5.5v-3h8v8h-3m-8-5h8v8h-8z",
  keys: "M2 4h8M2 8h8M2 12h5m5-1v3m-1.5-1.5h3",
  check: "m3 8.5 3.5 3.5L13 4.5",
  back: "M9.5 3 4.5 8l5 5",
  next: "m6.5 3 5 5-5 5",
  up: "m3.5 10 4.5-4.5L12.5 10",
  down: "M3.5 6 8 10.5 12.5 6",
  plus: "M8 3v10M3 8h10",
  filter: "M2 3.5h12l-4.5 5v4.5l-3 1.5v-6z",
  facets: "M2.5 3.5h11M2.5 8h7.500M2.5 12.500h4",
  bookmark: "M4 2.500h8v11l-4-3-4 3z",
  share: "m5.500 4.500-3.500 3.500 3.500 3.500m5-7 3.500 3.500-3.500 3.500",
  export: "M8 2.500v7.500m-3-3 3 3 3-3M3 13.500h10",
  erase: "M3 4.500h10M6.500 4.500v-2h3v2m-5 0 .7 9h5.600l.7-9m-3.800 2.500v4m2-4v4",
  rows: "M2.5 3h11v4h-11zM2.5 9.500h11v4h-11z",
  columns: "M2.5 3h11v10h-11zM6.2 3v10m3.600-10v10",
  refresh: "M13 8a5 5 0 1 1-1.5-3.600M13 1.800v3h-3",
  pause: "M5.5 3.5v9m5-9v9",
  play: "m5 3 8 5-8 5z",
  sun: "M8 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6Zm0-9.5v1.2m0 10.600v1.2M1.5 8h1.2m10.600 0h1.2M3.4 3.4l.9.9m7.4 7.4.9.9m0-9.2-.9.9m-7.4 7.4-.9.9",
  moon: "M13.5 9.5A6 6 0 0 1 6.5 2.5a6 6 0 1 0 7 7Z",
  auto: "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12Zm0-12v12m2-11.300v10.600m2-8.800v7",
  key: "M5.5 13a3 3 0 1 0 0-6 3 3 0 0 0 0 6Zm2.2-5.2L13.5 2m-3 3 2 2",
  lock: "M3.5 7.5h9v6h-9zm2-.0v-2.5a2.5 2.5 0 0 1 5 0v2.5",
};

export function icon(name) {
  return svg("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true", focusable: "false" }, svg("path", { d: ICONS[name] }));
}

/// A dialog with a title and a button that closes it, as a press beside it does. `head`: what stands between the two.
export function titledDialog({ name, title, id = `${name}-title`, onclose = () => {} }, head, ...content) {
  const close = h("button", { type: "button", class: "icon-button", "aria-label": "Close", onclick: () => node.close() }, icon("close"));
  const node = h(
    "dialog",
    { class: `dialog ${name}-dialog`, "aria-labelledby": id, onclick: (event) => event.target === node && node.close(), onclose },
    h("div", { class: "dialog-body" }, h("header", { class: "dialog-head" }, h("h2", { id }, title), head, close), content),
  );
  return node;
}

/// A button that copies `text()` and says so, to eyes and to screen readers.
export function copyButton(text, what) {
  const label = h("span", {}, "Copy");
  const status = h("span", { class: "visually-hidden", role: "status" });
  const button = h(
    "button",
    {
      type: "button",
      class: "button small copy",
      "aria-label": `Copy ${what}`,
      onclick: async () => {
        const copied = await copy(text());
        replace(button, icon(copied ? "check" : "copy"), label, status);
        label.textContent = copied ? "Copied" : "Press Ctrl+C";
        status.textContent = copied ? `${what} copied` : "";
        setTimeout(() => {
          replace(button, icon("copy"), label, status);
          label.textContent = "Copy";
          status.textContent = "";
        }, 2000);
      },
    },
    icon("copy"),
    label,
    status,
  );
  return button;
}

// The clipboard interface exists only on secure origins; over plain HTTP to another machine the old command still works.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h("textarea", { class: "visually-hidden", readonly: true });
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

/// A time as "12 s ago", with the full time on hover; `tickTimes` keeps all of them true.
export function timeAgo(value) {
  const date = parseTime(value);
  if (date === null) return document.createTextNode(UNKNOWN);
  return h("time", { datetime: date.toISOString(), title: typeof value === "string" ? value : date.toISOString() }, ago(date));
}

export function tickTimes() {
  for (const node of document.querySelectorAll("time")) setText(node, ago(new Date(node.dateTime)));
}
