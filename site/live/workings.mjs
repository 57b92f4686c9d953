// How one value of a block came about, written out from the network's own numbers: the page computes nothing that the network did not.

import { element, picture, shown } from "./picture.mjs";

/** The value at {channel, row, column} of a block, and elements that show how it was made. values: outputs by name; read: weights by place. */
export function workings(network, block, at, values, read) {
  const { data, shape } = values[block.output];
  const [, rows = 1, columns = 1] = shape;
  const value = data[(at.channel * rows + at.row) * columns + at.column];
  const before = block.from && values[block.from];
  const beside = block.and && values[block.and];
  const explain = { conv, pool, relu, norm, add, linear, mean, max, input, flatten, softmax }[block.kind];
  return { value: shown(value), made: explain({ network, block, at, before, beside, read, value }) };
}

const text = (content) => element("p", { textContent: content });

/** The values of a channel around a pixel that a kernel covers; zeros outside, as the padding has them. */
function windowOf({ data, shape }, channel, { row, column }, { kernel_size: [high, wide], stride, padding: [top, left] }, outside = 0) {
  const [, rows, columns] = shape;
  return Float32Array.from({ length: high * wide }, (_, i) => {
    const [y, x] = [row * stride - top + Math.floor(i / wide), column * stride - left + (i % wide)];
    return y < 0 || x < 0 || y >= rows || x >= columns ? outside : data[(channel * rows + y) * columns + x];
  });
}

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

function conv({ block, at, before, read, value }) {
  const kernel = read(block.kernel);
  const [outputs, channels, high, wide] = kernel.shape;
  const first = channels * Math.floor((at.channel * block.groups) / outputs); // of the maps below, those of its own group
  const rows = Array.from({ length: channels }, (_, i) => {
    const start = (at.channel * channels + i) * high * wide;
    const seen = windowOf(before, first + i, at, block);
    const weights = kernel.data.subarray(start, start + high * wide);
    return { channel: first + i, seen, weights, sum: dot(seen, weights) };
  });
  const total = rows.reduce((sum, row) => sum + row.sum, 0);
  const bias = read(block.bias)?.data[at.channel] ?? 0;
  const loudest = rows.reduce((most, row) => (Math.abs(row.sum) > Math.abs(most.sum) ? row : most));
  const list = element("ol", { className: "products" }, ...rows.map(({ channel, seen, weights, sum }) => {
    const multiplied = seen.map((value, i) => value * weights[i]);
    return element("li", {}, picture(seen, wide, `Window in map ${channel}`), " × ", picture(weights, wide, `Kernel for map ${channel}`),
      " = ", picture(multiplied, wide, `Products of map ${channel}`), element("span", { textContent: `sum ${shown(sum)}` }));
  }));
  const products = Array.from(loudest.seen, (seen, i) => `${shown(seen)} × ${shown(loudest.weights[i])}`).join(" + ");
  return [
    text(`The window in ${channels > 1 ? `each of the ${channels} maps` : `map ${first}`} below it, times the kernel, summed:`),
    list,
    text(`Sum ${shown(total)}${bias ? ` + bias ${shown(bias)} = ${shown(total + bias)}` : ""}; the network says ${shown(value)}.`),
    element("details", {}, element("summary", { textContent: `The products of map ${loudest.channel}` }), text(`${products} = ${shown(loudest.sum)}`)),
  ];
}

function pool({ block, at, before, value }) {
  const seen = windowOf(before, at.channel, at, block, -Infinity).map((found) => (found === -Infinity ? 0 : found));
  return [text("The largest of its window:"), element("p", {}, picture(seen, block.kernel_size[1], "Window")), text(`max(${Array.from(seen, shown).join(", ")}) = ${shown(value)}`)];
}

function relu({ at, before, value }) {
  const [, rows = 1, columns = 1] = before.shape;
  return [text(`max(0, ${shown(before.data[(at.channel * rows + at.row) * columns + at.column])}) = ${shown(value)}`)];
}

function norm({ block, at, before, read, value }) {
  const [, rows = 1, columns = 1] = before.shape;
  const seen = before.data[(at.channel * rows + at.row) * columns + at.column];
  const [scale, shift] = [block.scale, block.shift].map((place) => read(place).data[at.channel]);
  return [text(`Each map is scaled and shifted: ${shown(scale)} × ${shown(seen)} + ${shown(shift)} = ${shown(value)}`)];
}

function add({ at, before, beside, value }) {
  const [, rows = 1, columns = 1] = before.shape;
  const [one, other] = [before, beside].map(({ data }) => data[(at.channel * rows + at.row) * columns + at.column]);
  return [text(`The earlier map plus the output of the layers after it: ${shown(one)} + ${shown(other)} = ${shown(value)}`)];
}

/** Every input of a linear layer times its weight, as maps of the block below. */
function linear({ block, at, before, read, value }) {
  const { data, shape } = read(block.kernel);
  const weights = data.subarray(at.channel * shape[1], (at.channel + 1) * shape[1]);
  const products = before.data.map((seen, i) => seen * weights[i]);
  const [channels, rows = 1, columns = 1] = before.shape;
  const most = products.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  const bias = read(block.bias)?.data[at.channel] ?? 0;
  const sum = products.reduce((a, b) => a + b, 0);
  return [
    text(`Value times weight for each pixel of the ${channels} maps below: evidence for a ${at.channel} is white, and evidence against it is orange.`),
    element("div", { className: "products maps" }, ...Array.from({ length: channels }, (_, channel) =>
      picture(products.subarray(channel * rows * columns, (channel + 1) * rows * columns), columns, `Products of map ${channel}`, most))),
    text(`Sum ${shown(sum)} + bias ${shown(bias)} = ${shown(sum + bias)}; the network says ${shown(value)}.`),
  ];
}

const mean = ({ at, before, value }) => {
  const [, rows, columns] = before.shape;
  return [text(`The mean of the ${rows * columns} pixels of map ${at.channel} = ${shown(value)}`)];
};

const max = ({ at, before, value }) => {
  const [, rows, columns] = before.shape;
  return [text(`The largest of the ${rows * columns} pixels of map ${at.channel} = ${shown(value)}`)];
};

const input = ({ network: { normalization: { mean: middle, std } }, value }) => {
  const pixel = Math.round((value * std + middle) * 255);
  return [text(`(${pixel} ÷ 255 − ${middle.toFixed(4)}) ÷ ${std.toFixed(4)} = ${shown(value)}: the pixel, normalized.`)];
};

const softmax = ({ at, before, value }) => [text(`e^${shown(before.data[at.channel])}, divided by the sum of such powers of all ${before.data.length} values = ${shown(value)}`)];

const flatten = ({ at, value }) => [text(`The logit of the digit ${at.channel}: ${shown(value)}. The largest of the ten is the answer.`)];
