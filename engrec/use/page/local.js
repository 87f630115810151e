/* The engine in Python on this machine, by a websocket. It gets pixels, not a compressed picture: what it sees is what
   the engine in the browser sees. */

const HEAD = 24; // bytes before the pixels in RGB: seconds (NaN: a picture), width, height, as float64

const LOST = "The connection to engrec is lost: start scripts/try.py again, then reload this page.";

export class Local {
  constructor(about) {
    [this.about, this.waiting] = [about, []];
  }

  open() {
    const address = new URL("frames", document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = ({ data }) => this.answered(JSON.parse(data));
    return new Promise((resolve, reject) => {
      const lost = () => {
        [...this.waiting, { reject }].forEach((one) => one.reject(new Error(LOST)));
        this.waiting = [];
      };
      this.socket.onopen = resolve;
      this.socket.onclose = this.socket.onerror = lost;
    });
  }

  /* The next frame belongs to something else. */
  restart() {
    this.socket.send("restart");
  }

  /* Promises the faces of a frame. seconds: null for a picture. */
  infer({ data, width, height }, seconds) {
    const message = new Uint8Array(HEAD + 3 * width * height);
    new Float64Array(message.buffer, 0, 3).set([seconds ?? NaN, width, height]);
    for (let from = 0, place = HEAD; from < data.length; from += 4) {
      message[place++] = data[from];
      message[place++] = data[from + 1];
      message[place++] = data[from + 2];
    }
    return new Promise((resolve, reject) => {
      if (this.socket.readyState !== WebSocket.OPEN) throw new Error(LOST);
      this.waiting.push({ resolve, reject });
      this.socket.send(message);
    });
  }

  answered({ faces, error }) {
    const { resolve, reject } = this.waiting.shift();
    if (error) return reject(new Error(error));
    resolve(faces.map((face) => ({ ...face, crop: bytes(face.crop) })));
  }
}

const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
