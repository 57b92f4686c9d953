// What several networks say to one picture: ten bars each, and one sentence.

import { softmax } from "./layers.mjs";
import { best, outputs } from "./networks.mjs";
import { aDigit, element } from "./picture.mjs";

const percent = (share) => (share > 0.9995 ? "> 99.9 %" : `${(100 * share).toFixed(share > 0.995 ? 1 : 0)} %`);

/** Ten bars, 0 to 9. */
export function bars(label) {
  const columns = Array.from({ length: 10 }, (_, digit) => element("span", {}, element("i"), element("b", { textContent: digit })));
  const figure = element("div", { className: "bars", role: "img", "aria-label": label }, ...columns);
  return {
    figure,
    show(probabilities) {
      const first = probabilities ? best(probabilities) : -1;
      columns.forEach((column, digit) => {
        column.style.setProperty("--share", probabilities ? probabilities[digit] : 0);
        column.className = digit === first ? "first" : "";
      });
      const said = probabilities ? `${first}: ${percent(probabilities[first])}` : "no answer";
      figure.setAttribute("aria-label", `${label}, ${said}`);
      return said;
    },
  };
}

/** A row of the panel. A network of the reader's own says `about` itself what it is, and has no page. */
function row(network) {
  const { name, about, parameters, accuracy } = network;
  const chart = bars(name);
  const said = element("output", { textContent: "–", "aria-live": "off" }); // a screen reader hears the verdict alone
  const facts = [about, `${parameters.toLocaleString("en")} parameters`, accuracy && `${accuracy.toFixed(2)} % of the test set`];
  const heading = element("h3", {}, about ? name : element("a", { href: `../logs/${name}/index.html`, textContent: name }));
  const whole = element("div", { className: "network" }, heading, element("p", { textContent: facts.filter(Boolean).join(", ") }), chart.figure, said);
  return { network, chart, said, whole, time: 0 };
}

const SLOW = 100; // milliseconds of an answer, before which the page first follows the pen

/** A row for each network in `place`. Returns show(image or null, isOld). isOld(): whether there is a newer image. networks: gives the present
 * list. doubt: the place of the note that a picture may not be a digit. bound: the entry of networks.json for this doubt, or nothing. */
export function panel(place, networks, sentence, doubt, bound) {
  let rows = [];
  return async (image, isOld = () => false) => {
    rows = networks().map((network) => rows.find((one) => one.network === network) ?? row(network));
    if (rows.some(({ whole }, i) => whole !== place.children[i]) || place.children.length > rows.length) place.replaceChildren(...rows.map(({ whole }) => whole));
    if (!image) {
      rows.forEach(({ chart, said }) => (chart.show(null), (said.textContent = "–")));
      sentence.textContent = "Draw a digit.";
      doubt.hidden = true;
      return;
    }
    const labels = [];
    let sure = Infinity;
    for (const one of [...rows.filter(({ time }) => time < SLOW), ...rows.filter(({ time }) => time >= SLOW)]) {
      const { network, chart, said } = one;
      if (one.time >= SLOW) {
        await new Promise(requestAnimationFrame);
        if (isOld()) return;
      }
      const begun = performance.now();
      const { logits } = await outputs(network, image);
      one.time = performance.now() - begun;
      const probabilities = network.blocks.at(-1).kind === "softmax" ? Array.from(logits.data) : softmax(logits.data);
      said.textContent = chart.show(probabilities);
      labels.push(best(probabilities));
      if (network.name === bound?.network) sure = Math.max(...probabilities);
    }
    doubt.hidden = !(sure < bound?.least);
    if (!doubt.hidden) doubt.replaceChildren(...doubted(bound, sure));
    sentence.textContent = verdict(labels);
  };
}

function doubted({ network, least, share, held_out, letters, doubted: found, log }, sure) {
  const said = `This may not be a digit: ${network} gives none of the ten more than ${percent(sure)}. Of ${held_out.toLocaleString("en")} digits `
    + `held out from training, which set this threshold, ${percent(share)} get less than ${percent(least)}; of printed letters, ${percent(found / letters)} do (`;
  return [said, element("a", { href: `../${log}`, textContent: "measurement" }), ")."];
}

const WORDS = ["Both", "All three", "All four", "All five", "All six", "All seven", "All eight", "All nine"];

function verdict(labels) {
  const read = [...new Set(labels)];
  if (labels.length === 1) return `The network reads ${aDigit(read[0])}.`;
  if (read.length === 1) return `${WORDS[labels.length - 2] ?? `All ${labels.length}`} networks read ${aDigit(read[0])}.`;
  return `They disagree: ${read.map((label) => `${labels.filter((other) => other === label).length} × ${label}`).join(", ")}.`;
}
