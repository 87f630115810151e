"use strict";
// Runs that differ in fold and seed alone, pooled.

function groupsView(place) {
  if (!runs.size) {
    place.replaceChildren(nothingYet());
    return { update: () => (runs.size ? "again" : undefined) };
  }
  const NAMES = ["accuracy", "balanced accuracy", "F1", "AUC", "ECE"];
  const FIRST = 40;
  let all = false;
  let alive = true;
  let round = 0;
  const body = h("div", {});
  const chart = h("div", { class: "plot" });
  const pick = h(
    "select",
    { "aria-label": "score of the figure", onchange: () => draw() },
    NAMES.map((name) => h("option", { selected: name === "AUC" }, name)),
  );
  place.replaceChildren(
    section(
      "Folds and seeds together",
      note(
        "Runs that differ in fold and seed alone are one row: folds are pooled, seeds averaged. In brackets 95 % intervals, each row's remarks say over whom; controls are what a network has to beat. In per cent.",
      ),
      body,
    ),
    section(
      "Intervals",
      h("div", { class: "bar" }, h("label", {}, "Score ", pick)),
      chart,
      note("Grey: the controls of the same test images. †: over fewer than five people."),
    ),
  );
  let rows = [];

  function groups() {
    const found = new Map();
    for (const run of runs.values()) {
      if (!run.stage) continue;
      if (!found.has(run.group)) found.set(run.group, []);
      found.get(run.group).push(run);
    }
    const best = (group) => Math.max(...group.map((run) => run.val.auc ?? -1));
    return [...found]
      .map(([id, of]) => ({ id, of }))
      .filter(({ of }) => of.some((run) => run.state === "finished"))
      .sort((a, b) => b.of.length - a.of.length || best(b.of) - best(a.of));
  }

  function nameOf(group, unlike) {
    const run = group.of[0];
    const more = unlike
      .filter((key) => settingOf(run, key) !== undefined)
      .map((key) => `${key}=${shown(settingOf(run, key))}`);
    return {
      name: [run.stage, run.dataset, run.model].filter(Boolean).join(" "),
      more: more.slice(0, 6).join(" ") + (more.length > 6 ? " …" : ""),
    };
  }

  async function fill() {
    const mine = ++round;
    const found = groups();
    const kept = all ? found : found.slice(0, FIRST);
    const unlike = [...differing(found.map((group) => group.of[0])).keys()].filter((key) => !key.endsWith("._target_"));
    rows = kept.map((group) => ({
      ...group,
      ...nameOf(group, unlike),
      cells: NAMES.map(() => h("td", {}, "…")),
      said: null,
    }));
    const lines = rows.map((row) => {
      const folds = new Set(row.of.map((run) => run.fold));
      const seeds = new Set(row.of.map((run) => run.seed));
      const whole = row.of[0].folds;
      const show = () => {
        filters.group = row.id;
        location.hash = "#/runs";
      };
      const name = h(
        "th",
        { scope: "row" },
        h("button", { type: "button", class: "plain link", onclick: show }, row.name),
        h("div", { class: "note" }, row.more),
      );
      const count = `${whole ? `${folds.size} of ${whole}` : folds.size > 1 ? folds.size : "–"}`;
      return h(
        "tr",
        {},
        name,
        h("td", {}, String(row.of.length)),
        h("td", {}, count),
        h("td", {}, String(seeds.size)),
        row.cells,
      );
    });
    const head = ["runs alike", "runs", "folds", "seeds", ...NAMES].map((text) => h("th", { scope: "col" }, text));
    const more = () => ((all = true), fill());
    body.replaceChildren(
      h(
        "div",
        { class: "wide" },
        h("table", { class: "groups" }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, lines)),
      ),
      found.length > kept.length
        ? h("button", { type: "button", onclick: more }, `${counted(found.length - kept.length, "more group")}`)
        : "",
      found.length ? "" : note("None of these runs has finished yet."),
    );
    for (const row of rows) {
      const said = await ask("group", row.id);
      if (!alive || mine !== round) return;
      row.said = said;
      show(row);
    }
    draw();
  }

  function show(row) {
    const said = row.said;
    if (said.why) {
      row.cells.forEach((cell, i) => i && cell.remove());
      row.cells[0].setAttribute("colspan", NAMES.length);
      row.cells[0].className = "left note";
      row.cells[0].textContent = said.why;
      return;
    }
    const figures = said.figures[said.models[0]];
    row.cells.forEach((cell, i) => (cell.textContent = withInterval(figures[NAMES[i]], said.sign)));
    const told = [
      said.legend,
      said.repeated ? `Left out: ${counted(said.repeated, "earlier run")} of the same fold and seed.` : "",
      said.incomplete ? `Left out: ${counted(said.incomplete, "run")} of seeds that lack folds.` : "",
      ...said.verdicts,
    ].join(" ");
    const fails = said.verdicts.some((line) => line.includes("NOT"));
    const words = [said.sign && "† fewer than five people", fails && "does not beat every control"].filter(Boolean);
    const summary = h("summary", { class: fails ? "fails" : "" }, words.join(", ") || "remarks");
    const place = row.cells[0].parentElement.querySelector("th");
    if (told.trim()) place.append(h("details", { class: "note verdict" }, summary, told));
    if (rows.indexOf(row) % 10 === 9) draw();
  }

  function draw() {
    const score = pick.value;
    const shownRows = rows.filter((row) => row.said && !row.said.why).slice(0, FIRST);
    chart.hidden = !shownRows.length;
    if (!shownRows.length) return;
    const lines = [];
    for (const [index, row] of shownRows.entries()) {
      lines.push({
        text: row.name + row.said.sign,
        more: row.more,
        figure: row.said.figures[row.said.models[0]][score],
        colour: index,
      });
      if (shownRows.length > 6) continue;
      for (const [name, figures] of Object.entries(row.said.figures)) {
        const text = name + row.said.sign;
        if (name !== row.said.models[0]) lines.push({ text, more: "", figure: figures[score], colour: -1 });
      }
    }
    plot(chart, () => {
      const traces = lines.map(({ text, more, figure, colour: index }, y) => ({
        x: [100 * figure.value],
        y: [y],
        mode: "markers",
        marker: { size: 9, color: index < 0 ? variable("--soft") : colour(0) },
        error_x: {
          type: "data",
          symmetric: false,
          array: [100 * (figure.high - figure.value)],
          arrayminus: [100 * (figure.value - figure.low)],
          visible: figure.low != null,
          width: 0,
        },
        hovertemplate: `${escaped(text)} ${escaped(more)}<br>${score} ${withInterval(figure)}<extra></extra>`,
      }));
      const ticktext = lines.map(
        ({ text, more }) =>
          escaped(text.slice(0, 40)) +
          (more ? `<br><span style="font-size:10px">${escaped(more.slice(0, 48))}</span>` : ""),
      );
      const yaxis = { tickvals: lines.map((_, i) => i), ticktext, range: [lines.length - 0.4, -0.6], showgrid: false };
      return [traces, { height: 70 + 34 * lines.length, xaxis: { title: `${score}, %` }, yaxis }];
    });
  }

  fill();
  const mine = (changed) => [...changed].some((id) => runs.get(id)?.state !== "running" || !runs.has(id));
  return { update: (changed) => (!runs.size ? "again" : mine(changed) && fill()), leave: () => (alive = false) };
}
