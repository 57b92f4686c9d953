// Every chart of the site, drawn by Observable Plot over results.json. A mark is a link to its log; pointing at it or
// reaching it with Tab and the arrow keys writes its numbers into the line below the chart.

const root = new URL("..", import.meta.url);
const address = (path) => new URL(path, root).href;

function script(path) {
  return new Promise((resolve, reject) => {
    const element = document.createElement("script");
    Object.assign(element, { src: address(path), onload: resolve, onerror: () => reject(new Error(`${path} could not be loaded`)) });
    document.head.append(element);
  });
}

const color = { ours: "var(--course-accent)", soft: "var(--course-soft)", theirs: "var(--course-warm)", quiet: "var(--course-quiet)", line: "var(--course-line)" };
const number = (value, digits = 2) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const whole = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
const spread = ({ mean, sd }) => number(mean) + (sd == null ? "" : ` ± ${number(sd)}`);
const times = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// Accuracies from 50 to 99.9 fit one axis when the axis is the logarithm of what is wrong. Plot leaves labels out of a
// logarithmic scale of its own, so the logarithm is taken here.
const rank = (accuracy) => -Math.log10(Math.max(0.01, 100 - accuracy));
const ACCURACIES = [0, 20, 50, 70, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95];
const LOSSES = [-4, -3, -2, -1, 0, 1].flatMap((power) => [1, 2, 5].map((digit) => digit * 10 ** power));

function axis(values, label, place, named, name) {
  const [low, high] = d3.extent(values, place);
  const margin = Math.min(0.05, (high - low) / 4) || 0.05;
  const domain = [low - margin, high + margin];
  const inside = (all) => all.filter((value) => place(value) >= domain[0] && place(value) <= domain[1]);
  const ticks = inside(named).length > 2 ? inside(named) : inside(d3.ticks(...d3.extent(values), 3));
  return { domain, ticks: ticks.map(place), tickFormat: (at) => name(at), label, grid: true };
}
const accuracyAxis = (values, label) => axis(values, label, rank, ACCURACIES, (at) => String(+(100 - 10 ** -at).toFixed(2)));
const lossAxis = (values, label) => axis(values, label, Math.log10, LOSSES, (at) => String(+(10 ** at).toPrecision(2)));

function shell(figure, width, options) {
  const narrow = width < 480;
  const svg = Plot.plot({
    width,
    height: Math.round(Math.min(420, width * (narrow ? 0.85 : 0.56))),
    marginLeft: 44, marginRight: 16, marginBottom: 40, marginTop: 28,
    style: { fontSize: "12px", color: "var(--course-quiet)", background: "none", overflow: "visible" },
    ...options,
  });
  svg.setAttribute("role", "group");
  for (const group of svg.querySelectorAll("g[aria-label]")) {
    group.dataset.mark = group.getAttribute("aria-label"); // what Plot calls it means nothing to a reader
    group.removeAttribute("aria-label");
  }
  for (const [i, link] of svg.querySelectorAll("a").entries()) {
    link.setAttribute("tabindex", i ? -1 : 0); // a chart is one stop of the Tab key, see listen()
    const mark = link.querySelector("[aria-label]"); // a link is what gets the focus, so a link has the name
    link.setAttribute("aria-label", mark.getAttribute("aria-label"));
    mark.removeAttribute("aria-label");
  }
  return svg;
}

