// A state dict as a file: https://github.com/huggingface/safetensors. The length of a header in JSON, the header, and all numbers.

/** tensors: name → {shape, data: Float32Array or BigInt64Array}; facts: name → text. Returns a Uint8Array. */
export function safetensors(tensors, facts) {
  // those of eight bytes first, so that each begins at a multiple of its size
  const all = Object.entries(tensors).sort(([, a], [, b]) => b.data.BYTES_PER_ELEMENT - a.data.BYTES_PER_ELEMENT);
  const header = { __metadata__: facts };
  let end = 0;
  for (const [name, { shape, data }] of all)
    header[name] = { dtype: data instanceof BigInt64Array ? "I64" : "F32", shape, data_offsets: [end, (end += data.byteLength)] };
  const text = new TextEncoder().encode(JSON.stringify(header));
  const length = Math.ceil(text.length / 8) * 8; // filled up with spaces
  const file = new Uint8Array(8 + length + end).fill(32, 8, 8 + length);
  new DataView(file.buffer).setBigUint64(0, BigInt(length), true);
  file.set(text, 8);
  for (const [name, { data }] of all) file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), 8 + length + header[name].data_offsets[0]);
  return file;
}

/** The file of a network that has been trained: load_pretrained of the course reads it. state: of sprint.mjs. steps: how many it was trained for.
 * facts: seed, mean and std of the pixels, and how many (correct) of all test images (total) are right. */
export function trained(state, steps, facts) {
  const tracked = ["2", "6", "9"].map((name) => [`${name}.num_batches_tracked`, { shape: [], data: BigInt64Array.of(BigInt(steps)) }]);
  const text = Object.entries({ model: "sprint", ...facts }).map(([name, value]) => [name, String(value)]);
  return safetensors({ ...state, ...Object.fromEntries(tracked) }, Object.fromEntries(text));
}
