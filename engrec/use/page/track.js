/* Which faces of successive frames are one person's, by place and time, as engrec/faces/track.py. */

const SIDES = 1; // a face may be this far from where it is expected, in sides of its box
const INERTIA = 0.5; // seconds in which a velocity is forgotten
const STRAIGHT = 0.2; // seconds that an unseen face is expected to keep its velocity
const CUT = 0.45; // share of the pixels that are of another colour after a cut
const FAR = 1e3; // the cost of a pair that cannot be

export class Tracker {
  constructor(gap = 1.5) {
    [this.gap, this.tracks, this.next, this.before] = [gap, [], 0, 0];
  }

  /* A number for each face of the frame at that time. */
  number(faces, seconds) {
    const oldest = Math.min(seconds - this.gap, this.before);
    this.tracks = this.tracks.filter((track) => track.seconds >= oldest);
    this.before = seconds;
    const boxes = faces.map((face) => centred(face.box));
    const found = this.match(boxes, seconds);
    return boxes.map((box, index) => {
      const track = found.get(index);
      if (track) {
        move(track, box, seconds);
        return track.number;
      }
      this.tracks.push({ number: this.next, box, seconds, velocity: [0, 0] });
      return this.next++;
    });
  }

  cut() {
    this.tracks = [];
  }

  match(boxes, seconds) {
    if (!boxes.length || !this.tracks.length) return new Map();
    const costs = this.tracks.map((track) => boxes.map((box) => cost(expected(track, seconds), box)));
    const near = assigned(costs).filter(([row, column]) => costs[row][column] < FAR);
    return new Map(near.map(([row, column]) => [column, this.tracks[row]]));
  }
}

function centred([x, y, width, height]) {
  const [w, h] = [Math.max(width, 1), Math.max(height, 1)];
  return [x + w / 2, y + h / 2, w, h];
}

function expected({ box, velocity, seconds }, now) {
  const passed = Math.min(now - seconds, STRAIGHT);
  return [box[0] + velocity[0] * passed, box[1] + velocity[1] * passed, box[2], box[3]];
}

function move(track, box, seconds) {
  if (seconds > track.seconds) {
    const passed = seconds - track.seconds;
    const kept = Math.exp(-passed / INERTIA);
    track.velocity = track.velocity.map((speed, k) => kept * speed + ((1 - kept) * (box[k] - track.box[k])) / passed);
  }
  [track.box, track.seconds] = [box, seconds];
}

/* Distance of the centres in sides, plus the logarithm of the ratio of the sides, less the overlap. */
function cost(one, other) {
  const [side, otherSide] = [one, other].map((box) => Math.max(box[2], box[3]));
  const distance = Math.hypot(one[0] - other[0], one[1] - other[1]) / ((side + otherSide) / 2);
  return distance > SIDES ? FAR : distance + Math.abs(Math.log(side / otherSide)) - overlap(one, other);
}

function overlap(one, other) {
  const shared = [0, 1].map((k) => {
    const low = Math.max(one[k] - one[k + 2] / 2, other[k] - other[k + 2] / 2);
    return Math.max(0, Math.min(one[k] + one[k + 2] / 2, other[k] + other[k + 2] / 2) - low);
  });
  const common = shared[0] * shared[1];
  return common / (one[2] * one[3] + other[2] * other[3] - common);
}

/* Pairs [row, column] that together cost least: the Hungarian method, with shortest augmenting paths. */
export function assigned(costs) {
  const [rows, columns] = [costs.length, costs[0].length];
  if (rows > columns) {
    const turned = costs[0].map((_, column) => costs.map((row) => row[column]));
    return assigned(turned).map(([row, column]) => [column, row]);
  }
  const u = new Float64Array(rows + 1);
  const v = new Float64Array(columns + 1);
  const rowOf = new Int32Array(columns + 1); // from 1; 0: none
  for (let row = 1; row <= rows; row++) augment(costs, row, u, v, rowOf);
  const pairs = [...rowOf].map((row, column) => [row - 1, column - 1]);
  return pairs.filter(([row, column]) => row >= 0 && column >= 0);
}

function augment(costs, row, u, v, rowOf) {
  const columns = rowOf.length - 1;
  const least = new Float64Array(columns + 1).fill(Infinity);
  const before = new Int32Array(columns + 1);
  const used = new Uint8Array(columns + 1);
  let column = 0;
  rowOf[0] = row;
  do {
    used[column] = 1;
    const current = rowOf[column];
    let [delta, nearest] = [Infinity, 0];
    for (let j = 1; j <= columns; j++) {
      if (used[j]) continue;
      const reduced = costs[current - 1][j - 1] - u[current] - v[j];
      if (reduced < least[j]) [least[j], before[j]] = [reduced, column];
      if (least[j] < delta) [delta, nearest] = [least[j], j];
    }
    for (let j = 0; j <= columns; j++) {
      if (used[j]) {
        u[rowOf[j]] += delta;
        v[j] -= delta;
      } else {
        least[j] -= delta;
      }
    }
    column = nearest;
  } while (rowOf[column] !== 0);
  while (column) {
    rowOf[column] = rowOf[before[column]];
    column = before[column];
  }
}

/* Whether two successive frames show different scenes; each is what `histogram` returns. */
export function isCut(before, now) {
  if (before.width !== now.width || before.height !== now.height) return true;
  return before.shares.reduce((sum, share, k) => sum + Math.abs(share - now.shares[k]), 0) / 2 > CUT;
}

/* Share of the pixels in each of 4 × 4 × 4 colours; of large frames, 64 rows and columns will do. */
export function histogram({ data, width, height }) {
  const counts = new Array(64).fill(0);
  const [down, across] = [height, width].map((side) => Math.max(1, Math.floor(side / 64)));
  let total = 0;
  for (let y = 0; y < height; y += down) {
    for (let x = 0; x < width; x += across, total++) {
      const from = 4 * (y * width + x);
      counts[16 * (data[from] >> 6) + 4 * (data[from + 1] >> 6) + (data[from + 2] >> 6)]++;
    }
  }
  return { width, height, shares: counts.map((count) => count / total) };
}