function scatter(figure, data, width) {
  const by = figure.dataset.chart; // parameters or seconds
  const ours = data.experiments.filter(({ kind }) => kind === figure.dataset.kind);
  const points = ours.map((one) => ({ ...one, x: by === "parameters" ? one.parameters : one.seconds.mean }));
  const best = (one) => points.every((other) => other === one || other.x > one.x || other.test.mean <= one.test.mean);
  const front = d3.sort(points.filter(best), ({ x }) => x);
  const theirs = by === "parameters" ? points.filter(({ reported }) => reported?.test) : [];
  const field = by === "parameters" && figure.dataset.kind === "image" ? data.field : [];
  const says = (one) => `${one.name}: ${spread(one.test)} % (${times(one.test.n, "seed")}), ${whole(one.parameters)} parameters, ${whole(one.seconds.mean)} s a run`;
  const accuracies = [...points.flatMap(({ test }) => [test.mean - (test.sd ?? 0), test.mean + (test.sd ?? 0)]), ...theirs.map(({ reported }) => reported.test), ...field.map(({ accuracy }) => accuracy)];
  const label = by === "parameters" ? "parameters" : "seconds of a training run";
  const fill = (one) => (best(one) ? color.ours : color.soft);
  const svg = shell(figure, width, {
    ariaLabel: `Test accuracy against ${label}`,
    x: { type: "log", label: `${label} →`, tickFormat: "~s", ticks: width < 480 ? 4 : 6, inset: width < 480 ? 20 : 44 },
    y: accuracyAxis(accuracies, "↑ test accuracy, %"),
    marks: [
      Plot.line(front, { x: "x", y: (one) => rank(one.test.mean), sort: "x", curve: "step-after", stroke: color.ours, strokeOpacity: 0.25 }),
      Plot.link(theirs, { x1: "x", x2: "x", y1: (one) => rank(one.test.mean), y2: ({ reported }) => rank(reported.test), stroke: color.theirs, strokeOpacity: 0.4 }),
      Plot.ruleX(points.filter(({ test }) => test.sd), { x: "x", y1: ({ test }) => rank(test.mean - test.sd), y2: ({ test }) => rank(test.mean + test.sd), stroke: color.ours, strokeOpacity: 0.5 }),
      Plot.dot(field, { x: "parameters", y: ({ accuracy }) => rank(accuracy), r: 4.5, symbol: "diamond", stroke: color.quiet, strokeWidth: 1.4, fill: "var(--course-paper)",
        href: () => "#elsewhere", ariaLabel: ({ name, accuracy, conditions }) => `${name}, elsewhere: ${accuracy} % (${conditions})` }),
      Plot.dot(theirs, { x: "x", y: ({ reported }) => rank(reported.test), r: 5, stroke: color.theirs, strokeWidth: 1.6, fill: "var(--course-paper)",
        href: ({ reported, page }) => reported.address || address(page), ariaLabel: ({ name, reported }) => `${name} as reported by ${reported.name ?? "its reference"}: ${reported.test} %` }),
      Plot.dot(points, { x: "x", y: ({ test }) => rank(test.mean), r: 5.5, fill, stroke: "var(--course-paper)",
        href: ({ page }) => address(page), ariaLabel: says }),
      Plot.text(front, { x: "x", y: ({ test }) => rank(test.mean), text: "name", dy: -14, fill: "var(--course-ink)", stroke: "var(--course-paper)", strokeWidth: 4, pointerEvents: "none" }),
    ],
  });
  requestAnimationFrame(() => untangle(svg));
  return svg;
}

// A label is above its dot, below it or next to it. Without room it is left out; the dot still has its name.
function untangle(svg) {
  const boxes = (what) => [...svg.querySelectorAll(what)].map((element) => element.getBoundingClientRect());
  const inside = svg.getBoundingClientRect();
  const kept = [...boxes("g[data-mark=dot] :is(circle, path)"), ...boxes("g[data-mark$='tick label'] text")];
  const clear = (box) => box.left >= inside.left && box.right <= inside.right && kept.every((other) =>
    box.right < other.left || other.right < box.left || box.bottom - 3 < other.top || other.bottom < box.top + 3);
  for (const label of svg.querySelectorAll("g[data-mark=text] text")) {
    const place = label.getAttribute("transform");
    const aside = label.getBoundingClientRect().width / 2 + 10;
    const moves = [[0, 0], [0, 30], [aside, 14], [-aside, 14]].map(([x, y]) => `${place} translate(${x} ${y})`);
    const box = moves.map((move) => (label.setAttribute("transform", move), label.getBoundingClientRect()));
    const free = box.findIndex(clear);
    if (free < 0) label.remove();
    else label.setAttribute("transform", moves[free]), kept.push(box[free]);
  }
}

