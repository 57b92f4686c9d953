"""What the live page computes is what Python computes: pictures, bodies, labels."""

import base64
from math import prod

import numpy as np
import torch
from hands import STROKES, networks, shapes, start
from PIL import Image

from utils.data import photo, voxels
from utils.runs import pretrained


def sent(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


BYTES = "const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));"
MODULE = "const load = (name) => import(new URL(name, location.href).href);"


def test_upright_bodies_are_pythons_to_the_last_bit(page, site, mnist, figure):
    images = mnist.test.images[:100].view(-1, 28, 28).numpy()
    golden = np.stack([voxels.voxelize(voxels.cloud(image)).astype(np.float32) for image in images])
    start(page, site)
    same = page.evaluate(
        f"""async ([text, golden]) => {{ {BYTES} {MODULE}
        const {{ cloud, voxelize }} = await load("voxels.mjs");
        const expected = new Float32Array(Uint8Array.from(atob(golden), (letter) => letter.charCodeAt(0)).buffer);
        const solid = (n) => voxelize(cloud(bytes.subarray(n * 784, (n + 1) * 784)));
        const same = (_, n) => solid(n).every((value, i) => value === expected[n * 4096 + i]);
        return Array.from({{ length: bytes.length / 784 }}, same); }}""",
        [sent(images), sent(golden)],
    )
    figure("upright bodies of test digits that equal Python's to the last bit", f"{sum(same)} of {len(same)}")
    assert same == [True] * 100
    moved = images[:, ::-1]
    assert not all(
        np.array_equal(voxels.voxelize(voxels.cloud(image)).astype(np.float32), grid)
        for image, grid in zip(moved, golden, strict=True)
    )


def labels(page, name, inputs):
    """Labels that the page gives to (N, …) inputs, asked for in batches."""
    kind = "Uint8Array" if inputs.dtype == np.uint8 else "Float32Array"
    script = f"""async ([name, text]) => {{ {BYTES} {MODULE}
        const {{ best, catalogue, outputs, run }} = await load("networks.mjs");
        const network = (await catalogue()).networks.find((one) => one.name === name);
        const found = [];
        const [data, size] = [new {kind}(bytes.buffer), network.input.shape.reduce((a, b) => a * b)];
        for (let i = 0; i < data.length; i += size) {{
          const {{ logits }} = await (network.kind === "image" ? outputs : run)(network, data.subarray(i, i + size));
          found.push(best(Array.from(logits.data)));
        }}
        return found; }}"""
    return [
        label
        for few in np.split(inputs, range(50, len(inputs), 50))
        for label in page.evaluate(script, [name, sent(few)])
    ]


def pytorch(name, inputs):
    model, preprocess = pretrained.load_pretrained(name)
    with torch.inference_mode():
        return [
            label for few in torch.from_numpy(inputs).split(100) for label in model(preprocess(few)).argmax(1).tolist()
        ]


def multiplications(network: dict) -> int:
    """Of the convolutions of a network of images."""
    layers = [block for block in network["blocks"] if block["kind"] == "conv"]
    return sum(prod(block["kernel"]["shape"]) * prod(block["shape"][1:]) for block in layers)


def test_the_page_gives_pytorchs_labels(page, site, mnist, figure):
    """Of a network that takes long, fewer images are asked for."""
    start(page, site)
    images = mnist.test.images[:1000].numpy()
    # upright and turned
    solids = np.concatenate([voxels.pair(image[0], (0, number)) for number, image in enumerate(images[:100])])
    inputs = {"image": images, "voxels": solids.reshape(-1, 1, 16, 16, 16)}
    for name, network in networks().items():
        chosen = inputs[network["kind"]]
        if multiplications(network) > 3e6:
            chosen = chosen[:100]
        same = sum(map(int.__eq__, labels(page, name, chosen), pytorch(name, chosen)))
        figure(f"labels of the page that equal PyTorch's, {name}", f"{same} of {len(chosen)}")
        assert same == len(chosen)


def test_test_digits_enlarged_moved_and_scaled_come_back_with_their_label(page, site, mnist, figure):
    count = 300
    originals, random = mnist.test.images[:count].view(-1, 28, 28).numpy(), np.random.default_rng(0)
    canvases = np.zeros((count, 280, 280), np.uint8)
    for canvas, original in zip(canvases, originals, strict=True):
        size = round(112 * random.uniform(0.5, 2))
        top, left = random.integers(0, 281 - size, 2)
        canvas[top : top + size, left : left + size] = Image.fromarray(original).resize(
            (size, size), Image.Resampling.BICUBIC
        )
    start(page, site)
    script = f"""async (text) => {{ {BYTES} {MODULE}
        const {{ fromPicture }} = await load("preprocess.mjs");
        const [n, size] = [bytes.length / 78400, 78400];
        const picture = (_, i) => [...fromPicture(bytes.subarray(i * size, (i + 1) * size), 280, 280)];
        return Array.from({{ length: n }}, picture);
        }}"""
    seen = [image for few in np.split(canvases, 15) for image in page.evaluate(script, sent(few))]
    expected = pytorch("bn_augmentation", originals[:, None])
    same = sum(map(int.__eq__, pytorch("bn_augmentation", np.array(seen, np.uint8).reshape(-1, 1, 28, 28)), expected))
    plain = np.stack(
        [np.asarray(Image.fromarray(canvas).resize((28, 28), Image.Resampling.BOX)) for canvas in canvases]
    )
    control = sum(map(int.__eq__, pytorch("bn_augmentation", plain[:, None]), expected))
    figure(
        f"of {count} test digits, enlarged, moved, scaled by 0.5 to 2, keep their label",
        f"{same} MNIST's way, {control} averaged down",
    )
    assert same >= 0.99 * count > control


def test_the_page_and_the_photograph_of_the_same_strokes_agree(page, site, figure):
    start(page, site)
    script = f"""async (strokes) => {{ {MODULE}
        const {{ fromStrokes }} = await load("preprocess.mjs");
        return strokes.map((all) => [...fromStrokes(all.map((stroke) => stroke.map(([x, y]) => ({{ x, y }}))))]); }}"""
    ours = np.array(page.evaluate(script, list(STROKES.values())), np.uint8).reshape(-1, 28, 28)
    photographs = []
    for strokes in STROKES.values():
        points = np.concatenate([np.array(stroke) for stroke in strokes])
        pen = 2.3 / 17.7 * np.ptp(points, 0).max()  # the page's, at the size of the drawing
        photographs.append(photo.read(shapes.drawn(strokes, 600, pen, canvas=(900, 800), place=(150, 100))))
    apart = np.abs(ours.astype(int) - np.stack(photographs)).mean((1, 2))
    figure(
        "the page's picture and a photograph's, mean difference of 255",
        f"{apart.mean():.1f}, at most {apart.max():.1f} (of {len(apart)})",
    )
    assert apart.max() < 5
    assert (
        pytorch("bn_augmentation", ours[:, None])
        == pytorch("bn_augmentation", np.stack(photographs)[:, None])
        == list(STROKES)
    )
    assert np.abs(np.roll(ours, 1, 2).astype(int) - np.stack(photographs)).mean() > 10, (
        "one pixel to the side must show"
    )
