// The published networks, fetched from this site when they are needed: those of images run by layers.mjs, those of voxels by onnxruntime-web.

import { forward } from "./layers.mjs";

const ROOT = new URL("../", import.meta.url);
const FILES = new URL("networks/", ROOT);

const json = async (name) => (await answered(name)).json();
async function answered(name) {
  const response = await fetch(new URL(name, FILES));
  if (!response.ok) throw new Error(`${name}: the server answered ${response.status}`);
  return response;
}

const results = new Map();
/** What `work` resolves to, which runs once for a key; after a failure, the next call runs it again. */
function once(key, work) {
  if (!results.has(key)) results.set(key, work().catch((error) => { results.delete(key); throw error; }));
  return results.get(key);
}

/** networks.json */
export const catalogue = () => once("networks.json", () => json("networks.json"));

let tries = 0; // a browser, or the runtime itself, may keep a failure by its address
const onnxruntime = (progress) => once("runtime", async () => {
  const binary = await received(await answered("../vendor/ort/ort-wasm-simd-threaded.wasm"), progress);
  const ort = await import(new URL(`vendor/ort/ort.wasm.min.mjs${tries++ ? `?${tries}` : ""}`, ROOT).href);
  Object.assign(ort.env.wasm, { numThreads: 1, wasmPaths: new URL("vendor/ort/", ROOT).href, wasmBinary: binary });
  return ort;
});

/** A response's bytes; progress is called with how many have come. */
async function received(response, progress) {
  const [reader, parts] = [response.body.getReader(), []];
  for (let count = 0, part; !(part = await reader.read()).done; ) {
    parts.push(part.value);
    progress((count += part.value.length));
  }
  return new Blob(parts).arrayBuffer();
}

const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** The SHA-256 of bytes, or nothing where the browser can't compute it: on a page that came without encryption. */
export const sha256Of = async (bytes) => globalThis.crypto?.subtle && hex(await crypto.subtle.digest("SHA-256", bytes));

/** A network's file; progress is called with how many bytes have come. Its SHA-256 is compared with the one in networks.json if the browser can compute it. */
async function checked(network, { file, sha256 }, progress = () => {}) {
  const bytes = await received(await answered(file), progress);
  network.checked = await matches(bytes, file, sha256);
  return bytes;
}

async function matches(bytes, file, sha256) {
  const found = await sha256Of(bytes);
  if (found && found !== sha256) throw new Error(`${file} has the SHA-256 ${found.slice(0, 12)}…, not the published one`);
  return Boolean(found);
}

/** train.json: what there is to train with. */
export const training = () => once("train.json", () => json("../train/train.json"));

/** The program and the digits that training needs: {binary, train, test}. progress: called with how many bytes have come, of how many. */
export async function trainingFiles({ train, test }, progress) {
  let done = 0;
  const digits = async ({ file, bytes, sha256 }) => {
    const packed = await received(await answered(`../train/${file}`), (count) => progress(done + count, train.bytes + test.bytes));
    done += bytes;
    await matches(packed, file, sha256);
    return new Uint8Array(await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
  };
  const binary = await (await answered("../train/sprint.wasm")).arrayBuffer();
  return { binary, train: await digits(train), test: await digits(test) };
}

/** A network's session in onnxruntime-web. progress: called with how many bytes of the runtime have come. */
export const session = (network, progress = () => {}) => once(network.onnx.file, async () => {
  const [ort, bytes] = await Promise.all([onnxruntime(progress), checked(network, network.onnx)]);
  try {
    return { ort, session: await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] }) };
  } catch (error) {
    results.delete("runtime"); // it can't be started twice
    throw error;
  }
});

let last = Promise.resolve();
/** Outputs of a session for one input, or several one after the other in `data`: {name: {data, dims}}. Calls wait for each other. */
export function run(network, data, outputs = ["logits"]) {
  const { name, dtype, shape } = network.input;
  const size = shape.reduce((a, b) => a * b);
  const call = async () => {
    const { ort, session: ready } = await session(network);
    return ready.run({ [name]: new ort.Tensor(dtype, data, [data.length / size, ...shape]) }, outputs);
  };
  return (last = last.then(call, call));
}

export const best = (values) => values.indexOf(Math.max(...values));

/** A function that gives {data, shape} of what a block says about its kernel, bias, scale or shift. A network of the reader's own holds
 * its `values`. progress: called with how many bytes have come. */
export async function parameters(network, progress) {
  const all = network.values ?? await once(network.weights.file, async () => new Float32Array(await checked(network, network.weights, progress)));
  return (place) => place && { shape: place.shape, data: all.subarray(place.offset, place.offset + place.shape.reduce((a, b) => a * b)) };
}

/** Every block's output of a network of images, by name: {data, shape}. */
export const outputs = async (network, pixels) => forward(network, pixels, await parameters(network));

/** Test digits to choose from: {labels, indices, digit(i)}. */
export const testDigits = () => once("digits", async () => {
  const { digits: files } = await catalogue();
  const [{ labels, indices }, response] = await Promise.all([json(files.labels), answered(files.images)]);
  const pixels = new Uint8Array(await response.arrayBuffer());
  return { labels, indices, digit: (i) => ({ pixels: pixels.slice(i * 784, (i + 1) * 784), label: labels[i], index: indices[i] }) };
});
