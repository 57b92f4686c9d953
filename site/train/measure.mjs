// Trains from the seed in the address and sends what came of it to the server: in a page, or by `node measure.mjs ADDRESS`.
// `python -m tools.site --measure` serves this file next to live/ and train/.

import { trained } from "./live/safetensors.mjs";
import { sprint } from "./live/sprint.mjs";

/** address: of the folder that this file is in, followed by ?seed=K. */
async function measure(address, engine) {
  const get = async (name) => (await fetch(new URL(name, address))).arrayBuffer();
  const unpacked = async (file) => {
    const stream = new Blob([await get(`train/${file}`)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  const facts = JSON.parse(new TextDecoder().decode(await get("train/train.json")));
  const network = await sprint(await get("train/sprint.wasm"));
  network.load(await unpacked(facts.train.file), await unpacked(facts.test.file));
  const seed = Number(new URL(address).searchParams.get("seed"));
  const steps = network.start(seed, facts);
  const begun = performance.now();
  for (let step = 0; step < steps; step++) network.step();
  const seconds = (performance.now() - begun) / 1000;
  const total = network.images.test;
  let correct = 0;
  for (let first = 0; first < total; first += 128) correct += network.correct(first);
  const { mean, std } = facts;
  const file = trained(network.state(), steps, { seed, mean, std, correct, total });
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", file));
  const sha256 = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  await fetch(new URL("result", address), { method: "POST", body: JSON.stringify({ engine, seed, seconds, correct, total, sha256 }) });
}

if (globalThis.process) await measure(process.argv[2], `Node ${process.versions.node}`);
else await measure(location.href, navigator.userAgent.match(/(Firefox|Chrome)\/[\d.]+/)?.[0].replace("/", " ") ?? navigator.userAgent);
