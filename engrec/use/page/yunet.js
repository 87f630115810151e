/* Faces in a picture: YuNet, decoded as engrec/faces/detect.py does. */

import { resized } from "./crop.js";

const THRESHOLD = 0.6;
const TURNED_THRESHOLD = 0.85; // in a turned picture, in which more things resemble a face
const LEAST = 128; // pixels of the longer side: the network misses faces that fill a smaller picture
const MOST_OVERLAP = 0.3;
const STRIDES = [8, 16, 32]; // of the network's three grids of places
const ANGLES = [-90, -45, 45, 90]; // degrees by which a picture without a face is turned

/* Faces {box, score, landmarks, roll, px}, from left to right. run: promises the network's outputs by name, for a
   Float32Array (1, 3, height, width). size: pixels of the longer side given to it, at most. turned: whether to turn a
   picture in which nothing is found. */
export async function detect(run, picture, size, turned) {
  const { fitting, scales } = fitted(picture, size);
  let faces = await found(run, fitting, THRESHOLD);
  if (!faces.length && turned) faces = await foundTurned(run, fitting);
  const scaled = (x, y) => [x * scales[0], y * scales[1]];
  const all = faces.map(({ box: [x, y, width, height], ...face }) =>
    finished(moved(face, [...scaled(x, y), ...scaled(width, height)], scaled)),
  );
  return all.sort((one, other) => one.box[0] - other.box[0]);
}

/* With a longer side from LEAST to size. */
function fitted(picture, size) {
  const { data, width, height } = picture;
  const longer = Math.max(width, height);
  const given = Math.min(Math.max(longer, LEAST), size);
  if (given === longer) return { fitting: picture, scales: [1, 1] };
  const [w, h] = [width, height].map((side) => Math.max(1, rounded((side * given) / longer)));
  const other = resized(data, width, height, 4, [0, 0, width, height], w, h);
  return { fitting: { data: other, width: w, height: h }, scales: [width / w, height / h] };
}

/* As Python rounds: halves to the even number. */
function rounded(value) {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + (floor % 2) : Math.round(value);
}

async function found(run, { data, width, height }, threshold) {
  const [w, h] = [Math.ceil(width / 32) * 32, Math.ceil(height / 32) * 32];
  const padded = new Float32Array(3 * w * h);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = 4 * (y * width + x);
      for (let channel = 0; channel < 3; channel++) padded[channel * w * h + y * w + x] = data[from + 2 - channel];
    }
  }
  return decoded(await run(padded, h, w), w / 8, threshold);
}

/* The faces in the network's outputs. columns: of the grid with stride 8. */
export function decoded(outputs, columns, threshold) {
  const all = STRIDES.flatMap((stride) => places(outputs, stride, (columns * 8) / stride, threshold));
  all.sort((one, other) => other.score - one.score);
  const kept = [];
  for (const face of all) {
    if (kept.every((better) => !overlaps(better.box, face.box))) kept.push(face);
  }
  return kept;
}

function places(outputs, stride, columns, threshold) {
  const [cls, obj, box, kps] = ["cls", "obj", "bbox", "kps"].map((name) => outputs[`${name}_${stride}`]);
  const faces = [];
  for (let place = 0; place < cls.length; place++) {
    const score = Math.sqrt(limited(cls[place]) * limited(obj[place]));
    if (score < threshold) continue;
    const [x, y] = [place % columns, Math.floor(place / columns)];
    const [dx, dy, logWidth, logHeight] = box.subarray(4 * place, 4 * place + 4);
    const [width, height] = [logWidth, logHeight].map((log) => Math.exp(Math.max(-20, Math.min(20, log))));
    const landmarks = [0, 1, 2, 3, 4].map((point) => [
      stride * (kps[10 * place + 2 * point] + x),
      stride * (kps[10 * place + 2 * point + 1] + y),
    ]);
    const corner = [stride * (x + dx - width / 2), stride * (y + dy - height / 2)];
    faces.push({ box: [...corner, stride * width, stride * height], score, landmarks });
  }
  return faces;
}

const limited = (value) => Math.max(0, Math.min(1, value));

function overlaps([x, y, width, height], [left, top, w, h]) {
  const across = Math.max(0, Math.min(x + width, left + w) - Math.max(x, left));
  const common = across * Math.max(0, Math.min(y + height, top + h) - Math.max(y, top));
  return common > MOST_OVERLAP * (width * height + w * h - common);
}

/* The faces that are found at the angle with the highest score. */
async function foundTurned(run, picture) {
  let best = [];
  for (const angle of ANGLES) {
    const { turned, back } = rotated(picture, angle);
    const faces = (await found(run, turned, TURNED_THRESHOLD)).map((face) => {
      const [x, y, width, height] = face.box;
      const [cx, cy] = back(x + width / 2, y + height / 2);
      const longer = Math.max(width, height);
      const [w, h] = angle % 90 === 0 ? [height, width] : [longer, longer];
      return moved(face, [cx - w / 2, cy - h / 2, w, h], back);
    });
    if (faces.length && (!best.length || faces[0].score > best[0].score)) best = faces;
  }
  return best;
}

/* The picture turned anticlockwise, black around, and the way back for a point of it. */
function rotated({ data, width, height }, angle) {
  const radians = angle * (Math.PI / 180);
  const [cos, sin] = angle % 90 === 0 ? [0, Math.sign(angle)] : [Math.cos(radians), Math.sin(radians)];
  const size = (a, b) => Math.ceil(Math.abs(a * cos) + Math.abs(b * sin));
  const [w, h] = [size(width, height), size(height, width)];
  const back = (x, y) => [
    cos * (x - w / 2) - sin * (y - h / 2) + width / 2,
    sin * (x - w / 2) + cos * (y - h / 2) + height / 2,
  ];
  const turned = new Uint8ClampedArray(4 * w * h);
  for (let row = 0; row < h; row++) {
    for (let column = 0; column < w; column++) {
      const [x, y] = back(column + 0.5, row + 0.5);
      if (x < 0 || y < 0 || x >= width || y >= height) continue;
      interpolate(data, width, height, x - 0.5, y - 0.5, turned, 4 * (row * w + column));
    }
  }
  return { turned: { data: turned, width: w, height: h }, back };
}

function interpolate(data, width, height, x, y, into, place) {
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const [u, v] = [x - left, y - top];
  const [first, second] = [Math.max(0, left), Math.min(width - 1, left + 1)];
  const [upper, lower] = [Math.max(0, top) * width, Math.min(height - 1, top + 1) * width];
  for (let channel = 0; channel < 3; channel++) {
    const above = data[4 * (upper + first) + channel] * (1 - u) + data[4 * (upper + second) + channel] * u;
    const below = data[4 * (lower + first) + channel] * (1 - u) + data[4 * (lower + second) + channel] * u;
    into[place + channel] = above * (1 - v) + below * v + 0.5;
  }
}

const moved = (face, box, move) => ({ ...face, box, landmarks: face.landmarks.map(([x, y]) => move(x, y)) });

/* With roll, the degrees by which the line of the eyes is turned clockwise, and px, the longer side of the box. */
function finished(face) {
  const [[rightX, rightY], [leftX, leftY]] = face.landmarks;
  const roll = Math.atan2(leftY - rightY, leftX - rightX) * (180 / Math.PI);
  return { ...face, roll, px: Math.max(face.box[2], face.box[3]) };
}
