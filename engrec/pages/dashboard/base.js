"use strict";
// What all views use: elements, numbers as text, and where records come from.
// Text of files reaches the page as text nodes, or through escaped(), never as markup.

/** JSON that the page holds. */
const here = (id) => {
  const element = document.getElementById(id);
  return element && JSON.parse(element.textContent);
};

const constants = here("constants"); // metrics, marks of splits, and how figures look
const runs = new Map();
let about = { root: "", error: "", exported: "" };

const LOGGED = constants.metrics.filter((metric) => metric.logged);
const SCORES = Object.fromEntries(LOGGED.map(({ key, label }) => [key, label]));
const SHARES = new Set(LOGGED.filter((metric) => metric.share).map(({ key }) => key)); // shown in per cent
const STATES = ["running", "finished", "failed", "stopped", "pruned", "unknown", "damaged"];

/** An element, such as "div.wide". Properties may come first: those that start with "on" are listeners. Text among the
 * children stays text. */
function h(selector, ...children) {
  const [tag, ...classes] = selector.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  const properties = children[0]?.constructor === Object ? children.shift() : {};
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

const section = (title, ...children) => h("section", h("h2", title), ...children);
const note = (...text) => h("p.note", ...text);
const code = (text) => h("pre.command", text);
const button = (kind, onclick, ...content) => h(`button.${kind}`, { type: "button", onclick }, ...content);

/** head: its cells; rows: lists of cells, of which the first is a heading. */
function plainTable(head, rows, kind) {
  const cells = (row) => row.map((cell, i) => (i ? h("td", cell) : h("th", { scope: "row" }, cell)));
  const heads = head.map((cell) => h("th", { scope: "col" }, cell));
  const body = rows.map((row) => h("tr", cells(row)));
  return h("div.wide", h(`table.${kind}`, h("thead", h("tr", heads)), h("tbody", body)));
}

function escaped(text) {
  return String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

// Numbers as text.

const percent = (value, signed = false) =>
  value == null ? "" : `${signed && value > 0 ? "+" : ""}${(100 * value).toFixed(1)}`.replace("-", "−");

function scoreText(score, value, signed = false) {
  if (value == null) return "";
  if (SHARES.has(score)) return percent(value, signed);
  return `${signed && value > 0 ? "+" : ""}${value.toFixed(4)}`.replace("-", "−");
}

/** sign: the mark of intervals over few people, which the legend explains. */
function withInterval(figure, sign = "") {
  if (!figure || figure.value == null) return "undefined";
  const between = figure.low == null ? "" : ` [${percent(figure.low)}, ${percent(figure.high)}]${sign}`;
  return percent(figure.value) + between + (figure.sd == null ? "" : ` ±${percent(figure.sd)}`);
}

function duration(seconds) {
  if (seconds == null || seconds < 0) return "";
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (seconds < 600) return `${Math.floor(seconds / 60)} min ${String(Math.floor(seconds % 60)).padStart(2, "0")} s`;
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** In the time zone of the browser; Swedish dates are ISO's. */
const date = (seconds) =>
  seconds == null ? "" : new Date(1000 * seconds).toLocaleString("sv", { dateStyle: "short", timeStyle: "short" });

function ago(seconds) {
  const passed = Math.max(0, Date.now() / 1000 - seconds);
  return passed < 5 ? "just now" : `${duration(Math.round(passed))} ago`;
}

function shown(value) {
  if (value === undefined) return "";
  if (typeof value !== "number") return String(value);
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)));
}

const counted = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;

// Runs.

function label(run) {
  return run.path === "." ? about.root : run.path;
}

function secondsOf(run) {
  const until = run.state === "running" ? Date.now() / 1000 : run.ended;
  if (until && run.begun) return run.earlier + until - run.begun; // all parts of a resumed run
  return run.seconds;
}

