// Training in this page: a worker trains the network `sprint` from a seed, and the tab shows how the network changes.

import { bars } from "./bars.mjs";
import { softmax } from "./layers.mjs";
import { lossCurve } from "./loss_curve.mjs";
import { sha256Of, training, trainingFiles } from "./networks.mjs";
import { sprintValues } from "./own.mjs";
import { element, largest, paint } from "./picture.mjs";
import { trained } from "./safetensors.mjs";

const [BATCH, SEEDS] = [128, 2 ** 32]; // images of a step; seeds run from 0 to 2³² − 1
const TILES = [["Filters of the first layer, 5×5 pixels", 16], ["Their maps of your digit, 10×10", 16], ["Maps of the second layer, 4×4", 32]];
const count = (number) => number.toLocaleString("en");
const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

/** Build the tab; returns show(image or null). like: the published network of the same architecture, if there is one; join: called with the
 * entry of each network that has been trained. */
export async function train(place, like, join) {
  const facts = await training();
  if (!facts.train || !like) {
    place.append(element("p", { textContent: `This build of the pages cannot train: it was made with ${facts.data}, and needs all of MNIST. `
      + "Build it again where MNIST can be downloaded, or with COURSE_DATA." }));
    return () => {};
  }
  const shown = view(place, facts, like);
  const { form, seed, go, stop, progress, say } = shown;
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let [image, worker, running, held, stopped, goOn] = [null, null, false, false, false, () => {}];

  form.onsubmit = (event) => {
    event.preventDefault();
    if (running) hold(!held);
    else run(Number(seed.value));
  };
  stop.onclick = () => {
    hold(false, true);
    say("Stopping …");
  };

  /** Pause or go on; end: stop for good. */
  function hold(wanted, end = false) {
    if (wanted && stopped) return;
    [held, stopped] = [wanted, end];
    go.textContent = held ? "Go on" : "Pause";
    if (!held) goOn();
  }

  /** Wait while the training is paused. Resolves to whether it goes on. */
  async function isGoingOn() {
    if (held) {
      say("Paused."); // only now: the steps that were under way have ended
      await new Promise((resolve) => (goOn = resolve));
    }
    return !stopped;
  }

  async function run(chosen) {
    [running, stop.disabled, form.noValidate] = [true, false, true]; // what is in the field does not keep from pausing
    shown.offer(null);
    hold(false);
    try {
      worker ??= await loaded();
      const steps = await worker.ask("start", { seed: chosen, normalization: facts });
      const seconds = await trainSteps(chosen, steps);
      const correct = stopped ? 0 : await readTestImages();
      if (!stopped) await finish({ chosen, steps, seconds, correct });
    } catch (error) {
      say(`That did not work: ${error.message}. “Start” tries again.`);
      worker?.end();
      worker = null;
    }
    if (document.activeElement === stop) go.focus(); // a disabled button loses the focus
    [running, stop.disabled, form.noValidate, go.textContent] = [false, true, false, "Start"];
  }

  async function loaded() {
    say("Loading the digits …");
    const files = await trainingFiles(facts, (bytes, of) => (progress.value = bytes / of));
    const made = assistant();
    await made.ask("load", files).catch((error) => { made.end(); throw error; });
    return made;
  }

  /** Train to the end, or until it is stopped. Returns the seconds that it took, without pauses. */
  async function trainSteps(chosen, total) {
    const losses = [];
    let seconds = 0;
    while (losses.length < total && (await isGoingOn())) {
      say(`Training with seed ${chosen} …`);
      const begun = performance.now();
      losses.push(...(await worker.ask("train", { milliseconds: calm.matches ? 1000 : 100, most: total - losses.length })));
      await look();
      seconds += (performance.now() - begun) / 1000;
      progress.value = losses.length / total;
      shown.curve.show(losses, total);
    }
    if (stopped) say(`Stopped after step ${losses.length} of ${total}.`);
    return seconds;
  }

  /** How many test images are read right, unless that is stopped. */
  async function readTestImages() {
    const { images } = facts.test;
    let correct = 0;
    for (let first = 0; first < images && (await isGoingOn()); first += BATCH) {
      say("Reading the test images …");
      correct += await worker.ask("test", { first });
      progress.value = Math.min(1, (first + BATCH) / images);
    }
    if (stopped) say("Stopped before all test images were read.");
    return correct;
  }

  /** Offer a network that has been trained: as a file, and to the other tabs. */
  async function finish({ chosen, steps, seconds, correct }) {
    const [state, { mean, std, test: { images: total } }] = [await worker.ask("state"), facts];
    const accuracy = (100 * correct) / total;
    const values = sprintValues(like, state);
    join({ ...like, name: "your network", about: `seed ${chosen}`, normalization: { mean, std }, correct, total, accuracy, values });
    await shown.offer(trained(state, steps, { seed: chosen, mean, std, correct, total }), `sprint_seed_${chosen}.safetensors`);
    say(`${accuracy.toFixed(2)} % of MNIST’s test images are classified correctly: ${count(correct)} of ${count(total)}, after ${seconds.toFixed(1)} s of training. `
      + "The network now answers in the “Answers” tab, too.");
  }

  const look = async () => shown.look(await worker.ask("look", { pixels: image }));
  return async (wanted) => {
    image = wanted;
    if (worker && (!running || held)) await look(); // a training that runs looks at it soon
  };
}

