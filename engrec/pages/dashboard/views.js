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
      : note(`Nothing below ${about.root} is a run. This one needs no data and no GPU:`),
    about.error ? note("Runs are made, and their folder with them, by") : null,
    code("python train.py"),
    note("It appears here while it trains. Another folder: python scripts/dashboard.py FOLDER"),
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
  const hint = note("Tick runs in the table: their learning curves are drawn here. Tick two to compare them.");
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
    "Scores in per cent: of the kept epoch on validation (val), and on test; acc. is accuracy, bal. acc. balanced accuracy.",
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
    const swatch = h("i", { class: `swatch ${dash(index)}` });
    swatch.style.color = colour(index);
    const drop = () => (selected.delete(run.id), table.remark(), choose());
    const remove = h(
      "button",
      { type: "button", class: "plain", "aria-label": `remove ${label(run)}`, onclick: drop },
      "×",
    );
    const best = run.val[run.monitor.replace("val/", "")];
    const told = best == null ? "" : ` ${run.monitor} ${scoreText(run.monitor.replace("val/", ""), best)}`;
    return h(
      "li",
      {},
      swatch,
      runLink(run),
      h("span", { class: "note" }, told),
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
  const head = ["in per cent, loss as it is", "validation, kept epoch", "test"];
  return plainTable(head, rows, { class: "scores" });
}

function runHead(run) {
  const trial = run.search && searches.get(run.search);
  return [
    h("h2", { class: "title" }, label(run), " ", badge(run.state)),
    run.error ? h("p", { class: "error" }, run.error) : null,
    run.problems.map((problem) => h("p", { class: "error" }, problem)),
    facts(run),
    trial ? h("p", {}, `Trial ${run.trial} of `, h("a", { href: `#/search/${trial.id}` }, trial.path)) : null,
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
    section("Mistakes", faces),
    h("div", { class: "columns" }, section("Configuration", config), section("Log, its end", log)),
  );

  async function fill() {
    const run = runs.get(id);
    if (!run)
      return place.replaceChildren(
        note("This run is not there (any more)."),
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
    const texts = ask("texts", id).then((said) => {
      config.textContent = said.config || said.why || "There is no config.yaml.";
      const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
      log.textContent =
        [said.log, said.errors].filter(Boolean).join("\n\n— stderr.log —\n") ||
        said.why ||
        "There is no train.log yet.";
      if (atEnd) log.scrollTop = log.scrollHeight;
    });
    await Promise.all([curves.update([{ run, index: 0 }]), texts, fillTest(run), fillFaces(run)]);
    return undefined;
  }

  async function fillTest(run) {
    if (!run.has.includes("predictions.csv")) {
      return tested.replaceChildren(note("There is no predictions.csv (yet): a run is tested at its end."));
    }
    const said = await ask("tested", id);
    if (said.why) return tested.replaceChildren(note(said.why));
    const roc = h("div", { class: "plot" });
    const people = said.people == null ? "" : ` of ${counted(said.people, "person").replace("persons", "people")}`;
    const auc = `AUC ${percent(said.scores.AUC)}`;
    tested.replaceChildren(
      note(
        `${counted(said.images, "test image")}${people}. Balanced accuracy ${percent(said.scores["balanced accuracy"])}, ${auc}, ECE ${percent(said.scores.ECE)} %.`,
      ),
      h(
        "div",
        { class: "columns" },
        h("div", { class: "panel" }, h("h3", {}, "Confusion"), confusion(said.classes, said.confusion)),
        h("div", { class: "panel" }, h("h3", {}, "ROC"), roc),
      ),
    );
    if (!said.curves.length) return roc.replaceWith(note("Undefined: a class has no test image."));
    return rocPlot(roc, [{ name: said.curves.length > 1 ? "" : said.curves[0].name, index: 0, tested: said }]);
  }

  async function fillFaces(run) {
    if (!run.has.includes("predictions.csv"))
      return faces.replaceChildren(note("They are shown when the run has been tested."));
    if (!faces.childElementCount) faces.replaceChildren(note("Looking for them …"));
    const said = await ask("mistakes", id);
    if (said.why) return faces.replaceChildren(note(`No pictures: ${said.why}.`));
    const pictures = said.pictures.map(({ src, caption }) =>
      h(
        "figure",
        {},
        h("img", { src, width: 96, height: 96, alt: caption }),
        h("figcaption", {}, caption),
      ),
    );
    const whose = said.drawn
      ? "Drawn faces, nobody's."
      : "Pictures of people: they may go no further than the data set itself.";
    return faces.replaceChildren(
      note(
        `${said.wrong.toLocaleString("en")} of ${said.images.toLocaleString("en")} are wrong; the surest first: labelled → predicted. ${whose}`,
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
        note("One of the two is not there (any more)."),
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
        const difference = x == null || y == null ? "" : scoreText(name, y - x, true);
        return [
          `${side === "val" ? "validation" : "test"} ${SCORES[name]}`,
          scoreText(name, x),
          scoreText(name, y),
          difference,
        ];
      }),
    );
    rows.push(["duration", duration(secondsOf(a)), duration(secondsOf(b)), ""]);
    const known = rows.filter((row) => row[1] || row[2]);
    const paired = h("div", {});
    scores.replaceChildren(
      h("h2", {}, "Scores"),
      plainTable(["in per cent, loss as it is", letter(0), letter(1), "B − A"], known),
      paired,
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
        : note("None but where they lie and when they ran."),
    );
    await Promise.all([
      curves.update([a, b].map((run, index) => ({ run, index }))),
      fillTests(a, b),
      fillPaired(paired, a, b),
    ]);
    return undefined;
  }

  async function fillPaired(paired, a, b) {
    if (![a, b].every((run) => run.has.includes("predictions.csv"))) return;
    const said = await ask("pair", `${one}+${other}`);
    if (said.why) return paired.replaceChildren(note(`No interval: ${said.why}.`));
    const cells = Object.entries(said.figures).map(([name, figure]) => {
      const p = said.p[name];
      const told = p == null ? "" : p < 0.001 ? "p < 0.001" : `p = ${p.toFixed(3)}`;
      const between = figure.low == null ? "" : `[${percent(figure.low, true)}, ${percent(figure.high, true)}]${said.sign}`;
      return [name, percent(figure.value, true), between, told];
    });
    paired.replaceChildren(
      h("h3", {}, "B − A on the same test images, paired"),
      plainTable(["", "difference", "95 % interval", ""], cells),
      note(said.legend),
    );
  }

  async function fillTests(a, b) {
    const asked = [a, b].map((run) =>
      run.has.includes("predictions.csv") ? ask("tested", run.id) : { why: "not tested (yet)" },
    );
    const said = await Promise.all(asked);
    const roc = h("div", { class: "plot" });
    tests.replaceChildren(
      h("h2", {}, "Test"),
      h(
        "div",
        { class: "columns" },
        said.map((test, i) =>
          h(
            "div",
            { class: "panel" },
            h("h3", {}, letter(i), " confusion"),
            test.why ? note(test.why) : confusion(test.classes, test.confusion),
          ),
        ),
      ),
      h("div", { class: "panel narrow" }, h("h3", {}, "ROC"), roc),
    );
    const drawable = said
      .map((tested, index) => ({ name: names[index], index, tested }))
      .filter(({ tested }) => tested.curves?.length);
    if (drawable.length) rocPlot(roc, drawable);
    else roc.parentElement.remove();
  }

  fill();
  return { update: (changed) => (changed.has(one) || changed.has(other)) && fill() };
}
