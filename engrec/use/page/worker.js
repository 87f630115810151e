/* In a worker: detect, track, crop, and the networks by onnxruntime-web. */

import { crop } from "./crop.js";
import * as ort from "./ort.wasm.min.mjs";
import { Tracker, histogram, isCut } from "./track.js";
import { detect } from "./yunet.js";

const here = (name) => new URL(name, import.meta.url).href;
let [about, detector, networks, tracker, before] = [null, null, [], new Tracker(), null];

ort.env.wasm.numThreads = 1; // more need headers that a plain host does not send
ort.env.wasm.wasmPaths = here("./");

async function load(given) {
  about = given;
  detector = await session("yunet.onnx");
  networks = await Promise.all(about.networks.map(({ file }) => session(file)));
}

async function session(file) {
  const answer = await fetch(here(file));
  if (!answer.ok) throw new Error(`${file} is missing here: export the page again`);
  return ort.InferenceSession.create(new Uint8Array(await answer.arrayBuffer()), { executionProviders: ["wasm"] });
}

async function infer(frame, seconds) {
  const isPicture = seconds === null;
  const found = await detect(run, frame, isPicture ? about.photo_size : about.video_size, isPicture);
  const ids = isPicture ? found.map((_, id) => id) : followed(frame, found, seconds);
  const answers = await Promise.all(networks.map((network, k) => asked(network, about.networks[k], frame, found)));
  const { size, colour } = about.networks[0];
  return found.map((face, k) => ({
    id: ids[k],
    box: face.box,
    score: face.score,
    roll: face.roll,
    px: face.px,
    crop: crop(frame, face, size, colour),
    answers: answers.map((rows) => rows[k]),
  }));
}

async function run(images, height, width) {
  const outputs = await detector.run({ input: new ort.Tensor("float32", images, [1, 3, height, width]) });
  return Object.fromEntries(Object.entries(outputs).map(([name, { data }]) => [name, data]));
}

function followed(frame, faces, seconds) {
  const now = histogram(frame);
  if (before && isCut(before, now)) tracker.cut();
  before = now;
  return tracker.number(faces, seconds);
}

/* Probabilities of each face. */
async function asked(network, { size, colour, class_names: names }, frame, faces) {
  if (!faces.length) return [];
  const crops = faces.map((face) => crop(frame, face, size, colour));
  const images = new Uint8Array(crops.length * crops[0].length);
  crops.forEach((one, k) => images.set(one, k * one.length));
  const shape = [crops.length, colour === "grey" ? 1 : 3, size, size];
  const { probabilities } = await network.run({ images: new ort.Tensor("uint8", images, shape) });
  return faces.map((_, k) => [...probabilities.data.slice(k * names.length, (k + 1) * names.length)]);
}

let queue = Promise.resolve();
onmessage = ({ data }) => {
  queue = queue.then(() => answer(data));
};

async function answer({ about: given, restart, frame, seconds }) {
  try {
    if (restart) [tracker, before] = [new Tracker(), null];
    else if (given) postMessage({ faces: await load(given) });
    else postMessage({ faces: await infer(frame, seconds) });
  } catch (error) {
    postMessage({ error: error.message });
  }
}
