/* The engine in the browser: a worker, so that the page answers while a network computes. */

const UNABLE = "This browser cannot run the networks: update it, or use another one.";

export class Browser {
  constructor(about) {
    [this.about, this.waiting] = [about, []];
  }

  open() {
    // A worker made of a blob has this page's policy, and may fetch nothing from elsewhere either.
    const code = `import ${JSON.stringify(new URL("worker.js", document.baseURI).href)};`;
    const start = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    this.worker = new Worker(start, { type: "module" });
    this.worker.onmessage = ({ data }) => this.answered(data);
    this.worker.onerror = () => this.answered({ error: UNABLE });
    return this.ask({ about: this.about });
  }

  restart() {
    this.worker.postMessage({ restart: true });
  }

  infer({ data, width, height }, seconds) {
    return this.ask({ frame: { data, width, height }, seconds }, [data.buffer]);
  }

  ask(message, given = []) {
    return new Promise((resolve, reject) => {
      this.waiting.push({ resolve, reject });
      this.worker.postMessage(message, given);
    });
  }

  answered({ faces, error }) {
    const one = this.waiting.shift();
    if (error) one?.reject(new Error(error));
    else one?.resolve(faces);
  }
}
