// Pictures as numbers: resizing, octaves and colours, as the Python package computes them (image/resizing, octaves, color).
//
// An image is {width, height, data}: red, green and blue planes one after the other, float32 in [0, 1]. Noise has one.
// RGBA pixels are as a canvas gives them.

export const FIRST_OCTAVE = 512;
const SMALLEST_LEVEL = 450;
const LUMA = [0.299, 0.587, 0.114];
const CUBIC = -0.5;

export const image = (width, height, planes = 3) => ({width, height, data: new Float32Array(planes * width * height)});
const planesOf = ({width, height, data}) => data.length / (width * height);

// Half way between two integers is rounded to the even one, as Python does.
export function round(x) {
  const floor = Math.floor(x);
  return x - floor === 0.5 ? floor + (floor & 1) : Math.round(x);
}

// Sizes

export function fittedSize(width, height, shortSide) {
  const scale = shortSide / Math.min(width, height);
  const longSide = Math.max(shortSide, Math.floor(Math.max(width, height) * scale + 0.5));
  return height <= width ? [longSide, shortSide] : [shortSide, longSide];
}

export function countOctaves(width, height) {
  const doublings = Math.floor(Math.min(width, height) / SMALLEST_LEVEL);
  return Math.max(1, 32 - Math.clz32(doublings));
}

// Resizing

function cubic(x) {
  x = Math.abs(x);
  if (x < 1) return ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * CUBIC;
  return 0;
}

// For each of `after` positions, where its taps begin and their weights.
function taps(before, after) {
  const scale = before / after, stretch = Math.max(scale, 1), support = 2 * stretch;
  return Array.from({length: after}, (_, index) => {
    const center = scale * (index + 0.5);
    const begin = Math.max(Math.trunc(center - support + 0.5), 0);
    const end = Math.min(Math.trunc(center + support + 0.5), before);
    const weights = Float32Array.from({length: end - begin}, (_, n) => cubic((begin + n - center + 0.5) / stretch));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return {begin, weights: weights.map(weight => weight / sum)};
  });
}

// One plane of `read(index)` numbers, antialiased bicubic, in [0, 1]. Rows are narrowed as they are needed.
function resizePlane(read, width, height, toWidth, toHeight, target) {
  const across = taps(width, toWidth), down = taps(height, toHeight);
  const narrowed = new Map();
  const row = y => {
    let values = narrowed.get(y);
    if (!values) {
      values = new Float32Array(toWidth);
      for (let x = 0; x < toWidth; x++) {
        const {begin, weights} = across[x], first = y * width + begin;
        let sum = 0;
        for (let n = 0; n < weights.length; n++) sum += weights[n] * read(first + n);
        values[x] = sum;
      }
      narrowed.set(y, values);
    }
    return values;
  };
  for (let y = 0; y < toHeight; y++) {
    const {begin, weights} = down[y], line = target.subarray(y * toWidth, (y + 1) * toWidth);
    for (const old of narrowed.keys()) if (old < begin) narrowed.delete(old);
    weights.forEach((weight, n) => {
      const values = row(begin + n);
      for (let x = 0; x < toWidth; x++) line[x] += weight * values[x];
    });
    for (let x = 0; x < toWidth; x++) line[x] = Math.min(Math.max(line[x], 0), 1);
  }
}

export function resize(picture, width, height) {
  if (width === picture.width && height === picture.height) return picture;
  const resized = image(width, height), size = picture.width * picture.height;
  for (let c = 0; c < 3; c++) {
    const plane = picture.data.subarray(c * size, (c + 1) * size);
    const target = resized.data.subarray(c * width * height, (c + 1) * width * height);
    resizePlane(index => plane[index], picture.width, picture.height, width, height, target);
  }
  return resized;
}

