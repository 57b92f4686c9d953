"""The folder utils is the package small_cnns where it is installed by `pip install -e .`."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from utils import ROOT

BUILD = "import setuptools.build_meta, sys; print(setuptools.build_meta.build_editable(sys.argv[1]))"
USE = """
import site, sys
site.addsitedir(sys.argv[1])
from small_cnns.data import augment
from small_cnns.models import build
from small_cnns.report import tables
from small_cnns.runs import load_pretrained
build("voxel_best(position_weighted=True)")  # on the meta device its layer would import sympy, which takes long
model, preprocess = load_pretrained("base")
print(sum(p.numel() for p in model.parameters()), {"utils", "sympy"} & {name.split(".")[0] for name in sys.modules})
"""


def test_an_editable_install_is_imported_from_anywhere_and_finds_the_weights(tmp_path):
    setuptools = pytest.importorskip(
        "setuptools", minversion="77", reason="pip installs setuptools 77 to build the package"
    )
    course, wheels, elsewhere = tmp_path / "course", tmp_path / "wheels", tmp_path / "elsewhere"
    for folder in (course, wheels, elsewhere):
        folder.mkdir()
    for path in [*ROOT.glob("requirements*.txt"), ROOT / "pyproject.toml", ROOT / "README.md"]:
        shutil.copy(path, course)
    for folder in ("utils", "saved_dict", "logs"):
        shutil.copytree(ROOT / folder, course / folder, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(wheels)], cwd=course, env=environment, capture_output=True, text=True
    )
    assert built.returncode == 0, f"setuptools {setuptools.__version__}: {built.stderr[-2000:]}"
    with zipfile.ZipFile(wheels / built.stdout.splitlines()[-1]) as wheel:
        metadata = next(wheel.read(name).decode() for name in wheel.namelist() if name.endswith("METADATA"))
        wheel.extractall(wheels)
    command = [sys.executable, "-c", USE, str(wheels)]
    ended = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert ended.stdout == "7034 set()\n", ended.stderr[-2000:]
    assert "Requires-Dist: torch>=2.6" in metadata and 'extra == "site"' in metadata
