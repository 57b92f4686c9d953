// A network of images, computed block by block as networks.json describes it.

/** Every block's output for 28 × 28 pixels, by name: {data, shape}. read: gives the weights at a place. */
export function forward({ blocks, normalization: { mean, std } }, pixels, read) {
  const values = {};
  for (const block of blocks) {
    const { kind, shape, crop } = block;
    const data = new Float32Array(shape.reduce((a, b) => a * b));
    if (kind === "input") data.forEach((_, i) => (data[i] = (pixels[(Math.floor(i / shape[2]) + crop) * 28 + (i % shape[2]) + crop] / 255 - mean) / std));
    else KINDS[kind](data, values[block.from], block, read, values[block.and]?.data);
    values[block.output] = { data, shape };
  }
  return values;
}

/** Σ weights[at + i] · seen[i]; four sums at a time, none of which waits for another. */
function dot(weights, at, seen) {
  let [a, b, c, d, i] = [0, 0, 0, 0, 0];
  for (; i < seen.length - 3; i += 4) {
    a += weights[at + i] * seen[i];
    b += weights[at + i + 1] * seen[i + 1];
    c += weights[at + i + 2] * seen[i + 2];
    d += weights[at + i + 3] * seen[i + 3];
  }
  for (; i < seen.length; i++) a += weights[at + i] * seen[i];
  return a + b + c + d;
}

function conv(to, { data: from, shape: [, height, width] }, { shape: [filters, rows, columns], kernel, bias, stride, padding: [top, left], groups }, read) {
  const { data: weights, shape: [, channels, high, wide] } = read(kernel);
  const offsets = read(bias)?.data;
  const [size, taps, each] = [rows * columns, channels * high * wide, filters / groups];
  if (offsets) for (let filter = 0; filter < filters; filter++) to.fill(offsets[filter], filter * size, (filter + 1) * size);
  for (let filter = 0; filter < filters; filter += each % 4 ? 1 : 4) {
    const first = Math.floor(filter / each) * channels; // of its own group's maps
    for (let channel = 0; channel < channels; channel++)
      for (let row = 0; row < high; row++)
        for (let column = 0; column < wide; column++) {
          const at = filter * taps + (channel * high + row) * wide + column;
          const begin = Math.max(0, Math.ceil((left - column) / stride));
          const end = Math.min(columns, Math.floor((width - 1 + left - column) / stride) + 1);
          for (let y = 0; y < rows; y++) {
            const fromY = y * stride + row - top;
            if (fromY < 0 || fromY >= height) continue;
            const source = ((first + channel) * height + fromY) * width + column - left;
            const target = filter * size + y * columns;
            if (each % 4) one(to, target, begin, end, from, source, stride, weights[at]);
            else four(to, target, size, begin, end, from, source, stride, weights[at], weights[at + taps], weights[at + 2 * taps], weights[at + 3 * taps]);
          }
        }
  }
}

function one(to, target, begin, end, from, source, stride, weight) {
  for (let x = begin; x < end; x++) to[target + x] += weight * from[source + x * stride];
}

/** The same row of four maps, which see the same values. */
function four(to, target, size, begin, end, from, source, stride, a, b, c, d) {
  for (let x = begin; x < end; x++) {
    const value = from[source + x * stride];
    to[target + x] += a * value;
    to[target + size + x] += b * value;
    to[target + 2 * size + x] += c * value;
    to[target + 3 * size + x] += d * value;
  }
}

function pool(to, { data: from, shape: [, height, width] }, { shape: [, rows, columns], kernel_size: [high, wide], stride, padding: [top, left] }) {
  for (let i = 0; i < to.length; i++) {
    const [channel, y, x] = [Math.floor(i / (rows * columns)), (Math.floor(i / columns) % rows) * stride - top, (i % columns) * stride - left];
    to[i] = -Infinity;
    for (let row = Math.max(0, y); row < Math.min(height, y + high); row++)
      for (let column = Math.max(0, x); column < Math.min(width, x + wide); column++)
        to[i] = Math.max(to[i], from[(channel * height + row) * width + column]);
  }
}

function norm(to, { data: from }, { shape: [channels], scale, shift }, read) {
  const [factors, offsets, size] = [read(scale).data, read(shift).data, to.length / channels];
  for (let i = 0; i < to.length; i++) to[i] = factors[Math.floor(i / size)] * from[i] + offsets[Math.floor(i / size)];
}

function linear(to, { data: from }, { kernel, bias }, read) {
  const [weights, offsets] = [read(kernel).data, read(bias)?.data];
  for (let k = 0; k < to.length; k++) to[k] = (offsets?.[k] ?? 0) + dot(weights, k * from.length, from);
}

/** Probabilities of ten logits. */
export function softmax(logits) {
  const most = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

/** Each channel's map → one number. */
const overMap = (start, step, end) => (to, { data: from }) => {
  const size = from.length / to.length;
  for (let k = 0; k < to.length; k++) to[k] = end(from.subarray(k * size, (k + 1) * size).reduce(step, start), size);
};

const KINDS = {
  conv, pool, norm, linear,
  relu: (to, { data: from }) => from.forEach((value, i) => (to[i] = Math.max(0, value))),
  add: (to, { data: from }, _block, _read, other) => from.forEach((value, i) => (to[i] = value + other[i])),
  flatten: (to, { data: from }) => to.set(from),
  softmax: (to, { data: from }) => to.set(softmax(from)),
  mean: overMap(0, (a, b) => a + b, (sum, size) => sum / size),
  max: overMap(-Infinity, (a, b) => Math.max(a, b), (most) => most),
};
