"""The rebuilt 3D-MNIST is the published one: upright rows exactly, rotated rows in distribution."""

import hashlib
import os

import numpy as np
import pytest
import torch

from tools.speed import baseline
from utils import CourseError
from utils.data import augment, datasets, fresh_voxels, voxels
from utils.experiments import Recipe

# SHA-256 over the published file's 50 test rows 0, 40, 80, …, 1960, rounded to five decimals
PUBLISHED = "9455d39bab8e0e5d498dd7cf0ccfce4904c8aa3a00003571be641410eff03176"
FALLBACK = datasets.load("digits").train.images[:12, 0].numpy()


@pytest.fixture(scope="module")
def test_half(mnist):
    """The 2,000 rebuilt rows of MNIST's first 1,000 test images, and their labels."""
    images, labels = mnist.test[: voxels.TEST].tensors
    return voxels.pairs(images[:, 0].numpy(), (0, 1)), labels.repeat_interleave(2)


def test_upright_rows_are_the_published_ones(test_half):
    rows = np.round(test_half[0][0:2000:40].astype(np.float64), 5)
    assert hashlib.sha256(rows.tobytes()).hexdigest() == PUBLISHED


def test_rotated_rows_and_fresh_copies_match_in_distribution(test_half, mnist):
    rows, labels = test_half
    assert abs(100 * (rows[1::2] > 0).mean() - 21.3) < 0.3 and abs(100 * (rows[::2] > 0).mean() - 13.5) < 0.05
    assert rows.mean() == pytest.approx(0.0670, rel=0.01) and rows.std() == pytest.approx(0.1750, rel=0.01)
    assert (rows.max(1) == 1).all()
    assert torch.bincount(labels).tolist() == [170, 252, 232, 214, 220, 174, 174, 198, 178, 188]
    images, random = mnist.test.images[:256, 0], torch.Generator().manual_seed(0)
    turned = torch.ones(256, dtype=torch.bool)
    drawn = torch.cat([fresh_voxels.fresh_grids(images, turned, random) for _ in range(3)]).numpy()
    rows = rows[1::2][:256]
    assert (drawn > 0).mean() == pytest.approx((rows > 0).mean(), rel=0.02)
    assert drawn.mean() == pytest.approx(rows.mean(), rel=0.03) and drawn.std() == pytest.approx(rows.std(), rel=0.02)


def test_a_digit_is_deformed_in_its_plane():
    def plane(**how):
        """(200, 2, 2) matrices, which leave the depth as it is."""
        how = {"rotate": 0, "scale": 0, "shear": 0} | how
        matrices = fresh_voxels._in_plane(200, torch.Generator().manual_seed(0), **how)
        assert (matrices[:, 2] == torch.tensor([0.0, 0, 1])).all() and (matrices[:, :2, 2] == 0).all()
        return matrices[:, :2, :2]

    rotated, scaled, sheared = plane(rotate=40), plane(scale=0.4), plane(shear=40)
    torch.testing.assert_close(rotated @ rotated.mT, torch.eye(2).expand(200, 2, 2))
    angles = torch.atan2(rotated[:, 0, 1], rotated[:, 0, 0]).rad2deg()
    assert 35 < angles.max() <= 40 and -40 <= angles.min() < -35
    ratio = scaled[:, 0, 0] / scaled[:, 1, 1]
    assert (scaled[:, 0, 1] == 0).all() and ratio.min() < 0.6 and ratio.max() > 1.6  # each axis on its own
    torch.testing.assert_close(torch.linalg.det(sheared), torch.ones(200))
    assert (sheared[:, 1, 0] == 0).all() and sheared[:, 0, 1].max() > 0.7


def test_rows_depend_on_the_seed_and_not_on_the_threads(monkeypatch):
    rows = voxels.pairs(FALLBACK, (0, 1))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert (voxels.pairs(FALLBACK, (0, 1)) == rows).all()
    other = voxels.pairs(FALLBACK, (1, 1))
    assert (other[::2] == rows[::2]).all() and (other[1::2] != rows[1::2]).any(1).all()


