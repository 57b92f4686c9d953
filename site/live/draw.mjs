// The drawing pad: strokes by mouse, pen or finger, kept as points from 0 to 1; or a test digit, kept as its pixels.

import { PAD_PEN } from "./preprocess.mjs";
import { element, paint } from "./picture.mjs";

/** `changed` is called whenever there is something else on the pad. */
export function pad(canvas, changed) {
  const state = { strokes: [], digit: null };
  let pointer = null;

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (pointer !== null || (event.pointerType === "mouse" && event.button)) return;
    pointer = event.pointerId;
    canvas.setPointerCapture(pointer);
    state.digit = null;
    state.strokes.push([place(event)]);
    show();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer) return;
    const coalesced = event.getCoalescedEvents?.() ?? [];
    for (const one of coalesced.length ? coalesced : [event]) state.strokes.at(-1).push(place(one));
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
    clear: () => (Object.assign(state, { strokes: [], digit: null }), show()),
    undo: () => (state.strokes.pop(), (state.digit = null), show()),
    /** digit: {pixels: Uint8Array of 28 × 28, label, index} */
    put: (digit) => (Object.assign(state, { strokes: [], digit }), show()),
    strokes: (strokes) => (Object.assign(state, { strokes, digit: null }), show()),
  };
}

/** Test digits by keyboard or button: a row 0…9 and a random one; every press takes the next digit of that label. */
export function picker(place, canvas, digits, board) {
  const next = new Map();
  const take = async (label) => {
    const { labels, indices, image } = await digits();
    const choice = label ?? Math.floor(Math.random() * 10);
    const having = labels.flatMap((found, i) => (found === choice ? [i] : []));
    if (!having.length) return;
    const turn = next.get(choice) ?? 0;
    next.set(choice, turn + 1);
    const i = having[turn % having.length];
    board.put({ pixels: image(i), label: choice, index: indices[i] });
  };
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