export function resizePixels(pixels, width, height) {
  if (width === pixels.width && height === pixels.height) return pixels;
  const data = new Uint8ClampedArray(4 * width * height);
  for (let c = 0; c < 4; c++) {
    const target = new Float32Array(width * height);
    resizePlane(index => pixels.data[4 * index + c] / 255, pixels.width, pixels.height, width, height, target);
    target.forEach((value, index) => { data[4 * index + c] = round(255 * value); });
  }
  return {width, height, data};
}

// From and to 8 bits

export function toImage({width, height, data}) {
  const result = image(width, height), size = width * height;
  for (let index = 0; index < size; index++) {
    for (let c = 0; c < 3; c++) result.data[c * size + index] = data[4 * index + c] / 255;
  }
  return result;
}

export function toPixels({width, height, data}, alphaOf) {
  const pixels = new Uint8ClampedArray(4 * width * height), size = width * height;
  for (let index = 0; index < size; index++) {
    for (let c = 0; c < 3; c++) pixels[4 * index + c] = round(255 * data[c * size + index]);
    pixels[4 * index + 3] = alphaOf.data[4 * index + 3];
  }
  return {width, height, data: pixels};
}

export function isOpaque({data}) {
  for (let index = 3; index < data.length; index += 4) if (data[index] < 255) return false;
  return true;
}

export function overWhite({width, height, data}) {
  const laid = new Uint8ClampedArray(data);
  for (let index = 0; index < data.length; index += 4) {
    const opacity = data[index + 3] / 255;
    for (let c = 0; c < 3; c++) laid[index + c] = round(data[index + c] * opacity + 255 * (1 - opacity));
    laid[index + 3] = 255;
  }
  return {width, height, data: laid};
}

// Octaves

// The upper left part of a picture; beyond its right and its lower border it is continued.
export function window(picture, width, height) {
  if (width === picture.width && height === picture.height) return picture;
  const planes = planesOf(picture), part = image(width, height, planes);
  for (let c = 0, target = 0; c < planes; c++) {
    for (let y = 0; y < height; y++) {
      const row = (c * picture.height + Math.min(y, picture.height - 1)) * picture.width;
      for (let x = 0; x < width; x++) part.data[target++] = picture.data[row + Math.min(x, picture.width - 1)];
    }
  }
  return part;
}

// Half the sides, rounded up: means of 2 x 2 pixels.
export function halve(picture) {
  const width = Math.ceil(picture.width / 2), height = Math.ceil(picture.height / 2);
  const planes = planesOf(picture), halved = image(width, height, planes);
  const {data} = window(picture, 2 * width, 2 * height);
  for (let row = 0, target = 0; row < planes * height; row++) {
    let above = 4 * row * width, below = above + 2 * width;
    for (let x = 0; x < width; x++, above += 2, below += 2) {
      halved.data[target++] = (data[above] + data[above + 1] + data[below] + data[below + 1]) / 4;
    }
  }
  return halved;
}

// Twice the sides, bilinear, of which the upper left part is kept.
export function double(picture, toWidth, toHeight) {
  const {width, height, data} = picture, planes = planesOf(picture), doubled = image(toWidth, toHeight, planes);
  for (let c = 0, target = 0; c < planes; c++) {
    for (let y = 0; y < toHeight; y++) {
      const row = y >> 1, other = Math.min(Math.max(row + (y & 1 ? 1 : -1), 0), height - 1);
      const near = (c * height + row) * width, far = (c * height + other) * width;
      for (let x = 0; x < toWidth; x++) {
        const column = x >> 1, next = Math.min(Math.max(column + (x & 1 ? 1 : -1), 0), width - 1);
        doubled.data[target++] = 0.75 * (0.75 * data[near + column] + 0.25 * data[near + next])
          + 0.25 * (0.75 * data[far + column] + 0.25 * data[far + next]);
      }
    }
  }
  return doubled;
}

const combined = (a, b, combine) => ({...a, data: a.data.map((value, index) => combine(value, b.data[index]))});

