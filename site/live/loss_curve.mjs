// The loss of each training step and its mean over the last ten, on a logarithmic axis.

import { element } from "./picture.mjs";

const [WIDTH, HEIGHT, LEAST, MOST, MARKS] = [300, 130, 0.05, 3, [0.1, 0.2, 0.5, 1, 2]];

/** Returns {figure, show(losses, total)}; total: steps of the whole training. */
export function lossCurve() {
  const figure = element("figure", { className: "loss" });
  const y = (loss) => (HEIGHT * Math.log(MOST / Math.min(MOST, Math.max(LEAST, loss)))) / Math.log(MOST / LEAST);
  const lines = MARKS.map((loss) => `<path class="grid" d="M0 ${y(loss)}H${WIDTH}" /><text x="-6" y="${y(loss) + 4}" text-anchor="end">${loss}</text>`);
  figure.innerHTML = `<svg viewBox="-27 -6 ${WIDTH + 33} ${HEIGHT + 28}" role="img" aria-label="Loss: no step yet">${lines.join("")}
    <path class="each" /><path class="mean" /><text class="steps" x="${WIDTH}" y="${HEIGHT + 17}" text-anchor="end"></text></svg>
    <figcaption class="quiet">The loss (cross-entropy) of each step</figcaption>`;
  const [svg, each, mean, steps, caption] = ["svg", ".each", ".mean", ".steps", "figcaption"].map((name) => figure.querySelector(name));
  const path = (losses, total) =>
    losses.map((loss, k) => `${k ? "L" : "M"}${((k * WIDTH) / (total - 1)).toFixed(1)} ${y(loss).toFixed(1)}`).join("");
  const average = (losses) => losses.reduce((a, b) => a + b) / losses.length;
  return {
    figure,
    show(losses, total) {
      const means = losses.map((_, k) => average(losses.slice(Math.max(0, k - 9), k + 1)));
      each.setAttribute("d", path(losses, total));
      mean.setAttribute("d", path(means, total));
      steps.textContent = `step ${total}`;
      const [first, now] = [losses[0], means.at(-1)].map((loss) => loss.toFixed(2));
      svg.setAttribute("aria-label", `Loss: from ${first} at first to ${now} at step ${losses.length} of ${total}`);
      caption.textContent = `Step ${losses.length} of ${total}: loss ${now}, the mean of the last ten`;
    },
  };
}
