"use strict";
// Groups of runs that differ only in fold and seed, pooled.

const NAMES = constants.compared;

function groupsView(place) {
  if (!runs.size) return emptyView(place);
  let most = 40; // rows
  let round = 0;
  const body = h("div");
  const chart = h("div");
  const intro = note(
    "Each row is a group of runs that differ only in fold and seed: folds are pooled, seeds averaged. ",
    "Scores in per cent, with 95 % intervals in brackets. ",
    "The remarks of a row say what the intervals are over and whether the model beats its controls.",
  );
  place.replaceChildren(section("Folds and seeds together", intro, body), section("Intervals", chart));

  async function fill() {
    const mine = ++round;
    const found = finishedGroups();
    const rows = found.slice(0, most);
    const unlike = differingByName(found);
    const showAll = () => ((most = Infinity), fill());
    const head = ["group", "runs", "folds", "seeds", ...NAMES];
    const lines = rows.map((of) => groupCells(of, unlike.get(nameOf(of[0]))));
    const table = plainTable(head, lines, "groups");
    body.replaceChildren(
      table,
      found.length > rows.length ? button("more", showAll, counted(found.length - rows.length, "more group")) : "",
      found.length ? "" : note("None of these runs has finished yet."),
    );
    for (const [i, line] of [...table.querySelectorAll("tbody tr")].entries()) {
      const answer = await ask("group", rows[i][0].group);
      if (mine !== round) return;
      showScores(line, answer);
    }
    const { chart: intervals, why } = await ask("intervals", "all");
    if (mine === round) chart.replaceChildren(why ? note(`No figure: ${why}.`) : chartPanel(null, intervals));
  }

  fill();
  const settled = (changed) => [...changed].some((id) => runs.get(id)?.state !== "running");
  return { update: (changed) => (!runs.size ? "again" : settled(changed) && fill()), leave: () => (round += 1) };
}

/** Lists of the runs of each group in which one has finished: those of most runs first, then the best. */
function finishedGroups() {
  const all = Map.groupBy(runs.values(), (run) => run.stage && run.group).values();
  const best = (group) => Math.max(...group.map((run) => run.val.auc ?? -1));
  return [...all]
    .filter((group) => group[0].stage && group.some((run) => run.state === "finished"))
    .sort((a, b) => b.length - a.length || best(b) - best(a));
}

const nameOf = (run) => [run.stage, run.dataset, run.model].filter(Boolean).join(" ");

/** The settings in which groups of the same name differ, by name. */
function differingByName(groups) {
  const byName = Map.groupBy(groups.map(([run]) => run), nameOf);
  const keys = (some) => differing(some).filter((key) => !key.endsWith("._target_"));
  return new Map([...byName].map(([name, some]) => [name, keys(some)]));
}

/** The cells of a row; its scores are asked for afterwards. keys: of the settings that tell it from others. */
function groupCells(group, keys) {
  const [run] = group;
  const known = keys.filter((key) => settingOf(run, key) !== undefined);
  const words = known.map((key) => `${key}=${shown(settingOf(run, key))}`);
  const more = words.slice(0, 6).join(" ") + (words.length > 6 ? " …" : "");
  const show = () => {
    filters.group = run.group;
    location.hash = "#/runs";
  };
  const folds = new Set(group.map(({ fold }) => fold)).size;
  const seeds = new Set(group.map(({ seed }) => seed)).size;
  const ofFolds = run.folds ? `${folds} of ${run.folds}` : folds > 1 ? folds : "–";
  const name = [button("plain.link", show, nameOf(run)), h("div.note", more)];
  return [name, group.length, ofFolds, seeds, ...NAMES.map(() => "…")];
}

function showScores(line, answer) {
  const cells = [...line.cells].slice(-NAMES.length);
  if (answer.why) {
    cells.slice(1).forEach((cell) => cell.remove());
    return cells[0].replaceWith(h("td.left.note", { colspan: NAMES.length }, answer.why));
  }
  const figures = answer.figures[answer.models[0]];
  cells.forEach((cell, i) => (cell.textContent = withInterval(figures[NAMES[i]], answer.sign)));
  const left = (number, what, why) => number && `Left out: ${counted(number, what)} of ${why}.`;
  const remarks = [
    answer.legend,
    left(answer.repeated, "earlier run", "the same fold and seed"),
    left(answer.incomplete, "run", "seeds that lack folds"),
    ...answer.verdicts.map((verdict) => verdict.text),
  ];
  const fails = answer.verdicts.some((verdict) => verdict.kind === "fails") && "does not beat every control";
  const words = [answer.sign && "† fewer than five people", fails].filter(Boolean).join(", ");
  const summary = h(fails ? "summary.fails" : "summary", words || "remarks");
  return line.cells[0].append(h("details.note.verdict", summary, remarks.filter(Boolean).join(" ")));
}
