"use strict";
// The table of runs: columns, filters, selection.

const MOST_SETTINGS = 8; // columns of settings that are shown by default
const selected = new Map(); // id of a run to the number of its colour
const filters = { states: new Set(), group: "", text: "" };
const wishes = new Map(); // columns that the user has shown or hidden
let order = [["started", "desc"]];
let pageLength = 25;

/** Empty cells come last, whichever way a column is sorted. */
function sorts(sign) {
  const nothing = (value) => value == null || value === "";
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number"
      ? a - b
      : String(a).localeCompare(String(b), "en", { numeric: true });
  return (a, b) => (nothing(a) || nothing(b) ? nothing(a) - nothing(b) : sign * compare(a, b));
}
// The name of a type says which filter its columns have: of numbers, or of text.
for (const name of ["num-last", "text-last"]) DataTable.type(name, { order: { asc: sorts(1), desc: sorts(-1) } });

const byNumber = (get, text, more = {}) => ({ get, text, number: true, ...more });

/** A column for each score of a side, val or test. */
const scores = (side, isShown) =>
  LOGGED.map(({ key, short }) => {
    const column = { title: `${side} ${short}`, shown: isShown(key) };
    return [`${side}/${key}`, byNumber((run) => run[side][key], (value) => scoreText(key, value), column)];
  });

const wrongIn = (run) => [...run.problems.map((problem) => problem.text), run.error].filter(Boolean).join("; ");
const epochsOf = (epochs, run) => (run.max_epochs ? `${epochs} / ${run.max_epochs}` : `${epochs}`);

const COLUMNS = {
  state: { title: "status", get: (run) => run.state, html: (run) => badge(run.state), shown: true },
  started: byNumber((run) => run.started ?? run.written, date, { title: "started", shown: true, words: true }),
  stage: { title: "stage", get: (run) => run.stage, shown: true },
  dataset: { title: "dataset", get: (run) => run.dataset, shown: true },
  model: { title: "model", get: (run) => run.model, shown: true },
  split: { title: "split", get: splitOf },
  fold: byNumber((run) => run.fold, shown, { title: "fold", shown: true }),
  seed: byNumber((run) => run.seed, shown, { title: "seed", shown: true }),
  trial: byNumber((run) => run.trial, shown, { title: "trial" }),
  ...Object.fromEntries(scores("val", (key) => ["auc", "loss"].includes(key))),
  ...Object.fromEntries(scores("test", (key) => key !== "loss")),
  epochs: byNumber((run) => run.epochs, epochsOf, { title: "epochs", shown: true, plain: true }),
  seconds: byNumber(secondsOf, duration, { title: "duration", shown: true, words: true }),
  problem: { title: "what is wrong", get: wrongIn, html: (run) => h("span", { title: wrongIn(run) }, wrongIn(run)) },
  command: { title: "command", get: (run) => run.command },
};

function dataTableColumn(name, column) {
  const text = (run) => {
    const value = column.get(run);
    return value == null ? "" : column.text ? column.text(value, run) : shown(value);
  };
  return {
    name,
    className: column.number ? "dt-right" : "dt-left",
    visible: wishes.get(name) ?? Boolean(column.shown),
    type: column.number && !column.words ? "num-last" : "text-last",
    orderSequence: column.number ? ["desc", "asc"] : ["asc", "desc"],
    data: (run, type) => {
      if (type === "display") return column.html ? column.html(run).outerHTML : escaped(text(run));
      if (type === "sort" || type === "type") return column.get(run) ?? "";
      return type === "filter" && column.plain ? (column.get(run) ?? "") : text(run);
    },
  };
}

const pickColumn = {
  name: "pick",
  orderable: false,
  searchable: false,
  className: "pick",
  columnControl: [],
  data: (run, type) => {
    const about = { type: "checkbox", "data-id": run.id, "aria-label": `select ${label(run)}` };
    return type === "display" ? h("input.picked", { ...about, checked: selected.has(run.id) }).outerHTML : "";
  },
};

const nameColumn = {
  ...dataTableColumn("run", {
    title: "run",
    get: label,
    html: (run) => runLink(run, { title: label(run) }),
    shown: true,
  }),
  className: "dt-left name",
};

