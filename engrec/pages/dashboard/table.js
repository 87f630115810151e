"use strict";
// The table of runs: columns, filters, selection.

const MOST_SETTINGS = 8; // columns of settings that are shown by default
const selected = new Map(); // id of a run to the number of its colour
const filters = { states: new Set(), group: "", text: "" };
const wishes = new Map(); // columns that the user has shown or hidden
let order = [["started", "desc"]];
let pageLength = 25;

function firstFree() {
  const taken = new Set(selected.values());
  let index = 0;
  while (taken.has(index)) index += 1;
  return index;
}

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
const SHORT = Object.fromEntries(LOGGED.map((metric) => [metric.key, metric.short]));
const score = (side, name) =>
  byNumber(
    (run) => run[side][name],
    (value) => scoreText(name, value),
    {
      title: `${side} ${SHORT[name]}`,
    },
  );

const wrongIn = (run) => [...run.problems.map((problem) => problem.text), run.error].filter(Boolean).join("; ");

const COLUMNS = {
  state: { title: "status", get: (run) => run.state, html: (run) => badge(run.state).outerHTML, shown: true },
  started: byNumber((run) => run.started ?? run.written, date, { title: "started", shown: true, words: true }),
  stage: { title: "stage", get: (run) => run.stage, shown: true },
  dataset: { title: "dataset", get: (run) => run.dataset, shown: true },
  model: { title: "model", get: (run) => run.model, shown: true },
  split: { title: "split", get: (run) => run.split },
  fold: byNumber((run) => run.fold, shown, { title: "fold", shown: true }),
  seed: byNumber((run) => run.seed, shown, { title: "seed", shown: true }),
  trial: byNumber((run) => run.trial, shown, { title: "trial" }),
  ...Object.fromEntries(
    Object.keys(SCORES).map((name) => [
      `val/${name}`,
      { ...score("val", name), shown: ["auc", "loss"].includes(name) },
    ]),
  ),
  ...Object.fromEntries(
    Object.keys(SCORES).map((name) => [`test/${name}`, { ...score("test", name), shown: name !== "loss" }]),
  ),
  epochs: byNumber(
    (run) => run.epochs,
    (v, run) => (run.max_epochs ? `${v} / ${run.max_epochs}` : `${v}`),
    { title: "epochs", shown: true, plain: true },
  ),
  seconds: byNumber(secondsOf, duration, { title: "duration", shown: true, words: true }),
  problem: {
    title: "what is wrong",
    get: wrongIn,
    html: (run) => h("span", { title: wrongIn(run) }, wrongIn(run)).outerHTML,
  },
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
      if (type === "display") return column.html ? column.html(run) : escaped(text(run));
      if (type === "sort" || type === "type") return column.get(run) ?? "";
      return type === "filter" && column.plain ? (column.get(run) ?? "") : text(run);
    },
  };
}

function pickColumn() {
  return {
    name: "pick",
    orderable: false,
    searchable: false,
    className: "pick",
    columnControl: [],
    data: (run, type) => {
      if (type !== "display") return "";
      const box = h("input", {
        type: "checkbox",
        class: "picked",
        "data-id": run.id,
        "aria-label": `select ${label(run)}`,
      });
      if (selected.has(run.id)) box.setAttribute("checked", "");
      return box.outerHTML;
    },
  };
}

function nameColumn() {
  const html = (run) => h("a", { href: `#/run/${run.id}`, title: label(run) }, label(run)).outerHTML;
  return { ...dataTableColumn("run", { title: "run", get: label, html, shown: true }), className: "dt-left name" };
}

