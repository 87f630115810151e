"use strict";
// A function for each view: it fills an element, and returns what to do when records change. Runs, one run, two runs.

function nothingYet() {
  const command = code("python train.py");
  const other = note("It appears here while it trains. For another folder: python scripts/dashboard.py FOLDER");
  if (about.error) {
    const make = note("This command makes a run, and the folder:");
    return section("This folder cannot be read", h("p.error", about.error), make, command, other);
  }
  const make = note(`There are no runs below ${about.root}. This command makes one, without data and without a GPU:`);
  return section("No runs yet", make, command, other);
}

function emptyView(place) {
  const fill = () => place.replaceChildren(nothingYet());
  fill();
  return { update: () => (runs.size ? "again" : fill()) };
}

function goneView(place, what) {
  place.replaceChildren(note(`${what} not exist (any more).`), h("p", h("a", { href: "#/runs" }, "All runs")));
}

const curveSection = ({ more, element }) => section("Learning curves", h("div.bar", more), element);

// All runs.

function runsView(place) {
  if (!runs.size) return emptyView(place);
  const legend = h("ul.legend");
  const curves = curvePanels();
  const hint = note("Select runs in the table to see their learning curves here. Select two to compare them.");
  const compare = h("a.button", { id: "compare" }, "Compare the two");
  const drop = (...ids) => (ids.forEach((id) => selected.delete(id)), table.remark(), choose());
  const bar = h("div.bar", compare, button("clear", () => drop(...selected.keys()), "Clear"), curves.more);
  const panel = h("section.selection", { "aria-label": "learning curves" }, hint, bar, legend, curves.element);
  const table = runTable(choose);
  const units = note(
    "Scores in per cent, on the validation images (val) at the kept epoch, and on the test images. ",
    "acc.: accuracy, bal. acc.: balanced accuracy.",
  );
  place.replaceChildren(h("div.bar", table.chips, table.more), table.element, units, panel);
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
    const swatch = h(`i.swatch.${look(index).dash}`, { style: `color: ${colour(index)}` });
    const remove = button("plain", () => drop(run.id), "×");
    remove.setAttribute("aria-label", `remove ${label(run)}`);
    const score = run.monitor.replace("val/", "");
    const value = run.val[score] == null ? "" : ` ${run.monitor} ${scoreText(score, run.val[score])}`;
    const running = run.state === "running" && badge("running");
    return h("li", swatch, runLink(run), h("span.note", value), running, remove);
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
  return [line, h("div.charts", chartPanels(charts))].filter(Boolean);
}

const isTested = (run) => run.has.includes("predictions.csv");

// One run.

function facts(run) {
  const folds = run.folds ? ` of ${run.folds}` : "";
  const pairs = [
    ["stage", run.stage],
    ["data set", run.dataset],
    ["model", run.model],
    ["split", run.fold == null ? splitOf(run) : `${splitOf(run)}, fold ${run.fold}${folds}`],
    ["seed", shown(run.seed ?? undefined)],
    ["epochs", run.max_epochs ? `${run.epochs} of ${run.max_epochs}` : `${run.epochs}`],
    ["kept", run.best_epoch == null ? "" : `epoch ${run.best_epoch + 1}, by ${run.monitor}`],
    ["started", date(run.started)],
    ["duration", duration(secondsOf(run))],
    ["last written", run.state === "running" ? ago(run.written) : ""],
  ].filter(([, value]) => value);
  return h("dl.facts", pairs.map(([name, value]) => h("div", h("dt", name), h("dd", value))));
}

function scoreTable(run) {
  const texts = (key) => [scoreText(key, run.val[key]), scoreText(key, run.test[key])];
  const rows = Object.entries(SCORES).map(([key, name]) => [name, ...texts(key)]);
  if (rows.every((row) => !row[1] && !row[2])) return note("No epoch has ended yet.");
  return plainTable(["scores in per cent", "validation, kept epoch", "test"], rows, "scores");
}

function runHead(run) {
  const wrong = [run.error, ...run.problems.map((problem) => problem.text)].filter(Boolean);
  const trial = `Trial ${run.trial} of the search ${run.search}; its summary.html compares the trials.`;
  const command = run.command ? code(run.command) : "";
  const title = h("h2.title", label(run), " ", badge(run.state));
  return [title, ...wrong.map((text) => h("p.error", text)), facts(run), run.search ? h("p", trial) : "", command];
}

