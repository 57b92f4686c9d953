// The network `sprint` while it trains: WebAssembly, compiled from site/train/sprint.c. Runs in a worker, and in Node for the tests.

const [BATCH, TRAIN, TEST, SIDE, PARAMETERS] = [128, 33000, 10000, 24, 40112]; // as in sprint.c
const MATRICES = 39872; // numbers of all kernels
const CHANNELS = [16, 32, 64];
// Kernels in the order of sprint.c: name in utils/models.py, shape there, and how many input and output channels sprint.c has for each tap
const KERNELS = [
  { name: "1.weight", shape: [16, 1, 5, 5], padded: [1, 16], rest: 3 * 16 }, // 3 taps more than 25
  { name: "4.weight", shape: [32, 16, 3, 3], padded: [16, 32] },
  { name: "8.weight", shape: [64, 32, 3, 3], padded: [32, 64] },
  { name: "13.weight", shape: [10, 64, 4, 4], padded: [64, 16] },
];
const VECTORS = [["2.weight", 16], ["2.bias", 16], ["6.weight", 32], ["6.bias", 32], ["9.weight", 64], ["9.bias", 64], ["13.bias", 10]];

/** A function that gives 32 random bits (splitmix32); whole numbers only, so that each engine gives the same. */
function randomBits(state) {
  return () => {
    let z = (state = (state + 0x9e3779b9) | 0);
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return (z ^ (z >>> 15)) >>> 0;
  };
}