def test_a_file_of_bodies_is_used_only_for_the_digits_it_was_made_of_and_the_published_one_only_by_its_name(
    tmp_path, monkeypatch
):
    """Fallback digits in MNIST's place, and files of a few rows in a data folder."""
    monkeypatch.setattr(datasets, "_idx", lambda name: None)
    monkeypatch.setattr(datasets, "ROOT", tmp_path)
    monkeypatch.setattr(voxels, "TRAIN", 4)
    monkeypatch.setattr(voxels, "TEST", 2)
    monkeypatch.setenv("COURSE_SMOKE", "0")
    monkeypatch.delenv("COURSE_DATA", raising=False)
    path, published = (tmp_path / "data" / name for name in (voxels.REBUILT, voxels.PUBLISHED))
    path.parent.mkdir(parents=True)
    voxels.write(path, voxels.build((FALLBACK[:4], range(4)), (FALLBACK[4:6], range(2))), {"mnist": "the real one's"})
    rows, facts = voxels.read(path)
    assert [values.shape for values in rows] == [(8, 4096), (8,), (4, 4096), (4,)] and rows.X_train.dtype == np.float32
    assert rows.y_train.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and facts["mnist"] == "the real one's"
    assert (rows.X_test == voxels.pairs(FALLBACK[4:6], (0, 1))).all()
    before, rebuilt = path.read_bytes(), datasets.load("mnist3d")
    assert rebuilt.name == "digits3d" and path.read_bytes() == before
    assert (rebuilt.train.labels[::2] == datasets.load("digits").train.labels[:4]).all()
    path.rename(published)  # other rows than those of the fallback digits
    assert datasets.load("mnist3d").fingerprint == rebuilt.fingerprint
    read = datasets.load("mnist3d_published")
    assert read.name == "mnist3d_published" and read.fingerprint != rebuilt.fingerprint and len(read.train) == 8
    with pytest.raises(CourseError, match="the digits behind mnist3d_published are not known"):
        read.undrawn()
    published.unlink()
    with pytest.raises(CourseError, match=r"mnist3d_published was not found: expected .*vectors.h5.* needs no file"):
        datasets.load("mnist3d_published")


def test_mnist3d_is_held_out_by_digit_and_a_fresh_recipe_draws_every_grid_anew():
    cubes = datasets.load("mnist3d")  # a smoke run: a few digits, rebuilt in memory
    assert cubes.name.endswith("3d") and cubes.kind == "voxels" and not cubes.whole
    assert cubes.train.images.shape == (384, 1, 16, 16, 16) and len(cubes.test) == 128
    assert torch.equal(cubes.parts["upright"].images, cubes.test.images[::2]) and len(cubes.parts["rotated"]) == 64
    held = cubes.hold_out(100)
    assert len(held.train) == 284 and len(held.originals) == 142 and len(held.valid) == 100
    for part in (held.train, held.valid):
        assert (part.labels[::2] == part.labels[1::2]).all()
    upright = torch.from_numpy(voxels.pairs(held.originals.numpy(), (0,))[::2])
    assert torch.equal(held.train.images[::2].flatten(1), upright)
    valid, train = ({tuple(row.flatten().tolist()) for row in one.images} for one in (held.valid, held.train))
    assert not valid & train
    with pytest.raises(CourseError, match="valid = 3: expected even, 1 to 383"):
        cubes.hold_out(3)
    draw = augment.augmentation(Recipe("voxel_best", data="mnist3d", fresh=True), torch.Generator().manual_seed(0))
    first, second = (draw(cubes.undrawn().train.images, torch.arange(384)) for _ in range(2))
    apart = (first - cubes.train.images).abs().flatten(1).mean(1)
    assert apart[::2].mean() < 0.015  # upright, but for points on a boundary of two voxels
    assert (apart[1::2] > 0.01).all() and not torch.equal(first[1::2], second[1::2])


def test_a_bent_digit_has_as_much_ink_as_before():
    images = torch.from_numpy(FALLBACK)[:, None]
    bent = augment.smooth_displacement(images, torch.Generator().manual_seed(0), 0.7)
    before, after = ((digits > 0).flatten(1).sum(1) for digits in (images, bent))
    assert (bent.bool() != (images > 0)).flatten(1).any(1).all() and bent.dtype == torch.uint8
    assert ((after - before).abs() <= 0.05 * before).all()  # equally bright pixels count together


def test_all_of_mnist_is_there_to_be_drawn_from(mnist):
    everything = datasets.load("mnist3d_all")
    assert everything.name.endswith("3d_all") and everything.train.images.shape[1:] == (1, 28, 28)
    assert everything.input_shape == (1, 16, 16, 16) and len(everything.train) == 2 * len(everything.originals)
    assert torch.equal(everything.train.images[1::2, 0], everything.originals)
    held = everything.hold_out(20)
    assert held.valid.images.shape == (20, 1, 16, 16, 16) and (held.valid.images.flatten(1).amax(1) == 1).all()


def test_plain_python_builds_the_same_thing():
    upright, turned = baseline.plain_pair(FALLBACK[0], 0)
    ours = voxels.pair(FALLBACK[0], (0,))
    # a point on a boundary of two voxels may fall to the other side
    assert np.abs(np.array(upright) - ours[0]).mean() < 0.02 and np.corrcoef(upright, ours[0])[0, 1] > 0.97
    assert (np.array(turned) > 0).mean() == pytest.approx((ours[1] > 0).mean(), rel=0.25) and max(turned) == 1
