// The published networks by onnxruntime-web: fetched from this site at the first stroke, run one after the other on one thread.

const ROOT = new URL("../", import.meta.url);
const FILES = new URL("networks/", ROOT);

const json = async (name) => (await answered(name)).json();
async function answered(name) {
  const response = await fetch(new URL(name, FILES));
  if (!response.ok) throw new Error(`${name}: the server answered ${response.status}`);
  return response;
}

let listed;
/** networks.json, fetched once. */
export const catalogue = () => (listed ??= json("networks.json"));

let runtime;
function onnxruntime() {
  return (runtime ??= import(new URL("vendor/ort/ort.wasm.min.mjs", ROOT).href).then((ort) => {
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = new URL("vendor/ort/", ROOT).href;
    return ort;
  }));
}

const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");

const opened = new Map();
/** A network's session; its file's SHA-256 is compared with the one that networks.json states wherever the browser can compute it. */
export function session(network) {
  if (!opened.has(network.name)) opened.set(network.name, open(network));
  return opened.get(network.name);
}

async function open(network) {
  const [ort, response] = await Promise.all([onnxruntime(), answered(network.onnx.file)]);
  const bytes = await response.arrayBuffer();
  if (globalThis.crypto?.subtle) {
    const found = hex(await crypto.subtle.digest("SHA-256", bytes));
    if (found !== network.onnx.sha256) throw new Error(`${network.onnx.file} has the SHA-256 ${found.slice(0, 12)}…, not the published one`);
    network.checked = true;
  }
  return { ort, session: await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] }) };
}

let last = Promise.resolve();
/** Outputs of a network for one input, or several one after the other in `data`: {name: {data, dims}}. Calls wait for each other. */
export function run(network, data, outputs = ["logits"]) {
  const { name, dtype, shape } = network.input;
  const size = shape.reduce((a, b) => a * b);
  const call = async () => {
    const { ort, session: ready } = await session(network);
    return ready.run({ [name]: new ort.Tensor(dtype, data, [data.length / size, ...shape]) }, outputs);
  };
  return (last = last.then(call, call));
}

/** Probabilities of ten logits. */
export function softmax(logits) {
  const most = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

export const best = (values) => values.indexOf(Math.max(...values));

const weights = new Map();
/** A function that gives {data, shape} of what a block says about its kernel, bias, scale or shift. */
export async function parameters(network) {
  if (!weights.has(network.name)) weights.set(network.name, answered(network.weights.file).then((response) => response.arrayBuffer()));
  const all = new Float32Array(await weights.get(network.name));
  return (place) => place && { shape: place.shape, data: all.subarray(place.offset, place.offset + place.shape.reduce((a, b) => a * b)) };
}

let digits;
/** Test digits to choose from: {labels, image(i)}. */
export function testDigits() {
  digits ??= catalogue().then(async ({ digits: files }) => {
    const [{ labels, indices }, response] = await Promise.all([json(files.labels), answered(files.images)]);
    const pixels = new Uint8Array(await response.arrayBuffer());
    return { labels, indices, image: (i) => pixels.slice(i * 784, (i + 1) * 784) };
  });
  return digits;
}
