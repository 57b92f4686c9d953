// A 16³ grid as cubes, by three.js: y to the right, z up, x toward the viewer, so that an upright solid shows its digit.

import * as three from "../vendor/three/three.module.js";

const SIDE = 16;

/** Returns show(grid, axis or null), or null where the browser has no WebGL. */
export function stage(canvas) {
  let renderer;
  try {
    renderer = new three.WebGLRenderer({ canvas, antialias: true, alpha: true });
  } catch {
    return null; // the answers and slices need none
  }
  const scene = new three.Scene();
  const camera = new three.PerspectiveCamera(32, 1, 1, 100);
  camera.position.set(11, 9, 42);
  camera.lookAt(0, 0, 0);
  const sun = new three.DirectionalLight(0xffffff, 2.4);
  sun.position.set(6, 14, 20);
  scene.add(new three.AmbientLight(0xffffff, 1.3), sun);
  const frame = new three.LineSegments(
    new three.EdgesGeometry(new three.BoxGeometry(SIDE, SIDE, SIDE)),
    new three.LineBasicMaterial({ color: 0x808894, transparent: true, opacity: 0.35 }),
  );
  const cubes = new three.InstancedMesh(new three.BoxGeometry(1, 1, 1), new three.MeshLambertMaterial(), SIDE ** 3);
  cubes.instanceMatrix.setUsage(three.DynamicDrawUsage);
  cubes.frustumCulled = false;
  const line = new three.Line(new three.BufferGeometry(), new three.LineBasicMaterial({ depthTest: false }));
  line.renderOrder = 1;
  scene.add(frame, cubes, line);
  const [place, tone, pale, deep] = [new three.Matrix4(), new three.Color(), new three.Color(), new three.Color()];
  let shown = [new Float32Array(SIDE ** 3), null];

  /** A color of the style sheet as the theme has it now; the canvas itself shows none. */
  function color(name) {
    canvas.style.color = `var(${name})`;
    return getComputedStyle(canvas).color;
  }

  function show(grid, axis) {
    shown = [grid, axis];
    pale.set(color("--course-line"));
    deep.set(color("--course-accent"));
    line.material.color.set(color("--course-warm"));
    let count = 0;
    grid.forEach((density, i) => {
      if (!density) return;
      const size = 0.35 + 0.6 * Math.sqrt(density); // fuller voxels are larger and darker
      const [x, y, z] = [i % SIDE, Math.floor(i / SIDE) % SIDE, Math.floor(i / SIDE ** 2)].map((k) => k - (SIDE - 1) / 2);
      cubes.setMatrixAt(count, place.makeScale(size, size, size).setPosition(y, z, x));
      cubes.setColorAt(count++, tone.lerpColors(pale, deep, Math.sqrt(density)));
    });
    cubes.count = count;
    cubes.instanceMatrix.needsUpdate = true;
    if (cubes.instanceColor) cubes.instanceColor.needsUpdate = true;
    line.visible = Boolean(axis);
    if (axis) {
      const end = new three.Vector3(axis[1], axis[2], axis[0]).multiplyScalar(12);
      line.geometry.setFromPoints([end.clone().negate(), end]);
    }
    renderer.render(scene, camera);
  }

  new ResizeObserver(() => {
    renderer.setPixelRatio(Math.min(2, devicePixelRatio));
    renderer.setSize(canvas.clientWidth, canvas.clientHeight, false);
    show(...shown);
  }).observe(canvas);
  new MutationObserver(() => show(...shown)).observe(document.body, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show(...shown));
  return { show };
}
