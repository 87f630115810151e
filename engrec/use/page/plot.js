/* Probabilities of one face over time, on a canvas. */

const LIVE = 60; // seconds that are shown of the camera
const STEPS = [0.5, 1, 2, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 14400, 36000]; // seconds between two that are written below
const MOST_POINTS = 2000; // of a line; of longer videos every second, third … is drawn
const GAP = 0.6; // seconds in which frames lack the face, after which its line is broken
const [LEFT, TOP, BOTTOM] = [46, 8, 20];

/* series: {numbers, times, values} of the frames, or undefined; k: of the network; colours: of its classes; duration: of
   a video, undefined for the camera. */
export function plot(canvas, series, k, colours, now, duration) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const ratio = window.devicePixelRatio || 1;
  if (!width) return;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const style = getComputedStyle(canvas);
  const draw = canvas.getContext("2d");
  draw.setTransform(ratio, 0, 0, ratio, 0, 0);
  draw.clearRect(0, 0, width, height);
  draw.font = `12px ${style.fontFamily}`;
  const [start, end] = Number.isFinite(duration) ? [0, duration] : [Math.max(0, now - LIVE), Math.max(now, LIVE)];
  const step = STEPS.find((one) => (end - start) / one <= (width - LEFT) / 64) ?? 86400;
  const right = width - draw.measureText(clock(end, step)).width / 2 - 1; // so that a time below the end has room
  const x = (seconds) => LEFT + ((seconds - start) / (end - start)) * (right - LEFT);
  const y = (share) => TOP + (1 - share) * (height - TOP - BOTTOM);
  axes(draw, style, { x, y, start, end, step, height });
  if (series) lines(draw, series, k, colours, { x, y, start });
}

function axes(draw, style, { x, y, start, end, step, height }) {
  draw.strokeStyle = style.getPropertyValue("--line");
  draw.fillStyle = style.getPropertyValue("--soft");
  draw.lineWidth = 1;
  draw.textAlign = "right";
  draw.textBaseline = "middle";
  for (const share of [0, 0.5, 1]) {
    stroke(draw, [[x(start), y(share)], [x(end), y(share)]]);
    draw.fillText(`${100 * share} %`, LEFT - 5, y(share));
  }
  draw.textBaseline = "alphabetic";
  draw.textAlign = "center";
  for (let seconds = Math.ceil(start / step) * step; seconds <= end + 1e-9; seconds += step) {
    draw.fillText(clock(seconds, step), x(seconds), height - 5);
  }
}

function lines(draw, { numbers, times, values }, k, colours, { x, y, start }) {
  let first = times.length;
  while (first > 0 && times[first - 1] >= start) first--;
  const step = Math.ceil((times.length - first) / MOST_POINTS);
  draw.lineWidth = 2;
  draw.lineJoin = "round";
  for (const [n, colour] of colours.entries()) {
    draw.strokeStyle = colour;
    let part = [];
    for (let place = first; place < times.length; place += step) {
      const wasAway = numbers[place] - numbers[place - step] > step; // not merely late, on a slow machine
      if (part.length && wasAway && times[place] - times[place - step] > step * GAP) {
        stroke(draw, part);
        part = [];
      }
      part.push([x(times[place]), y(values[place][k][n])]);
    }
    stroke(draw, part);
  }
}

function stroke(draw, points) {
  draw.beginPath();
  points.forEach(([x, y], place) => (place ? draw.lineTo(x, y) : draw.moveTo(x, y)));
  draw.stroke();
}

/* 0:45 or 1:02:03; with tenths where the step is less than a second. */
export function clock(seconds, step = 1) {
  const digits = step < 1 ? 1 : 0;
  const rounded = Number(seconds.toFixed(digits));
  const [hours, minutes] = [Math.floor(rounded / 3600), Math.floor(rounded / 60) % 60];
  const rest = (rounded % 60).toFixed(digits).padStart(digits ? 4 : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}
