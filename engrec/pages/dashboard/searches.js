"use strict";
// Searches for hyper-parameters, and each of them.

function searchesView(place) {
  const fill = () => {
    if (!searches.size) {
      const command = "python scripts/sweep.py sweep=small n_trials=20 workers=2";
      return place.replaceChildren(
        section(
          "No searches yet",
          note(`No folder below ${about.root} holds a search. This one needs no data:`),
          code(command),
        ),
      );
    }
    const rows = [...searches.values()]
      .sort((a, b) => b.written - a.written)
      .map((search) => [
        h("a", { href: `#/search/${search.id}` }, search.path === "." ? about.root : search.path),
        badge(search.state),
        search.problems.length
          ? search.problems[0]
          : Object.entries(search.counts)
              .map(([state, number]) => `${number} ${state}`)
              .join(", "),
        search.objectives.map((o) => o.metric).join(", "),
        search.best ? `${shown(Number(search.best[0].toPrecision(4)))} (trial ${search.best[1]})` : "",
        ago(search.written),
      ]);
    return place.replaceChildren(
      section(
        "Searches",
        plainTable(["search", "status", "trials", "objective", "best", "last written"], rows, { class: "searches" }),
      ),
    );
  };
  fill();
  return { update: (changed) => [...changed].some((id) => searches.has(id) || !runs.has(id)) && fill() };
}

