/* Where frames come from: a picture, a video file, the camera.

   A source has kind, name, mirrored, duration, `frames`, which yields {frame, seconds, number}, `damage`, after the
   last frame: why a video could not be read to its end, or null, and `close`. frame.share is its size as a share of the
   file's. */

const MOST_PICTURE = 4096; // pixels of the longer side; larger ones are made smaller
const MOST_VIDEO = 1280;
const [MISSING_SHARE, MISSING_SECONDS] = [0.05, 0.5]; // as in engrec/faces/video.py
const CAMERA = { audio: false, video: { width: { ideal: 640 }, height: { ideal: 480 }, facingMode: "user" } };
const REFUSED = {
  NotAllowedError: "The camera was refused. To allow it, use the browser's address bar, then choose the camera again.",
  NotFoundError: "No camera was found. Connect one, or choose a picture or a video.",
  NotReadableError: "Another program has the camera. Close that, then choose the camera again.",
};

/* A picture or a video: the browser knows best what it can read, the file's name does not. */
export async function opened(file) {
  const readers = file.type.startsWith("video/") ? [video, picture] : [picture, video];
  for (const read of readers) {
    const source = await read(file).catch(() => null);
    if (source) return source;
  }
  throw new Error(`This browser cannot read ${file.name} as a picture or a video. Save it as JPEG, PNG, MP4 or WebM.`);
}

async function picture(file) {
  // Without the file's colour profile, as Pillow reads it.
  const image = await createImageBitmap(file, { colorSpaceConversion: "none" });
  async function* frames() {
    yield { frame: grabbed(image, image.width, image.height, MOST_PICTURE), seconds: null, number: 0 };
  }
  return { kind: "picture", name: file.name, mirrored: false, frames, close: () => image.close() };
}

async function video(file) {
  const element = document.createElement("video");
  const address = URL.createObjectURL(file);
  Object.assign(element, { muted: true, playsInline: true, src: address });
  await happens(element, "loadeddata");
  if (!element.videoWidth) throw new Error("no pictures");
  const clock = new Clock(element);
  const close = () => {
    clock.stop();
    element.removeAttribute("src");
    URL.revokeObjectURL(address);
  };
  const frames = () => timed(element, clock, (mediaTime) => mediaTime);
  const { duration } = element;
  const damage = () => clock.damage;
  return { kind: "video", name: file.name, mirrored: false, element, duration, file, frames, damage, close };
}

export async function camera() {
  if (!navigator.mediaDevices) {
    throw new Error("The camera works on this machine's own address or by https only: open the page there.");
  }
  const stream = await navigator.mediaDevices.getUserMedia(CAMERA).catch((error) => {
    throw new Error(REFUSED[error.name] ?? `The camera does not start: ${error.message}`);
  });
  const element = document.createElement("video");
  Object.assign(element, { muted: true, playsInline: true, srcObject: stream });
  const clock = new Clock(element);
  stream.getVideoTracks()[0].onended = () => clock.stop();
  const close = () => {
    clock.stop();
    stream.getTracks().forEach((track) => track.stop());
  };
  const start = performance.now();
  const frames = () => timed(element, clock, () => (performance.now() - start) / 1000);
  return { kind: "camera", name: "camera", mirrored: true, element, frames, close };
}

async function* timed(element, clock, seconds) {
  const broken = new Promise((resolve) => element.addEventListener("error", resolve, { once: true }));
  await Promise.race([element.play(), broken]); // after an error of the decoder, play() may wait forever
  for (let number = 0; ; number++) {
    const time = await clock.next();
    if (time === null) return;
    const frame = grabbed(element, element.videoWidth, element.videoHeight, MOST_VIDEO);
    yield { frame, seconds: seconds(time), number };
  }
}

/* When a video shows another frame. Who takes longer than a frame gets the newest at once, and misses those between. */
class Clock {
  constructor(element) {
    [this.element, this.time, this.ended, this.wake] = [element, null, false, () => {}];
    [this.duration, this.reached, this.reachedAt, this.damage] = [element.duration, 0, performance.now(), null];
    element.addEventListener("ended", () => {
      this.damage = this.missing();
      this.end();
    });
    element.addEventListener("error", () => {
      this.damage = undecoded(element.error);
      this.stop();
    });
    this.request();
  }

  request() {
    const tick = (_, frame) => {
      if (this.ended) return;
      this.time = this.reached = frame?.mediaTime ?? this.element.currentTime;
      this.reachedAt = performance.now();
      this.request();
      this.wake();
    };
    if (this.element.requestVideoFrameCallback) this.element.requestVideoFrameCallback(tick);
    else requestAnimationFrame((now) => (this.element.paused ? this.request() : tick(now)));
  }

  /* After the newest frame. */
  end() {
    this.ended = true;
    this.wake();
  }

  /* Whether the end came too early, in words, or null. Chromium jumps to it where a WebM breaks off; sound that is longer
     than the pictures takes its time. */
  missing() {
    const played = this.reached + (performance.now() - this.reachedAt) / 1000;
    const allowed = Math.max(MISSING_SECONDS, MISSING_SHARE * this.duration);
    const isShort = this.duration - played > allowed; // not where the header has no duration
    return isShort ? `it ends before the ${this.duration.toFixed(1)} s that its header states` : null;
  }

  /* At once: a camera that was stopped shows black, and so may a video that broke. */
  stop() {
    this.time = null;
    this.end();
  }

  /* The time of the newest frame, each once; null after the last. */
  async next() {
    while (this.time === null && !this.ended) await new Promise((resolve) => (this.wake = resolve));
    const { time } = this;
    this.time = null;
    return time;
  }
}

function undecoded({ code }) {
  const isGone = code === MediaError.MEDIA_ERR_NETWORK; // moved or changed while it was read
  return isGone ? "the file can no longer be read" : "this browser cannot decode the rest";
}

const canvas = document.createElement("canvas");
const context = canvas.getContext("2d", { willReadFrequently: true });

/* The pixels of an image, on black, at most `most` wide and high. */
function grabbed(image, width, height, most) {
  const share = Math.min(1, most / Math.max(width, height));
  const [w, h] = [Math.max(1, Math.round(width * share)), Math.max(1, Math.round(height * share))];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  context.imageSmoothingQuality = "high";
  context.fillRect(0, 0, w, h);
  context.drawImage(image, 0, 0, w, h);
  return Object.assign(context.getImageData(0, 0, w, h), { share });
}

function happens(element, name) {
  return new Promise((resolve, reject) => {
    element.addEventListener(name, resolve, { once: true });
    element.addEventListener("error", () => reject(new Error(element.error?.message)), { once: true });
  });
}