// The octave before, as painted, with the content image's detail.
export function guide(content, coarse, painted) {
  const change = combined(painted, coarse, (after, before) => after - before);
  const grown = double(change, content.width, content.height);
  for (let index = 0; index < grown.data.length; index++) grown.data[index] += content.data[index];
  return grown;
}

const ANCHORED = 0.3;

// The painted picture, held to the octave before it: wholly at a quarter of its size, in part at half of it; in [0, 1].
export function anchor(painted, before) {
  const {width, height} = painted, columns = Math.ceil(width / 4), rows = Math.ceil(height / 4);
  const found = halve(window(painted, 4 * columns, 4 * rows));
  const missing = combined(window(before, 2 * columns, 2 * rows), found, (target, value) => target - value);
  const broad = double(halve(missing), 2 * columns, 2 * rows);
  const change = combined(broad, missing, (all, part) => all + ANCHORED * (part - all));
  const grown = double(change, width, height);
  for (let index = 0; index < grown.data.length; index++) {
    grown.data[index] = Math.min(Math.max(grown.data[index] + painted.data[index], 0), 1);
  }
  return grown;
}

// Noise

const NOISE = 0.15, NOISE_SIDE = 1024;
let field;

function deviation(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1));
}

// Smooth over some 4 times as many pixels.
function smoothed(noise) {
  return double(double(halve(halve(noise)), NOISE_SIDE / 2, NOISE_SIDE / 2), NOISE_SIDE, NOISE_SIDE);
}

// Numbers of a permuted congruential generator, and the same smooth over some 4 and over some 16 pixels.
export function noiseField() {
  if (field) return field;
  const white = image(NOISE_SIDE, NOISE_SIDE, 1);
  for (let index = 0; index < white.data.length; index++) {
    const state = (Math.imul(index, 747796405) + 2891336453) >>> 0;
    const word = Math.imul((state >>> ((state >>> 28) + 4)) ^ state, 277803737) >>> 0;
    white.data[index] = (((word >>> 22) ^ word) >>> 0) / 2 ** 32 - 0.5;
  }
  const fine = smoothed(white), parts = [white, fine, smoothed(fine)].map(({data}) => ({data, share: 1 / deviation(data)}));
  const total = white.data.map((_, index) => parts.reduce((sum, {data, share}) => sum + share * data[index], 0));
  const scale = NOISE / deviation(total);
  return field = total.map(value => scale * value);
}

// What an octave is painted from: a guide with the noise, which tells the places of even areas apart.
export function withNoise({width, height, data}) {
  const noise = noiseField(), noisy = image(width, height);
  for (let row = 0, place = 0; row < 3 * height; row++) {
    const y = row % height, i = Math.floor(y / NOISE_SIDE);
    for (let x = 0; x < width; x++, place++) {  // squares of the plane, each rolled by steps of its own
      const j = Math.floor(x / NOISE_SIDE);
      const down = (y + 131 * i + 397 * j * j) % NOISE_SIDE, across = (x + 611 * i * i + 173 * j) % NOISE_SIDE;
      noisy.data[place] = data[place] + noise[down * NOISE_SIDE + across];
    }
  }
  return noisy;
}

// Strength and colours

// Mixes a painted picture into the photo, in place: `weight` of it, with the photo's colours where they are kept.
export function mix(painted, content, weight, keepColors) {
  const size = content.width * content.height, photo = content.data, result = painted.data;
  for (let index = 0; index < size; index++) {
    let change = 0;
    for (let c = 0; keepColors && c < 3; c++) change += LUMA[c] * (result[c * size + index] - photo[c * size + index]);
    for (let place = index; place < 3 * size; place += size) {
      const value = keepColors ? Math.min(Math.max(photo[place] + change, 0), 1) : result[place];
      result[place] = Math.min(Math.max(photo[place] * (1 - weight) + value * weight, 0), 1);
    }
  }
  return painted;
}

export function blendCodes(codes, weights) {
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return codes[0].map((_, place) => codes.reduce((total, code, n) => total + code[place] * weights[n] / sum, 0));
}
