// The page: what is on the pad goes to the tab that is open.

import { panel } from "./bars.mjs";
import { choice } from "./choice.mjs";
import { pad, picker } from "./draw.mjs";
import { catalogue, parameters, testDigits } from "./networks.mjs";
import { aDigit, element, paint } from "./picture.mjs";
import { fromPicture, fromStrokes, rawFromStrokes } from "./preprocess.mjs";

const $ = (id) => document.getElementById(id);
const TABS = ["draw", "inside", "turn", "train"];
const NOTES = {
  mnist: "Scaled to 20 pixels and averaged down; the brightest pixel becomes 255, and the center of mass moves to the middle. MNIST’s digits were made this way.",
  raw: "Only averaged down. Try a small digit, or one away from the middle: the networks were not trained on anything like it.",
};
const views = {}; // tab → show(image or null)
const own = {}; // networks of the reader's, by where they come from
let [image, busy, again, working] = [null, false, false, 0];

const board = pad($("pad"), () => {
  changed();
  stored("sessionStorage", "pad", board.text());
});
picker($("picker"), $("pad"), testDigits, board, attempt);
$("clear").onclick = board.clear;
$("undo").onclick = board.undo;
$("link").onclick = () => attempt(async () => {
  history.replaceState(null, "", `#${open()}=${[board.text(), (await picked()).text()].join("=").replace(/=$/, "")}`);
  await navigator.clipboard.writeText(location.href);
  $("status").textContent = "The link to this drawing is copied.";
});

function pictureOf({ strokes, digit }, way) {
  if (digit) return way === "raw" ? digit.pixels : fromPicture(digit.pixels, 28, 28);
  return way === "raw" ? rawFromStrokes(strokes) : fromStrokes(strokes);
}

function changed() {
  const way = document.querySelector("input[name=way]:checked").value;
  image = pictureOf(board.state, way);
  paint($("seen"), image ?? new Uint8Array(784), 28, 255);
  const { digit } = board.state;
  const what = digit ? `test image ${digit.index}, ${aDigit(digit.label)}` : "your drawing";
  $("seen").setAttribute("aria-label", `What the network sees: ${image ? what : "nothing yet"}`);
  const note = digit && way === "raw" ? "The pixels of the test set, unchanged." : NOTES[way];
  $("way-note").textContent = note + (digit ? ` This is test image ${digit.index}; its label is ${digit.label}.` : "");
  if (location.hash.includes("=")) address(open()); // its drawing is no longer this one
  answer();
}

/** Let the network in a picture of a QR code answer, too. */
const scan = (file) => attempt(async () => {
  $("status").textContent = "Reading the picture …";
  const { networks } = await catalogue();
  own.scanned = await (await import("./qr.mjs")).networkIn(file, networks);
  await answer();
  $("status").textContent = `The picture holds a network ${own.scanned.about}. It answers together with the others.`;
});
$("scan").onchange = ({ target }) => target.files[0] && scan(target.files[0]).then(() => (target.value = ""));
addEventListener("dragover", (event) => event.dataTransfer.types.includes("Files") && event.preventDefault());
addEventListener("drop", (event) => {
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  scan(event.dataTransfer.files[0]);
});

/** Ask the open tab; while it works, only the newest picture waits. */
async function answer() {
  if (busy) return void (again = true);
  busy = true;
  counted(1);
  $("answers").ariaBusy = true;
  do {
    again = false;
    await new Promise(requestAnimationFrame);
    await attempt(async () => {
      const show = await view(open());
      await show(image, () => again);
    });
  } while (again);
  busy = false;
  $("answers").ariaBusy = false;
  counted(-1);
}

/** Count what has been begun and not ended. At data-working="0" the page has come to rest: all of it is built and up to date. */
const counted = (change) => (document.body.dataset.working = working += change);

/** Run something that may fail, and report a failure on the page. */
async function attempt(work) {
  counted(1);
  try {
    $("status").textContent = "";
    await work();
  } catch (error) {
    $("status").textContent = `That did not work: ${error.message}. Draw or choose again to retry; if that does not help, reload the page.`;
  } finally {
    counted(-1);
  }
}

