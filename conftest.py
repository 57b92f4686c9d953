"""Plain pytest is the smoke run: notebooks' kernels inherit the variable. COURSE_SMOKE=0 runs everything in full."""

import os

import pytest

os.environ.setdefault("COURSE_SMOKE", "1")


@pytest.fixture(scope="session")
def mnist():
    """The whole of the real MNIST, also in a smoke run; skips where it is not at hand."""
    from utils import data

    smoke, os.environ["COURSE_SMOKE"] = os.environ["COURSE_SMOKE"], "0"
    loaded = data.load("mnist")
    os.environ["COURSE_SMOKE"] = smoke
    if loaded.name != "mnist":
        pytest.skip("MNIST is not at hand: set COURSE_DATA")
    return loaded
