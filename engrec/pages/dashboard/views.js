"use strict";
// A function for each view: it fills an element, and returns what to do when records change. Runs, one run, two runs.

const section = (title, ...children) => h("section", {}, h("h2", {}, title), children);
const note = (...text) => h("p", { class: "note" }, text);
const code = (text) => h("pre", { class: "command" }, text);

function plainTable(head, rows, properties = {}) {
  const cell = (content, i) => h(i ? "td" : "th", i ? {} : { scope: "row" }, content);
  return h(
    "div",
    { class: "wide" },
    h(
      "table",
      properties,
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          head.map((c) => h("th", { scope: "col" }, c)),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map((row) => h("tr", {}, row.map(cell))),
      ),
    ),
  );
}

function nothingYet() {
  return section(
    about.error ? "This folder cannot be read" : "No runs yet",
    about.error
      ? h("p", { class: "error" }, about.error)
      : note(`There are no runs below ${about.root}. This command makes one, without data and without a GPU:`),
    about.error ? note("This command makes a run, and the folder:") : null,
    code("python train.py"),
    note("It appears here while it trains. For another folder: python scripts/dashboard.py FOLDER"),
  );
}

// All runs.

function runsView(place) {
  if (!runs.size) {
    place.replaceChildren(nothingYet());
    return { update: () => (runs.size ? "again" : place.replaceChildren(nothingYet())) };
  }
  const legend = h("ul", { class: "legend" });
  const curves = curvePanels("curves");
  const hint = note("Select runs in the table to see their learning curves here. Select two to compare them.");
  const compare = h("a", { class: "button", id: "compare" }, "Compare the two");
  const clear = h("button", { type: "button", onclick: () => (selected.clear(), table.remark(), choose()) }, "Clear");
  const bar = h("div", { class: "bar" }, compare, clear, curves.more);
  const panel = h(
    "section",
    { class: "selection", "aria-label": "learning curves" },
    hint,
    bar,
    legend,
    curves.element,
  );
  const table = runTable(choose);
  const units = note(
    "Scores in per cent, on the validation images (val) at the kept epoch, and on the test images. acc.: accuracy, bal. acc.: balanced accuracy.",
  );
  place.replaceChildren(h("div", { class: "bar" }, table.chips, table.more), table.element, units, panel);
  table.update(new Set());
  choose();

  function choose() {
    for (const id of [...selected.keys()]) if (!runs.has(id)) selected.delete(id);
    const picked = [...selected].map(([id, index]) => ({ run: runs.get(id), index }));
    hint.hidden = picked.length > 0;
    panel.classList.toggle("docked", picked.length > 0);
    bar.hidden = legend.hidden = curves.element.hidden = !picked.length;
    compare.hidden = picked.length !== 2;
    if (picked.length === 2) compare.href = `#/compare/${picked[0].run.id}/${picked[1].run.id}`;
    legend.replaceChildren(...picked.map(({ run, index }) => legendItem(run, index)));
    if (picked.length) curves.update(picked);
  }

  function legendItem(run, index) {
    const swatch = h("i", { class: `swatch ${look(index).dash}` });
    swatch.style.color = colour(index);
    const drop = () => (selected.delete(run.id), table.remark(), choose());
    const remove = h(
      "button",
      { type: "button", class: "plain", "aria-label": `remove ${label(run)}`, onclick: drop },
      "×",
    );
    const best = run.val[run.monitor.replace("val/", "")];
    const value = best == null ? "" : ` ${run.monitor} ${scoreText(run.monitor.replace("val/", ""), best)}`;
    return h(
      "li",
      {},
      swatch,
      runLink(run),
      h("span", { class: "note" }, value),
      run.state === "running" ? badge("running") : "",
      remove,
    );
  }

  const update = (changed) => {
    if (!runs.size) return "again";
    table.update(changed);
    if ([...selected.keys()].some((id) => changed.has(id))) choose();
    return undefined;
  };
  return { update, tick: table.tick, leave: table.destroy };
}

/** What was found on test images: the numbers of one run, and figures of one or two. */
function testPanels({ why, images, people, scores, charts }) {
  if (why) return [note(`${why}.`)];
  const who = people == null ? "" : ` of ${counted(people, "person").replace("persons", "people")}`;
  const numbers = Object.entries(scores ?? {}).map(([name, value]) => `${name} ${percent(value) || "undefined"}`);
  const line = scores && note(`${counted(images, "test image")}${who}. In per cent: ${numbers.join(", ")}.`);
  return [line, h("div", { class: "charts" }, chartPanels(charts))].filter(Boolean);
}

// One run.

