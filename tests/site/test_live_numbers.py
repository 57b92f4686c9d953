"""What the live page computes is what Python computes: pictures, bodies, labels."""

import base64
from math import prod

import numpy as np
import pytest
import torch
from hands import networks, start
from shapes import STROKES, drawn

from utils.data import photo, voxels
from utils.runs import pretrained

BYTES = "const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));"
MODULE = "const load = (name) => import(new URL(name, location.href).href);"


def sent(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def test_upright_bodies_are_pythons_to_the_last_bit(page, site, mnist):
    images = mnist.test.images[:100].view(-1, 28, 28).numpy()
    golden = np.stack([voxels.voxelize(voxels.cloud(image)).astype(np.float32) for image in images])
    start(page, site)
    script = f"""async ([text, golden]) => {{ {BYTES} {MODULE}
        const {{ cloud, voxelize }} = await load("voxels.mjs");
        const expected = new Float32Array(Uint8Array.from(atob(golden), (letter) => letter.charCodeAt(0)).buffer);
        const solid = (n) => voxelize(cloud(bytes.subarray(n * 784, (n + 1) * 784)));
        const same = (_, n) => solid(n).every((value, i) => value === expected[n * 4096 + i]);
        return Array.from({{ length: bytes.length / 784 }}, same); }}"""
    assert page.evaluate(script, [sent(images), sent(golden)]) == [True] * 100
    assert not all(page.evaluate(script, [sent(images[:, ::-1]), sent(golden)])), "the mirrored digits are others"


LABELS = f"""async ([name, text]) => {{ {BYTES} {MODULE}
    const {{ best, catalogue, outputs, run }} = await load("networks.mjs");
    const network = (await catalogue()).networks.find((one) => one.name === name);
    const is_image = network.kind === "image";
    const data = is_image ? bytes : new Float32Array(bytes.buffer);
    const [found, size] = [[], network.input.shape.reduce((a, b) => a * b)];
    for (let i = 0; i < data.length; i += size) {{
      const {{ logits }} = await (is_image ? outputs : run)(network, data.subarray(i, i + size));
      found.push(best(Array.from(logits.data)));
    }}
    return found; }}"""


def labels(page, name, inputs):
    """Labels that the page gives to (N, …) inputs, asked for in batches."""
    batches = np.split(inputs, range(50, len(inputs), 50))
    return [label for few in batches for label in page.evaluate(LABELS, [name, sent(few)])]


def pytorch(name, inputs):
    model, preprocess = pretrained.load_pretrained(name)
    with torch.inference_mode():
        batches = torch.from_numpy(inputs).split(100)
        return [label for few in batches for label in model(preprocess(few)).argmax(1).tolist()]


def multiplications(network: dict) -> int:
    """Of the convolutions of a network of images."""
    layers = [block for block in network["blocks"] if block["kind"] == "conv"]
    return sum(prod(block["kernel"]["shape"]) * prod(block["shape"][1:]) for block in layers)


@pytest.mark.parametrize("name", networks())
def test_the_page_gives_pytorchs_labels(page, site, mnist, name):
    """Of 300 digits, or of 100 where a network takes long; of 50 bodies, upright and turned."""
    network, images = networks()[name], mnist.test.images[:300].numpy()
    if network["kind"] == "voxels":
        pairs = [voxels.pair(image[0], (0, number)) for number, image in enumerate(images[:50])]
        chosen = np.concatenate(pairs).reshape(-1, 1, 16, 16, 16)
    else:
        chosen = images[: 100 if multiplications(network) > 3e6 else None]
    start(page, site)
    assert labels(page, name, chosen) == pytorch(name, chosen)


def test_the_page_and_the_photograph_of_the_same_strokes_agree(page, site):
    start(page, site)
    script = f"""async (strokes) => {{ {MODULE}
        const {{ fromStrokes }} = await load("preprocess.mjs");
        return strokes.map((all) => [...fromStrokes(all.map((stroke) => stroke.map(([x, y]) => ({{ x, y }}))))]); }}"""
    ours = np.array(page.evaluate(script, list(STROKES.values())), np.uint8).reshape(-1, 28, 28)
    photographs = []
    for strokes in STROKES.values():
        points = np.concatenate([np.array(stroke) for stroke in strokes])
        pen = 2.3 / 17.7 * np.ptp(points, 0).max()  # the page's, at the size of the drawing
        photographs.append(photo.read(drawn(strokes, 600, pen, canvas=(900, 800), place=(150, 100))))
    theirs = np.stack(photographs)
    for images in (ours, theirs):
        assert pytorch("bn_augmentation", images[:, None]) == list(STROKES)
    assert np.abs(ours.astype(int) - theirs).mean((1, 2)).max() < 5
    assert np.abs(np.roll(ours, 1, 2).astype(int) - theirs).mean() > 10, "one pixel to the side must show"
