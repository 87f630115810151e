"use strict";
// Figures: the same look everywhere, in light and in dark.

const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "ink"]; // as in the report
const DARK = ["#4aa8e0", "#f0803c", "#2fc59b", "#e09cc4", "#9ad3f5", "#f2b84b", "ink"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const MOST_CURVES = 40;
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const drawn = new Set();

const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function colour(index) {
  const chosen = (dark.matches ? DARK : COLOURS)[index % COLOURS.length];
  return chosen === "ink" ? variable("--ink") : chosen;
}

const dash = (index) => DASHES[Math.floor(index / COLOURS.length) % DASHES.length];

let plotlyThere;
const plotly = new Promise((there) => (plotlyThere = there));

/** Plotly is the largest part of the page: a server is asked for it when the table stands, a file has it at its end. */
function loadPlotly() {
  if (about.exported) return window.Plotly ? plotlyThere() : window.addEventListener("load", plotlyThere);
  return setTimeout(() => document.head.append(h("script", { src: "plotly.js", onload: plotlyThere })), 50);
}

/** make: a function that returns traces and layout, called again when light turns to dark. */
function plot(element, make) {
  element.redraw = () => {
    const [traces, layout] = make();
    const axis = { gridcolor: variable("--line"), linecolor: variable("--line"), zeroline: false, automargin: true };
    const whole = {
      template: "none",
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: 'system-ui, "Segoe UI", "DejaVu Sans", sans-serif', size: 13, color: variable("--ink") },
      margin: { l: 56, r: 12, t: 12, b: 46 },
      showlegend: false,
      hoverlabel: { align: "left", namelength: -1 },
      ...layout,
    };
    for (const name of ["xaxis", "yaxis"]) {
      const given = layout[name] ?? {};
      whole[name] = { ...axis, ...given, title: { text: escaped(given.title ?? ""), standoff: 8, font: { size: 13 } } };
    }
    element.style.height = `${whole.height}px`; // which plotly forgets when the window changes
    const config = { displaylogo: false, responsive: true, displayModeBar: false };
    return Plotly.react(element, traces, whole, config);
  };
  drawn.add(element);
  return plotly.then(() => element.isConnected && element.redraw());
}

dark.addEventListener("change", () => {
  for (const element of [...drawn]) element.isConnected ? element.redraw() : drawn.delete(element);
});

function metricName(name) {
  return name in SCORES ? SCORES[name] : name;
}

