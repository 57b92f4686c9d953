// Which of the published networks answer. Some do from the beginning; the file of another one loads when the reader chooses it.

import { parameters } from "./networks.mjs";
import { element } from "./picture.mjs";

const size = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} KB` : `${(bytes / 1e6).toFixed(1)} MB`);

/** A box for each network, in `place`. changed: called whenever others answer; attempt: see main.mjs. */
export function choice(place, networks, changed, attempt) {
  const chosen = new Set(networks.filter(({ first }) => first));
  const usual = names();
  const boxes = new Map(networks.map((network) => {
    const box = element("input", { type: "checkbox", checked: chosen.has(network), onchange: () => attempt(() => choose(network, box.checked)) });
    const note = element("span", { className: "quiet" });
    const facts = element("span", { className: "quiet", textContent: ` ${network.accuracy.toFixed(2)} %, ${size(network.weights.bytes)} ` });
    place.append(element("label", {}, box, ` ${network.name}`, facts, note));
    return [network, { box, note }];
  }));

  async function choose(network, wanted) {
    const { box, note } = boxes.get(network);
    box.checked = wanted || (chosen.size === 1 && chosen.has(network)); // one network stays
    if (!box.checked) chosen.delete(network);
    else if (!chosen.has(network)) {
      try {
        note.textContent = "loading …";
        await parameters(network, (bytes) => (note.textContent = `loading: ${size(bytes)} …`));
        if (box.checked) chosen.add(network); // else the reader has changed their mind
      } catch (error) {
        box.checked = false;
        throw error;
      } finally {
        note.textContent = "";
      }
    }
    changed();
  }

  function names() {
    return networks.filter((network) => chosen.has(network)).map(({ name }) => name).join(",");
  }

  return {
    networks: () => networks.filter((network) => chosen.has(network)),
    /** The names of those that answer, for a link; nothing if they are the usual ones. */
    text: () => (names() === usual ? "" : names()),
    /** Choose what text() wrote. */
    async restore(text) {
      const wanted = networks.filter(({ name, first }) => (text ? text.split(",").includes(name) : first));
      for (const network of wanted) if (!chosen.has(network)) await attempt(() => choose(network, true));
      if (wanted.length) for (const network of [...chosen]) if (!wanted.includes(network)) await choose(network, false);
    },
  };
}
