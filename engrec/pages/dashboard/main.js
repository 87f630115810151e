"use strict";
// Addresses, and a question every two seconds for what has changed.

const EVERY = 2000; // milliseconds
const main = document.getElementById("main");
const live = document.getElementById("live");
let view = { update: () => undefined };

function show() {
  const [name, ...keys] = location.hash.replace(/^#\//, "").split("/");
  view.leave?.();
  for (const link of document.querySelectorAll("nav a")) {
    const current = link.dataset.views.split(" ").includes(name || "runs");
    link.ariaCurrent = current ? "page" : null;
  }
  main.replaceChildren();
  if (name === "run") view = runView(main, keys[0]);
  else if (name === "compare") view = compareView(main, keys[0], keys[1]);
  else if (name === "groups") view = groupsView(main);
  else view = runsView(main);
}

function showTitle() {
  document.getElementById("root").textContent = about.root;
  const running = [...runs.values()].filter((run) => run.state === "running").length;
  document.title = `${running ? `(${running}) ` : ""}${about.root} – engrec`;
}

/** Take what is new, and say whether somebody answered. */
async function lookAgain() {
  try {
    const changed = await poll();
    [live.textContent, live.className] = ["live", "live"];
    return changed;
  } catch {
    [live.textContent, live.className] = ["no connection: is the command still running?", "lost"];
    return null;
  }
}

async function refresh() {
  try {
    const changed = document.hidden ? null : await lookAgain();
    if (changed?.size) {
      showTitle();
      if (view.update(changed) === "again") show();
    }
    if (changed) view.tick?.();
  } finally {
    setTimeout(refresh, EVERY);
  }
}

async function start() {
  const exported = here("state");
  if (exported) {
    about.exported = exported.exported;
    take(exported);
    live.textContent = `as of ${exported.exported}`;
  } else await lookAgain();
  showTitle();
  window.addEventListener("hashchange", () => (show(), window.scrollTo(0, 0)));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.matches("input, select, textarea")) return;
    event.preventDefault();
    document.querySelector(".dt-search input")?.focus();
  });
  show();
  document.body.dataset.ready = "yes";
  loadPlotly();
  if (!exported) setTimeout(refresh, EVERY);
}

start();