/** Two panels of learning curves with a choice of metric each. update(list of {run, index}) draws them. */
function curvePanels(key) {
  const panels = ["monitor", "loss"].map((first) => ({
    first,
    chosen: null,
    plot: h("div", { class: "plot" }),
    told: "",
  }));
  const training = h("input", { type: "checkbox", checked: true, onchange: () => redraw() });
  let entries = [];
  const body = panels.map((panel) => {
    panel.select = h("select", {
      "aria-label": "metric",
      onchange: () => ((panel.chosen = panel.select.value), redraw()),
    });
    return h("div", { class: "panel" }, panel.select, panel.plot);
  });
  const note = h("p", { class: "note" });
  const element = h("div", { class: "curves", id: key }, h("div", { class: "columns" }, body), note);
  const more = h("label", {}, training, " training too (dotted)");

  function redraw() {
    const bases = new Set();
    for (const { columns } of entries)
      for (const name of Object.keys(columns)) if (name !== "epoch") bases.add(name.replace(/^(train|val)\//, ""));
    const names = [...bases].sort((a, b) => (a in SCORES ? 0 : 1) - (b in SCORES ? 0 : 1) || a.localeCompare(b));
    for (const panel of panels) {
      const monitor = entries.find((entry) => entry.run.monitor)?.run.monitor.replace(/^val\//, "") ?? "auc";
      const wanted = panel.chosen ?? (panel.first === "monitor" ? monitor : "loss");
      const usual = panel.first === "monitor" && wanted === "loss" ? "accuracy" : wanted;
      const metric = bases.has(panel.chosen) ? panel.chosen : bases.has(usual) ? usual : names[0];
      panel.select.replaceChildren(
        ...names.map((name) => h("option", { value: name, selected: name === metric }, metricName(name))),
      );
      plot(panel.plot, () => [traces(metric), layout(metric)]);
    }
  }

  function traces(metric) {
    const scale = metric in SCORES && metric !== "loss" ? 100 : 1;
    const lines = [];
    for (const { run, index, columns } of entries) {
      const x = (columns.epoch ?? []).map((epoch) => epoch + 1);
      for (const side of [...(training.checked ? ["train"] : []), "val"]) {
        const name = `${side}/${metric}` in columns ? `${side}/${metric}` : side === "val" ? metric : "";
        if (!(name in columns)) continue;
        const value = `%{y:.${scale === 100 ? "1f" : "4g"}}${scale === 100 ? "\u00a0%" : ""}`;
        lines.push({
          x,
          y: columns[name].map((v) => (v == null ? null : scale * v)),
          name: escaped(name),
          mode: x.length > 1 ? "lines" : "markers",
          line: {
            color: colour(index),
            dash: side === "train" ? "dot" : dash(index),
            width: side === "train" ? 1.1 : 2,
          },
          opacity: side === "train" ? 0.7 : 1,
          hovertemplate: `${escaped(label(run))}<br>${escaped(name)}, epoch %{x}: ${value}<extra></extra>`,
        });
        const best = side === "val" && run.best_epoch != null ? (columns.epoch ?? []).indexOf(run.best_epoch) : -1;
        if (best >= 0 && columns[name][best] != null) {
          lines.push({
            x: [run.best_epoch + 1],
            y: [scale * columns[name][best]],
            mode: "markers",
            marker: { color: colour(index), size: 8 },
            hoverinfo: "skip",
          });
        }
      }
    }
    return lines;
  }

  function layout(metric) {
    const unit = metric in SCORES && metric !== "loss" ? ", %" : "";
    const last = Math.max(1, ...entries.map(({ columns }) => (columns.epoch?.length ? columns.epoch.at(-1) + 1 : 1)));
    const xaxis = {
      title: "epoch",
      range: [last > 1 ? 0.9 : 0.5, last + 0.04 * last + 0.2],
      dtick: last <= 12 ? 1 : null,
    };
    return { height: 250, xaxis, yaxis: { title: `${metricName(metric)}${unit}` }, uirevision: metric };
  }

  async function update(picked) {
    const some = picked.slice(0, MOST_CURVES);
    const histories = await Promise.all(some.map(({ run }) => ask("history", run.id)));
    entries = some.map((entry, i) => ({ ...entry, columns: histories[i].columns ?? {} }));
    const without = entries.filter((entry) => !entry.columns.epoch?.length).map((entry) => label(entry.run));
    const wrong = histories.map((history) => history.wrong || history.why).filter(Boolean);
    note.textContent = [
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

/** A confusion matrix as a table: shares of each labelled class, and images. */
function confusion(classes, counts) {
  const rows = counts.map((row, i) => {
    const all = row.reduce((a, b) => a + b, 0);
    const cells = row.map((count, k) => {
      const share = all ? count / all : 0;
      const cell = h(
        "td",
        { class: i === k ? "right" : "" },
        h("b", {}, `${Math.round(100 * share)} %`),
        h("br"),
        count.toLocaleString("en"),
      );
      cell.style.setProperty("--share", `${Math.round(62 * share)}%`);
      return cell;
    });
    return h("tr", {}, h("th", { scope: "row" }, classes[i]), cells);
  });
  const head = h(
    "tr",
    {},
    h("th", {}, "labelled ↓ predicted →"),
    classes.map((name) => h("th", { scope: "col" }, name)),
  );
  return h(
    "div",
    { class: "wide" },
    h(
      "table",
      { class: classes.length > 4 ? "confusion many" : "confusion" },
      h("thead", {}, head),
      h("tbody", {}, rows),
    ),
  );
}

/** tests: list of {name, index, tested}; of more than two classes a curve for each, of one run alone. */
function rocPlot(element, tests) {
  plot(element, () => {
    const traces = [
      {
        x: [0, 1],
        y: [0, 1],
        mode: "lines",
        hoverinfo: "skip",
        line: { color: variable("--soft"), dash: "dot", width: 1 },
      },
    ];
    for (const { name, index, tested } of tests) {
      tested.curves.forEach((curve, k) => {
        const many = tested.curves.length > 1;
        traces.push({
          x: tested.false,
          y: curve.true,
          name: escaped([name, many ? curve.name : ""].filter(Boolean).join(": ") || curve.name),
          mode: "lines",
          line: { color: colour(many ? k : index), dash: many ? DASHES[index % 4] : dash(index), width: 2 },
        });
      });
    }
    traces[0].showlegend = false;
    const axis = { range: [-0.01, 1.02] };
    const legend = { x: 0.98, xanchor: "right", y: 0.03, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)" };
    const layout = {
      height: 340,
      xaxis: { ...axis, title: "false positive rate" },
      yaxis: { ...axis, title: "true positive rate" },
    };
    return [traces, { ...layout, showlegend: traces.length > 2 || Boolean(tests[0]?.name), legend }];
  });
}
