"""Data is whole or refused; without network the digits stand in and say so."""

import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets

from utils import CourseError, files, smoke
from utils.data import datasets, sources
from utils.data.augment import affine, augmentation, elastic, erase_square, vary_stroke_width
from utils.experiments import Recipe
from utils.runs import records


@pytest.fixture(autouse=True)
def course(tmp_path, monkeypatch):
    """A whole run of a course without data and without network, whose data are to lie in tmp_path."""

    def fail(source, folder):
        raise OSError("no route to host")

    monkeypatch.setenv("COURSE_SMOKE", "0")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    monkeypatch.setattr(datasets, "ROOT", tmp_path)
    monkeypatch.setattr(sources, "_origins", lambda source: [("a mirror", fail)])


def header(*shape: int) -> bytes:
    """Of an IDX file of bytes."""
    return struct.pack(f">HBB{len(shape)}I", 0, 0x08, len(shape), *shape)


def make(root, name="mnist", n=20):
    """A tiny set in a source's own layout; returns its files."""
    source, random = datasets.SOURCES[name], np.random.RandomState(1)
    paths = source.files(root)
    paths[0].parent.mkdir(parents=True)
    for images, labels in (paths[:2], paths[2:]):
        files.write_idx(images, torch.from_numpy(random.randint(0, 256, (n, 28, 28)).astype(np.uint8)))
        values = (np.arange(n) % 10).astype(np.uint8)
        rows = values if name != "qmnist" else np.stack([values] + [values * 0 + 77] * 7, 1).astype(np.int32)
        files.write_idx(labels, torch.from_numpy(rows))
    return paths


@pytest.mark.parametrize("name", datasets.SOURCES)
def test_every_name_loads_from_the_files_torchvision_keeps(name, tmp_path, capsys):
    make(tmp_path, name)
    source, loaded = datasets.SOURCES[name], datasets.load(name)
    kept = getattr(torchvision.datasets, source.torchvision_class)(str(tmp_path), train=False, **source.options)
    assert loaded.name == name
    images = kept.data.transpose(1, 2) if name == "emnist_digits" else kept.data  # its files hold columns first
    assert torch.equal(loaded.test.images[:, 0], images)
    assert torch.equal(loaded.test.labels, torch.tensor([kept[i][1] for i in range(20)]))
    assert ("is not what is known by that name" in capsys.readouterr().err) == (name in datasets.PUBLISHABLE)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the mapping in /proc")
def test_images_beyond_the_memory_bound_are_mapped_and_the_same(tmp_path, monkeypatch):
    paths = make(tmp_path, "emnist_digits")
    read = datasets.load("emnist_digits")
    assert torch.equal(read.train.images[3, 0], files.read_idx(paths[0])[3].T)  # turned upright
    monkeypatch.setenv("COURSE_MEMORY_GB", "0.00001")  # the images are 15,696 bytes, the labels 28
    mapped = datasets.load("emnist_digits")
    assert mapped.fingerprint == read.fingerprint and (mapped.mean, mapped.std) == (read.mean, read.std)
    maps = Path("/proc/self/maps").read_text()
    assert str(paths[0]) in maps and str(paths[1]) not in maps
    before = paths[0].read_bytes()
    mapped.train.images.zero_()
    assert paths[0].read_bytes() == before


def test_mnist_is_the_real_one(mnist, monkeypatch, capsys):
    monkeypatch.undo()  # from here on, its files are found again
    monkeypatch.setenv("COURSE_SMOKE", "0")
    assert datasets.load("mnist").fingerprint == mnist.fingerprint == datasets.PUBLISHABLE["mnist"]
    assert not capsys.readouterr().err
    pixels = mnist.train.images.float() / 255
    assert (mnist.mean, mnist.std) == pytest.approx((pixels.mean().item(), pixels.std().item()), abs=1e-5)


