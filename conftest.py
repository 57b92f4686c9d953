"""Plain pytest is the smoke run: notebooks' kernels inherit the variable. COURSE_SMOKE=0 runs everything in full."""

import os

import pytest

os.environ.setdefault("COURSE_SMOKE", "1")


def real(name):
    """A whole data set, also in a smoke run; skips where the real MNIST is not at hand."""
    from utils import data

    smoke, os.environ["COURSE_SMOKE"] = os.environ["COURSE_SMOKE"], "0"
    loaded = data.load(name)
    os.environ["COURSE_SMOKE"] = smoke
    if loaded.name != name:
        pytest.skip("MNIST is not at hand: set COURSE_DATA")
    return loaded


@pytest.fixture(scope="session")
def mnist():
    return real("mnist")


@pytest.fixture(scope="session")
def mnist3d(mnist):
    """Some 12 seconds the first time: rebuilt from MNIST and kept in data/, unless it lies there."""
    return real("mnist3d")
