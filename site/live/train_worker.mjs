// Trains away from the page's own thread: each message asks for one thing, and gets one answer.

import { sprint } from "./sprint.mjs";

let network;

const calls = {
  async load({ binary, train, test }) {
    network = await sprint(binary);
    network.load(train, test);
  },
  start: ({ seed, normalization }) => network.start(seed, normalization),
  /** Steps for about so many milliseconds, at most `most` of them. Returns their losses. */
  train({ milliseconds, most }) {
    const [end, losses] = [performance.now() + milliseconds, []];
    while (losses.length < most && performance.now() < end) losses.push(network.step());
    return losses;
  },
  /** The filters, and what the network makes of the pixels, if there are any. */
  look: ({ pixels }) => ({ filters: network.state()["1.weight"].data, ...(pixels && network.look(pixels)) }),
  /** Read the next test images from `first` on, at most a batch: how many are right. */
  test: ({ first }) => network.correct(first),
  state: () => network.state(),
};

onmessage = async ({ data: { call, ...values } }) => {
  try {
    postMessage({ result: await calls[call](values) });
  } catch (error) {
    postMessage({ error: error.message });
  }
};
