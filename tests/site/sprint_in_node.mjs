// node sprint_in_node.mjs SITE DIGITS SEED STEPS: trains as the page does. Prints what came of it as JSON, numbers as base64.
// DIGITS: what a file *.packed holds, not compressed; the digits are trained and tested on.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [site, digits, seed, steps] = process.argv.slice(2);
const { sprint } = await import(pathToFileURL(join(site, "live", "sprint.mjs")));
const network = await sprint(readFileSync(join(site, "train", "sprint.wasm")));
const content = readFileSync(digits);
network.load(content, content);
const total = network.start(Number(seed), { mean: 0.13, std: 0.31 });
const before = network.state();
const losses = Array.from({ length: Number(steps) }, () => network.step());
const base64 = (array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString("base64");
const packed = (tensors) => Object.fromEntries(Object.entries(tensors).map(([name, { shape, data }]) => [name, { shape, data: base64(data) }]));
const { logits, maps } = network.look(Uint8Array.from({ length: 784 }, (_, i) => (i * 37) % 256));
console.log(JSON.stringify({
  losses, total, logits: base64(logits), maps: maps.map(base64), correct: network.correct(0),
  batches: losses.map((_, step) => [...network.batch(step)]),
  rates: Array.from({ length: total }, (_, step) => network.learningRate(step)),
  before: packed(before), after: packed(network.state()), gradients: packed(network.gradients()),
}));
