/* The frame with boxes. */

export class Stage {
  constructor(canvas, choose) {
    [this.canvas, this.places] = [canvas, []];
    canvas.addEventListener("click", (event) => {
      const id = this.at(event);
      if (id !== undefined) choose(id);
    });
  }

  /* The frame that was analysed, not a later one, so that each box is where its face is. */
  show(frame, faces, chosen, mirrored, label) {
    const { canvas } = this;
    const { width, height } = frame;
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const draw = canvas.getContext("2d");
    draw.putImageData(frame, 0, 0);
    if (mirrored) {
      draw.save();
      draw.setTransform(-1, 0, 0, 1, width, 0);
      draw.drawImage(canvas, 0, 0);
      draw.restore();
    }
    this.places = faces.map((face) => {
      const [x, y, w, h] = face.box;
      return { id: face.id, box: [mirrored ? width - x - w : x, y, w, h] };
    });
    const unit = width / (canvas.clientWidth || width); // a pixel of the screen
    faces.forEach((face, k) => this.box(draw, this.places[k].box, face.id === chosen, unit, label(face)));
  }

  box(draw, [x, y, w, h], isChosen, unit, text) {
    const style = getComputedStyle(this.canvas);
    const colour = style.getPropertyValue(isChosen ? "--box" : "--box-other");
    draw.lineJoin = "round";
    for (const [line, stroke] of [[isChosen ? 5 : 4, "#000a"], [isChosen ? 3 : 2, colour]]) {
      draw.lineWidth = line * unit;
      draw.strokeStyle = stroke;
      draw.strokeRect(x, y, w, h);
    }
    const size = 14 * unit;
    draw.font = `600 ${size}px ${style.fontFamily}`;
    const width = draw.measureText(text).width + size * 0.8;
    const left = Math.max(0, Math.min(x, this.canvas.width - width));
    const top = y >= 1.5 * size ? y - 1.5 * size : Math.min(y + h, this.canvas.height - 1.5 * size);
    draw.fillStyle = colour;
    draw.fillRect(left, top, width, 1.5 * size);
    draw.fillStyle = "#000";
    draw.textBaseline = "middle";
    draw.fillText(text, left + size * 0.4, top + 0.78 * size);
  }

  /* The smallest box under the pointer. */
  at(event) {
    const shown = this.canvas.getBoundingClientRect();
    const [x, y] = [
      ((event.clientX - shown.left) / shown.width) * this.canvas.width,
      ((event.clientY - shown.top) / shown.height) * this.canvas.height,
    ];
    const inside = ({ box: [left, top, w, h] }) => x >= left && y >= top && x <= left + w && y <= top + h;
    const area = ({ box }) => box[2] * box[3];
    return this.places.filter(inside).sort((one, other) => area(one) - area(other))[0]?.id;
  }
}
