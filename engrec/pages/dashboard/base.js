"use strict";
// What all views use: elements, numbers as text, and where records come from.
// Text of files reaches the page as text nodes, or through escaped(), never as markup.

/** JSON that the page holds. */
const here = (id) => {
  const element = document.getElementById(id);
  return element && JSON.parse(element.textContent);
};

const constants = here("constants"); // metrics, and how figures look
const runs = new Map();
let about = { root: "", error: "", exported: "" };

const LOGGED = constants.metrics.filter((metric) => metric.logged);
const SCORES = Object.fromEntries(LOGGED.map(({ key, label }) => [key, label]));
const SHARES = new Set(LOGGED.filter((metric) => metric.share).map(({ key }) => key)); // shown in per cent
const STATES = ["running", "finished", "failed", "stopped", "pruned", "unknown", "damaged"];

/** An element; properties that start with "on" are listeners, text among the children stays text. */
function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
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

function date(seconds) {
  if (seconds == null) return "";
  const at = new Date(1000 * seconds);
  const two = (number) => String(number).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}`;
}

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

function badge(state) {
  return h("span", { class: `badge ${STATES.includes(state) ? state : "unknown"}` }, state);
}

const runLink = (run, text) => h("a", { href: `#/run/${run.id}` }, text ?? label(run));

let differences = { of: null, found: null };

/** The settings in which all runs differ; kept until records change. */
function allDiffering() {
  if (differences.of !== seen) differences = { of: seen, found: differing([...runs.values()]) };
  return differences.found;
}

/** The settings in which some of these runs differ, with how many differ from the most frequent value: groups of
 * options by their name, and what differs among runs that have the same option. */
function differing(all) {
  const some = all.filter((run) => Object.keys(run.settings).length);
  const found = new Map();
  const groups = new Set(some.flatMap((run) => Object.keys(run.choices)));
  const tally = (name, buckets) => {
    let odd = 0;
    for (const values of buckets.values()) {
      const all = [...values.values()].reduce((a, b) => a + b, 0);
      odd += all - Math.max(...values.values());
    }
    if (odd) found.set(name, odd);
  };
  const add = (buckets, bucket, value) => {
    if (!buckets.has(bucket)) buckets.set(bucket, new Map());
    const values = buckets.get(bucket);
    values.set(value, (values.get(value) ?? 0) + 1);
  };
  for (const group of groups) {
    if (["dataset", "model", "split"].includes(group)) continue;
    const buckets = new Map();
    for (const run of some) if (group in run.choices) add(buckets, "", run.choices[group]);
    tally(group, buckets);
  }
  for (const key of new Set(some.flatMap((run) => Object.keys(run.settings)))) {
    const group = key.split(".")[0];
    const buckets = new Map();
    for (const run of some) {
      const option = groups.has(group) ? String(run.choices[group]) : "";
      add(buckets, option, JSON.stringify(run.settings[key]) ?? "");
    }
    tally(key, buckets);
  }
  return found;
}

const settingOf = (run, key) => (key in run.choices && !(key in run.settings) ? run.choices[key] : run.settings[key]);

// Where records come from: a server that is asked again and again, or the page itself.

const answers = new Map();

/** An answer that an exported page holds, compressed. */
async function unpacked(name) {
  const element = document.getElementById(name);
  if (!element) return { why: "an exported page does not contain this; python scripts/dashboard.py shows it" };
  const bytes = Uint8Array.from(atob(element.textContent), (character) => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}
let seen = { version: 0, token: "" };

/** An answer about a run, a pair of runs or a group; {why} where there is none. */
function ask(question, key) {
  const name = `${question}/${key}`;
  if (!answers.has(name)) {
    const answer = about.exported
      ? unpacked(name)
      : fetch(`api/${name}`).then((r) => (r.ok ? r.json() : { why: `the server has no answer (${r.status})` }));
    answers.set(
      name,
      answer.catch(() => ({ why: "the server does not answer", lost: true })),
    );
    answers.get(name).then((answer) => answer.lost && answers.delete(name));
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
  for (const name of [...answers.keys()]) {
    const keys = name.split("/")[1].split("+");
    if (changed.size && keys.some((key) => key === "all" || changed.has(key) || groups.has(key))) answers.delete(name);
  }
  seen = { version: state.version, token: state.token };
  return changed;
}

async function poll() {
  const answer = await fetch(`api/state?since=${seen.version}&token=${seen.token}`);
  if (!answer.ok) throw new Error(answer.status);
  return take(await answer.json());
}