function curves(figure, data, width) {
  const one = data.experiments.find(({ name }) => name === figure.dataset.experiment);
  const what = figure.dataset.chart;
  const small = "small" in figure.dataset;
  const parts = Object.keys(one.runs[0][what]);
  const points = one.runs.flatMap((run) => parts.flatMap((part) => run[what][part].map((value, i) => ({ run, part, value, epoch: i + 1 }))));
  const watched = parts.at(-1);
  const place = what === "curves" ? rank : Math.log10;
  const y = ({ value }) => place(value);
  const last = (run) => run[what][watched].at(-1);
  const unit = what === "curves" ? " %" : "";
  const digits = what === "curves" ? 2 : 4;
  const says = (run) => `${one.name}, seed ${run.seed}: ${watched} ${number(last(run), digits)}${unit} after epoch ${run[what][watched].length}`;
  const shown = small ? points.filter(({ part }) => part === watched) : points;
  const values = shown.map(({ value }) => value);
  const lastEpoch = d3.max(points, ({ epoch }) => epoch);
  const mean = d3.rollups(shown, (group) => d3.mean(group, ({ value }) => value), ({ part }) => part, ({ epoch }) => epoch)
    .flatMap(([part, epochs]) => epochs.map(([epoch, value]) => ({ part, epoch, value })));
  const stroke = ({ part }) => (part === "train" ? color.quiet : part === "valid" && watched !== "valid" ? color.theirs : color.ours);
  const ends = d3.sort(parts.map((part) => mean.findLast((point) => point.part === part)).filter(Boolean), ({ value }) => -value);
  const svg = shell(figure, width, {
    ariaLabel: `${one.name}: ${what === "curves" ? "accuracy" : "loss"} by epoch, every seed`,
    ...(small && { height: 150, marginLeft: 36, marginBottom: 24, marginTop: 10, marginRight: 6 }),
    ...(!small && { marginRight: 48 }),
    x: { label: small ? null : "epoch →", ticks: d3.ticks(1, lastEpoch, small ? 3 : 8).filter(Number.isInteger), tickFormat: "d" },
    y: what === "curves" ? accuracyAxis(values, small ? null : "↑ accuracy, %") : lossAxis(values, "↑ loss"),
    marks: [
      Plot.line(shown.filter(({ part }) => part !== watched), { x: "epoch", y, z: ({ run, part }) => `${part} ${run.seed}`, stroke, strokeOpacity: 0.35, strokeWidth: 1 }),
      Plot.line(shown.filter(({ part, run }) => part === watched && run[what][part].length > 1), { x: "epoch", y, z: ({ run }) => run.seed, stroke, strokeOpacity: 0.45, strokeWidth: 1.2,
        href: ({ run }) => address(run.log), ariaLabel: ({ run }) => says(run) }),
      ...(lastEpoch > 1 ? [] : [
        Plot.dot(shown.filter(({ part }) => part === watched), { x: "epoch", y, r: 3, fill: stroke, fillOpacity: 0.5, href: ({ run }) => address(run.log), ariaLabel: ({ run }) => says(run) }),
      ]),
      Plot.line(mean, { x: "epoch", y, z: "part", stroke, strokeWidth: 2.2, pointerEvents: "none" }),
      ...(small ? [] : [
        ...ends.map((end, i) => Plot.text([end], { x: "epoch", y, text: "part", textAnchor: "start", dx: 6, dy: 12 * i - 6 * (ends.length - 1), fill: stroke })),
        Plot.dot(shown, Plot.pointer({ x: "epoch", y, r: 4, fill: stroke })),
      ]),
    ],
  });
  if (!small) svg.addEventListener("input", () => svg.value && tell(figure, `seed ${svg.value.run.seed}, epoch ${svg.value.epoch}: ${svg.value.part} ${number(svg.value.value, digits)}${unit}`));
  return svg;
}

function allCurves(figure, data) {
  const grid = document.createElement("div");
  grid.className = "small-multiples";
  for (const one of data.experiments) {
    const cell = document.createElement("figure");
    Object.assign(cell.dataset, { chart: "curves", experiment: one.name, small: "" });
    const title = document.createElement("figcaption");
    const link = document.createElement("a");
    Object.assign(link, { href: address(one.page), textContent: one.name });
    title.append(link, ` ${number(one.test.mean)}`);
    grid.append(cell);
    requestAnimationFrame(() => {
      const drawn = curves(cell, data, cell.clientWidth);
      for (const mark of drawn.querySelectorAll("a")) mark.setAttribute("tabindex", "-1"); // the title leads to the same runs
      cell.replaceChildren(title, drawn);
    });
  }
  return grid;
}

function studies(figure, data, width) {
  const one = data.studies.find(({ name }) => name === figure.dataset.study);
  const rows = one.rows.slice(0, 40);
  const points = rows.flatMap((row) => row.values.map((value) => ({ ...row, value })));
  return shell(figure, width, {
    ariaLabel: `${one.name}: accuracy on held-out images of every recipe that was tried`,
    height: 60 + 40 * rows.length, marginLeft: 8,
    x: { ...accuracyAxis(points.map(({ value }) => value), "held-out images, % →"), nice: false },
    y: { domain: rows.map(({ what }) => what), axis: null },
    marks: [
      Plot.ruleY(rows, { y: "what", stroke: color.line, dy: 8 }),
      Plot.text(rows, { y: "what", frameAnchor: "left", textAnchor: "start", dy: -8, text: "what", lineWidth: width / 15, textOverflow: "ellipsis", fill: "var(--course-ink)", pointerEvents: "none" }),
      Plot.dot(points, { x: ({ value }) => rank(value), y: "what", dy: 8, r: 4, fill: ({ kept }) => (kept ? color.theirs : color.ours), fillOpacity: 0.6,
        href: () => address(one.log), ariaLabel: ({ what, value }) => `${what}: ${number(value)} %` }),
    ],
  });
}