function searchView(place, id) {
  const top = h("section", {});
  const history = h("div", { class: "plot" });
  const parallel = h("div", { class: "plot" });
  const matters = h("div", { class: "plot" });
  const why = note("");
  const trials = h("div", {});
  const trade = h("div", { class: "plot" });
  const tradeSection = section("One objective against the other", trade);
  place.replaceChildren(
    top,
    h(
      "div",
      { class: "columns" },
      h("div", { class: "panel" }, h("h2", {}, "Objective over trials"), history),
      h("div", { class: "panel" }, h("h2", {}, "What matters"), matters, why),
    ),
    tradeSection,
    section(
      "Values together",
      note(
        "A line for each complete trial. Drag along an axis to keep some; drag a name to move its axis; click on the bar to let go.",
      ),
      parallel,
    ),
    section("Trials", trials),
  );

  async function fill() {
    const search = searches.get(id);
    if (!search)
      return place.replaceChildren(
        note("This search is not there (any more)."),
        h("p", {}, h("a", { href: "#/searches" }, "All searches")),
      );
    const said = await ask("search", id);
    const counts = Object.entries(search.counts)
      .map(([state, number]) => `${number} ${state}`)
      .join(", ");
    const wanted = search.n_trials ? ` of ${search.n_trials} wanted` : "";
    top.replaceChildren(
      ...[
        h("h2", { class: "title" }, search.path === "." ? about.root : search.path, " ", badge(search.state)),
        search.problems.map((problem) => h("p", { class: "error" }, problem)),
        note(`${counts}${wanted}; last written ${ago(search.written)}.`),
        search.command ? code(search.command) : null,
        said.why ? h("p", { class: "error" }, said.why) : null,
        said.best?.length
          ? [
              h("h3", {}, said.best.length > 1 ? "Not beaten in all objectives" : `Best: trial ${said.best[0].number}`),
              said.best.map((best) => code(best.command)),
            ]
          : null,
      ]
        .flat(2)
        .filter(Boolean),
    );
    for (const part of [...place.children].slice(1)) part.hidden = Boolean(said.why);
    if (!said.why) draw(said);
    return undefined;
  }

  function runOf(number) {
    for (const run of runs.values()) if (run.search === id && run.trial === number) return run;
    return null;
  }

  function draw(said) {
    const [first, second] = said.objectives;
    const complete = said.trials.filter((trial) => trial.values);
    const told = (trial) =>
      `trial ${trial.number}<br>${Object.entries(trial.params)
        .map(([key, v]) => `${escaped(key)}=${escaped(shown(v))}`)
        .join("<br>")}`;
    const sign = first.direction === "minimize" ? -1 : 1;
    plot(history, () => {
      let best = -Infinity;
      const bests = complete.map((trial) => (best = Math.max(best, sign * trial.values[0])) * sign);
      const traces = [
        {
          x: complete.map((t) => t.number),
          y: complete.map((t) => t.values[0]),
          name: "trial",
          mode: "markers",
          marker: { size: 8, color: colour(0) },
          hovertext: complete.map(told),
          hovertemplate: "%{hovertext}<br><b>%{y:.4g}</b><extra></extra>",
        },
        {
          x: complete.map((t) => t.number),
          y: bests,
          name: "best so far",
          mode: "lines",
          line: { shape: "hv", color: colour(1) },
          hoverinfo: "skip",
        },
      ];
      const metric = first.metric.replace("val/", "");
      const pruned = said.trials
        .filter((t) => t.state === "pruned")
        .map((t) => ({ t, y: runOf(t.number)?.val[metric] }))
        .filter(({ y }) => y != null);
      if (pruned.length)
        traces.push({
          x: pruned.map(({ t }) => t.number),
          y: pruned.map(({ y }) => y),
          name: "pruned, best until then",
          mode: "markers",
          marker: { symbol: "x-thin-open", size: 8, color: variable("--soft") },
          hovertext: pruned.map(({ t }) => told(t)),
          hovertemplate: "%{hovertext}<br>%{y:.4g}<extra></extra>",
        });
      const legend = { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" };
      return [
        traces,
        {
          height: 340,
          xaxis: { title: "trial" },
          yaxis: { title: first.metric },
          showlegend: true,
          legend,
          margin: { l: 56, r: 12, t: 36, b: 46 },
        },
      ];
    });
    why.textContent = said.unknown
      ? `${said.unknown[0].toUpperCase()}${said.unknown.slice(1)}.`
      : "Share of what makes a trial good (PED-ANOVA).";
    matters.hidden = Boolean(said.unknown);
    if (!said.unknown) {
      plot(matters, () => {
        const entries = Object.entries(said.importances);
        const traces = entries.map(([metric, shares], i) => ({
          type: "bar",
          orientation: "h",
          name: escaped(metric),
          y: Object.keys(shares).map(escaped),
          x: Object.values(shares).map((v) => 100 * v),
          marker: { color: colour(i) },
          hovertemplate: "%{y}: %{x:.0f} %<extra></extra>",
        }));
        const keys = Object.keys(entries[0][1]).length;
        return [
          traces,
          {
            height: Math.max(150, 70 + 34 * keys),
            xaxis: { title: "share, %", rangemode: "tozero" },
            yaxis: { autorange: "reversed", showgrid: false },
            showlegend: entries.length > 1,
          },
        ];
      });
    }
    tradeSection.hidden = !second || !complete.length;
    if (!tradeSection.hidden) {
      plot(trade, () => {
        const best = new Set(said.best.map((b) => b.number));
        const of = (some, name, marker) => ({
          x: some.map((t) => t.values[1]),
          y: some.map((t) => t.values[0]),
          name,
          mode: "markers",
          marker,
          hovertext: some.map(told),
          hovertemplate: "%{hovertext}<extra></extra>",
        });
        const traces = [
          of(complete, "trial", { size: 7, color: variable("--soft") }),
          of(
            complete.filter((t) => best.has(t.number)),
            "not beaten in both",
            { size: 10, color: colour(1) },
          ),
        ];
        return [
          traces,
          { height: 360, xaxis: { title: second.metric }, yaxis: { title: first.metric }, showlegend: true },
        ];
      });
    }
    parallel.closest("section").hidden = complete.length < 2;
    if (complete.length > 1) parallelPlot(parallel, said, complete, sign);
    fillTrials(said, sign);
  }

  function fillTrials(said, sign) {
    const order = { complete: 0, pruned: 1, running: 2 };
    const rank = (t) => order[t.state] ?? 3;
    const sorted = [...said.trials].sort(
      (a, b) => rank(a) - rank(b) || sign * ((b.values?.[0] ?? 0) - (a.values?.[0] ?? 0)) || a.number - b.number,
    );
    const keys = Object.keys(said.axes);
    const rows = sorted.map((trial) => {
      const run = runOf(trial.number);
      const values = said.objectives.map((_, i) => (trial.values ? shown(Number(trial.values[i].toPrecision(4))) : ""));
      const state = h("span", { title: trial.error }, badge(trial.state));
      return [
        run ? runLink(run, `${trial.number}`) : `${trial.number}`,
        state,
        ...values,
        ...keys.map((key) =>
          shown(
            typeof trial.params[key] === "number"
              ? Number(trial.params[key].toPrecision(4))
              : (trial.params[key] ?? undefined),
          ),
        ),
        shown(trial.epochs ?? undefined),
        duration(trial.seconds),
      ];
    });
    const focused = place.contains(document.activeElement) && trials.contains(document.activeElement);
    if (!focused)
      trials.replaceChildren(
        plainTable(["trial", "status", ...said.objectives.map((o) => o.metric), ...keys, "epochs", "duration"], rows, {
          class: "trials",
        }),
      );
  }

  fill();
  return { update: (changed) => changed.has(id) && fill() };
}

// The best stands out: dark on light, light on dark.
const ON_LIGHT = [
  [0, "#d3dbe4"],
  [0.5, "#56b4e9"],
  [1, "#0b3d6b"],
];
const ON_DARK = [
  [0, "#3a4654"],
  [0.5, "#4aa8e0"],
  [1, "#dff3ff"],
];

function parallelPlot(element, said, complete, sign) {
  const axis = (key, { choices, log }) => {
    const drawnValues = complete.map((t) => t.params[key]);
    if (choices) {
      const places = drawnValues.map((v) => Math.max(0, choices.indexOf(v === null ? "null" : shown(v))));
      return {
        label: escaped(key),
        values: places,
        tickvals: choices.map((_, i) => i),
        ticktext: choices.map((c) => escaped(c.length > 18 ? `${c.slice(0, 17)}…` : c)),
        range: [-0.2, choices.length - 0.8],
      };
    }
    if (!log) return { label: escaped(key), values: drawnValues };
    const logs = drawnValues.map(Math.log10);
    const [low, high] = [Math.min(...logs), Math.max(...logs)];
    const ticks = [0, 1, 2, 3, 4].map((i) => low + (i / 4) * (high - low));
    return {
      label: escaped(key),
      values: logs,
      tickvals: ticks,
      ticktext: ticks.map((t) => String(Number((10 ** t).toPrecision(2)))),
    };
  };
  plot(element, () => {
    const dimensions = Object.entries(said.axes).map(([key, of]) => axis(key, of));
    said.objectives.forEach((o, i) =>
      dimensions.push({ label: escaped(o.metric), values: complete.map((t) => t.values[i]) }),
    );
    const values = complete.map((t) => t.values[0]);
    const line = {
      color: values,
      colorscale: dark.matches ? ON_DARK : ON_LIGHT,
      reversescale: sign < 0,
      showscale: true,
    };
    const font = { color: variable("--ink"), size: 12 };
    return [
      [{ type: "parcoords", line, dimensions, labelfont: font, tickfont: font, rangefont: { ...font, size: 10 } }],
      { height: 380, margin: { l: 70, r: 40, t: 60, b: 24 } },
    ];
  });
}
