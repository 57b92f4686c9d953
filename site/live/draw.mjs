// The drawing pad: strokes by mouse, pen or finger, kept as points from 0 to 1; or a test digit, kept as its pixels.

import { PAD_PEN } from "./preprocess.mjs";
import { element, paint } from "./picture.mjs";

/** `changed` is called whenever there is something else on the pad. */
export function pad(canvas, changed) {
  const state = { strokes: [], digit: null };
  const past = []; // states that undo goes back to
  let [pointer, stroke] = [null, null]; // what draws, and its stroke; something else may take its place on the pad

  const change = (next) => {
    past.push({ ...state });
    Object.assign(state, { strokes: [], digit: null, ...next });
    show();
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    const part = (distance, side) => Math.round((1000 * distance) / side) / 1000; // so that text() loses nothing
    return { x: part(event.clientX - box.left, box.width), y: part(event.clientY - box.top, box.height) };
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (pointer !== null || (event.pointerType === "mouse" && event.button)) return;
    pointer = event.pointerId;
    canvas.setPointerCapture(pointer);
    stroke = [place(event)];
    change({ strokes: [...state.strokes, stroke] });
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer || !state.strokes.includes(stroke)) return;
    const coalesced = event.getCoalescedEvents?.() ?? [];
    for (const one of coalesced.length ? coalesced : [event]) stroke.push(place(one));
    show();
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
    canvas.addEventListener(end, (event) => {
      if (event.pointerId === pointer) pointer = null;
    });

  function show() {
    redraw();
    changed();
  }

  function redraw() {
    const size = Math.round(canvas.clientWidth * Math.min(2, devicePixelRatio)) || 560;
    [canvas.width, canvas.height] = [size, size];
    const brush = canvas.getContext("2d");
    brush.fillRect(0, 0, size, size);
    if (state.digit) {
      const small = element("canvas");
      paint(small, state.digit.pixels, 28, 255);
      brush.imageSmoothingEnabled = false;
      brush.drawImage(small, 0, 0, size, size);
    }
    Object.assign(brush, { lineCap: "round", lineJoin: "round", lineWidth: PAD_PEN * size, strokeStyle: "#fff" });
    for (const stroke of state.strokes) {
      brush.beginPath();
      brush.moveTo(stroke[0].x * size, stroke[0].y * size);
      for (const { x, y } of stroke) brush.lineTo(x * size, y * size);
      brush.stroke();
    }
  }

  new ResizeObserver(redraw).observe(canvas);
  return {
    state,
    clear: () => (state.strokes.length || state.digit) && change({}),
    undo: () => past.length && (Object.assign(state, past.pop()), show()),
    /** digit: {pixels: Uint8Array of 28 × 28, label, index} */
    put: (digit) => change({ digit }),
    /** The pad's content for a link: t and the index of a test image, or strokes as thousandths of the pad's side. */
    text: () => state.digit ? `t${state.digit.index}`
      : state.strokes.map((stroke) => stroke.map(({ x, y }) => `${Math.round(1000 * x)}_${Math.round(1000 * y)}`).join("_")).join("~"),
    /** Put on the pad what text() wrote. digits: resolves to the test digits. */
    async restore(text, digits) {
      if (text.startsWith("t")) {
        const { indices, digit } = await digits();
        const i = indices.indexOf(Number(text.slice(1)));
        return i < 0 || change({ digit: digit(i) });
      }
      const points = (stroke) => Array.from(stroke.matchAll(/(-?\d{1,4})_(-?\d{1,4})/g), ([, x, y]) => ({ x: x / 1000, y: y / 1000 }));
      const strokes = text.split("~").map(points).filter(({ length }) => length);
      strokes.forEach((_, i) => change({ strokes: strokes.slice(0, i + 1) }));
    },
  };
}

/** Test digits by keyboard or button: a row 0…9 and a random one; every press takes the next digit of that label. attempt: see main.mjs */
export function picker(place, canvas, digits, board, attempt) {
  const next = new Map();
  const take = (label) => attempt(async () => {
    const { labels, digit } = await digits();
    const choice = label ?? Math.floor(Math.random() * 10);
    const having = labels.flatMap((found, i) => (found === choice ? [i] : []));
    if (!having.length) return;
    const turn = next.get(choice) ?? 0;
    next.set(choice, turn + 1);
    board.put(digit(having[turn % having.length]));
  });
  for (let label = 0; label < 10; label++)
    place.append(element("button", { type: "button", textContent: label, "aria-label": `Test digit ${label}`, onclick: () => take(label) }));
  place.append(element("button", { type: "button", textContent: "random", className: "wide", onclick: () => take() }));
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^[0-9]$/.test(event.key)) take(Number(event.key));
    else if (event.key.toLowerCase() === "r") take();
    else if (event.key === "Delete" || event.key === "Escape") board.clear();
    else if (event.key === "Backspace") board.undo();
    else return;
    event.preventDefault();
  });
}
