// Block by block through a network: its maps for the picture on the pad, and where one of their pixels comes from.

import { outputs, parameters } from "./networks.mjs";
import { element, largest, paint, picture } from "./picture.mjs";
import { workings } from "./workings.mjs";

const NAMES = { conv: "convolution", relu: "ReLU", norm: "batch norm", pool: "max pool", add: "sum", mean: "average", max: "maximum",
  linear: "linear", softmax: "softmax", flatten: "logits", input: "input" };

/** What a block is called and how large its output is. */
function title({ kind, shape, kernel_size }) {
  const size = kernel_size ? ` ${kernel_size.join("×")}` : "";
  return [`${NAMES[kind]}${size}`, shape.join("×")];
}

/** Build the tab; returns show(image or null). networks: gives the list as it is now. attempt: see main.mjs. */
export async function inside(place, networks, attempt) {
  const choice = element("select", { id: "inside-network" });
  const blocks = element("div", { className: "blocks", role: "group", "aria-label": "Blocks of the network" });
  const maps = element("div", { className: "maps", role: "group", "aria-label": "Maps of the block" });
  const large = element("canvas", { id: "map", className: "pixels", tabIndex: 0, role: "application" });
  const input = element("canvas", { className: "pixels", role: "img", "aria-label": "The input, with the window that the pixel sees" });
  const [value, made] = [element("p", { className: "value", "aria-live": "polite" }), element("div")];
  const sums = element("div", { className: "sums" }, value, made);
  const heading = element("h3", { className: "chosen" });
  const own = element("input", { type: "checkbox", onchange: () => draw() });
  const slide = element("button", { type: "button", textContent: "Slide the window", "aria-pressed": false, onclick: () => sliding(!timer) });
  const hint = element("p", { className: "hint", textContent: "Draw a digit, or pick one from the test set. Each block then shows its output." });
  place.append(
    element("p", {}, element("label", { for: "inside-network", textContent: "Network " }), choice),
    hint, blocks, heading, maps,
    element("div", { className: "origin" },
      element("p", { className: "options" }, slide, element("label", {}, own, " Scale the brightness of each map by its own largest value")),
      element("figure", {}, large, element("figcaption", { className: "quiet", textContent: "Choose a pixel: point at it, or use the arrow keys." })),
      element("figure", {}, input, element("figcaption", { className: "quiet", textContent: "The part of the input that this pixel sees." })),
      sums));
  const at = { block: 1, channel: 0, row: 0, column: 0 };
  let [chosen, network, image, values, read, timer, asked] = [networks()[0].name, null, null, null, null, 0, 0]; // network: the one that is shown

  choice.onchange = () => attempt(() => {
    chosen = choice.value;
    return show(image);
  });

  async function show(wanted) {
    const mine = ++asked;
    image = wanted;
    const next = networks().find(({ name }) => name === chosen) ?? networks()[0]; // one of the reader's own may have been trained again
    choice.replaceChildren(...networks().map(({ name }) => element("option", { textContent: name, selected: name === next.name })));
    const found = wanted ? [await parameters(next), await outputs(next, wanted)] : [null, null];
    if (mine !== asked) return; // there is something newer on the pad, or another network is chosen
    [read, values] = found; // together with the network that they belong to
    if (next !== network) adopt(next);
    const empty = !image;
    hint.hidden = !empty;
    sliding(timer && !empty);
    for (const part of [heading, maps, place.querySelector(".origin")]) part.hidden = empty;
    if (empty) return;
    middle();
    draw();
  }

  function adopt(next) {
    network = next;
    Object.assign(at, { block: Math.min(at.block, network.blocks.length - 1), channel: 0 });
    blocks.replaceChildren(...network.blocks.map((block, i) => {
      const [name, size] = title(block);
      const pressed = { type: "button", "aria-pressed": i === at.block, onclick: () => select({ block: i, channel: 0 }) };
      return element("button", pressed, name, element("small", { textContent: size }));
    }));
  }

  function select(change) {
    const other = "block" in change && change.block !== at.block;
    Object.assign(at, change);
    blocks.querySelectorAll("button").forEach((button, i) => button.setAttribute("aria-pressed", i === at.block));
    if (!values) return;
    if (other) middle();
    draw();
  }

  /** Move the chosen pixel, and with it the window, over the whole map, row by row. */
  function sliding(on) {
    clearInterval(timer);
    timer = on && setInterval(() => {
      if (place.hidden) return sliding(false);
      const { rows, columns } = sizes();
      const next = (at.row * columns + at.column + 1) % (rows * columns);
      select({ row: Math.floor(next / columns), column: next % columns });
    }, 80);
    slide.setAttribute("aria-pressed", Boolean(on));
    value.setAttribute("aria-live", on ? "off" : "polite");
  }

  const current = () => network.blocks[at.block];
  const sizes = () => {
    const [channels, rows = 1, columns = 1] = values[current().output].shape;
    return { channels, rows, columns };
  };
  /** The pixel that is the brightest of its map: one that has something to say. */
  function middle() {
    const { rows, columns } = sizes();
    const map = values[current().output].data.subarray(at.channel * rows * columns, (at.channel + 1) * rows * columns);
    const most = map.reduce((best, value, i) => (Math.abs(value) > Math.abs(map[best]) ? i : best), 0);
    Object.assign(at, { row: Math.floor(most / columns), column: most % columns });
  }

  function draw() {
    const { channels, rows, columns } = sizes();
    const { data } = values[current().output];
    const most = own.checked ? undefined : largest(data); // undefined: of the part that is drawn
    const part = (channel) => data.subarray(channel * rows * columns, (channel + 1) * rows * columns);
    heading.textContent = `${title(current()).join(", ")}: ${channels === 1 ? "one map" : `${channels} maps`}`;
    if (maps.children.length !== channels) maps.replaceChildren(...Array.from({ length: channels }, (_, channel) =>
      element("button", { type: "button", onclick: () => (Object.assign(at, { channel }), middle(), draw()) }, element("canvas", { className: "pixels" }))));
    [...maps.children].forEach((button, channel) => {
      paint(button.firstChild, part(channel), columns, most);
      button.setAttribute("aria-pressed", channel === at.channel);
      button.setAttribute("aria-label", `Map ${channel}`);
    });
    marked(large, part(at.channel), columns, most, at.row, at.column, 1, 1);
    large.setAttribute("aria-label", `Map ${at.channel} of ${title(current())[0]}, pixel in row ${at.row}, column ${at.column}`);
    const first = network.blocks[0];
    const pixels = values[first.output].data;
    const { size: [high, wide], jump, start: [top, left] } = current().field ?? { size: first.shape.slice(1), jump: 0, start: [0, 0] };
    marked(input, pixels, first.shape[2], largest(pixels), top + at.row * jump, left + at.column * jump, high, wide);
    const written = workings(network, current(), at, values, read);
    value.replaceChildren("Value ", element("b", { textContent: written.value }));
    made.replaceChildren(...written.made);
  }

  for (const kind of ["click", "pointermove"])
    large.addEventListener(kind, (event) => {
      const box = large.getBoundingClientRect();
      const { rows, columns } = sizes();
      const along = (distance, side, count) => Math.min(count - 1, Math.max(0, Math.floor((distance / side) * count)));
      const [row, column] = [along(event.clientY - box.top, box.height, rows), along(event.clientX - box.left, box.width, columns)];
      if (row !== at.row || column !== at.column) select({ row, column });
    });
  large.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    const { rows, columns } = sizes();
    select({ row: (at.row + step[0] + rows) % rows, column: (at.column + step[1] + columns) % columns });
  });
  return show;
}

/** A map, enlarged, with a frame around `high` × `wide` of its pixels. */
function marked(canvas, values, columns, most, row, column, high, wide) {
  const small = picture(values, columns, "", most);
  const scale = Math.max(1, Math.floor(336 / Math.max(columns, small.height)));
  [canvas.width, canvas.height] = [columns * scale, small.height * scale];
  const brush = canvas.getContext("2d");
  brush.imageSmoothingEnabled = false;
  brush.drawImage(small, 0, 0, canvas.width, canvas.height);
  Object.assign(brush, { strokeStyle: "#6aa5ff", lineWidth: 4 });
  brush.strokeRect(column * scale + 1, row * scale + 1, wide * scale - 2, high * scale - 2);
}