function runView(place, id) {
  const head = h("section.runhead");
  const numbers = h("section");
  const curves = curvePanels();
  const tested = h("div");
  const faces = h("div");
  const config = h("pre.text", { tabindex: 0 });
  const log = h("pre.text.log", { tabindex: 0 });
  const other = h("select", {
    "aria-label": "compare with",
    onchange: () => (location.hash = `#/compare/${id}/${other.value}`),
  });
  place.replaceChildren(
    head,
    numbers,
    curveSection(curves),
    section("Test", tested),
    section("Most confident mistakes", faces),
    h("div.columns", section("Configuration", config), section("End of the log", log)),
  );

  async function fill() {
    const run = runs.get(id);
    if (!run) return goneView(place, "This run does");
    head.replaceChildren(...runHead(run));
    const compare = h("div.bar", h("label", "Compare with ", other));
    numbers.replaceChildren(h("h2", "Scores"), scoreTable(run), compare);
    const near = [...runs.values()].filter((one) => one.id !== id && one.dataset === run.dataset);
    near.sort((a, b) => (b.started ?? b.written) - (a.started ?? a.written));
    const options = near.slice(0, 300).map((one) => h("option", { value: one.id }, label(one)));
    other.replaceChildren(h("option", { value: "" }, "…"), ...options);
    return Promise.all([curves.update([{ run, index: 0 }]), fillTexts(), fillTest(run), fillFaces(run)]);
  }

  async function fillTexts() {
    const texts = await ask("texts", id);
    config.textContent = texts.config || texts.why || "There is no config.yaml.";
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    const logs = [texts.log, texts.errors].filter(Boolean).join("\n\n— stderr.log —\n");
    log.textContent = logs || texts.why || "There is no train.log yet.";
    if (atEnd) log.scrollTop = log.scrollHeight;
  }

  async function fillTest(run) {
    const why = "There is no predictions.csv yet: a run is tested at its end";
    tested.replaceChildren(...testPanels(isTested(run) ? await ask("tested", id) : { why }));
  }

  async function fillFaces(run) {
    if (!isTested(run)) return faces.replaceChildren(note("Shown once the run has been tested."));
    if (!faces.childElementCount) faces.replaceChildren(note("Loading …"));
    const { why, wrong, images, pictures, synthetic } = await ask("mistakes", id);
    if (why) return faces.replaceChildren(note(`No pictures: ${why}.`));
    const shareable = "Pictures of people: share them only with those who may see the data set.";
    const remark = note(
      `${wrong.toLocaleString("en")} of ${images.toLocaleString("en")} are wrong. `,
      "The most confident first: labelled → predicted. ",
      synthetic ? "Synthetic faces, of nobody." : shareable,
    );
    const image = ({ src, caption }) => h("img", { src, width: 96, height: 96, alt: caption });
    const shown = pictures.map((picture) => h("figure", image(picture), h("figcaption", picture.caption)));
    return faces.replaceChildren(remark, h("div.faces", shown));
  }

  fill();
  return { update: (changed) => changed.has(id) && fill() };
}

// Two runs.

function compareView(place, one, other) {
  const curves = curvePanels();
  const [head, scores, settings, tests] = Array.from({ length: 4 }, () => h("section"));
  const letter = (i) => h("b.letter", { style: `color: ${colour(i)}` }, "AB"[i]);
  place.replaceChildren(head, scores, settings, curveSection(curves), tests);

  async function fill() {
    const pair = [runs.get(one), runs.get(other)];
    if (!pair.every(Boolean)) return goneView(place, "One of the two runs does");
    const title = (run, i) => h("h3", letter(i), " ", runLink(run), " ", badge(run.state));
    const sides = pair.map((run, i) => h("div.panel", title(run, i), facts(run)));
    const swap = h("p", h("a", { href: `#/compare/${other}/${one}` }, "Swap A and B"));
    head.replaceChildren(h("h2", "Two runs side by side"), h("div.columns", sides), swap);
    const difference = h("div");
    const table = plainTable(["scores in per cent", letter(0), letter(1), "B − A"], scoreRows(...pair), "scores");
    scores.replaceChildren(h("h2", "Scores"), table, difference);
    const differences = settingRows(...pair);
    settings.replaceChildren(
      h("h2", "Settings in which they differ"),
      differences.length
        ? plainTable(["", letter(0), letter(1)], differences, "settings")
        : note("None, except folder and date."),
    );
    const drawn = curves.update(pair.map((run, index) => ({ run, index })));
    const why = "both runs must have been tested";
    const answer = pair.every(isTested) ? await ask("pair", `${one}+${other}`) : { why };
    fillDifference(difference, answer);
    return Promise.all([drawn, fillTests(answer, pair)]);
  }

  function scoreRows(a, b) {
    const row = (side, title, key) => {
      const [x, y] = [a[side][key], b[side][key]];
      const change = x == null || y == null ? "" : scoreText(key, y - x, true);
      return [`${title} ${SCORES[key]}`, scoreText(key, x), scoreText(key, y), change];
    };
    const of = (side, title) => Object.keys(SCORES).map((key) => row(side, title, key));
    const durations = ["duration", duration(secondsOf(a)), duration(secondsOf(b)), ""];
    return [...of("val", "validation"), ...of("test", "test"), durations].filter((cells) => cells[1] || cells[2]);
  }

  function settingRows(a, b) {
    const keys = [...new Set([...Object.keys(a.settings), ...Object.keys(b.settings)])].sort();
    const unlike = keys.filter((key) => JSON.stringify(a.settings[key]) !== JSON.stringify(b.settings[key]));
    const base = ["stage", "dataset", "model", "split", "fold", "seed"].filter((key) => a[key] !== b[key]);
    const setting = (run, key) => (key in run.settings ? shown(run.settings[key]) : "–");
    return [
      ...base.map((key) => [key, ...[a, b].map((run) => shown(run[key] ?? undefined))]),
      ...unlike.map((key) => [key, ...[a, b].map((run) => setting(run, key))]),
    ];
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
      h("h3", "B − A on the same test images, paired"),
      plainTable(["", "difference", "95 % interval", ""], cells, "scores"),
      note(answer.legend),
    );
  }

  /** Both runs in each figure if they were tested on the same images, else the figures of each run by itself. */
  async function fillTests(answer, pair) {
    if (answer.charts) return tests.replaceChildren(h("h2", "Test"), ...testPanels(answer));
    const tested = (run) => (isTested(run) ? ask("tested", run.id) : { why: "Not tested yet" });
    const each = await Promise.all(pair.map(tested));
    const sides = each.map((found, i) => h("div.panel", h("h3", letter(i)), ...testPanels(found)));
    return tests.replaceChildren(h("h2", "Test"), h("div.columns", sides));
  }

  fill();
  return { update: (changed) => (changed.has(one) || changed.has(other)) && fill() };
}