function benchmark(figure, data, width) {
  const { rows, log } = data.benchmark;
  const grid = document.createElement("div");
  for (const [what, sides] of d3.group(rows, ({ what }) => what)) {
    const title = document.createElement("p");
    title.className = "chart-title";
    title.textContent = what;
    const median = (side) => d3.median(side.seconds);
    const first = sides[0];
    const says = (side) => `${what}, ${side.side}: ${number(median(side))} s (median of ${side.seconds.length})`;
    const against = (side) => (side === first ? "" : ` · ${number(median(side) / median(first), 1)} × as long`);
    grid.append(title, shell(figure, width, {
      ariaLabel: `${what}: seconds`,
      height: 26 * sides.length + 4, marginLeft: 0, marginTop: 0, marginBottom: 4, marginRight: 0,
      x: { axis: null, domain: [0, d3.max(sides, median)] },
      y: { axis: null, domain: sides.map(({ side }) => side) },
      marks: [
        Plot.barX(sides, { x: median, y: "side", fill: ({ side }) => (side === "course" ? color.soft : color.line), rx: 3, insetTop: 2, insetBottom: 2, href: () => address(log), ariaLabel: says }),
        Plot.text(sides, { x: 0, y: "side", text: (side) => `${number(median(side))} s${against(side)} · ${side.side}`, lineWidth: width / 12 - 2, textOverflow: "ellipsis", textAnchor: "start", dx: 8, fill: "var(--course-ink)", pointerEvents: "none" }),
      ],
    }));
  }
  return grid;
}

const CHARTS = { parameters: scatter, seconds: scatter, curves, losses: curves, "all-curves": allCurves, study: studies, benchmark };

function tell(figure, text) {
  const line = figure.querySelector(".readout");
  if (line && !line.querySelector("a")) line.textContent = text; // a list of links stays until the next click
}

function draw(figure, data) {
  const width = Math.floor(figure.clientWidth);
  if (!width || figure.drawn === width) return;
  figure.drawn = width;
  const readout = document.createElement("figcaption");
  readout.className = "readout";
  const keys = figure.dataset.chart === "all-curves" ? "" : ", or use Tab and the arrow keys,";
  readout.textContent = `Point at a mark${keys} to show its numbers here. Each mark is a link.`;
  figure.replaceChildren(CHARTS[figure.dataset.chart](figure, data, width), readout);
}

const KEYS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
const label = (link) => link.getAttribute("aria-label");
/** The marks at the pointer, those that lie under others included. */
const at = ({ clientX, clientY }) =>
  [...new Set(document.elementsFromPoint(clientX, clientY).map((element) => element.closest("svg a")).filter(Boolean))];

function listen(figure) {
  figure.addEventListener("pointermove", (event) => {
    const links = at(event);
    if (links.length) tell(figure, (links.length > 1 ? `${links.length} marks, click to choose: ` : "") + links.map(label).join(" · "));
  });
  figure.addEventListener("focusin", ({ target }) => target.matches("svg a") && tell(figure, label(target)));
  figure.addEventListener("keydown", (event) => {
    if (!(event.key in KEYS) || !event.target.matches("svg a")) return;
    event.preventDefault();
    const links = [...event.target.closest("svg").querySelectorAll("a")];
    const next = links[(links.indexOf(event.target) + KEYS[event.key] + links.length) % links.length];
    event.target.setAttribute("tabindex", -1);
    next.setAttribute("tabindex", 0);
    next.focus();
  });
  figure.addEventListener("click", (event) => {
    if (event.target.closest(".readout")) return;
    const links = event.detail ? at(event) : []; // a key's click has no place
    const line = figure.querySelector(".readout");
    line.replaceChildren();
    if (links.length > 1) {
      event.preventDefault();
      for (const link of links) line.append(Object.assign(document.createElement("a"), { href: link.href.baseVal, textContent: label(link) }), " · ");
    }
    if (event.target.closest("a[*|href='#elsewhere']")) document.querySelector("#elsewhere").open = true;
  });
}

async function main() {
  const figures = [...document.querySelectorAll("figure.chart")];
  const [data] = await Promise.all([fetch(address("results.json")).then((answer) => answer.json()), script("vendor/d3.min.js").then(() => script("vendor/plot.umd.min.js"))]);
  for (const figure of figures) {
    listen(figure);
    draw(figure, data);
    new ResizeObserver(() => requestAnimationFrame(() => draw(figure, data))).observe(figure);
  }
  await new Promise(requestAnimationFrame); // in which small charts and labels come
  document.body.dataset.charts = "drawn";
}

main().catch((error) => {
  for (const figure of document.querySelectorAll("figure.chart")) figure.textContent = `The chart could not be drawn (${error.message}); its numbers are in the table.`;
});
