/* What the networks say of the chosen face: its crop, bars, lines over time; and small buttons for all faces. */

import { plot } from "./plot.js";
import { best } from "./record.js";

const UNKNOWN = "Its training faces may have been cropped otherwise: trust it less.";
const NO_FACE = ["No face", "in this picture, or none large enough to be found"];
const TITLES = { expression: "Expression", engagement: "Engagement" };
export const spaced = (name) => name.replaceAll("_", " ");
export const percent = (share) => `${Math.round(100 * share)} %`;

function made(tag, className = "", text = "") {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}

export class Answers {
  constructor(about, place, choose) {
    [this.about, this.choose] = [about, choose];
    this.chips = made("div", "chips");
    this.chips.setAttribute("role", "group");
    this.chips.setAttribute("aria-label", "Faces");
    this.crop = Object.assign(made("canvas", "crop"), { width: 48, height: 48 });
    this.crop.setAttribute("role", "img");
    this.crop.setAttribute("aria-label", "The face as the network sees it");
    this.facts = made("div", "facts");
    const seen = made("div", "seen");
    seen.append(this.crop, this.facts);
    this.cards = about.networks.map((network) => new Card(network));
    this.note = made("p", "note", "Bars: this frame. Lines: means over the last second.");
    place.append(this.chips, seen, ...this.cards.map((card) => card.element), this.note);
    this.reset();
  }

  /* Before a source has its first answer: nothing is left of the last one. */
  reset() {
    this.chosen = undefined;
    this.crop.getContext("2d").clearRect(0, 0, this.crop.width, this.crop.height);
    this.crop.classList.remove("gone");
    this.showChips([]);
    this.showFacts("No face yet", "Its crop and the answers will be here.");
    for (const card of this.cards) card.bars();
    this.showOverTime(false);
  }

  showOverTime(isVideo) {
    for (const element of [this.note, ...this.cards.map((card) => card.canvas)]) element.hidden = !isVideo;
  }

  /* face: the chosen one, or undefined. */
  show(faces, face, record, now, duration) {
    this.showChips(faces, face);
    const { size, colour } = this.about.networks[0];
    if (face) paint(this.crop, face.crop, size, colour);
    this.crop.classList.toggle("gone", !face && this.chosen !== undefined);
    this.showFacts(...(face ? this.facing(face) : NO_FACE));
    this.showOverTime(now !== null);
    this.cards.forEach((card, k) => {
      card.bars(face && face.answers[k]);
      if (now !== null) plot(card.canvas, record.series.get(this.chosen), k, card.colours, now, duration);
    });
  }

  /* What is known of a face but the answers. */
  facing({ id, px, roll, score }) {
    const { small, networks } = this.about;
    const degrees = String(Math.round(roll) || 0).replace("-", "−");
    return [
      `Face ${id}`,
      `${Math.round(px)} pixels, leaning ${degrees}°, found with score ${score.toFixed(2)}`,
      `Left: the ${networks[0].size} × ${networks[0].size} pixels that the network sees.`,
      px < small ? `Under ${small} pixels: too small to be trusted.` : "",
    ];
  }

  showFacts(title, first, second = "", warning = "") {
    if (!this.facts.children.length) {
      this.facts.append(made("strong"), made("span", "note"), made("span", "note"), made("span", "warning"));
    }
    [title, first, second, warning].forEach((text, k) => {
      if (this.facts.children[k].textContent !== text) this.facts.children[k].textContent = text;
    });
  }

  showChips(faces, chosen) {
    this.chosen = chosen ? chosen.id : this.chosen;
    const several = faces.length > 1 ? [...faces].sort((one, other) => one.id - other.id) : [];
    while (this.chips.children.length > several.length) this.chips.lastChild.remove();
    while (this.chips.children.length < several.length) this.chips.append(this.chip());
    const { size, colour, class_names: names } = this.about.networks[0];
    several.forEach((face, k) => {
      const chip = this.chips.children[k];
      chip.dataset.id = face.id;
      chip.setAttribute("aria-pressed", String(face === chosen));
      paint(chip.firstChild, face.crop, size, colour);
      chip.lastChild.textContent = `Face ${face.id}: ${spaced(names[best(face.answers[0])])}`;
    });
  }

  chip() {
    const chip = Object.assign(made("button", "chip"), { type: "button" });
    chip.append(Object.assign(made("canvas"), { width: 48, height: 48 }), made("span"));
    chip.addEventListener("click", () => this.choose(Number(chip.dataset.id)));
    return chip;
  }
}

/* One network: a bar and a line for each class, in one colour. */
class Card {
  constructor({ name, task, trained_on: dataset, known_crop: isKnown, class_names: names, class_colours: colours }) {
    this.element = made("section", "card");
    const heading = made("h2", "", TITLES[task]);
    heading.append(made("small", "", dataset ? `${name}, trained on ${dataset}` : name));
    if (!isKnown) heading.append(made("small", "warning", UNKNOWN));
    const list = made("dl", "bars");
    this.rows = names.map((one, n) => {
      const [label, value] = [made("dt", "", spaced(one)), made("dd")];
      const [bar, number] = [made("span", "bar"), made("span", "number")];
      bar.append(made("span"));
      for (const [paper, own] of Object.entries(colours)) bar.firstChild.style.setProperty(`--${paper}`, own[n]);
      value.append(bar, number);
      list.append(label, value);
      return { label, bar: bar.firstChild, number };
    });
    this.canvas = made("canvas", "plot");
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `${TITLES[task]} of the chosen face over time; Save as CSV has the numbers`);
    this.element.append(heading, list, this.canvas);
  }

  /* As they are on this page, which is light or dark. */
  get colours() {
    return this.rows.map(({ bar }) => getComputedStyle(bar).backgroundColor);
  }

  /* row: probabilities, or undefined. */
  bars(row) {
    this.rows.forEach(({ label, bar, number }, n) => {
      bar.style.width = row ? `${100 * row[n]}%` : "0";
      number.textContent = row ? percent(row[n]) : "–";
      label.classList.toggle("best", Boolean(row) && n === best(row));
    });
  }
}

/* A crop as it is, pixel by pixel. */
function paint(canvas, crop, size, colour) {
  if (canvas.width !== size) [canvas.width, canvas.height] = [size, size];
  const image = new ImageData(size, size);
  const number = size * size;
  for (let place = 0; place < number; place++) {
    for (let channel = 0; channel < 3; channel++) {
      image.data[4 * place + channel] = crop[colour === "grey" ? place : channel * number + place];
    }
    image.data[4 * place + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}
