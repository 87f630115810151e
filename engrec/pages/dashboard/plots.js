"use strict";
// Figures come from Python as data. Here they get the colours of the page, and learning curves those of the chosen runs.

const MOST_CURVES = 40;
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const drawn = new Set();

const look = (index) => constants.looks[index % constants.looks.length];
const colour = (index) => themed(look(index).colour);

let plotlyThere;
const plotly = new Promise((there) => (plotlyThere = there));

/** Plotly is the largest part of the page: a server is asked for it when the table stands, a file has it at its end. */
function loadPlotly() {
  if (about.exported) return window.Plotly ? plotlyThere() : window.addEventListener("load", plotlyThere);
  return setTimeout(() => document.head.append(h("script", { src: "plotly.js", onload: plotlyThere })), 50);
}

/** A copy, on a dark page with the dark colours in place of the light ones. */
function themed(node) {
  if (typeof node === "string") return dark.matches ? (constants.dark[node] ?? node) : node;
  if (Array.isArray(node)) return node.map(themed);
  if (node === null || typeof node !== "object") return node;
  return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, themed(value)]));
}

function plot(element, figure) {
  element.redraw = () => {
    const { data, layout } = themed({ ...figure, layout: { ...figure.layout, template: constants.template } });
    element.style.height = `${layout.height}px`; // which plotly forgets when the window changes
    return Plotly.react(element, data, layout, { displaylogo: false, responsive: true, displayModeBar: false });
  };
  drawn.add(element);
  return plotly.then(() => element.isConnected && element.redraw());
}

dark.addEventListener("change", () => {
  for (const element of [...drawn]) element.isConnected ? element.redraw() : drawn.delete(element);
});

/** Figures, each under its heading and with its remark. */
function chartPanels(charts) {
  return Object.entries(charts).map(([heading, chart]) => chartPanel(h("h3", heading), chart));
}

function chartPanel(heading, { figure, note: remark, width }) {
  const place = h("div.plot", { style: `min-width: ${width}px` });
  if (figure) plot(place, figure);
  const kind = width > 600 ? "div.panel.broad" : "div.panel";
  return h(kind, heading, figure && h("div.wide", place), remark && note(remark));
}

/** Two panels of learning curves with a choice of metric each. update(list of {run, index}) draws them. */
function curvePanels() {
  const panels = ["monitor", "loss"].map((first) => ({ first, chosen: null, plot: h("div.plot") }));
  const training = h("input", { type: "checkbox", checked: true, onchange: () => redraw() });
  let entries = [];
  for (const panel of panels) {
    const choose = () => ((panel.chosen = panel.select.value), redraw());
    panel.select = h("select", { "aria-label": "metric", onchange: choose });
  }
  const remark = note("");
  const body = panels.map((panel) => h("div.panel", panel.select, panel.plot));
  const element = h("div.curves", { id: "curves" }, h("div.columns", body), remark);
  const more = h("label", training, " with training (dotted)");

  function redraw() {
    const found = new Set(entries.flatMap(({ curves }) => Object.keys(curves)));
    const names = [...new Set([...Object.keys(SCORES), ...[...found].sort()])].filter((name) => found.has(name));
    for (const panel of panels) {
      const monitor = entries.find((entry) => entry.run.monitor)?.run.monitor.replace(/^val\//, "") ?? "auc";
      const wanted = panel.first === "loss" ? "loss" : monitor === "loss" ? "accuracy" : monitor;
      const metric = [panel.chosen, wanted].find((name) => found.has(name)) ?? names[0];
      const option = (name) => h("option", { value: name, selected: name === metric }, SCORES[name] ?? name);
      panel.select.replaceChildren(...names.map(option));
      plot(panel.plot, overlay(metric));
    }
  }

  /** The curves of all chosen runs, each in the colour and dash of its run. */
  function overlay(metric) {
    const asked = (trace) => trace.name !== "train" || training.checked;
    const own = entries.flatMap(({ index, curves }) =>
      (curves[metric]?.traces ?? []).filter(asked).map((trace) => ofRun(trace, look(index))),
    );
    const last = Math.max(1, ...entries.map(({ epochs }) => epochs));
    const title = entries.map(({ curves }) => curves[metric]?.title).find(Boolean);
    const range = [last > 1 ? 0.9 : 0.5, last + 0.04 * last + 0.2];
    const xaxis = { title: { text: "epoch" }, range, dtick: last <= 12 ? 1 : null };
    const margin = { l: 56, r: 12, t: 12, b: 46 };
    const layout = { height: 250, margin, showlegend: false, xaxis, yaxis: { title: { text: title } } };
    return { data: own, layout: { ...layout, uirevision: metric } };
  }

  function ofRun(trace, { colour, dash }) {
    const light = trace.name === "train";
    const line = { ...trace.line, color: colour, ...(light ? {} : { dash }) };
    return { ...trace, line, marker: { ...trace.marker, color: colour }, opacity: light ? 0.6 : 1 };
  }

  async function update(picked) {
    const some = picked.slice(0, MOST_CURVES);
    const histories = await Promise.all(some.map(({ run }) => ask("history", run.id)));
    entries = some.map((entry, i) => ({ ...entry, curves: {}, epochs: 0, ...histories[i] }));
    const without = entries.filter((entry) => !entry.epochs).map((entry) => label(entry.run));
    const wrong = histories.map((history) => history.wrong || history.why).filter(Boolean);
    remark.textContent = [
      "The mark is the epoch that is kept.",
      without.length ? `No epoch yet: ${without.join(", ")}.` : "",
      picked.length > MOST_CURVES ? `The first ${MOST_CURVES} of ${picked.length} are drawn.` : "",
      ...wrong,
    ].join(" ");
    element.hidden = without.length === entries.length && entries.length === 1;
    if (!element.hidden) redraw();
  }
  return { element, update, more };
}
