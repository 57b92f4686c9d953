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

function conv(to, { data: from, shape: [, height, width] }, { shape: [filters, rows, columns], kernel, bias, stride, padding: [top, left], groups }, read) {
  const { data: weights, shape: [, channels, high, wide] } = read(kernel);
  const offsets = read(bias)?.data;
  let next = 0;
  for (let filter = 0; filter < filters; filter++) {
    const start = filter * rows * columns;
    if (offsets) to.fill(offsets[filter], start, start + rows * columns);
    const first = Math.floor((filter * groups) / filters) * channels; // of its own group's maps
    for (let channel = first; channel < first + channels; channel++)
      for (let row = 0; row < high; row++)
        for (let column = 0; column < wide; column++) {
          const weight = weights[next++];
          const begin = Math.max(0, Math.ceil((left - column) / stride));
          const end = Math.min(columns, Math.floor((width - 1 + left - column) / stride) + 1);
          for (let y = 0; y < rows; y++) {
            const fromY = y * stride + row - top;
            if (fromY < 0 || fromY >= height) continue;
            const source = (channel * height + fromY) * width + column - left;
            for (let x = begin; x < end; x++) to[start + y * columns + x] += weight * from[source + x * stride];
          }
        }
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
  for (let k = 0; k < to.length; k++) to[k] = from.reduce((sum, value, i) => sum + value * weights[k * from.length + i], offsets?.[k] ?? 0);
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
  mean: overMap(0, (a, b) => a + b, (sum, size) => sum / size),
  max: overMap(-Infinity, (a, b) => Math.max(a, b), (most) => most),
};