/** A worker that answers one question after the other. */
function assistant() {
  const worker = new Worker(new URL("train_worker.mjs", import.meta.url), { type: "module" });
  let last = Promise.resolve();
  return {
    ask(call, values) {
      const question = () => new Promise((resolve, reject) => {
        worker.onmessage = ({ data: { result, error } }) => (error ? reject(new Error(error)) : resolve(result));
        worker.onerror = () => reject(new Error("the browser could not start the worker"));
        worker.postMessage({ call, ...values });
      });
      return (last = last.then(question, question));
    },
    end: () => worker.terminate(),
  };
}

/** What the tab shows: its elements, and functions that fill them. */
function view(place, facts, like) {
  const quiet = (...children) => element("p", { className: "quiet" }, ...children);
  const seed = element("input", { id: "seed", type: "number", min: 0, max: SEEDS - 1, step: 1, value: 1, required: true });
  const another = element("button", { type: "button", textContent: "Another seed", onclick: () => (seed.value = Math.floor(Math.random() * SEEDS)) });
  const go = element("button", { type: "submit", id: "go", textContent: "Start" });
  const stop = element("button", { type: "button", textContent: "Stop", disabled: true });
  const form = element("form", { className: "controls" }, element("label", { for: "seed", textContent: "Seed" }), seed, another, go, stop);
  const progress = element("progress", { max: 1, value: 0, "aria-label": "Progress" });
  const said = element("p", { role: "status", className: "said" });
  const [download, hash, command] = [element("a", { textContent: "Download its state dict" }), element("code"), element("code")];
  const file = quiet(download, ", for ", command, " in the course. SHA-256: ", hash, ". A seed gives the same file in each browser.");
  const [curve, chart] = [lossCurve(), bars("The network in training")];
  const hint = quiet("Draw a digit, or take one of the test set: you then see how the network’s answer and its maps change.");
  const tiles = TILES.map(([title, number]) => {
    const canvases = Array.from({ length: number }, () => element("canvas", { className: "pixels" }));
    const grid = element("div", { className: "tiles", role: "img", "aria-label": title }, ...canvases);
    return { canvases, figure: element("figure", { className: "layer", hidden: true }, element("figcaption", { className: "quiet", textContent: title }), grid) };
  });
  const steps = Math.floor(facts.train.images / BATCH);
  place.append(
    quiet(`Train the network sprint (${count(like.parameters)} parameters) in this page: ${steps} steps with ${BATCH} of MNIST’s training images each. `
      + "The seed chooses its first weights and the order of the images. "
      + `“Start” loads ${count(facts.train.images)} of them and ${count(facts.test.images)} test images, at 16 gray levels: `
      + `${megabytes(facts.train.bytes + facts.test.bytes)} MB.`),
    form, progress, said, file,
    element("div", { className: "course" }, curve.figure, element("div", {}, hint, chart.figure)),
    ...tiles.map(({ figure }) => figure));
  [file.hidden, chart.figure.hidden] = [true, true];
  return {
    form, seed, go, stop, progress, curve,
    say: (text) => said.textContent !== text && (said.textContent = text), // a screen reader reads each change
    /** Offer a file for download, or none. */
    async offer(content, name) {
      file.hidden = !content;
      if (download.href) URL.revokeObjectURL(download.href);
      if (!content) return;
      Object.assign(download, { href: URL.createObjectURL(new Blob([content])), download: name });
      command.textContent = `load_pretrained("${name}")`;
      hash.textContent = (await sha256Of(content)) ?? "not computed on this page";
    },
    /** Show the filters, and if there is a digit on the pad, what the network makes of it. */
    look({ filters, logits, maps }) {
      const [first, ...others] = tiles;
      first.canvases.forEach((canvas, k) => paint(canvas, filters.subarray(25 * k, 25 * (k + 1)), 5, largest(filters)));
      first.figure.hidden = false;
      others.forEach(({ canvases, figure }, layer) => {
        figure.hidden = !maps;
        if (maps) canvases.forEach((canvas, k) => {
          const map = maps[layer].filter((_, i) => i % canvases.length === k); // of [pixel][channel]
          paint(canvas, map, Math.sqrt(map.length), largest(maps[layer]));
        });
      });
      [hint.hidden, chart.figure.hidden] = [Boolean(maps), !maps];
      chart.show(maps ? softmax(logits) : null);
    },
  };
}
