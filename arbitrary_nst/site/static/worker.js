// Everything that takes time, away from the page: decoding, models, painting, encoding.
//
// A message {id, task, ...given} is answered by {id, result} or {id, error: {kind, message}}, and before that by any
// number of {id, progress} with a share from 0 to 1 and {id, loading} with bytes.

import * as px from "./pixels.js";
import site from "./site.js";

const CODE_SIDE = site.styleSize;
const sessions = {};
let ort, engine, decoded = {}, sized = {};

// Models

// A file of the site, counted as it comes.
async function fetched(path, say) {
  const response = await fetch(new URL(path, import.meta.url));
  if (!response.ok) throw failure("network", `${path}: ${response.status}`);
  const bytes = new Uint8Array(site.sizes[path]);
  let length = 0;
  for (const reader = response.body.getReader(); ;) {
    const {done, value} = await reader.read();
    if (done) break;
    if (length + value.length <= bytes.length) bytes.set(value, length);
    length += value.length;
    say(value.length);
  }
  if (length !== bytes.length) throw failure("network", `${path}: ${length} bytes came, not ${bytes.length}`);
  return bytes;
}

async function hasWebGPU() {
  try {
    return Boolean(await navigator.gpu?.requestAdapter());
  } catch {
    return false;
  }
}

async function load({gpu}, tell) {
  if (engine) return engine;
  const paths = [site.encoder, site.stylizer];
  const total = paths.reduce((sum, path) => sum + site.sizes[path], 0);
  let loaded = 0;
  const say = bytes => tell({loading: {loaded: loaded += bytes, total}});
  const models = Promise.all(paths.map(path => fetched(path, say)));
  models.catch(() => {}); // told below
  gpu = gpu && await hasWebGPU();
  ort = await import(gpu ? "./ort/ort.webgpu.min.mjs" : "./ort/ort.wasm.min.mjs");
  const threads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 8) : 1;
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
  ort.env.logLevel = "error";
  const [encoder, stylizer] = await models;
  const open = (bytes, provider) => ort.InferenceSession.create(bytes, {executionProviders: [provider]});
  sessions.encoder = await open(encoder, "wasm");
  sessions.stylizer = await open(stylizer, gpu ? "webgpu" : "wasm");
  if (gpu) await checkWebGPU();
  return engine = {name: gpu ? "WebGPU" : "WebAssembly", threads};
}

// A graphics driver may compute something else: a small picture must come out as it did when the site was made.
async function checkWebGPU() {
  const expected = new Uint8Array(await (await fetch(new URL(site.check.path, import.meta.url))).arrayBuffer());
  const {width, height} = site.check, codes = new Float32Array(expected.buffer.slice(3 * width * height));
  const picture = px.image(width, height);
  picture.data.forEach((_, index) => { picture.data[index] = (7 * index % 64) / 63; });
  const {data} = await octave(picture, picture, codes);
  const difference = data.reduce((sum, value, index) => sum + Math.abs(255 * value - expected[index]), 0) / data.length;
  if (!(difference < 2)) throw failure("gpu", `mean difference ${difference}`);
}

const tensor = ({width, height, data}) => new ort.Tensor("float32", data, [1, 3, height, width]);

// One octave, painted from its guide in one view of a style.
async function octave(content, guide, view) {
  const {width, height} = content;
  const sides = [Math.max(width, site.smallestPhoto), Math.max(height, site.smallestPhoto)];
  const {stylized} = await sessions.stylizer.run({
    content: tensor(px.window(content, ...sides)),
    guide: tensor(px.window(guide, ...sides)),
    view: new ort.Tensor("float32", view, [1, view.length]),
  });
  return px.window({width: sides[0], height: sides[1], data: stylized.data}, width, height);
}

async function codeOf(picture) {
  const smallest = site.smallestPainting;
  const seen = px.window(picture, Math.max(picture.width, smallest), Math.max(picture.height, smallest));
  return (await sessions.encoder.run({style: tensor(seen)})).code.data;
}

// Pictures

// The pixels of a file, upright; the last one is kept.
async function decode({key, file}) {
  if (decoded.key === key) return decoded.pixels;
  decoded = {};
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {imageOrientation: "from-image", premultiplyAlpha: "none"});
  } catch {
    throw failure("decode", "the browser cannot read it");
  }
  const {width, height} = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
  if (!context) throw failure("memory", "no canvas");
  context.drawImage(bitmap, 0, 0);
  let {data} = context.getImageData(0, 0, width, height);
  if (!px.isOpaque({data})) data = uncovered(bitmap) ?? data;
  bitmap.close();
  decoded = {key, pixels: {width, height, data}};
  return decoded.pixels;
}