/** A network that can be trained. binary: sprint.wasm's bytes. */
export async function sprint(binary) {
  const { instance: { exports: c } } = await WebAssembly.instantiate(binary);
  const bytes = (place, length) => new Uint8Array(c.memory.buffer, place, length);
  const floats = (place, length) => new Float32Array(c.memory.buffer, place, length);
  const whole = (place, length) => new Int32Array(c.memory.buffer, place, length);
  const [logits, ...maps] = new Uint32Array(c.memory.buffer, c.outputs.value, 4);
  /** The running mean and variance of a batch norm, with room for 64 channels each. */
  const running = (layer) => [0, 64].map((next) => floats(c.statistics.value + 4 * (256 * layer + next), 64));
  const images = { train: 0, test: 0 };

  /** The kernels, or their gradients, where they are: each with `from`, as [tap][input][output]. */
  function kernels(place) {
    return KERNELS.map((kernel) => {
      const from = floats(place, kernel.padded.reduce((a, b) => a * b, kernel.shape[2] * kernel.shape[3]));
      place += 4 * (from.length + (kernel.rest ?? 0));
      return { ...kernel, from };
    });
  }

  /** The vectors, or their gradients, where they are: [name, data]. */
  function vectors(place) {
    place += 4 * MATRICES;
    return VECTORS.map(([name, length]) => [name, floats((place += 4 * length) - 4 * length, length)]);
  }

  /** Put digits into the memory, from `first` on. content: all labels, then the pixels of all images, two in a byte. */
  function put(content, first) {
    const count = content.length / (1 + SIDE ** 2 / 2);
    bytes(c.labels.value + first, count).set(content.subarray(0, count));
    const gray = bytes(c.images.value + first * SIDE ** 2, count * SIDE ** 2);
    for (let i = 0; i < gray.length; i++) gray[i] = 17 * ((content[count + (i >> 1)] >> (i & 1 ? 0 : 4)) & 15); // of 16 levels
    return count;
  }

  /** The parameters, or their gradients, as PyTorch has them: name → {shape, data}. */
  function tensors(place) {
    const found = {};
    for (const { name, shape, padded: [inputs, outputs], from } of kernels(place)) {
      const taps = shape[2] * shape[3];
      const data = new Float32Array(shape.reduce((a, b) => a * b)); // [output][input][tap], from [tap][input][output]
      data.forEach((_, i) => (data[i] = from[((i % taps) * inputs + (Math.floor(i / taps) % shape[1])) * outputs + Math.floor(i / taps / shape[1])]));
      found[name] = { shape: name === "13.weight" ? [10, 1024] : shape, data };
    }
    for (const [name, data] of vectors(place)) found[name] = { shape: [data.length], data: data.slice() };
    return found;
  }

  /** Weights uniformly distributed from −bound to bound, PyTorch's default; the order of the images; and all else that a step reads. */
  function start(seed, { mean, std }) {
    const random = randomBits(seed);
    const randomize = (data, inputs) => {
      const bound = Math.fround(1 / Math.fround(Math.sqrt(inputs)));
      data.forEach((_, i) => (data[i] = ((random() >>> 8) / 2 ** 23 - 1) * bound));
    };
    for (const { shape: [filters, channels, high, wide], padded: [, outputs], from } of kernels(c.network.value))
      for (let i = 0; i < from.length; i += outputs) randomize(from.subarray(i, i + filters), channels * high * wide);
    for (const [name, data] of vectors(c.network.value))
      if (name === "13.bias") randomize(data, 1024);
      else data.fill(name.endsWith("weight"));
    for (const layer of CHANNELS.keys()) running(layer).forEach((data, is_variance) => data.fill(is_variance));
    floats(c.velocities.value, PARAMETERS).fill(0);
    [mean, std] = [mean, std].map(Math.fround);
    floats(c.tones.value, 256).forEach((_, tone, all) => (all[tone] = Math.fround(Math.fround(tone / 255) - mean) / std));
    const order = whole(c.order.value, images.train);
    order.forEach((_, i) => (order[i] = i));
    for (let i = order.length - 1; i > 0; i--) {
      const other = Math.floor((random() * (i + 1)) / 2 ** 32);
      [order[i], order[other]] = [order[other], order[i]];
    }
    const steps = Math.floor(images.train / BATCH);
    whole(c.step_number.value, 1)[0] = 0;
    whole(c.step_count.value, 1)[0] = steps;
    return steps;
  }

  return {
    /** train, test: what the files *.packed hold. */
    load(train, test) {
      [images.train, images.test] = [put(train, 0), put(test, TRAIN)];
    },
    /** New weights by a seed. Returns how many steps a training takes. mean, std: of all training pixels, from 0 to 1. */
    start,
    /** A step of training: returns the loss of its batch. */
    step: () => c.step(),
    learningRate: (step) => c.learning_rate(step),
    /** The images of a step, as places in the training set. */
    batch: (step) => whole(c.order.value + 4 * BATCH * step, BATCH).slice(),
    gradients: () => tensors(c.gradients.value),
    /** How many of the next test images, up to a batch of them, are read right. */
    correct(first) {
      const labels = bytes(c.labels.value + TRAIN + first, Math.min(BATCH, images.test - first));
      c.predict(TRAIN + first, labels.length);
      const read = (row) => best(floats(logits + 64 * row, 10));
      return labels.reduce((right, label, row) => right + (read(row) === label), 0);
    },
    images,
    /** What the network makes of 28 × 28 pixels: ten logits, and its maps after each ReLU, as [pixel][channel]. */
    look(pixels) {
      const image = bytes(c.images.value + (TRAIN + TEST) * SIDE ** 2, SIDE ** 2);
      image.forEach((_, i) => (image[i] = pixels[(Math.floor(i / SIDE) + 2) * 28 + (i % SIDE) + 2]));
      c.predict(TRAIN + TEST, 1);
      const shown = CHANNELS.map((channels, layer) => {
        const from = floats(maps[layer], (layer ? 16 : 100) * BATCH * channels);
        return Float32Array.from({ length: from.length / BATCH }, (_, i) => from[Math.floor(i / channels) * BATCH * channels + (i % channels)]);
      });
      return { logits: floats(logits, 10).slice(), maps: shown };
    },
    /** The state dict: PyTorch's names → {shape, data}. */
    state() {
      const found = tensors(c.network.value);
      ["2", "6", "9"].forEach((name, layer) => {
        const [mean, variance] = running(layer).map((data) => data.slice(0, CHANNELS[layer]));
        found[`${name}.running_mean`] = { shape: [CHANNELS[layer]], data: mean };
        found[`${name}.running_var`] = { shape: [CHANNELS[layer]], data: variance };
      });
      return found;
    },
  };
}

const best = (values) => values.indexOf(Math.max(...values));