/** The table in its place. onselect is called when the selection changes. */
function runTable(onselect) {
  let table = null;
  let names = [];
  const element = h("div", { class: "tableplace" });
  const chips = h("div", { class: "chips", role: "group", "aria-label": "status" });
  const more = h("span", { class: "note" });

  const passes = (run) =>
    (!filters.states.size || filters.states.has(run.state)) && (!filters.group || run.group === filters.group);
  const listed = () => (table ? table.rows({ search: "applied" }).data().toArray() : []);

  function build() {
    const settings = [...allDiffering().entries()].sort((a, b) => b[1] - a[1]).map(([key]) => key);
    const settingColumn = (key) => {
      const number = [...runs.values()].every((run) =>
        ["number", "undefined"].includes(typeof (settingOf(run, key) ?? undefined)),
      );
      return { title: key, get: (run) => settingOf(run, key), number, shown: false };
    };
    names = settings;
    const all = [...Object.entries(COLUMNS), ...settings.map((key) => [`setting ${key}`, settingColumn(key)])];
    const columns = [pickColumn(), nameColumn(), ...all.map(([name, column]) => dataTableColumn(name, column))];
    const titles = ["", "run", ...all.map(([, column]) => column.title)];
    if (table) table.destroy(true);
    const heads = titles.map((title) => h("th", { scope: "col", "aria-label": title || "selected" }, title));
    const place = h("table", { class: "display compact runs" }, h("thead", {}, h("tr", {}, heads)));
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
      orderMulti: true,
      search: { search: filters.text },
      columnControl: { target: 0, content: [["search"]] },
      ordering: { indicators: true, handler: true },
      layout: {
        topStart: {
          buttons: [
            {
              extend: "colvis",
              text: "Columns",
              columns: ":gt(1)",
              background: false,
              columnText: (dt, i) => escaped(titles[i]),
            },
          ],
        },
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
    const place0 = order.map(([name, way]) => [table.column(`${name}:name`).index(), way]).filter(([i]) => i != null);
    table.order(place0);
    table.search.fixed("ours", (_, run) => passes(run));
    table.on("order.dt", () => (order = table.order().map(([i, way]) => [columns[i]?.name, way])));
    table.on("length.dt", (e, s, length) => (pageLength = length));
    table.on("search.dt", () => {
      filters.text = table.search();
      later(fit);
    });
    table.on("column-visibility.dt", (e, s, i, visible) => fitting || wishes.set(columns[i].name, visible));
    place.addEventListener("change", (event) => event.target.matches("input.picked") && pick(event.target));
    place.addEventListener("click", (event) => {
      const cell = event.target.closest("td.pick");
      if (cell && event.target === cell) cell.querySelector("input").click();
    });
    element.querySelector(".dt-search input").setAttribute("aria-label", "Filter all columns");
    table.draw();
    fit();
  }

  function pick(box) {
    if (box.checked) selected.set(box.dataset.id, firstFree());
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
    const rows = listed();
    const found = [...(rows.length === runs.size ? allDiffering() : differing(rows)).entries()]
      .sort((a, b) => b[1] - a[1])
      .map(([key]) => key);
    const shownNow = new Set(found.slice(0, MOST_SETTINGS));
    fitting = true;
    for (const key of names) {
      const name = `setting ${key}`;
      const wanted = wishes.get(name) ?? shownNow.has(key);
      const column = table.column(`${name}:name`);
      if (column.visible() !== wanted) column.visible(wanted, false);
    }
    for (const [name, has] of [
      ["problem", wrongIn],
      ["fold", (run) => run.fold != null],
      ["trial", (run) => run.trial != null],
    ]) {
      const column = table.column(`${name}:name`);
      const any = rows.some(has);
      if (!wishes.has(name) && column.visible() !== any) column.visible(any, false);
    }
    fitting = false;
    table.columns.adjust();
    const left = found.length - shownNow.size;
    more.textContent = left > 0 ? `${counted(left, "more setting")} in which these runs differ: see Columns.` : "";
  }

  function drawChips() {
    const counts = new Map();
    for (const run of runs.values()) counts.set(run.state, (counts.get(run.state) ?? 0) + 1);
    const focused = document.activeElement?.dataset?.state;
    const toggle = (state) => {
      if (!filters.states.delete(state)) filters.states.add(state);
      table.draw();
      drawChips();
    };
    const buttons = STATES.filter((state) => counts.has(state) || filters.states.has(state)).map((state) =>
      h(
        "button",
        {
          type: "button",
          class: `chip ${state}`,
          "data-state": state,
          "aria-pressed": String(filters.states.has(state)),
          onclick: () => toggle(state),
        },
        `${state} `,
        h("b", {}, (counts.get(state) ?? 0).toLocaleString("en")),
      ),
    );
    const clear = () => {
      filters.group = "";
      table.draw();
      drawChips();
    };
    const group =
      filters.group && h("button", { type: "button", class: "chip", onclick: clear }, "one group of folds and seeds ×");
    chips.replaceChildren(...buttons, ...(group ? [group] : []));
    if (focused) chips.querySelector(`[data-state="${focused}"]`)?.focus();
  }

  function update(changed) {
    drawChips();
    const settings = [...allDiffering().keys()];
    const known = new Set(names);
    if (!table || settings.some((key) => !known.has(key))) return build();
    const fresh = [];
    for (const id of changed) {
      const row = table.row(`#${id}`);
      const run = runs.get(id);
      if (run && row.any()) {
        row.data(run);
        if (row.node()) mark(row.node(), id);
      } else if (run) fresh.push(run);
      else if (row.any()) row.remove();
    }
    if (fresh.length) table.rows.add(fresh);
    table.draw(false);
    remark();
    return undefined;
  }

  /** Durations grow even when nothing is written. */
  function tick() {
    const at = table?.column("seconds:name");
    if (!at?.visible()) return;
    for (const row of element.querySelectorAll("tbody tr[id]")) {
      const run = runs.get(row.id);
      if (run?.state === "running") table.cell(row, at.index()).node().textContent = duration(secondsOf(run));
    }
  }

  return { element, chips, more, update, listed, remark, tick, destroy: () => table?.destroy(true) };
}