function facts(run) {
  const folds = run.folds ? ` of ${run.folds}` : "";
  const pairs = [
    ["stage", run.stage],
    ["data set", run.dataset],
    ["model", run.model],
    ["split", run.fold == null ? run.split : `${run.split}, fold ${run.fold}${folds}`],
    ["seed", shown(run.seed ?? undefined)],
    ["epochs", run.max_epochs ? `${run.epochs} of ${run.max_epochs}` : `${run.epochs}`],
    ["kept", run.best_epoch == null ? "" : `epoch ${run.best_epoch + 1}, by ${run.monitor}`],
    ["started", date(run.started)],
    ["duration", duration(secondsOf(run))],
    ["last written", run.state === "running" ? ago(run.written) : ""],
  ].filter(([, value]) => value);
  return h(
    "dl",
    { class: "facts" },
    pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

function scoreTable(run) {
  const rows = Object.keys(SCORES).map((name) => [
    SCORES[name],
    scoreText(name, run.val[name]),
    scoreText(name, run.test[name]),
  ]);
  if (rows.every((row) => !row[1] && !row[2])) return note("No epoch has ended yet.");
  const head = ["scores in per cent", "validation, kept epoch", "test"];
  return plainTable(head, rows, { class: "scores" });
}

function runHead(run) {
  return [
    h("h2", { class: "title" }, label(run), " ", badge(run.state)),
    run.error ? h("p", { class: "error" }, run.error) : null,
    run.problems.map((problem) => h("p", { class: "error" }, problem.text)),
    facts(run),
    run.search ? h("p", {}, `Trial ${run.trial} of the search ${run.search}; its summary.html compares the trials.`) : null,
    run.command ? code(run.command) : null,
  ].flat();
}

function runView(place, id) {
  const head = h("section", { class: "runhead" });
  const numbers = h("section", {});
  const curves = curvePanels("curves");
  const tested = h("div", {});
  const faces = h("div", {});
  const config = h("pre", { class: "text", tabindex: 0 });
  const log = h("pre", { class: "text log", tabindex: 0 });
  const other = h("select", {
    "aria-label": "compare with",
    onchange: () => (location.hash = `#/compare/${id}/${other.value}`),
  });
  place.replaceChildren(
    head,
    numbers,
    section("Learning curves", h("div", { class: "bar" }, curves.more), curves.element),
    section("Test", tested),
    section("Most confident mistakes", faces),
    h("div", { class: "columns" }, section("Configuration", config), section("End of the log", log)),
  );

  async function fill() {
    const run = runs.get(id);
    if (!run)
      return place.replaceChildren(
        note("This run does not exist (any more)."),
        h("p", {}, h("a", { href: "#/runs" }, "All runs")),
      );
    head.replaceChildren(...runHead(run).filter(Boolean));
    numbers.replaceChildren(
      h("h2", {}, "Scores"),
      scoreTable(run),
      h("div", { class: "bar" }, h("label", {}, "Compare with ", other)),
    );
    const near = [...runs.values()].filter((one) => one.id !== id && one.dataset === run.dataset);
    near.sort((a, b) => (b.started ?? b.written) - (a.started ?? a.written));
    other.replaceChildren(
      h("option", { value: "" }, "…"),
      ...near.slice(0, 300).map((one) => h("option", { value: one.id }, label(one))),
    );
    const filled = ask("texts", id).then((texts) => {
      config.textContent = texts.config || texts.why || "There is no config.yaml.";
      const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
      log.textContent =
        [texts.log, texts.errors].filter(Boolean).join("\n\n— stderr.log —\n") ||
        texts.why ||
        "There is no train.log yet.";
      if (atEnd) log.scrollTop = log.scrollHeight;
    });
    await Promise.all([curves.update([{ run, index: 0 }]), filled, fillTest(run), fillFaces(run)]);
    return undefined;
  }

  async function fillTest(run) {
    if (!run.has.includes("predictions.csv")) {
      return tested.replaceChildren(note("There is no predictions.csv yet: a run is tested at its end."));
    }
    const answer = await ask("tested", id);
    return tested.replaceChildren(...testPanels(answer));
  }

  async function fillFaces(run) {
    if (!run.has.includes("predictions.csv"))
      return faces.replaceChildren(note("Shown once the run has been tested."));
    if (!faces.childElementCount) faces.replaceChildren(note("Loading …"));
    const answer = await ask("mistakes", id);
    if (answer.why) return faces.replaceChildren(note(`No pictures: ${answer.why}.`));
    const pictures = answer.pictures.map(({ src, caption }) =>
      h(
        "figure",
        {},
        h("img", { src, width: 96, height: 96, alt: caption }),
        h("figcaption", {}, caption),
      ),
    );
    const whose = answer.synthetic
      ? "Synthetic faces, of nobody."
      : "Pictures of people: share them only with those who may see the data set.";
    return faces.replaceChildren(
      note(
        `${answer.wrong.toLocaleString("en")} of ${answer.images.toLocaleString("en")} are wrong. The most confident first: labelled → predicted. ${whose}`,
      ),
      h("div", { class: "faces" }, pictures),
    );
  }

  fill();
  return { update: (changed) => changed.has(id) && fill() };
}

// Two runs.

function compareView(place, one, other) {
  const pair = () => [runs.get(one), runs.get(other)];
  const scores = h("section", {});
  const settings = h("section", {});
  const curves = curvePanels("curves");
  const tests = h("section", {});
  const head = h("section", {});
  place.replaceChildren(
    head,
    scores,
    settings,
    section("Learning curves", h("div", { class: "bar" }, curves.more), curves.element),
    tests,
  );
  const names = ["A", "B"];
  const letter = (i) => {
    const mark = h("b", { class: "letter" }, names[i]);
    mark.style.color = colour(i);
    return mark;
  };

  async function fill() {
    const [a, b] = pair();
    if (!a || !b)
      return place.replaceChildren(
        note("One of the two runs does not exist (any more)."),
        h("p", {}, h("a", { href: "#/runs" }, "All runs")),
      );
    head.replaceChildren(
      h("h2", {}, "Two runs side by side"),
      h(
        "div",
        { class: "columns" },
        [a, b].map((run, i) =>
          h("div", { class: "panel" }, h("h3", {}, letter(i), " ", runLink(run), " ", badge(run.state)), facts(run)),
        ),
      ),
      h("p", {}, h("a", { href: `#/compare/${other}/${one}` }, "Swap A and B")),
    );
    const rows = ["val", "test"].flatMap((side) =>
      Object.keys(SCORES).map((name) => {
        const [x, y] = [a[side][name], b[side][name]];
        const change = x == null || y == null ? "" : scoreText(name, y - x, true);
        return [
          `${side === "val" ? "validation" : "test"} ${SCORES[name]}`,
          scoreText(name, x),
          scoreText(name, y),
          change,
        ];
      }),
    );
    rows.push(["duration", duration(secondsOf(a)), duration(secondsOf(b)), ""]);
    const known = rows.filter((row) => row[1] || row[2]);
    const difference = h("div", {});
    scores.replaceChildren(
      h("h2", {}, "Scores"),
      plainTable(["scores in per cent", letter(0), letter(1), "B − A"], known),
      difference,
    );
    const keys = [...new Set([...Object.keys(a.settings), ...Object.keys(b.settings)])].sort();
    const unlike = keys.filter((key) => JSON.stringify(a.settings[key]) !== JSON.stringify(b.settings[key]));
    const base = ["stage", "dataset", "model", "split", "fold", "seed"].filter((key) => a[key] !== b[key]);
    const differences = [
      ...base.map((key) => [key, shown(a[key] ?? undefined), shown(b[key] ?? undefined)]),
      ...unlike.map((key) => [key, ...[a, b].map((run) => (key in run.settings ? shown(run.settings[key]) : "–"))]),
    ];
    settings.replaceChildren(
      h("h2", {}, "Settings in which they differ"),
      differences.length
        ? plainTable(["", letter(0), letter(1)], differences, { class: "settings" })
        : note("None, except folder and date."),
    );
    const paired = [a, b].every((run) => run.has.includes("predictions.csv"))
      ? ask("pair", `${one}+${other}`)
      : Promise.resolve({ why: "both runs must have been tested" });
    await Promise.all([
      curves.update([a, b].map((run, index) => ({ run, index }))),
      paired.then((answer) => fillDifference(difference, answer)),
      paired.then((answer) => fillTests(answer, a, b)),
    ]);
    return undefined;
  }

  function fillDifference(place, answer) {
    if (answer.why) return place.replaceChildren(note(`No interval: ${answer.why}.`));
    const cells = Object.entries(answer.figures).map(([name, figure]) => {
      const p = answer.p[name];
      const text = p == null ? "" : p < 0.001 ? "p < 0.001" : `p = ${p.toFixed(3)}`;
      const ends = [figure.low, figure.high].map((end) => percent(end, true)).join(", ");
      return [name, percent(figure.value, true), figure.low == null ? "" : `[${ends}]${answer.sign}`, text];
    });
    return place.replaceChildren(
      h("h3", {}, "B − A on the same test images, paired"),
      plainTable(["", "difference", "95 % interval", ""], cells),
      note(answer.legend),
    );
  }

  /** Both runs in each figure if they were tested on the same images, else the figures of each run by itself. */
  async function fillTests(answer, a, b) {
    if (answer.charts) return tests.replaceChildren(h("h2", {}, "Test"), ...testPanels(answer));
    const each = await Promise.all(
      [a, b].map((run) => (run.has.includes("predictions.csv") ? ask("tested", run.id) : { why: "Not tested yet" })),
    );
    const sides = each.map((one, i) => h("div", { class: "panel" }, h("h3", {}, letter(i)), testPanels(one)));
    return tests.replaceChildren(h("h2", {}, "Test"), h("div", { class: "columns" }, sides));
  }

  fill();
  return { update: (changed) => (changed.has(one) || changed.has(other)) && fill() };
}
