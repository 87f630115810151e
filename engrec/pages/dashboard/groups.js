"use strict";
// Groups of runs that differ only in fold and seed, pooled.

function groupsView(place) {
  if (!runs.size) {
    place.replaceChildren(nothingYet());
    return { update: () => (runs.size ? "again" : undefined) };
  }
  const NAMES = constants.compared;
  const FIRST = 40;
  let all = false;
  let alive = true;
  let round = 0;
  const body = h("div", {});
  const chart = h("div", {});
  place.replaceChildren(
    section(
      "Folds and seeds together",
      note(
        "Each row is a group of runs that differ only in fold and seed: folds are pooled, seeds averaged. Scores in per cent, with 95 % intervals in brackets. The remarks of a row say what the intervals are over and whether the model beats its controls.",
      ),
      body,
    ),
    section("Intervals", chart),
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

  const nameOf = ([run]) => [run.stage, run.dataset, run.model].filter(Boolean).join(" ");

  /** The settings in which groups of the same name differ, by name. */
  function differingByName(found) {
    const byName = new Map();
    for (const { of } of found) byName.set(nameOf(of), [...(byName.get(nameOf(of)) ?? []), of[0]]);
    const keys = (some) => [...differing(some).keys()].filter((key) => !key.endsWith("._target_"));
    return new Map([...byName].map(([name, some]) => [name, keys(some)]));
  }

  function settingsOf([run], keys) {
    const known = keys.filter((key) => settingOf(run, key) !== undefined);
    const words = known.map((key) => `${key}=${shown(settingOf(run, key))}`);
    return words.slice(0, 6).join(" ") + (words.length > 6 ? " …" : "");
  }

  async function fill() {
    const mine = ++round;
    const found = groups();
    const kept = all ? found : found.slice(0, FIRST);
    const unlike = differingByName(found);
    rows = kept.map((group) => ({
      ...group,
      name: nameOf(group.of),
      more: settingsOf(group.of, unlike.get(nameOf(group.of))),
      cells: NAMES.map(() => h("td", {}, "…")),
    }));
    const lines = rows.map((row) => {
      const folds = new Set(row.of.map((run) => run.fold));
      const seeds = new Set(row.of.map((run) => run.seed));
      const numFolds = row.of[0].folds;
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
      const count = `${numFolds ? `${folds.size} of ${numFolds}` : folds.size > 1 ? folds.size : "–"}`;
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
    const head = ["group", "runs", "folds", "seeds", ...NAMES].map((text) => h("th", { scope: "col" }, text));
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
      const answer = await ask("group", row.id);
      if (!alive || mine !== round) return;
      show(row, answer);
    }
    const { chart: intervals, why } = await ask("intervals", "all");
    if (!alive || mine !== round) return;
    chart.replaceChildren(why ? note(`No figure: ${why}.`) : chartPanel(null, intervals));
  }

  function show(row, answer) {
    if (answer.why) {
      row.cells.forEach((cell, i) => i && cell.remove());
      row.cells[0].setAttribute("colspan", NAMES.length);
      row.cells[0].className = "left note";
      row.cells[0].textContent = answer.why;
      return;
    }
    const figures = answer.figures[answer.models[0]];
    row.cells.forEach((cell, i) => (cell.textContent = withInterval(figures[NAMES[i]], answer.sign)));
    const remarks = [
      answer.legend,
      answer.repeated ? `Left out: ${counted(answer.repeated, "earlier run")} of the same fold and seed.` : "",
      answer.incomplete ? `Left out: ${counted(answer.incomplete, "run")} of seeds that lack folds.` : "",
      ...answer.verdicts.map((verdict) => verdict.text),
    ].join(" ");
    const fails = answer.verdicts.some((verdict) => verdict.kind === "fails");
    const words = [answer.sign && "† fewer than five people", fails && "does not beat every control"].filter(Boolean);
    const summary = h("summary", { class: fails ? "fails" : "" }, words.join(", ") || "remarks");
    const head = row.cells[0].parentElement.querySelector("th");
    head.append(h("details", { class: "note verdict" }, summary, remarks));
  }

  fill();
  const mine = (changed) => [...changed].some((id) => runs.get(id)?.state !== "running" || !runs.has(id));
  return { update: (changed) => (!runs.size ? "again" : mine(changed) && fill()), leave: () => (alive = false) };
}