/** The table in its place. onselect is called when the selection changes. */
function runTable(onselect) {
  let table = null;
  let names = [];
  const element = h("div.tableplace");
  const chips = h("div.chips", { role: "group", "aria-label": "status" });
  const more = h("span.note");

  const passes = (run) =>
    (!filters.states.size || filters.states.has(run.state)) && (!filters.group || run.group === filters.group);
  const columnOf = (name) => table.column(`${name}:name`);

  function build() {
    names = allDiffering();
    const numeric = (value) => value == null || typeof value === "number";
    const settingColumn = (key) => {
      const number = [...runs.values()].every((run) => numeric(settingOf(run, key)));
      return { title: key, get: (run) => settingOf(run, key), number };
    };
    const all = [...Object.entries(COLUMNS), ...names.map((key) => [`setting ${key}`, settingColumn(key)])];
    const columns = [pickColumn, nameColumn, ...all.map(([name, column]) => dataTableColumn(name, column))];
    const titles = ["", "run", ...all.map(([, column]) => column.title)];
    const picker = { columns: ":gt(1)", background: false, columnText: (dt, i) => escaped(titles[i]) };
    if (table) table.destroy(true);
    const heads = titles.map((title) => h("th", { scope: "col", "aria-label": title || "selected" }, title));
    const place = h("table.display.compact.runs", h("thead", h("tr", heads)));
    element.replaceChildren(place);
    table = new DataTable(place, {
      data: [...runs.values()],
      columns,
      rowId: "id",
      order: [],
      pageLength,
      lengthMenu: [10, 25, 50, 100, { label: "all", value: -1 }],
      deferRender: true,
      autoWidth: false,
      search: { search: filters.text },
      columnControl: { target: 0, content: [["search"]] },
      layout: {
        topStart: { buttons: [{ extend: "colvis", text: "Columns", ...picker }] },
        topEnd: "search",
        bottomStart: ["info", "pageLength"],
        bottomEnd: "paging",
      },
      language: {
        search: "",
        searchPlaceholder: "Filter all columns",
        info: "_START_ to _END_ of _TOTAL_ runs",
        infoEmpty: "no run",
        infoFiltered: "(of _MAX_)",
        lengthMenu: "_MENU_ a page",
        zeroRecords: "No run passes the filters.",
        emptyTable: "No runs.",
      },
      createdRow: (row, run) => mark(row, run.id),
    });
    table.order(order.map(([name, way]) => [columnOf(name).index(), way]).filter(([i]) => i != null));
    table.search.fixed("ours", (_, run) => passes(run));
    table.on("order.dt", () => (order = table.order().map(([i, way]) => [columns[i]?.name, way])));
    table.on("length.dt", (e, s, length) => (pageLength = length));
    table.on("search.dt", () => ((filters.text = table.search()), later(fit)));
    table.on("column-visibility.dt", (e, s, i, visible) => fitting || wishes.set(columns[i].name, visible));
    place.addEventListener("change", (event) => event.target.matches("input.picked") && pick(event.target));
    place.addEventListener("click", (event) => {
      if (event.target.matches("td.pick")) event.target.querySelector("input").click();
    });
    element.querySelector(".dt-search input").setAttribute("aria-label", "Filter all columns");
    table.draw();
    fit();
  }

  function pick(box) {
    const taken = new Set(selected.values());
    const free = [...Array(taken.size + 1).keys()].find((index) => !taken.has(index));
    if (box.checked) selected.set(box.dataset.id, free);
    else selected.delete(box.dataset.id);
    remark();
    onselect();
  }

  function mark(row, id) {
    const index = selected.get(id);
    row.classList.toggle("chosen", index !== undefined);
    const box = row.querySelector("input.picked");
    if (box) box.checked = index !== undefined;
    row.style.setProperty("--run", index === undefined ? "transparent" : colour(index));
  }

  function remark() {
    for (const row of element.querySelectorAll("tbody tr[id]")) mark(row, row.id);
  }

  let waiting = 0;
  const later = (what) => (clearTimeout(waiting), (waiting = setTimeout(what, 120)));
  let fitting = false;

  /** Only the settings in which the listed runs differ have a column, unless the user has chosen otherwise. */
  function fit() {
    if (!table || !element.isConnected) return;
    const rows = table.rows({ search: "applied" }).data().toArray();
    const found = rows.length === runs.size ? allDiffering() : differing(rows);
    const first = new Set(found.slice(0, MOST_SETTINGS));
    const show = (name, wanted) => {
      const column = columnOf(name);
      if (column.visible() !== (wishes.get(name) ?? wanted)) column.visible(!column.visible(), false);
    };
    fitting = true;
    for (const key of names) show(`setting ${key}`, first.has(key));
    show("problem", rows.some(wrongIn));
    for (const name of ["fold", "trial"]) show(name, rows.some((run) => run[name] != null));
    for (const { key } of LOGGED) show(`test/${key}`, key !== "loss" && rows.some((run) => run.test[key] != null));
    show("split", rows.some(isNoResult));
    fitting = false;
    table.columns.adjust();
    const left = found.length - first.size;
    more.textContent = left > 0 ? `${counted(left, "more setting")} in which these runs differ: see Columns.` : "";
  }

  function drawChips() {
    const counts = new Map();
    for (const run of runs.values()) counts.set(run.state, (counts.get(run.state) ?? 0) + 1);
    const focused = document.activeElement?.dataset?.state;
    const draw = () => (table.draw(), drawChips());
    const toggle = (state) => {
      if (!filters.states.delete(state)) filters.states.add(state);
      draw();
    };
    const chip = (state) => {
      const about = { "data-state": state, "aria-pressed": String(filters.states.has(state)) };
      const number = h("b", (counts.get(state) ?? 0).toLocaleString("en"));
      return h(`button.chip.${state}`, { type: "button", onclick: () => toggle(state), ...about }, `${state} `, number);
    };
    chips.replaceChildren(...STATES.filter((state) => counts.has(state) || filters.states.has(state)).map(chip));
    const clear = () => ((filters.group = ""), draw());
    if (filters.group) chips.append(button("chip", clear, "one group of folds and seeds ×"));
    if (focused) chips.querySelector(`[data-state="${focused}"]`)?.focus();
  }

  function update(changed) {
    drawChips();
    if (!table || allDiffering().some((key) => !names.includes(key))) return build();
    const fresh = [];
    for (const id of changed) {
      const row = table.row(`#${id}`);
      const run = runs.get(id);
      if (run && row.any()) row.data(run);
      else if (run) fresh.push(run);
      else if (row.any()) row.remove();
    }
    if (fresh.length) table.rows.add(fresh);
    table.draw(false);
    remark();
    return undefined;
  }

  /** Durations grow even when nothing is written. */
  function tick() {
    const at = table && columnOf("seconds");
    if (!at?.visible()) return;
    for (const row of element.querySelectorAll("tbody tr[id]")) {
      const run = runs.get(row.id);
      if (run?.state === "running") table.cell(row, at.index()).node().textContent = duration(secondsOf(run));
    }
  }

  return { element, chips, more, update, remark, tick, destroy: () => table?.destroy(true) };
}