/** Whether its split knows the people who are tested: random and everyone. */
const isNoResult = (run) => Object.hasOwn(constants.marks, run.split ?? "");
const splitOf = (run) => (isNoResult(run) ? `${run.split} (${constants.marks[run.split]})` : run.split);

const badge = (state) => h(`span.badge.${STATES.includes(state) ? state : "unknown"}`, state);

const runLink = (run, more) => h("a", { href: `#/run/${run.id}`, ...more }, label(run));

let differences = { of: null, found: null };

/** The settings in which all runs differ; kept until records change. */
function allDiffering() {
  if (differences.of !== seen) differences = { of: seen, found: differing([...runs.values()]) };
  return differences.found;
}

/** The settings in which some of these runs differ: groups of options by their name, and what differs among runs that have
 * the same option. Those come first in which most runs differ from the most frequent value. */
function differing(all) {
  const some = all.filter((run) => Object.keys(run.settings).length);
  const groups = new Set(some.flatMap((run) => Object.keys(run.choices)));
  const found = new Map();
  const add = (name, number) => number && found.set(name, number);
  const odd = (alike, valueOf) => {
    const counts = [...Map.groupBy(alike, valueOf).values()].map((same) => same.length);
    return alike.length - Math.max(0, ...counts);
  };
  for (const group of groups) {
    if (["dataset", "model", "split"].includes(group)) continue;
    const chosen = some.filter((run) => group in run.choices);
    add(group, odd(chosen, (run) => run.choices[group]));
  }
  for (const key of new Set(some.flatMap((run) => Object.keys(run.settings)))) {
    const group = key.split(".")[0];
    const sameOption = Map.groupBy(some, (run) => (groups.has(group) ? run.choices[group] : ""));
    const odds = [...sameOption.values()].map((alike) => odd(alike, (run) => JSON.stringify(run.settings[key])));
    add(key, odds.reduce((a, b) => a + b, 0));
  }
  return [...found].sort((a, b) => b[1] - a[1]).map(([key]) => key);
}

const settingOf = (run, key) => (key in run.choices && !(key in run.settings) ? run.choices[key] : run.settings[key]);

// Where records come from: a server that is asked again and again, or the page itself.

const answers = new Map();
let seen = { version: 0, token: "" };

/** An answer that an exported page holds, compressed. */
async function unpacked(name) {
  const element = document.getElementById(name);
  if (!element) return { why: "an exported page does not contain this; python scripts/dashboard.py shows it" };
  const bytes = Uint8Array.from(atob(element.textContent), (character) => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

/** An answer about a run, a pair of runs or a group; {why} where there is none. */
function ask(question, key) {
  const name = `${question}/${key}`;
  if (!answers.has(name)) {
    const answer = about.exported
      ? unpacked(name)
      : fetch(`api/${name}`).then((r) => (r.ok ? r.json() : { why: `the server has no answer (${r.status})` }));
    const lost = () => answers.delete(name) && { why: "the server does not answer" };
    answers.set(name, answer.catch(lost));
  }
  return answers.get(name);
}

/** Take what is new; returns the ids of what has changed. */
function take(state) {
  const changed = new Set(state.gone);
  if (state.error !== about.error) changed.add("error");
  about = { ...about, root: state.root, error: state.error };
  if (state.complete) {
    for (const id of runs.keys()) changed.add(id);
    runs.clear();
  }
  for (const id of state.gone) runs.delete(id);
  for (const record of state.runs) {
    runs.set(record.id, record);
    changed.add(record.id);
  }
  const groups = new Set([...changed].map((id) => runs.get(id)?.group));
  const stale = (key) => key === "all" || changed.has(key) || groups.has(key);
  for (const name of [...answers.keys()]) {
    if (changed.size && name.split("/")[1].split("+").some(stale)) answers.delete(name);
  }
  seen = { version: state.version, token: state.token };
  return changed;
}

async function poll() {
  const answer = await fetch(`api/state?since=${seen.version}&token=${seen.token}`);
  if (!answer.ok) throw new Error(answer.status);
  return take(await answer.json());
}
