// The worker as the page sees it: promises, cancelling, and smaller sizes where memory runs out.

import {fittedSize} from "./pixels.js";

export class Painter {
  #worker;
  #waiting = new Map();
  #next = 0;
  #ready;
  #gpu = true;
  limit = pixelLimit();

  // `onload` is called with {loaded, total} bytes while the models come.
  constructor(onload = () => {}) {
    this.onload = onload;
  }

  // The engine, {name, threads}, once the models are there.
  load() {
    this.#ready ??= this.#send("load", {gpu: this.#gpu}).catch(error => {
      this.cancel(error);
      if (!this.#gpu || error.kind === "network" || error.kind === "cancelled") throw error;
      this.#gpu = false; // what WebGPU cannot do, WebAssembly can
      return this.load();
    });
    return this.#ready;
  }

  async encode(painting, scale) {
    await this.load();
    return this.#send("encode", {painting, scale});
  }

  save(pixels, type) {
    return this.#send("save", {pixels, type});
  }

  // Paints at the size, or at the largest for which there is memory.
  async paint({width, height, ...given}, onprogress = () => {}) {
    for (;;) {
      const size = within(width, height, this.limit);
      const engine = await this.load();
      try {
        return await this.#send("paint", {...given, width: size[0], height: size[1]}, onprogress);
      } catch (error) {
        const smaller = 0.75 * size[0] * size[1];
        if (engine.name === "WebGPU" && ["memory", "unknown"].includes(error.kind)) this.#gpu = false;
        else if (error.kind === "memory" && smaller >= SMALLEST) this.limit = smaller;
        else throw error;
      }
    }
  }

  // Ends what is being done, at once; the next call begins with new models.
  cancel(reason = Object.assign(new Error("cancelled"), {kind: "cancelled"})) {
    this.#worker?.terminate();
    this.#worker = this.#ready = undefined;
    for (const {reject} of this.#waiting.values()) reject(reason);
    this.#waiting.clear();
  }

  #send(task, given, onprogress = () => {}) {
    this.#worker ??= this.#start();
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, {resolve, reject, onprogress});
      this.#worker.postMessage({id, task, ...given});
    });
  }

  #start() {
    const worker = new Worker(new URL("./worker.js", import.meta.url), {type: "module"});
    worker.onmessage = ({data: {id, result, error, progress, loading}}) => {
      const waiting = this.#waiting.get(id);
      if (loading) this.onload(loading);
      if (!waiting || loading) return;
      if (progress) return waiting.onprogress(progress);
      this.#waiting.delete(id);
      if (!error) return waiting.resolve(result);
      const reason = Object.assign(new Error(error.message), {kind: error.kind});
      waiting.reject(reason);
      if (["memory", "unknown"].includes(error.kind)) this.cancel(reason); // the models may be gone with it
    };
    worker.onerror = event => this.cancel(Object.assign(new Error(event.message), {kind: "worker"}));
    return worker;
  }
}

// Pixels

const LARGEST = 16e6;
const SMALLEST = 1e5;

// What is tried at most: browsers do not tell how much memory there is, and a phone closes a page that takes too much.
function pixelLimit() {
  const gigabytes = navigator.deviceMemory ?? (matchMedia("(pointer: coarse)").matches ? 2 : 8);
  return Math.min(LARGEST, 2e6 * gigabytes);
}

// The size, or the largest of the same shape that has no more pixels.
export function within(width, height, pixels) {
  if (width * height <= pixels) return [width, height];
  const shortSide = Math.floor(Math.sqrt(pixels * Math.min(width, height) / Math.max(width, height)));
  return fittedSize(width, height, shortSide);
}
