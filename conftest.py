"""Plain pytest is the smoke run: notebooks' kernels inherit the variable. COURSE_SMOKE=0 runs everything in full."""

import os
import re
import signal
import tempfile
from pathlib import Path

import pytest

# the shell ignores Ctrl-C in the background, for all that is started there too, and tests of it would wait forever
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("COURSE_SMOKE", "1")

# nbval kills a notebook's kernel before it has tidied up; what is left behind goes when pytest ends
_left_behind = tempfile.TemporaryDirectory(prefix="mnist-course-tests-", ignore_cleanup_errors=True)
os.environ["TMPDIR"] = _left_behind.name

# What takes longest comes first, so that no process waits for another at the end. Single tests of SPLIT follow, because
# they share no slow fixture. Some fork, which hangs in a process that has already computed with several threads.
LONGEST = ("test_snippets.py", "test_cluster.py", "test_ddp.py", "test_results.py", "test_errand.py", "test_docs.py")
SPLIT = ("test_published.py", "test_stress.py", "test_faults.py", "test_cli.py", "test_speed.py", "test_runs.py")
SPLIT += ("test_live.py", "test_live_numbers.py", "test_site.py", "test_train.py", "test_notebooks.py")


def pytest_collection_modifyitems(items):
    def place(item):
        if re.search(r"test_published.*\[(frontier_best|voxel_)", item.nodeid):
            return -1
        name = item.path.name
        return LONGEST.index(name) if name in LONGEST else len(LONGEST) + (name not in SPLIT)

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Each process of pytest-xdist gets a file or notebook at a time, or one test of a file in SPLIT; one process gets
    all networks of voxels, whose grids may have to be built."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            if "[voxel_" in nodeid and "test_published" in file:
                return file + "::voxels"
            return nodeid if Path(file).name in SPLIT else file

    config.option.loadscopereorder = False
    return Scheduling(config, log)


def real(name):
    """A whole data set, also in a smoke run; skips without the real MNIST."""
    from utils.data import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_SMOKE", "0")
        loaded = datasets.load(name)
    if loaded.name != name:
        pytest.skip("MNIST could not be downloaded: set COURSE_DATA")
    return loaded


@pytest.fixture(scope="session")
def mnist():
    return real("mnist")


@pytest.fixture(scope="session")
def mnist3d(mnist):
    """Some 12 seconds the first time: rebuilt from MNIST and kept in data/, unless it lies there."""
    return real("mnist3d")


@pytest.fixture(scope="session")
def mnist3d_all(mnist3d):
    return real("mnist3d_all")


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """An empty repository (see empty_repository) of this test's own."""
    return empty_repository(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def scratch_of_module(tmp_path_factory):
    """An empty repository (see empty_repository) of this file's own, for tests that leave it as it is."""
    with pytest.MonkeyPatch.context() as patch:
        yield empty_repository(tmp_path_factory.mktemp("scratch"), patch)


def empty_repository(tmp_path, monkeypatch):
    """An empty repository, as far as reading and writing results goes, in which the tiny experiment is a registered
    one.

    The fallback digits count as real data and the code as committed, so that it can be published there.
    """
    from tiny import NETWORKS, TINY

    from utils import models, workspace
    from utils.data import datasets
    from utils.experiments import EXPERIMENTS
    from utils.runs import facts

    monkeypatch.setenv("COURSE_SMOKE", "0")
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("COURSE_PUBLISH", raising=False)
    monkeypatch.setattr(workspace, "root", tmp_path)
    monkeypatch.setattr(models, "MODELS", models.MODELS | NETWORKS)
    monkeypatch.setitem(EXPERIMENTS, "tiny", TINY)
    monkeypatch.setitem(datasets.PUBLISHABLE, "digits", datasets.load("digits").fingerprint)
    monkeypatch.setattr(facts, "code", lambda: facts.Code("a" * 40, "b" * 16))
    return tmp_path
