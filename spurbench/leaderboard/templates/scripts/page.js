"use strict";
// Text from outside reaches the page as textContent and attributes only.

/** The JSON of a block of the page, parsed when it is first asked for. */
const blocks = new Map();
function block(id) {
  if (!blocks.has(id)) blocks.set(id, JSON.parse(document.getElementById(id).textContent));
  return blocks.get(id);
}

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "style") Object.assign(made.style, value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A long name that may be broken after its separators. */
function breakable(name) {
  return name.split(/(?<=[_./:-])(?=.)/).flatMap((part, i) => (i ? [element("wbr"), part] : [part]));
}

const SVG = "http://www.w3.org/2000/svg";
function drawn(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const one = (value) => value.toFixed(1);
const signed = (value) => (value >= 0.05 ? "+" : value <= -0.05 ? "−" : "") + one(Math.abs(value));
const span = (part, format = one) => `${format(part.low)} to ${format(part.high)}`;
const plural = (n, noun) => `${n} ${noun}${n === 1 ? "" : noun.endsWith("s") ? "es" : "s"}`;

/** The Wilson score interval of k out of n, percent. */
function wilson(k, n) {
  const z = 1.959963984540054;
  const p = k / n;
  const centre = (p + (z * z) / (2 * n)) / (1 + (z * z) / n);
  const half = (z / (1 + (z * z) / n)) * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n));
  return { low: 100 * Math.max(0, centre - half), high: 100 * Math.min(1, centre + half) };
}

const WORDS = { real: "real", generated: "generated", control: "twins", positive: "positives" };
const COMPARED_FIRST = 5; // the first in rank are compared until somebody chooses
const MOST_COMPARED = 20;

// ---------------------------------------------------------------- the address carries the state

const KEYS = [
  "dataset", "sort", "find", "family", "training", "columns", "images", "compare", "class",
  "classifier", "row",
];

function fromAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries(KEYS.map((key) => [key, given.get(key) ?? ""]));
}

function toAddress(values) {
  const given = new URLSearchParams(Object.entries(values).filter(([, value]) => value));
  return `#${given.toString().replaceAll("%2C", ",")}`;
}

let state = fromAddress();
let shown = null; // what the page shows: the state that it was last drawn for

/** Change the state; a step is one that the browser's "back" undoes. */
function go(changes, { step = true } = {}) {
  const next = { ...state, ...changes };
  if (KEYS.every((key) => next[key] === state[key])) return;
  state = next;
  const first = board().id === block("boards")[0] && !KEYS.slice(1).some((key) => state[key]);
  const address = first ? location.pathname + location.search : toAddress(state);
  history[step ? "pushState" : "replaceState"](null, "", address);
  draw();
}

/** The board that is shown: the one of the address, or the first. */
function board() {
  const ids = block("boards");
  return block(`board-${ids.indexOf(state.dataset) < 0 ? 0 : ids.indexOf(state.dataset)}`);
}

/** Answers and images of the board: a block of its own after the script, for it is long. */
function answers() {
  return block(`answers-${Math.max(0, block("boards").indexOf(state.dataset))}`);
}

/** The classifiers that are compared: those chosen, or the first in rank. */
function compared() {
  const { rows } = board();
  const chosen = state.compare.split(",").filter(Boolean);
  const found = chosen.map((id) => rows.find((row) => row.id === id)).filter(Boolean);
  return found.length ? found : rows.slice(0, COMPARED_FIRST);
}

function compare(row, on) {
  const chosen = state.compare ? compared().map((r) => r.id) : [];
  const others = chosen.filter((id) => id !== row.id);
  go({ compare: (on ? [...others, row.id].slice(-MOST_COMPARED) : others).join(",") });
}
