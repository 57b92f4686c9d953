// Strokes or a picture → 28×28, the way MNIST was made; utils/data/photo.py does the same to photographs.
//
// The ink is scaled until its longer side is 20 pixels, averaged down, set to 255 where it is brightest, and moved by whole pixels
// until its center of mass lies on pixel 14. A stroke is a list of points {x, y}, 0 to 1 across the drawing pad.

export const SIDE = 28;
export const BOX = 20;
const MIDDLE = 14;
const PEN = 2.3; // pixels of the 20, about what MNIST's writers used
const FINE = 8; // each of the box's pixels is the average of FINE × FINE points
export const PAD_PEN = 0.075; // of the pad's width: the pen as it is seen, and as the raw picture has it

/** MNIST's way: Uint8Array of 28 × 28, or null where there is no more than a dot. */
export function fromStrokes(strokes) {
  const points = strokes.flat();
  if (!points.length) return null;
  const [left, top, right, bottom] = bounds(points);
  const longer = Math.max(right - left, bottom - top);
  if (longer < 0.02) return null;
  const scale = (BOX - PEN) / longer;
  const first = (extent) => Math.floor((BOX - PEN - extent * scale) / 2 + 1e-9) + PEN / 2; // ink starts on a whole pixel
  const place = ({ x, y }) => ({ x: (x - left) * scale + first(right - left), y: (y - top) * scale + first(bottom - top) });
  return centered(rasterised(strokes.map((stroke) => stroke.map(place)), BOX, PEN));
}

/** The whole pad averaged down to 28 × 28, nothing else: what a network gets without preprocessing. */
export function rawFromStrokes(strokes) {
  if (!strokes.length) return null;
  const place = ({ x, y }) => ({ x: x * SIDE, y: y * SIDE });
  const ink = rasterised(strokes.map((stroke) => stroke.map(place)), SIDE, PAD_PEN * SIDE);
  return Uint8Array.from(ink, (value) => Math.round(value * 255));
}

/** MNIST's way with a picture of bright ink on black: values 0…255, width × height. null where it is black. */
export function fromPicture(values, width, height) {
  const faint = 0.1 * values.reduce((most, value) => Math.max(most, value), 0);
  const ink = [];
  for (let i = 0; i < values.length; i++) if (values[i] > faint) ink.push({ x: i % width, y: Math.floor(i / width) });
  if (!ink.length) return null;
  const [left, top, right, bottom] = bounds(ink);
  const longer = Math.max(right - left, bottom - top) + 1;
  const step = longer / BOX; // the shorter side starts on a whole pixel of the 20, too: a digit of this size stays as it is
  const start = (low, high) => low - step * Math.floor((longer - (high + 1 - low)) / 2 / step);
  const across = shares(start(left, right), longer, width);
  const down = shares(start(top, bottom), longer, height);
  const box = new Float64Array(BOX * BOX);
  for (let row = 0; row < BOX; row++)
    for (let column = 0; column < BOX; column++)
      for (const [y, part] of down[row]) {
        let sum = 0;
        for (const [x, share] of across[column]) sum += share * values[y * width + x];
        box[row * BOX + column] += part * sum;
      }
  return centered(box);
}

/** A 20 × 20 box of ink → Uint8Array of 28 × 28: brightest 255, center of mass on pixel 14 (as near as the edge lets it). */
export function centered(box) {
  let [most, mass, across, down] = [0, 0, 0, 0];
  box.forEach((value, i) => {
    most = Math.max(most, value);
    mass += value;
    across += value * (i % BOX);
    down += value * Math.floor(i / BOX);
  });
  const corner = (moment) => Math.min(SIDE - BOX, Math.max(0, Math.floor(MIDDLE - moment / mass + 0.5)));
  const [left, top] = [corner(across), corner(down)];
  const image = new Uint8Array(SIDE * SIDE);
  box.forEach((value, i) => {
    image[(top + Math.floor(i / BOX)) * SIDE + left + (i % BOX)] = Math.floor((value / most) * 255 + 0.5);
  });
  return image;
}

function bounds(points) {
  const ends = [Infinity, Infinity, -Infinity, -Infinity];
  for (const { x, y } of points) {
    ends[0] = Math.min(ends[0], x);
    ends[1] = Math.min(ends[1], y);
    ends[2] = Math.max(ends[2], x);
    ends[3] = Math.max(ends[3], y);
  }
  return ends;
}

/** Strokes in pixels → the share of each of side × side pixels that a round pen of that width covers. */
function rasterised(strokes, side, pen) {
  const fine = side * FINE;
  const covered = new Uint8Array(fine * fine);
  for (const stroke of strokes) stroke.forEach((to, i) => cover(covered, fine, stroke[Math.max(0, i - 1)], to, pen / 2));
  const share = new Float64Array(side * side);
  covered.forEach((is, i) => {
    if (is) share[Math.floor(i / fine / FINE) * side + Math.floor((i % fine) / FINE)] += 1 / FINE ** 2;
  });
  return share;
}

/** Mark the points of the fine grid that are within `radius` of the line between two points. */
function cover(covered, fine, from, to, radius) {
  const [wide, high] = [to.x - from.x, to.y - from.y];
  const square = wide * wide + high * high || 1;
  const first = (a, b) => Math.max(0, Math.floor((Math.min(a, b) - radius) * FINE));
  const last = (a, b) => Math.min(fine - 1, Math.ceil((Math.max(a, b) + radius) * FINE));
  for (let row = first(from.y, to.y); row <= last(from.y, to.y); row++)
    for (let column = first(from.x, to.x); column <= last(from.x, to.x); column++) {
      const [x, y] = [(column + 0.5) / FINE - from.x, (row + 0.5) / FINE - from.y];
      const along = Math.min(1, Math.max(0, (x * wide + y * high) / square));
      if ((x - along * wide) ** 2 + (y - along * high) ** 2 <= radius * radius) covered[row * fine + column] = 1;
    }
}

/** For each of the box's 20 cells, laid over `longer` pixels from `start`: the pixels that it covers and their share of it. */
function shares(start, longer, size) {
  const step = longer / BOX;
  return Array.from({ length: BOX }, (_, cell) => {
    const [low, high] = [start + cell * step, start + (cell + 1) * step];
    const parts = [];
    for (let i = Math.max(0, Math.floor(low)); i < Math.min(size, Math.ceil(high)); i++)
      parts.push([i, (Math.min(high, i + 1) - Math.max(low, i)) / step]);
    return parts;
  });
}
