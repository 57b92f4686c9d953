// The picture of a QR code that holds a network → the network, as an entry of the list that answers.

import { prepareZXingModule, readBarcodes } from "../vendor/zxing/reader/index.js";
import { unpack } from "./packed.mjs";

const SIDE = 2400; // pixels of a picture's longer side, at most: a code of the largest kind has 177 modules

/** file: a Blob; networks: entries of networks.json. Throws an Error for a picture without such a code. */
export async function networkIn(file, networks) {
  await prepared();
  const [code] = await readBarcodes(await pixels(file), { formats: ["QRCode"], tryHarder: true, maxNumberOfSymbols: 1 });
  if (!code?.isValid) throw new Error("no QR code can be read in this picture: expected a sharp one that fills it, with a white margin");
  for (const network of networks) {
    const found = unpack(code.bytes, network);
    if (found) return { ...network, ...found, name: "network from a picture", about: `built as ${network.name}`, accuracy: undefined };
  }
  const known = networks.filter(({ packed }) => packed).map(({ name }) => name);
  throw new Error(`the ${code.bytes.length} bytes of this code are no network that the page knows: expected one built as ${known.join(" or ")}`);
}

let wasmBinary;
async function prepared() {
  if (wasmBinary) return;
  const response = await fetch(new URL("../vendor/zxing/reader/zxing_reader.wasm", import.meta.url));
  if (!response.ok) throw new Error(`zxing_reader.wasm: the server answered ${response.status}`);
  wasmBinary = await response.arrayBuffer();
  await prepareZXingModule({ overrides: { wasmBinary }, fireImmediately: true });
}

async function pixels(file) {
  const picture = await createImageBitmap(file).catch(() => { throw new Error(`${file.name ?? "this file"} is no picture that the browser can read`); });
  const scale = Math.min(1, SIDE / Math.max(picture.width, picture.height));
  const [width, height] = [picture.width, picture.height].map((side) => Math.max(1, Math.round(side * scale)));
  const brush = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
  brush.drawImage(picture, 0, 0, width, height);
  return brush.getImageData(0, 0, width, height);
}
