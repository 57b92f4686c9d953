// Numbers as pictures: small canvases whose pixels are the values, enlarged by the style sheet without smoothing.

/** A new element; properties are set, `data-` and `aria-` names become attributes. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties))
    if (/^(data|aria)-|^role$|^for$/.test(key)) made.setAttribute(key, value);
    else made[key] = value;
  made.append(...children);
  return made;
}

/** A color for a value from −1 to 1: orange below 0, black at 0, white above, as bright as the value is large. */
function color(value) {
  const strength = Math.min(1, Math.abs(value));
  return value >= 0 ? [255 * strength, 255 * strength, 255 * strength] : [255 * strength, 140 * strength, 60 * strength];
}

/** Draw rows × columns of values into a canvas; `most` is the value that is brightest. */
export function paint(canvas, values, columns, most = largest(values)) {
  const rows = values.length / columns;
  [canvas.width, canvas.height] = [columns, rows];
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(columns, rows);
  for (let i = 0; i < values.length; i++) pixels.data.set([...color(values[i] / (most || 1)), 255], 4 * i);
  context.putImageData(pixels, 0, 0);
}

export function largest(values) {
  let most = 0;
  for (const value of values) most = Math.max(most, Math.abs(value));
  return most;
}

/** A canvas that shows values, described for those who can't see it. */
export function picture(values, columns, label, most) {
  const canvas = element("canvas", { className: "pixels", role: "img", "aria-label": label });
  paint(canvas, values, columns, most);
  return canvas;
}

/** A digit with its article. */
export const aDigit = (digit) => (digit === 8 ? "an 8" : `a ${digit}`);

/** A number with a sign and two or three significant digits. */
export function shown(value) {
  const size = Math.abs(value);
  const digits = size < 1 ? 2 : 3;
  return size < 1e-9 ? "0" : value.toPrecision(digits).replace("-", "−");
}
