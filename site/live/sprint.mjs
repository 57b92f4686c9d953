// The network `sprint` while it trains: WebAssembly, compiled from site/train/sprint.c. Runs in a worker, and in Node for the tests.

const [BATCH, TRAIN, PACKED] = [128, 33000, 288]; // as in sprint.c: images of a batch, places for training images, bytes of an image
const CHANNELS = [16, 32, 64];
// Kernels in the order of sprint.c: name in utils/models.py, shape there, and how many input and output channels sprint.c has for each tap
const KERNELS = [
  { name: "1.weight", shape: [16, 1, 5, 5], padded: [1, 16], rest: 3 * 16 }, // 3 taps more than 25
  { name: "4.weight", shape: [32, 16, 3, 3], padded: [16, 32] },
  { name: "8.weight", shape: [64, 32, 3, 3], padded: [32, 64] },
  { name: "13.weight", shape: [10, 64, 4, 4], padded: [64, 16] },
];
const VECTORS = [["2.weight", 16], ["2.bias", 16], ["6.weight", 32], ["6.bias", 32], ["9.weight", 64], ["9.bias", 64], ["13.bias", 10]];

/** A network that can be trained. binary: sprint.wasm's bytes. */
export async function sprint(binary) {
  const { instance: { exports: c } } = await WebAssembly.instantiate(binary);
  const bytes = (place, length) => new Uint8Array(c.memory.buffer, place, length);
  const floats = (place, length) => new Float32Array(c.memory.buffer, place, length);
  const images = { train: 0, test: 0 };

  /** Put digits into the memory, from `first` on. content: all labels, then the packed pixels of all images. */
  function put(content, first) {
    const count = content.length / (1 + PACKED);
    bytes(c.labels() + first, count).set(content.subarray(0, count));
    bytes(c.images() + first * PACKED, count * PACKED).set(content.subarray(count));
    return count;
  }

  /** The parameters, or their gradients, as PyTorch has them: name → {shape, data}. */
  function tensors(place) {
    const found = {};
    for (const { name, shape, padded: [inputs, outputs], rest = 0 } of KERNELS) {
      const taps = shape[2] * shape[3];
      const from = floats(place, taps * inputs * outputs);
      const data = new Float32Array(shape.reduce((a, b) => a * b)); // [output][input][tap], from [tap][input][output]
      data.forEach((_, i) => (data[i] = from[((i % taps) * inputs + (Math.floor(i / taps) % shape[1])) * outputs + Math.floor(i / taps / shape[1])]));
      found[name] = { shape: name === "13.weight" ? [10, 1024] : shape, data };
      place += 4 * (from.length + rest);
    }
    for (const [name, length] of VECTORS) {
      found[name] = { shape: [length], data: floats(place, length).slice() };
      place += 4 * length;
    }
    return found;
  }

  return {
    /** train, test: what the files *.packed hold. */
    load(train, test) {
      [images.train, images.test] = [put(train, 0), put(test, TRAIN)];
    },
    /** New weights by a seed. Returns how many steps a training takes. */
    start: (seed, { mean, std }) => c.start(seed, images.train, mean, std),
    /** A step of training: returns the loss of its batch. */
    step: () => c.step(),
    learningRate: (step) => c.learning_rate(step),
    /** The images of a step, as places in the training set. */
    batch: (step) => new Int32Array(c.memory.buffer, c.order() + 4 * BATCH * step, BATCH).slice(),
    gradients: () => tensors(c.gradients()),
    /** How many of the next test images, up to a batch of them, are read right. */
    correct: (first) => c.correct(TRAIN + first, Math.min(BATCH, images.test - first)),
    images,
    /** What the network makes of 28 × 28 pixels: ten logits, and its maps after each ReLU, as [pixel][channel]. */
    look(pixels) {
      bytes(c.drawing(), 784).set(pixels);
      c.look();
      const maps = CHANNELS.map((channels, layer) => {
        const from = floats(c.maps(layer), (layer ? 16 : 100) * BATCH * channels);
        return Float32Array.from({ length: from.length / BATCH }, (_, i) => from[Math.floor(i / channels) * BATCH * channels + (i % channels)]);
      });
      return { logits: floats(c.logits(), 10).slice(), maps };
    },
    /** The state dict: PyTorch's names → {shape, data}. */
    state() {
      const found = tensors(c.weights());
      ["2", "6", "9"].forEach((name, i) => {
        const [mean, variance] = [0, 64].map((next) => floats(c.statistics(i) + 4 * next, CHANNELS[i]).slice());
        found[`${name}.running_mean`] = { shape: [CHANNELS[i]], data: mean };
        found[`${name}.running_var`] = { shape: [CHANNELS[i]], data: variance };
      });
      return found;
    },
  };
}