// Colours below transparency, which a 2D canvas multiplies by it; null where they cannot be had.
function uncovered(bitmap) {
  const {width, height} = bitmap;
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2", {premultipliedAlpha: false});
  if (!gl || Math.max(width, height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return null;
  const texture = gl.createTexture(), data = new Uint8Array(4 * width * height);
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, data);
  const whole = gl.getError() === gl.NO_ERROR;
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return whole ? new Uint8ClampedArray(data.buffer) : null;
}

// A photo at a size, and later its own style code; the last one is kept.
async function atSize(photo, width, height) {
  if (sized.key !== photo.key || sized.width !== width || sized.height !== height) {
    sized = {};
    sized = {key: photo.key, width, height, pixels: px.resizePixels(await decode(photo), width, height)};
  }
  return sized;
}

// The style code of a painting: one view for the first octave, one at up to twice the size for the others.
async function encode({painting, scale}) {
  const picture = px.toImage(await decode(painting));
  const side = Math.min(picture.width, picture.height), sides = [Math.min(side, CODE_SIDE)];
  if (side > CODE_SIDE) sides.push(Math.min(side, 2 * CODE_SIDE));
  const codes = [];
  for (const wanted of sides) {
    const seen = Math.max(1, px.round(wanted * scale));
    const size = seen === side ? [picture.width, picture.height] : px.fittedSize(picture.width, picture.height, seen);
    codes.push(await codeOf(px.resize(picture, ...size)));
  }
  const [first, further = first] = codes;
  return Float32Array.of(...first.slice(0, site.viewSize), ...further.slice(site.viewSize));
}

// A photo at a size in the style of a code, octave by octave.
async function paint({photo, width, height, code, strength, keepColors}, tell) {
  const seen = await atSize(photo, width, height), {pixels} = seen;
  if (strength === 0) return pixels;
  const content = px.toImage(pixels);
  if (strength < 1) {
    const side = Math.min(width, height, CODE_SIDE);
    seen.code ??= await codeOf(px.resize(content, ...px.fittedSize(width, height, side)));
    code = px.blendCodes([seen.code, code], [1 - strength, strength]);
  }
  const octaves = [content];
  while (octaves.length < px.countOctaves(width, height)) octaves.unshift(px.halve(octaves[0]));
  if (octaves.length > 1) {
    const [smallest] = octaves;
    octaves[0] = px.resize(smallest, ...px.fittedSize(smallest.width, smallest.height, px.FIRST_OCTAVE));
  }
  const area = ({width, height}) => width * height, total = octaves.reduce((sum, level) => sum + area(level), 0);
  let done = area(octaves[0]), coarse = octaves.shift();
  tell({progress: {begin: 0, end: done / total}});
  let painted = await octave(coarse, px.withNoise(coarse), code.slice(0, site.viewSize));
  for (const level of octaves) {
    const half = [Math.ceil(level.width / 2), Math.ceil(level.height / 2)];
    [coarse, painted] = [coarse, painted].map(before => px.resize(before, ...half));
    tell({progress: {begin: done / total, end: (done + area(level)) / total}});
    const finer = await octave(level, px.withNoise(px.guide(level, coarse, painted)), code.slice(site.viewSize));
    [painted, coarse, done] = [px.anchor(finer, painted), level, done + area(level)];
  }
  return px.toPixels(px.mix(painted, content, 1 - (1 - strength) ** 2, keepColors), pixels);
}

// A PNG or a JPEG; this has no transparency, and white in its place.
async function save({pixels, type}) {
  const {width, height, data} = type === "image/jpeg" ? px.overWhite(pixels) : pixels;
  const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d");
  if (!context) throw failure("memory", "no canvas");
  context.putImageData(new ImageData(data, width, height), 0, 0);
  return canvas.convertToBlob({type, quality: 0.95});
}

// Messages

function failure(kind, message) {
  return Object.assign(new Error(message), {kind});
}

function kindOf(error) {
  if (error.kind) return error.kind;
  if (/fetch|network/i.test(error?.message)) return "network"; // also of the runtime, which loads its own files
  return error instanceof RangeError || /memory|alloc|out of bounds|aborted/i.test(String(error?.message ?? error))
    || typeof error === "number" ? "memory" : "unknown";
}

const tasks = {load, encode, paint, save};

self.onmessage = async ({data: {id, task, ...given}}) => {
  const tell = more => self.postMessage({id, ...more});
  try {
    tell({result: await tasks[task](given, tell)});
  } catch (error) {
    tell({error: {kind: kindOf(error), message: String(error?.message ?? error)}});
  }
};
