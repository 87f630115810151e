/* The crop of a face, bit by bit that of engrec/faces/crop.py: Pillow's conversion to grey and its bilinear resize,
   which canvas has in another form.

   A picture is {data, width, height} with data in RGBA, as ImageData. A face has box [x, y, width, height] and roll. */

const MOST_ROLL = 15; // degrees that a face may lean before it is levelled
const BITS = 22; // of the fraction of Pillow's weights
const HALF = 1 << (BITS - 1);

/* Uint8Array of (channels, size, size), one channel for "grey", three for "rgb". */
export function crop(picture, face, size = 48, colour = "grey") {
  const channels = colour === "grey" ? 1 : 3;
  const [boxLeft, boxTop, boxWidth, boxHeight] = face.box;
  const side = Math.max(boxWidth, boxHeight);
  let [x, y] = [boxLeft + boxWidth / 2, boxTop + boxHeight / 2];
  const reach = Math.ceil(Math.max(1, side / size)) + 1; // so far beyond the square Pillow's filter looks
  const turned = Math.abs(face.roll) > MOST_ROLL;
  const half = turned ? Math.sqrt(2) * (side / 2 + reach + 2) : side / 2 + reach;
  const [left, top] = [Math.floor(x - half), Math.floor(y - half)];
  let [width, height] = [Math.ceil(x + half) - left, Math.ceil(y + half) - top];
  let pixels = surroundings(picture, left, top, width, height, channels);
  [x, y] = [x - left, y - top];
  if (turned) {
    const number = Math.ceil(side) + 2 * reach + 2;
    pixels = levelled(pixels, width, channels, face.roll, x, y, number);
    [width, height, x, y] = [number, number, number / 2, number / 2];
  }
  const box = [x - side / 2, y - side / 2, x + side / 2, y + side / 2];
  return planes(resized(pixels, width, height, channels, box, size, size), channels);
}

const clipped = (value, most) => (value < 0 ? 0 : value > most ? most : value);

/* The pixels from a corner on, one after the other; beyond the picture those at its border are repeated. */
function surroundings(picture, left, top, width, height, channels) {
  const { data } = picture;
  const found = new Uint8Array(width * height * channels);
  let place = 0;
  for (let y = top; y < top + height; y++) {
    const row = clipped(y, picture.height - 1) * picture.width;
    for (let x = left; x < left + width; x++) {
      const from = 4 * (row + clipped(x, picture.width - 1));
      if (channels === 1) {
        // ITU-R 601-2 in 16-bit fixed point
        found[place++] = (19595 * data[from] + 38470 * data[from + 1] + 7471 * data[from + 2] + 0x8000) >> 16;
      } else {
        for (let channel = 0; channel < 3; channel++) found[place++] = data[from + channel];
      }
    }
  }
  return found;
}

/* The surroundings of (x, y), number × number pixels, turned so that the eyes are level; (x, y) is in the middle. */
function levelled(pixels, width, channels, roll, x, y, number) {
  const angle = roll * (Math.PI / 180);
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const turned = new Uint8Array(number * number * channels);
  let place = 0;
  for (let row = 0; row < number; row++) {
    const b = row + 0.5 - number / 2;
    for (let column = 0; column < number; column++) {
      const a = column + 0.5 - number / 2;
      const [across, down] = [x + cos * a - sin * b - 0.5, y + sin * a + cos * b - 0.5];
      const [left, top] = [Math.floor(across), Math.floor(down)];
      const [u, v] = [across - left, down - top];
      const upper = (top * width + left) * channels;
      const lower = upper + width * channels;
      for (let channel = 0; channel < channels; channel++) {
        const above = pixels[upper + channel] * (1 - u) + pixels[upper + channels + channel] * u;
        const below = pixels[lower + channel] * (1 - u) + pixels[lower + channels + channel] * u;
        turned[place++] = Math.floor(above * (1 - v) + below * v + 0.5);
      }
    }
  }
  return turned;
}

/* Pillow's Image.resize with BILINEAR and a box, of interleaved pixels: across, then down, each rounded to 8 bits. */
export function resized(pixels, width, height, channels, box, newWidth, newHeight) {
  const [left, top, right, bottom] = box.map(Math.fround); // Pillow takes them in single precision
  if (left !== 0 || right !== width || newWidth !== width) {
    const parts = weights(width, left, right, newWidth);
    if (channels === 1) pixels = acrossGrey(pixels, width, height, parts);
    else pixels = acrossColour(pixels, width, height, channels, parts);
  }
  if (top !== 0 || bottom !== height || newHeight !== height) {
    pixels = down(pixels, newWidth * channels, weights(height, top, bottom, newHeight));
  }
  return pixels;
}

/* For each new pixel the old ones it is made of, from starts[k], and their share of it. */
function weights(length, start, end, size) {
  const scale = Math.fround(end - start) / size;
  const support = Math.max(1, scale);
  const starts = new Int32Array(size);
  const shares = [];
  for (let k = 0; k < size; k++) {
    const centre = start + (k + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(length, Math.trunc(centre + support + 0.5));
    const raw = [];
    for (let place = first; place < last; place++) {
      raw.push(Math.max(0, 1 - Math.abs((place - centre + 0.5) * (1 / support))));
    }
    const sum = raw.reduce((total, share) => total + share, 0);
    starts[k] = first;
    shares.push(Int32Array.from(raw, (share) => Math.trunc(0.5 + (sum ? share / sum : share) * (1 << BITS))));
  }
  return { starts, shares };
}

function acrossGrey(pixels, width, height, { starts, shares }) {
  const found = new Uint8Array(height * starts.length);
  let place = 0;
  for (let y = 0; y < height; y++) {
    for (let k = 0; k < starts.length; k++) {
      const share = shares[k];
      let sum = HALF;
      let from = y * width + starts[k];
      for (let n = 0; n < share.length; n++) sum += pixels[from++] * share[n];
      found[place++] = sum >> BITS;
    }
  }
  return found;
}

/* Of three channels at once, which is four times as fast; a fourth, of transparency, is left out. */
function acrossColour(pixels, width, height, channels, { starts, shares }) {
  const found = new Uint8Array(height * starts.length * channels);
  let place = 0;
  for (let y = 0; y < height; y++) {
    for (let k = 0; k < starts.length; k++, place += channels) {
      const share = shares[k];
      let [red, green, blue] = [HALF, HALF, HALF];
      let from = (y * width + starts[k]) * channels;
      for (let n = 0; n < share.length; n++, from += channels) {
        red += pixels[from] * share[n];
        green += pixels[from + 1] * share[n];
        blue += pixels[from + 2] * share[n];
      }
      found[place] = red >> BITS;
      found[place + 1] = green >> BITS;
      found[place + 2] = blue >> BITS;
    }
  }
  return found;
}

function down(pixels, row, { starts, shares }) {
  const found = new Uint8Array(starts.length * row);
  const sums = new Int32Array(row);
  for (let k = 0; k < starts.length; k++) {
    sums.fill(HALF);
    let from = starts[k] * row;
    for (const share of shares[k]) {
      for (let x = 0; x < row; x++) sums[x] += pixels[from++] * share;
    }
    for (let x = 0; x < row; x++) found[k * row + x] = sums[x] >> BITS;
  }
  return found;
}

/* From one pixel after the other to one channel after the other. */
function planes(pixels, channels) {
  const number = pixels.length / channels;
  return Uint8Array.from(pixels, (_, place) => pixels[(place % number) * channels + Math.floor(place / number)]);
}