async function view(tab) {
  const { networks, no_digit, runtime } = await catalogue();
  const chosen = await picked();
  const all = () => [...chosen.networks(), ...Object.values(own)];
  if (image && !views.ready) {
    $("status").textContent = "Loading the networks …";
    await Promise.all(chosen.networks().map((network) => parameters(network)));
    views.ready = true;
    import("./inside.mjs").catch(() => {}); // the service worker keeps it for a time without a network
    $("status").textContent = "";
    files(networks);
  }
  views[tab] ??= await {
    draw: async () => panel($("bars"), all, $("verdict"), $("doubt"), no_digit),
    inside: async () => (await import("./inside.mjs")).inside($("view-inside"), all, attempt),
    turn: async () => (await import("./turn.mjs")).turn($("view-turn"), networks.filter(({ axis }) => axis), runtime, () => files(networks), attempt),
    train: async () => (await import("./train.mjs")).train($("view-train"), networks.find(({ model }) => model === "sprint"), (network) => (own.trained = network)),
  }[tab]();
  return views[tab];
}

/** The networks of images, of which some answer: see choice.mjs. */
async function picked() {
  const { networks } = await catalogue();
  const flat = networks.filter(({ kind, blocks }) => kind === "image" && blocks.length);
  return (views.choice ??= choice($("choice"), flat, () => {
    stored("sessionStorage", "networks", views.choice.text());
    if (location.hash.includes("=")) address(open()); // its networks are no longer these
    files(networks);
    answer();
  }, attempt));
}

function files(networks) {
  const row = ({ name, accuracy, correct, total, state_dict, checked, kind, ...network }) => {
    const { file, bytes, sha256 } = kind === "image" ? network.weights : network.onnx;
    return element("tr", {},
      element("th", { scope: "row", textContent: name }),
      element("td", { textContent: `${accuracy.toFixed(2)} % (${correct.toLocaleString("en")} of ${total.toLocaleString("en")})` }),
      element("td", {}, element("a", { href: `../saved_dict/${state_dict.file}`, textContent: state_dict.file })),
      element("td", {}, element("a", { href: `../networks/${file}`, textContent: file }), ` ${Math.round(bytes / 1024)} KB `,
        element("code", { textContent: sha256 }), checked ? " ✓ checked here" : ""));
  };
  $("files").replaceChildren(...networks.map(row));
}

const open = () => TABS.find((tab) => !$(`view-${tab}`).hidden);
const address = (tab) => history.replaceState(null, "", tab === "draw" ? location.pathname : `#${tab}`);
function choose(tab, focus) {
  for (const other of TABS) {
    const button = $(`tab-${other}`);
    button.setAttribute("aria-selected", other === tab);
    button.tabIndex = other === tab ? 0 : -1;
    $(`view-${other}`).hidden = other !== tab;
  }
  if (focus) $(`tab-${tab}`).focus();
  address(tab);
  answer();
}
TABS.forEach((tab, i) => {
  $(`tab-${tab}`).onclick = () => choose(tab);
  $(`tab-${tab}`).onkeydown = ({ key }) => {
    const next = { ArrowRight: i + 1, ArrowLeft: i + TABS.length - 1, Home: 0, End: TABS.length - 1 }[key];
    if (next !== undefined) choose(TABS[next % TABS.length], true);
  };
});

/** Text that this browser keeps in its localStorage or sessionStorage; private windows may reject it. */
function stored(place, name, value) {
  try {
    if (value !== undefined) window[place].setItem(name, value);
    return window[place].getItem(name);
  } catch {
    return null;
  }
}

/** The theme is the one of the other pages: auto, light or dark. */
function theme(wanted) {
  document.body.dataset.theme = wanted;
  $("theme").textContent = `Theme: ${wanted}`;
  stored("localStorage", "theme", wanted);
}
const chosen = stored("localStorage", "theme");
theme(["light", "dark"].includes(chosen) ? chosen : "auto");
$("theme").onclick = () => theme({ auto: "light", light: "dark", dark: "auto" }[document.body.dataset.theme]);

document.querySelectorAll("input[name=way]").forEach((choice) => (choice.onchange = changed));
attempt(async () => files((await catalogue()).networks));
/** Open the tab that the address names, with the drawing and the networks that it holds, or else with these. */
function typed(drawing, networks) {
  const [tab, ...held] = location.hash.slice(1).split("=");
  const [text, names] = held.length ? [held[0], held[1] ?? ""] : [drawing, networks]; // a link without names means the usual networks
  if (TABS.includes(tab)) choose(tab);
  if (text) attempt(() => board.restore(text, testDigits));
  if (names !== undefined) attempt(async () => (await picked()).restore(names));
}
addEventListener("hashchange", () => typed());
typed(stored("sessionStorage", "pad") ?? undefined, stored("sessionStorage", "networks") ?? undefined);
changed();