def test_without_network_digits_stand_in_and_the_last_line_says_how_to_fix_it(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_DATA", "nowhere")
    digits = datasets.load("mnist")
    first, last = capsys.readouterr().err.splitlines()
    assert digits.name == "digits" and digits.train.images.shape == (1437, 1, 28, 28) and len(digits.test) == 360
    assert first == "Downloading mnist from a mirror: failed (OSError: no route to host)."
    parts = ("nowhere", "train-images-idx3-ubyte", "COURSE_DATA", "nothing can be published", "compared with nothing")
    assert all(part in last for part in parts)
    datasets.load("mnist")
    assert capsys.readouterr().err == f"{last}\n"  # what failed a moment ago is not tried again


@pytest.mark.parametrize(
    ("which", "damage", "message"),
    [
        (0, lambda raw: raw[:4], "ends within its header, after 4 bytes: expected 16"),
        (2, lambda raw: b"<html>404 not found</html>", "t10k-images.*not an IDX file: it starts with 3c 68"),
        (1, lambda raw: header(2**31) + b"123", "says it is 2,147,483,656 bytes: expected at most 419,430,400"),
        (1, lambda raw: raw[:-1], r"is 27 bytes, but its header \(20\) says 28"),
        (1, lambda raw: raw + b"1", r"is 29 bytes, but its header \(20\) says 28"),
        (3, lambda raw: header(19) + bytes(19), "t10k-images.*found 20 images .*, 19 labels, expected as many"),
        (1, lambda raw: header(20) + bytes([10] * 20), "expected as many images of 28×28 .* all of them 0 to 9"),
        (0, lambda raw: header(20, 8, 8) + bytes(20 * 64), r"found 20 images of \(8, 8\)"),
        (0, lambda raw: raw[:2] + b"\x0c" + raw[3:16] + bytes(4 * 20 * 784), r"torch\.int32"),
    ],
)
def test_damaged_files_are_one_clear_error(which, damage, message, tmp_path):
    path = make(tmp_path)[which]
    content = damage(path.read_bytes())
    path.unlink()
    for name, written in ((path.name, content), (f"{path.name}.gz", gzip.compress(content))):
        path.with_name(name).write_bytes(written)
        with pytest.raises(CourseError, match=message):
            datasets.load("mnist")
        path.with_name(name).unlink()


def test_held_out_images_are_pinned_and_disjoint():
    digits = datasets.load("digits")
    split = digits.hold_out(100)
    assert (len(split.train), len(split.valid)) == (1337, 100)
    both = torch.cat([split.train.images, split.valid.images]).flatten(1).unique(dim=0)
    assert torch.equal(both, digits.train.images.flatten(1).unique(dim=0))
    pinned = np.random.RandomState(0).permutation(60_000)[-3:].tolist()
    assert pinned == [42613, 43567, 2732]  # the split of MNIST, for all time
    for count in (1437, "1000"):
        with pytest.raises(CourseError, match=rf"^valid = {count!r}: expected 1 to 1436, digits has 1437 training"):
            digits.hold_out(count)
    with pytest.raises(CourseError, match="expected one of mnist, fashion_mnist"):
        datasets.load("mnits")


ROWS, COLUMNS = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")


def center(images: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(N, 1, 28, 28) → (N,): the mean of places (28, 28), weighted by the images, from the middle."""
    return (images[:, 0] * places).sum((1, 2)) / images.sum((1, 2, 3)) - 13.5


def test_affine_moves_what_it_says():
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, 13:15, 20:22] = 1
    assert affine(image, torch.Generator()) is image
    copies, random = image.expand(500, 1, 28, 28), torch.Generator().manual_seed(0)
    turned = affine(copies, random, rotate=10)
    angle = torch.atan2(center(turned, ROWS), center(turned, COLUMNS)).rad2deg()
    assert 9 < angle.max() < 10.3 and -10.3 < angle.min() < -9 and angle.abs().mean() == pytest.approx(5, abs=0.4)
    moved = center(affine(copies, random, shift=2), COLUMNS) - 7
    assert 1.9 < moved.max() < 2.1 and -2.1 < moved.min() < -1.9
    scaled = affine(torch.ones(500, 1, 14, 14), random, scale=0.1)
    assert scaled.min() < 1  # a smaller copy shows the outside, which is 0


def test_elastic_moves_pixels_smoothly_by_what_it_says():
    ramps = torch.stack([COLUMNS, ROWS]).expand(400, 2, 28, 28)
    assert elastic(ramps, torch.Generator(), 0.0) is ramps
    moved = (elastic(ramps, torch.Generator().manual_seed(0), 1.5) - ramps)[:, :, 8:20, 8:20]  # pixels, inside
    # cubic interpolation between knots of standard deviation 1.5: a little less between them; over 400 independent
    # fields ± 4 %
    assert 0.6 * 1.5 < moved.std(0).mean() < 1.1 * 1.5 and moved.mean().abs() < 0.1
    assert (moved[..., 1:] - moved[..., :-1]).std() < 0.5  # neighbors move together: knots are seven pixels apart


def test_strokes_become_as_much_wider_or_thinner_as_it_says():
    bars = torch.zeros(1, 1, 28, 28)
    bars[..., 10:15] = 1  # five pixels wide
    assert vary_stroke_width(bars, torch.Generator(), 0.0) is bars
    widths = vary_stroke_width(bars.expand(500, 1, 28, 28), torch.Generator().manual_seed(0), 0.5)[:, 0, 14].sum(1)
    # up to a half of the way to seven or to three pixels, uniformly
    assert widths.max() == pytest.approx(6, abs=0.02) and widths.min() == pytest.approx(4, abs=0.02)
    assert widths.mean() == pytest.approx(5, abs=0.1) and widths.std() == pytest.approx(1 / 3**0.5, abs=0.05)


def test_a_square_of_its_side_is_blackened_anywhere():
    white = torch.ones(2000, 1, 28, 28)
    assert erase_square(white, torch.Generator(), 0.0) is white
    holes = 1 - erase_square(white, torch.Generator().manual_seed(0), 6.0)
    assert white.min() == 1  # the images that it is given stay
    rows, columns = holes.amax(3).sum(2).flatten(), holes.amax(2).sum(2).flatten()
    assert torch.equal(holes.sum((1, 2, 3)), rows * columns)  # one rectangle: a square, unless the image's edge cuts it
    assert rows.max() == columns.max() == 6 and (rows[columns == 6] == 6).float().mean() > 0.7 and rows.min() >= 3


DEFORMED = Recipe("base", rotate=10.0, shift=2.0, scale=0.1, shear=5.0, elastic=0.5, stroke=0.5, erase=6.0)


FRESH = Recipe("voxel_best", data="mnist3d", fresh=True, rotate=5.0, scale=0.1, shear=6.0, elastic=0.7)


@pytest.mark.parametrize("recipe", [DEFORMED, FRESH], ids=["images", "voxels"])
def test_shards_of_a_batch_are_augmented_as_the_whole_is(recipe, processes=3):
    """Bit for bit: with several processes each draws the whole batch's numbers and uses its own."""
    images, rows = datasets.load("digits").train.images[:50], torch.arange(50) // 2 + torch.arange(50) % 3

    def augmented(images, rows, shard=slice(None)):
        return augmentation(recipe, torch.Generator().manual_seed(0))(images, rows, shard)

    whole = augmented(images, rows)
    parts = torch.empty_like(whole)
    for number in range(processes):
        parts[number::processes] = augmented(images, rows, slice(number, 50, processes))
    assert torch.equal(parts, whole)
    # the control: a shard that draws numbers for itself alone gets others
    assert not torch.equal(augmented(images[::processes], rows[::processes]), whole[::processes])


def test_each_batch_is_augmented_anew_and_a_recipe_without_augmentation_draws_nothing():
    images, rows, generator = datasets.load("digits").train.images[:8], torch.arange(8), torch.Generator()
    augment = augmentation(DEFORMED, generator)
    assert not torch.equal(augment(images, rows), augment(images, rows))
    before = generator.get_state()
    assert torch.equal(augmentation(Recipe("base"), generator)(images, rows), images / 255)
    assert torch.equal(generator.get_state(), before)


def test_gzipped_files_are_read_where_they_lie(tmp_path):
    paths = make(tmp_path)
    plain = datasets.load("mnist")
    for path in paths[:3]:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert datasets.load("mnist").fingerprint == plain.fingerprint
    zipped = paths[0].with_name(f"{paths[0].name}.gz")
    zipped.write_bytes(zipped.read_bytes()[:-20])
    with pytest.raises(CourseError, match=r"train-images-idx3-ubyte.gz can't be read \(Compressed file ended"):
        datasets.load("mnist")


def test_a_relative_folder_starts_at_the_repository_and_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    make(tmp_path / "given")
    for name, value in {"HOME": tmp_path, "USERPROFILE": tmp_path, "COURSE_RUNS": "~/mine"}.items():
        monkeypatch.setenv(name, str(value))
    for given in ("~/given", "given"):
        monkeypatch.setenv("COURSE_DATA", given)
        assert len(datasets.load("mnist").train) == 20
    assert records.own_root() == tmp_path / "mine"


def test_smoke_is_on_off_or_rejected(monkeypatch):
    words = dict.fromkeys(("1", "true", "YES", "on"), True) | dict.fromkeys(("0", "No", "OFF", ""), False)
    for word, expected in words.items():
        monkeypatch.setenv("COURSE_SMOKE", word)
        assert smoke() == expected
    monkeypatch.setenv("COURSE_SMOKE", "2")
    with pytest.raises(CourseError, match="COURSE_SMOKE = '2': expected 1, true"):
        smoke()
