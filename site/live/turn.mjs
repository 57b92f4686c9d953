// The digit as a solid: rotated by hand, voxelized again after each rotation, and read by the voxel networks.

import { bars } from "./bars.mjs";
import { softmax } from "./layers.mjs";
import { best, run, session } from "./networks.mjs";
import { aDigit, element, largest, picture } from "./picture.mjs";
import { stage } from "./stage.mjs";
import { cloud, rotated, rotation, voxelize } from "./voxels.mjs";

const ANGLES = { turn: "about its vertical axis", tilt: "toward you", roll: "in the plane of the picture" };
const VIEWS = { upright: [0, 0, 0], "from above": [0, 70, 0], "edge-on": [90, 0, 0], "upside down": [0, 0, 180] };

/** Build the tab; returns show(image or null). runtime: bytes of onnxruntime. `loaded` is called when a network's file has been
 * checked; attempt: see main.mjs. */
export async function turn(place, networks, runtime, loaded, attempt) {
  const turned = networks.flatMap(({ name, model }) => (model.includes("turned=True") ? [name] : []));
  const choice = element("select", { id: "body-network" }, ...networks.map(({ name }) => element("option", { textContent: name })));
  choice.value = networks.at(-1).name;
  const canvas = element("canvas", { id: "stage", tabIndex: 0, role: "application", "aria-label": "The digit in three dimensions. Arrow keys turn it." });
  const verdict = element("p", { className: "verdict", "aria-live": "polite" });
  const why = element("p", { className: "quiet why" });
  const slices = element("div", { className: "slices" });
  const chart = bars("Probabilities");
  const sliders = Object.entries(ANGLES).map(([name, about], k) => slider(name, about, k));
  const presets = Object.entries(VIEWS).map(([name, angles]) =>
    element("button", { type: "button", textContent: name, onclick: () => set(angles) }));
  presets.push(element("button", { type: "button", textContent: "at random", onclick: () => set(sliders.map(() => Math.random() * 360 - 180)) }));
  place.append(verdict,
    element("div", { className: "space" },
      element("div", {}, canvas, element("div", { className: "row presets" }, ...presets), ...sliders.map(({ row }) => row)),
      element("div", {}, chart.figure,
        element("p", {}, element("label", { for: "body-network", textContent: "Read by " }), choice),
        element("h3", { textContent: "Seen along its thinnest axis" }), slices, why)),
    element("p", { className: "quiet", textContent: "Each rotation moves the points of the solid and counts them again in 16 × 16 × 16 voxels. The network finds "
      + "the direction in which the solid is thinnest (the line through it), looks along it, and reads the four slices. "
      + (turned.length ? `${turned.join(" and ")} reads them in four quarter turns unless the solid is upright, and averages the answers.` : "") }));
  const scene = stage(canvas);
  const asked = new Set();
  let [points, running, again, angles, last] = [null, null, false, [0, 0, 0], null];
  if (!scene) canvas.replaceWith(element("p", { textContent: "This browser has no WebGL, so the solid is not drawn. The sliders still turn it." }));

  function slider(name, about, k) {
    const oninput = () => set(angles.with(k, Number(input.value)));
    const input = element("input", { type: "range", min: -180, max: 180, value: 0, id: `angle-${name}`, oninput });
    const output = element("output", { textContent: "0°", "aria-live": "off" });
    const label = element("label", { for: input.id, textContent: `${name}, ${about}` });
    return { input, output, row: element("div", { className: "slider" }, label, output, input) };
  }

  function set(wanted) {
    angles = wanted.map((angle) => (Math.abs(angle) > 180 ? angle - 360 * Math.round(angle / 360) : angle));
    sliders.forEach(({ input, output }, k) => {
      input.value = Math.round(angles[k]);
      output.textContent = `${input.value}°`.replace("-", "−");
    });
    return attempt(update);
  }

  const by = (turned, tilted) => set([angles[0] + turned, angles[1] + tilted, angles[2]]);
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] }[event.key];
    if (!step) return;
    event.preventDefault();
    by(...step);
  });
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = event;
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!canvas.hasPointerCapture(event.pointerId)) return;
    by((event.clientX - last.clientX) / 2, (event.clientY - last.clientY) / 2);
    last = event;
  });
  choice.onchange = () => attempt(update);

  /** One turn after the other; while the network works, only the newest waits. Resolves when the newest has been read. */
  function update() {
    again = true;
    return (running ??= all().finally(() => (running = null)));
  }

  async function all() {
    while (again) {
      again = false;
      await new Promise(requestAnimationFrame);
      await once();
    }
  }

  async function once() {
    if (!points) {
      scene?.show(new Float32Array(4096), null);
      chart.show(null);
      slices.replaceChildren();
      [verdict.textContent, why.textContent] = ["Draw a digit.", ""];
      return;
    }
    const matrix = rotation(...angles);
    const grid = voxelize(angles.some(Boolean) ? rotated(points, matrix) : points);
    const network = networks.find(({ name }) => name === choice.value);
    if (!asked.has(network)) {
      scene?.show(grid, null); // else it is drawn once, together with the answer: drawing takes as long as reading where there is no GPU
      verdict.textContent = "Loading the network …";
      await session(network, (bytes) => (verdict.textContent = `Loading onnxruntime: ${(bytes / 1e6).toFixed(1)} of ${(runtime / 1e6).toFixed(1)} MB …`));
      asked.add(network);
      loaded();
    }
    const found = await run(network, grid, ["logits", network.axis, network.blocks[0].output]);
    const axis = Array.from(found[network.axis].data);
    scene?.show(grid, axis);
    const probabilities = softmax(found.logits.data);
    chart.show(probabilities);
    verdict.textContent = `Read as ${aDigit(best(probabilities))}.`;
    why.textContent = explained(axis, matrix);
    drawSlices(found[network.blocks[0].output]);
  }

  function drawSlices({ data, dims }) {
    const [, count, rows, columns] = dims;
    const most = largest(data);
    slices.replaceChildren(...Array.from({ length: count }, (_, i) =>
      picture(data.subarray(i * rows * columns, (i + 1) * rows * columns), columns, `Slice ${i + 1} of ${count}`, most)));
  }

  return (image) => {
    points = image && cloud(image);
    return update();
  };
}

/** How the digit appears in the view along the axis that the network found: upright, turned in its plane, or from behind. */
function explained(axis, matrix) {
  const [x, y, z] = axis;
  const part = 1 / (1 + x); // the view is turned to the axis on the shortest way: smallest_rotation() in utils/layers.py
  const [right, up] = [[-y, 1 - y * y * part, -y * z * part], [-z, -y * z * part, 1 - z * z * part]];
  const dot = (a, b) => a.reduce((sum, value, k) => sum + value * b[k], 0);
  const depth = dot(axis, matrix[0]);
  if (Math.abs(depth) < 0.85)
    return "The thinnest direction is not the digit’s depth: a narrow digit, such as a 1, may be seen from its side.";
  const angle = Math.round((Math.atan2(dot(matrix[2], right), dot(matrix[2], up)) * 180) / Math.PI);
  const side = depth < 0 ? "from behind, as in a mirror" : "from the front";
  if (Math.abs(angle) < 20) return `It is seen ${side} and stands upright${depth < 0 ? "" : ": as on paper"}.`;
  const head = Math.abs(angle) > 140 ? " Upside down, a 6 is a 9: the voxels do not show which way is up." : "";
  return `It is seen ${side}, ${Math.abs(angle)}° off the vertical.${head}`;
}
