// What is seen and clicked. The work is done in painter.js and its worker.

import {Painter, within} from "./painter.js";
import {blendCodes, countOctaves, fittedSize} from "./pixels.js";
import site from "./site.js";

const PREVIEW = 512, MOST_STYLES = 3, SIZES = [512, 1024, 2048, 4096];
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];

const $ = id => document.getElementById(id);
const painter = new Painter(({loaded, total}) => {
  if (busy) $("progress").value = loaded / total;
});
const styles = new Map(); // name to {title, artist, code} of the gallery or {title, painting, codes} of the visitor
let photo, chosen = [], weights = new Map(), picture, busy = false, stale = false, pace, keys = 0;

const MEGABYTES = Math.round((site.sizes[site.encoder] + site.sizes[site.stylizer]) / 1e6);
const extent = ({width, height}) => `${width} × ${height}`;

// Errors

const REMEDIES = {
  network: "The model could not be downloaded. Check the connection, then reload the page.",
  memory: "There is not enough memory for this picture. Close other tabs, or choose a smaller size.",
  decode: "The browser can no longer read the photo or the painting. Give it again.",
  worker: "The browser could not start the part of the page that paints. Update the browser, or try another one.",
};

const remedy = error => REMEDIES[error.kind]
  ?? `Something went wrong that is not expected (${error.message}). Reload the page; if it stays, report it.`;

async function unreadable(file) {
  const brand = new TextDecoder("latin1").decode(await file.slice(4, 12).arrayBuffer().catch(() => new ArrayBuffer()));
  if (/^ftyp(hei|hev|mif1|msf1)/.test(brand)) {
    return `${file.name}: is a HEIC photo, which this browser cannot read. Save it as JPEG (on an iPhone: Settings, Camera, `
      + "Formats, Most Compatible), or open this page in Safari.";
  }
  return `${file.name}: is no picture that this browser can read, or too large for it. Give a JPEG, PNG, WebP or AVIF file.`;
}

// Status

function show(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
  $("progress").removeAttribute("value");
}

function setBusy(now) {
  busy = now;
  $("progress").hidden = $("cancel").hidden = !now;
  $("result").setAttribute("aria-busy", now);
  $("jpeg").disabled = $("png").disabled = now || !picture;
}

// Between two octaves nothing is heard of the work: the bar moves at the pace of the pictures before.
function paced(seconds) {
  const start = performance.now();
  let step = {begin: 0, end: 1}, begun = start;
  const timer = setInterval(() => {
    if (!seconds) return; // the first picture: nobody knows
    const share = Math.min((performance.now() - begun) / 1000 / (seconds * (step.end - step.begin)), 0.97);
    $("progress").value = step.begin + share * (step.end - step.begin);
  }, 100);
  return {
    heard: next => {
      [step, begun] = [next, performance.now()];
      if (step.begin > 0) $("progress").value = step.begin;
    },
    end: () => {
      clearInterval(timer);
      return (performance.now() - start) / 1000;
    },
  };
}

