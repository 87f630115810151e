/* All that was seen: smoothed, for the plots, and as the files that scripts/predict.py writes: CSV and description. */

const MOST_ROWS = 250000; // hours of camera; what comes later is shown, but not kept

export class Record {
  constructor(about, name, kind) {
    [this.about, this.name, this.rows, this.means, this.series] = [about, name, [], new Map(), new Map()];
    this.counted = { input: name, kind, read: 0, faces: 0, none: 0, small: 0, seconds: null, damage: null, ids: 0 };
    this.isComplete = false;
  }

  /* Its source could not be read to the end. reason: as in `damage` of a source. */
  breakOff(reason) {
    const { read, seconds } = this.counted;
    this.counted.damage = `read ${read} frame${read === 1 ? "" : "s"}, ${(seconds ?? 0).toFixed(1)} s, then: ${reason}`;
  }

  get isFull() {
    return this.rows.length >= MOST_ROWS;
  }

  /* Adds `smoothed`, like `answers`, to each face; null in a picture. share: the size of what was read as a share of the
     file's: boxes are in pixels of the file. */
  add(number, seconds, faces, share = 1) {
    for (const face of faces) {
      face.smoothed = seconds === null ? null : this.smooth(face.id, seconds, face.answers);
    }
    if (this.isFull) return;
    this.count(seconds, faces);
    if (!faces.length) this.rows.push({ number, seconds, face: null });
    for (const face of faces) {
      const { id, score, roll, answers, smoothed } = face;
      const [box, px] = [face.box.map((value) => value / share), face.px / share];
      this.rows.push({ number, seconds, face: { id, score, box, px, roll, answers, smoothed } });
      if (seconds !== null) this.keep(id, number, seconds, smoothed);
    }
  }

  count(seconds, faces) {
    const { counted, about } = this;
    counted.read += 1;
    counted.faces += faces.length;
    counted.none += faces.length ? 0 : 1;
    counted.small += faces.filter(({ px }) => px < about.small).length;
    counted.seconds = seconds;
    counted.ids = Math.max(counted.ids, ...faces.map(({ id }) => id + 1));
  }

  /* Exponentially weighted means, by timestamps. */
  smooth(id, seconds, answers) {
    const last = this.means.get(id);
    const weight = last ? 1 - Math.exp(-Math.max(0, seconds - last.seconds) / this.about.time_constant) : 1;
    const mean = (k, n) => (last ? last.means[k][n] + weight * (answers[k][n] - last.means[k][n]) : answers[k][n]);
    const means = answers.map((row, k) => row.map((_, n) => mean(k, n)));
    this.means.set(id, { seconds, means });
    return means;
  }

  keep(id, number, seconds, smoothed) {
    if (!this.series.has(id)) this.series.set(id, { numbers: [], times: [], values: [] });
    const { numbers, times, values } = this.series.get(id);
    numbers.push(number);
    times.push(seconds);
    values.push(smoothed);
  }

  csv() {
    const lines = [this.about.columns, ...this.rows.map((row) => this.line(row))];
    return lines.map((line) => line.map(quoted).join(",") + "\n").join("");
  }

  /* What the CSV and the JSON beside it are called. */
  get files() {
    return [".csv", ".json"].map((ending) => `${this.name.replace(/\.[^.]*$/, "")}_predictions${ending}`);
  }

  /* JSON, as scripts/predict.py writes it beside the CSV. browser: how it calls itself. */
  sidecar(browser) {
    const { versions, ...facts } = this.about.sidecar;
    const { damage } = this.counted;
    const found = {
      written: `${new Date().toISOString().slice(0, 19)}+00:00`,
      complete: this.isComplete && !this.isFull && !damage,
      ...facts,
      versions: { ...versions, browser },
      files: this.files,
      inputs: [this.counted],
      unreadable: damage ? [`${this.name}: ${damage}`] : [],
      rows: this.rows.length,
    };
    return `${JSON.stringify(found, null, 2)}\n`;
  }

  line({ number, seconds, face }) {
    const start = [this.name, number, seconds === null ? "" : seconds.toFixed(3)];
    if (!face) return [...start, "", 0, ...new Array(this.about.columns.length - 5).fill("")];
    const place = [...face.box, face.px, face.roll].map((value) => value.toFixed(1));
    const shares = (row) => row.map((value) => value.toFixed(4));
    const answers = face.answers.flatMap((row, k) => [...shares(row), this.about.networks[k].class_names[best(row)]]);
    const smoothed = face.answers.flatMap((row, k) => (face.smoothed ? shares(face.smoothed[k]) : row.map(() => "")));
    return [...start, face.id, 1, face.score.toFixed(3), ...place, ...answers, ...smoothed];
  }
}

export const best = (row) => row.indexOf(Math.max(...row));

const quoted = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);
