// A 28×28 picture → point cloud → 16³ grid: cloud() and voxelize() of utils/data/voxels.py, the same operations in the same order, so that an
// upright body equals Python's to the last bit (many points lie on the boundary of two voxels).

export const SIDE = 16;
const SIDES = [[-1, 0], [1, 0], [0, -1], [0, 1]]; // (row, column) of the pixels that may cover a box's four sides
const QUARTER = [[Math.cos(Math.PI / 2), 0, -1], [0, 1, 0], [1, 0, Math.cos(Math.PI / 2)]]; // a quarter turn whose cosine is 6e-17

const linspace = (low, high, n) => Array.from({ length: n }, (_, i) => (i === n - 1 ? high : i * ((high - low) / (n - 1)) + low));
const wide = linspace(-0.5, 0.5, 5);
const deep = linspace(-3, 3, 30);
/** The points of a box's faces in the generator's order: the third axis outermost, the second innermost. */
const face = (first, second, third) => third.flatMap((z) => first.flatMap((x) => second.map((y) => [x, y, z])));
const FACES = [face(wide, wide, [3]), face(wide, wide, [-3]), face([-0.5], wide, deep), face([0.5], wide, deep)];
FACES.push(face(wide, [-0.5], deep), face(wide, [0.5], deep));
/** BOXES[pattern]: a box of which bit k of the pattern says whether side k is open. */
const BOXES = Array.from({ length: 16 }, (_, pattern) =>
  [...FACES[0], ...FACES[1], ...SIDES.flatMap((_, k) => ((pattern >> k) & 1 ? FACES[2 + k] : []))],
);

/** The upright point cloud of a picture with ink: three Float64Arrays x, y, z, mean 0, largest extent 1. */
export function cloud(image, side = 28) {
  const inked = (row, column) => row >= 0 && column >= 0 && row < side && column < side && image[row * side + column] > 0;
  const pixels = [];
  for (let row = 0; row < side; row++)
    for (let column = 0; column < side; column++)
      if (inked(row, column)) {
        const pattern = SIDES.reduce((bits, [down, right], k) => bits | (!inked(row + down, column + right) << k), 0);
        pixels.push([row + 1, column + 1, BOXES[pattern]]); // counted with a margin of one pixel, as Python does
      }
  const count = pixels.reduce((sum, [, , box]) => sum + box.length, 0);
  const points = [0, 1, 2].map(() => new Float64Array(count));
  let next = 0;
  for (const [row, column, box] of pixels)
    for (const [x, y, z] of box) {
      points[0][next] = x + row;
      points[1][next] = y + column;
      points[2][next++] = z;
    }
  return rotated(unit(points, pixels, count), QUARTER);
}

/** Scale to largest extent 1 and mean 0; in place. */
function unit(points, pixels, count) {
  const ends = (k) => pixels.reduce(([low, high], pixel) => [Math.min(low, pixel[k]), Math.max(high, pixel[k])], [Infinity, -Infinity]);
  const [rows, columns] = [ends(0), ends(1)];
  const low = [rows[0] - 0.5, columns[0] - 0.5, -3];
  const extent = [rows[1] + 0.5 - low[0], columns[1] + 0.5 - low[1], 3 - low[2]];
  const longest = extent.indexOf(Math.max(...extent));
  for (const values of points) {
    let sum = 0;
    for (let i = 0; i < count; i++) {
      values[i] = (values[i] - low[longest]) / extent[longest];
      sum += values[i];
    }
    const mean = sum / count;
    for (let i = 0; i < count; i++) values[i] -= mean;
  }
  return points;
}

/** points @ matrix, by additions in a fixed order. */
export function rotated([x, y, z], matrix) {
  return [0, 1, 2].map((k) => {
    const [a, b, c] = [matrix[0][k], matrix[1][k], matrix[2][k]];
    const turned = new Float64Array(x.length);
    for (let i = 0; i < x.length; i++) turned[i] = x[i] * a + y[i] * b + z[i] * c;
    return turned;
  });
}

/** Points in each voxel of the smallest cube around a cloud, divided by the largest count: Float32Array of 4096, x fastest. */
export function voxelize(points) {
  const low = points.map((values) => values.reduce((least, value) => Math.min(least, value), Infinity) - 0.001);
  const high = points.map((values) => values.reduce((most, value) => Math.max(most, value), -Infinity) + 0.001);
  const extent = high.map((end, k) => end - low[k]);
  const longest = Math.max(...extent);
  const index = new Int32Array(points[0].length);
  points.forEach((values, k) => {
    const margin = (longest - extent[k]) / 2;
    const edges = linspace(low[k] - margin, high[k] + margin, SIDE + 1);
    const step = (edges[SIDE] - edges[0]) / SIDE;
    for (let i = 0; i < values.length; i++) {
      let cell = Math.min(SIDE - 1, Math.max(0, Math.floor((values[i] - edges[0]) / step)));
      while (cell > 0 && edges[cell] >= values[i]) cell--; // as numpy's searchsorted counts: edges[cell] < value <= edges[cell + 1]
      while (cell < SIDE - 1 && edges[cell + 1] < values[i]) cell++;
      index[i] += cell * SIDE ** k;
    }
  });
  const counts = new Uint32Array(SIDE ** 3);
  for (const cell of index) counts[cell]++;
  const most = counts.reduce((a, b) => Math.max(a, b), 0);
  return Float32Array.from(counts, (count) => count / most);
}

/** The matrix, to multiply from the right, that turns by degrees about the vertical (z), then tilts about y, then rolls about x. */
export function rotation(turn, tilt, roll) {
  const [[ct, st], [cy, sy], [cx, sx]] = [turn, tilt, roll].map((angle) => [Math.cos((angle * Math.PI) / 180), Math.sin((angle * Math.PI) / 180)]);
  const about = [
    [[ct, st, 0], [-st, ct, 0], [0, 0, 1]],
    [[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]],
    [[1, 0, 0], [0, cx, sx], [0, -sx, cx]],
  ];
  return about.reduce((a, b) => a.map((row) => [0, 1, 2].map((k) => row[0] * b[0][k] + row[1] * b[1][k] + row[2] * b[2][k])));
}
