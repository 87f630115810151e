import { Answers, percent, spaced } from "./answers.js";
import { Browser } from "./browser.js";
import { Local } from "./local.js";
import { clock } from "./plot.js";
import { Record, best } from "./record.js";
import { camera, opened } from "./source.js";
import { Stage } from "./stage.js";

const ENDS = { video: "The video is at its end.", camera: "The camera has stopped." };
const at = (id) => document.getElementById(id);
const about = await (await fetch("about.json")).json();
const engine = about.engine === "browser" ? new Browser(about) : new Local(about);
const state = { source: null, record: null, shown: null, chosen: null, rate: [], speed: 0, isDue: false };
const stage = new Stage(at("stage"), choose);
const answers = new Answers(about, at("answers"), choose);

function say(text, isError = false) {
  at("message").textContent = text;
  at("message").classList.toggle("error", isError);
}

/* What may fail, with its error as a line. */
async function tried(work) {
  try {
    return await work();
  } catch (error) {
    say(error.message, true);
    return null;
  }
}

async function agree() {
  at("start").hidden = true;
  at("work").hidden = false;
  at("use").append(at("limits"));
  scrollTo(0, 0);
  say(about.engine === "browser" ? "Loading the networks, which takes longer the first time …" : "Connecting …");
  await tried(async () => {
    await engine.open();
    say("Ready.");
    for (const id of ["open", "camera"]) at(id).disabled = false;
    at("open").focus();
    document.body.dataset.open = "1";
  });
}

/* Opens a source and shows its frames until it ends or another comes. */
async function run(open) {
  const source = await tried(open);
  if (!source) return;
  state.source?.close();
  const record = new Record(about, source.name, source.kind);
  Object.assign(state, { source, record, shown: null, chosen: null, rate: [] });
  say("");
  awaiting(source.name);
  engine.restart();
  buttons();
  const isComplete = await tried(async () => {
    let last = Promise.resolve();
    for await (const { frame, seconds, number } of source.frames()) {
      if (state.source !== source) return false;
      const kept = { width: frame.width, height: frame.height, data: frame.data.slice() };
      const asked = engine.infer(kept, seconds).then((faces) => {
        if (state.source === source) seen(frame, faces, seconds, number);
      });
      asked.catch(() => {}); // it is awaited below, a frame later
      await last; // the engine has one frame in work, and one that waits for it
      last = asked;
    }
    await last;
    return state.source === source;
  });
  if (state.source === source) finished(isComplete);
}

/* Until the first answer, the last source is seen to be gone. */
function awaiting(name) {
  answers.reset();
  at("stage").classList.add("gone");
  at("caption").textContent = `${name} …`;
  at("save").disabled = true;
}

function seen(frame, faces, seconds, number) {
  state.record.add(number, seconds, faces, frame.share);
  state.shown = { frame, faces, seconds };
  counted();
  show();
}

function finished(isComplete) {
  const { source, record, shown } = state;
  record.isComplete = Boolean(isComplete);
  const damage = isComplete && source.damage?.();
  if (damage) brokenOff(damage);
  else if (isComplete) say(source.kind === "picture" ? counting(shown.faces.length) : ENDS[source.kind]);
  source.close();
  source.ended = true;
  buttons();
  show();
}

function brokenOff(damage) {
  const { record, shown } = state;
  record.breakOff(damage);
  say(`${record.name} breaks off after ${(shown?.seconds ?? 0).toFixed(1)} s: ${damage}.`, true);
}

function counting(number) {
  return number ? `${number} face${number > 1 ? "s" : ""} found.` : "No face was found in this picture.";
}

function chosenFace() {
  const { faces } = state.shown;
  const found = faces.find((face) => face.id === state.chosen);
  if (found || !faces.length) return found;
  const largest = faces.reduce((one, other) => (other.px > one.px ? other : one));
  state.chosen = largest.id;
  return largest;
}

function choose(id) {
  state.chosen = id;
  show();
}

/* Draws when the screen is drawn, while the engine has the next frame already. */
function show() {
  if (!state.isDue) requestAnimationFrame(draw);
  state.isDue = true;
}

function draw() {
  state.isDue = false;
  if (!state.source || !state.shown) return;
  const { frame, faces, seconds } = state.shown;
  const { source, record } = state;
  const face = chosenFace();
  const names = about.networks[0].class_names;
  const label = ({ id, answers: [row] }) => {
    const answer = `${spaced(names[best(row)])} ${percent(Math.max(...row))}`;
    return faces.length > 1 ? `${id}: ${answer}` : answer;
  };
  at("hint").hidden = true;
  at("stage").hidden = false;
  at("stage").classList.remove("gone");
  stage.show(frame, faces, face?.id, source?.mirrored ?? false, label);
  answers.show(faces, face, record, seconds, source?.duration);
  at("save").disabled = false;
  at("caption").textContent = caption(seconds, faces.length);
  if (record.isFull) say("The CSV is full; what comes now is shown but not kept. Save it, then start again.");
}

/* Frames a second, over the last two seconds, or the last three frames. */
function counted() {
  const { rate } = state;
  const now = performance.now();
  rate.push(now);
  while (rate.length > 3 && now - rate[0] > 2000) rate.shift();
  state.speed = rate.length > 2 ? (1000 * (rate.length - 1)) / (now - rate[0]) : 0;
  document.body.dataset.rate = state.speed.toFixed(1);
}

function caption(seconds, number) {
  const { source, speed } = state;
  const found = `${number || "no"} face${number === 1 ? "" : "s"}`;
  if (seconds === null) return `${source.name}: ${found}`;
  const length = Number.isFinite(source.duration) ? ` of ${clock(source.duration)}` : "";
  const pace = source.ended || !speed ? "" : `, ${speed.toFixed(speed < 10 ? 1 : 0)} frames a second`;
  return `${source.name}: ${clock(seconds)}${length}, ${found}${pace}`;
}

function buttons() {
  const { source } = state;
  const running = source && !source.ended;
  at("stop").hidden = !(running && source.kind === "camera");
  at("play").hidden = source?.kind !== "video";
  at("play").textContent = source?.ended ? "Play again" : source?.element?.paused && state.shown ? "Resume" : "Pause";
}

function play() {
  const { source } = state;
  if (source.ended) return run(() => opened(source.file));
  if (source.element.paused) source.element.play();
  else source.element.pause();
  return buttons();
}

/* The CSV, and beside it what it was made with. */
function save() {
  const { record } = state;
  const [table, about] = record.files;
  download(table, record.csv(), "text/csv");
  download(about, record.sidecar(navigator.userAgent), "application/json");
}

function download(name, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  Object.assign(document.createElement("a"), { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

const take = (files) => files.length && run(() => opened(files[0]));

at("agree").addEventListener("click", agree);
at("open").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", ({ target }) => {
  take(target.files);
  target.value = ""; // so that the same file can be chosen again
});
at("camera").addEventListener("click", () => run(camera));
at("stop").addEventListener("click", () => {
  state.source.close();
  at("camera").focus(); // as this button goes away
});
at("play").addEventListener("click", play);
at("save").addEventListener("click", save);
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (document.body.dataset.open) take(event.dataTransfer.files);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
window.addEventListener("resize", show);
document.body.dataset.ready = "1";