const area = (width, height) => width * height * (countOctaves(width, height) > 1 ? 4 / 3 : 1);
const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const duration = seconds => seconds < 100 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} minutes`;

// Photo and paintings

// Of the upright picture in a file.
async function sizeOf(file) {
  const bitmap = await createImageBitmap(file), {width, height} = bitmap;
  bitmap.close();
  return {width, height};
}

async function takePhoto(file) {
  const url = URL.createObjectURL(file), key = keys++;
  $("photo-told").textContent = "";
  let size;
  try {
    size = await sizeOf(file);
  } catch {
    $("photo-told").textContent = await unreadable(file);
    return;
  }
  if (photo?.key > key) return; // another came while this was read
  photo = {key, file, url, ...size};
  $("thumbnail").src = url;
  $("thumbnail").hidden = false;
  document.querySelector(".drop span").textContent = `${file.name}, ${extent(photo)} pixels`;
  offerSizes();
  refresh();
}

async function takePaintings(files) {
  $("style-told").textContent = "";
  for (const file of files) {
    const key = keys++, name = `own ${key}`;
    try {
      await sizeOf(file);
    } catch {
      $("style-told").textContent = await unreadable(file);
      continue;
    }
    styles.set(name, {title: file.name.replace(/\.\w+$/, ""), painting: {key, file}, codes: new Map()});
    const tile = addTile(name, `url(${URL.createObjectURL(file)})`);
    document.querySelector(".tile.add").after(tile);
    $("styles").scrollTo(0, 0);
    choose(name);
  }
}

async function takeExample() {
  try {
    const response = await fetch("example.jpg");
    await takePhoto(new File([await response.blob()], "example.jpg", {type: "image/jpeg"}));
  } catch {
    $("photo-told").textContent = "The example could not be downloaded. Check the connection, or choose a photo.";
  }
}

function offerSizes() {
  const {width, height} = photo, most = within(width, height, painter.limit);
  const whole = most[0] === width ? "as large as the photo" : "the largest that fits";
  const options = [new Option(`${whole}, ${most.join(" × ")}`, "")];
  for (const side of SIZES.filter(side => side < Math.min(...most))) {
    options.push(new Option(fittedSize(width, height, side).join(" × "), side));
  }
  $("size").replaceChildren(...options);
  $("size").disabled = false;
}

// Styles

function addTile(name, background, position = {}) {
  const {title, artist} = styles.get(name), tile = document.createElement("label");
  tile.className = "tile";
  const box = Object.assign(document.createElement("input"), {type: "checkbox", value: name});
  const swatch = Object.assign(document.createElement("span"), {className: "swatch"});
  Object.assign(swatch.style, {backgroundImage: background, ...position});
  const caption = Object.assign(document.createElement("span"), {className: "name", textContent: title});
  if (artist) caption.append(Object.assign(document.createElement("small"), {textContent: artist}));
  tile.append(box, swatch, caption);
  box.addEventListener("change", () => box.checked ? choose(name) : drop(name));
  return tile;
}

function choose(name) {
  chosen = $("mix").checked ? [...chosen.filter(other => other !== name), name].slice(-MOST_STYLES) : [name];
  showChosen();
}

function drop(name) {
  chosen = chosen.filter(other => other !== name);
  showChosen();
}

function showChosen() {
  for (const box of document.querySelectorAll(".tile > [type=checkbox]")) box.checked = chosen.includes(box.value);
  $("shares").replaceChildren(...(chosen.length < 2 ? [] : chosen.map(shareSlider)));
  $("strokes").disabled = !chosen.some(name => styles.get(name).painting);
  refresh();
}

const shareOf = name => weights.get(name) ?? 5;

function shareSlider(name) {
  const label = Object.assign(document.createElement("label"), {className: "slider", textContent: styles.get(name).title});
  const value = document.createElement("output");
  const range = Object.assign(document.createElement("input"), {type: "range", min: 0, max: 10, value: shareOf(name)});
  value.textContent = range.value;
  range.addEventListener("input", () => {
    weights.set(name, Number(range.value));
    value.textContent = range.value;
  });
  range.addEventListener("change", refresh);
  label.append(value, range);
  return label;
}

async function codeOf(name, scale) {
  const style = styles.get(name);
  if (style.code) return style.code;
  if (!style.codes.has(scale)) style.codes.set(scale, await painter.encode(style.painting, scale));
  return style.codes.get(scale);
}

let galleryCodes;
async function loadGallery() {
  galleryCodes ??= fetch("gallery.bin").then(async response => {
    if (!response.ok) throw Object.assign(new Error("gallery.bin"), {kind: "network"});
    const codes = new Float32Array(await response.arrayBuffer());
    site.gallery.forEach(({name}, index) => {
      styles.get(name).code = codes.slice(index * site.codeSize, (index + 1) * site.codeSize);
    });
  }).catch(error => {
    galleryCodes = undefined;
    throw Object.assign(error, {kind: "network"});
  });
  return galleryCodes;
}

// Painting

// What decides the picture, beside its size.
function wish() {
  const shares = chosen.map(shareOf);
  return {
    photo,
    names: [...chosen],
    shares: chosen.length > 1 && shares.some(share => share > 0) ? shares : shares.map(() => 1),
    scale: $("strokes").valueAsNumber / 100,
    strength: $("strength").valueAsNumber / 100,
    keepColors: $("keep-colors").checked,
  };
}

const same = (a, b) => JSON.stringify({...a, photo: a?.photo.key}) === JSON.stringify({...b, photo: b.photo.key});

async function paint(asked, width, height) {
  if (asked.names.some(name => !styles.get(name).painting)) await loadGallery();
  show(`Loading the model, ${MEGABYTES} MB`);
  const engine = await painter.load();
  $("engine").textContent = engine.name === "WebGPU" ? "WebGPU" : `WebAssembly, ${counted(engine.threads, "thread")}`;
  $("engine").hidden = false;
  const codes = [];
  for (const name of asked.names) codes.push(await codeOf(name, asked.scale));
  const {key, file} = asked.photo, {strength, keepColors} = asked, expected = pace * area(width, height);
  show(`Painting ${width} × ${height} pixels${expected > 5 ? `, about ${duration(expected)}` : ""}`);
  const given = {photo: {key, file}, width, height, code: blendCodes(codes, asked.shares), strength, keepColors};
  const work = paced(expected);
  let pixels, seconds;
  try {
    pixels = await painter.paint(given, work.heard);
  } finally {
    seconds = work.end();
  }
  if (strength > 0) pace = seconds / area(pixels.width, pixels.height);
  const less = pixels.width < width ? ` There was no memory for ${width} × ${height}.` : "";
  if (less) offerSizes();
  showPicture(asked, pixels);
  return {pixels, told: `${extent(pixels)} pixels in ${seconds.toFixed(1)} s.${less}`};
}

function showPicture(asked, pixels) {
  const canvas = $("picture"), {width, height, data} = pixels, compare = document.querySelector(".compare");
  Object.assign(canvas, {width, height}).getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
  $("original").src = asked.photo.url;
  compare.style.setProperty("--width", width);
  compare.style.setProperty("--height", height);
  compare.hidden = false;
  $("empty").hidden = true;
  picture = {asked, pixels};
}

// The preview of what is chosen now; while one is painted, the newest wish waits.
async function refresh() {
  if (!photo) return;
  if (!chosen.length) return show("Choose a painting, or add one of your own.");
  if (busy) {
    stale = true;
    return;
  }
  setBusy(true);
  try {
    do {
      stale = false;
      const side = Math.min(PREVIEW, photo.width, photo.height);
      const {told, pixels} = await paint(wish(), ...fittedSize(photo.width, photo.height, side));
      const preview = pixels.width < downloadSize()[0] ? "Preview: " : "";
      show(preview + told + (preview ? " The download is painted larger." : ""));
    } while (stale);
  } catch (error) {
    explain(error);
  }
  setBusy(false);
}

function explain(error) {
  if (error.kind === "cancelled") show("Cancelled. The picture before it stays.");
  else show(remedy(error), true);
}

function downloadSize() {
  const side = Number($("size").value), {width, height} = photo;
  return side ? fittedSize(width, height, side) : within(width, height, painter.limit);
}

async function download(type) {
  const asked = wish();
  if (busy || !photo || !asked.names.length) return;
  setBusy(true);
  try {
    const [width, height] = downloadSize();
    if (!same(picture?.asked, asked) || picture.pixels.width !== width || picture.pixels.height !== height) {
      const {told} = await paint(asked, width, height);
      show(told);
    }
    const blob = await painter.save(picture.pixels, type), url = URL.createObjectURL(blob);
    const name = `${asked.photo.file.name.replace(/\.\w+$/, "")}_stylized.${type === "image/png" ? "png" : "jpg"}`;
    Object.assign(document.createElement("a"), {href: url, download: name}).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (error) {
    explain(error);
  }
  setBusy(false);
  if (stale) refresh();
}

// Events

$("photo-file").addEventListener("change", ({target}) => {
  if (target.files[0]) takePhoto(target.files[0]);
  target.value = "";
});
$("painting-file").addEventListener("change", ({target}) => {
  takePaintings([...target.files]);
  target.value = "";
});
$("example").addEventListener("click", takeExample);
$("cancel").addEventListener("click", () => {
  stale = false;
  painter.cancel();
});
$("mix").addEventListener("change", () => {
  if (!$("mix").checked && chosen.length > 1) choose(chosen.at(-1));
});
$("jpeg").addEventListener("click", () => download("image/jpeg"));
$("png").addEventListener("click", () => download("image/png"));
$("keep-colors").addEventListener("change", refresh);
for (const id of ["strength", "strokes"]) {
  $(id).addEventListener("input", () => { document.querySelector(`output[for=${id}]`).textContent = `${$(id).value} %`; });
  $(id).addEventListener("change", refresh);
}
$("cut").addEventListener("input", ({target}) => {
  document.querySelector(".compare").style.setProperty("--cut", `${target.value}%`);
});

// A picture that is dropped or pasted over the paintings is one of them, anywhere else it is the photo.
const overStyles = target => target?.closest?.("#style");
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, event => {
    event.preventDefault();
    const entering = kind === "dragenter" || kind === "dragover", paintings = overStyles(event.target);
    $("style").classList.toggle("over", entering && Boolean(paintings));
    $("photo").classList.toggle("over", entering && !paintings);
    if (kind === "drop") take([...event.dataTransfer.files], paintings);
  });
}
document.addEventListener("paste", ({clipboardData}) => {
  take([...clipboardData.files], document.querySelector("#style:hover, #style :focus-visible"));
});

function take(files, paintings) {
  if (paintings && files.length) takePaintings(files);
  else if (files.length) takePhoto(files[0]);
}

// Camera

const viewfinder = $("viewfinder"), video = viewfinder.querySelector("video");
let takeShot;

async function openCamera(told, take) {
  $(told).textContent = "";
  takeShot = take;
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({video: {width: {ideal: 4096}, facingMode: "environment"}});
    viewfinder.showModal();
    video.play().catch(() => {}); // closed before it began
  } catch {
    $(told).textContent = "There is no camera, or this page may not use it: allow it, or choose a file.";
  }
}

$("camera").addEventListener("click", () => openCamera("photo-told", takePhoto));
$("painting-camera").addEventListener("click", () => openCamera("style-told", file => takePaintings([file])));
$("camera").hidden = $("painting-camera").hidden = !navigator.mediaDevices?.getUserMedia;
$("shutter").addEventListener("click", async () => {
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  viewfinder.close();
  takeShot(new File([await canvas.convertToBlob({type: "image/png"})], "camera.png", {type: "image/png"}));
});
$("close").addEventListener("click", () => viewfinder.close());
viewfinder.addEventListener("close", () => {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
});

// The beginning

// The service worker keeps the site, and gives it the headers that threads need: from the next page load on, which is at
// once where nothing has been given yet.
async function settle() {
  if (!navigator.serviceWorker) return;
  navigator.serviceWorker.addEventListener("controllerchange", () => {
    if (crossOriginIsolated || photo || busy || sessionStorage.reloaded) return;
    sessionStorage.reloaded = true;
    location.reload();
  });
  await navigator.serviceWorker.register("sw.js");
}

function begin() {
  $("needs").remove();
  for (const [index, {name, title, artist}] of site.gallery.entries()) {
    styles.set(name, {title, artist});
    const place = site.gallery.length > 1 ? 100 * index / (site.gallery.length - 1) : 0;
    const position = {backgroundSize: "100% auto", backgroundPosition: `0 ${place}%`};
    $("styles").append(addTile(name, "url(swatches.webp)", position));
  }
  if (styles.has(site.start)) {
    choose(site.start);
    document.querySelector(".tile.add").after(document.querySelector(".tile:has(:checked)"));
  }
  if (typeof WebAssembly === "undefined" || !WebAssembly.validate(Uint8Array.from(SIMD))) {
    show("This browser has no WebAssembly with SIMD, or it is turned off. Update it, or allow WebAssembly.", true);
    for (const control of document.querySelectorAll("input, button, select")) control.disabled = true;
    return;
  }
  settle().catch(() => {}); // the site works without
}

begin();
