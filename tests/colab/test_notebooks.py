"""Every notebook runs under Colab's kernel, from the state that a click on its badge creates: `make test-colab`."""

import json
import shutil
import subprocess
from urllib.parse import quote

import pytest
from sessions import GITHUB

from tools import colab
from utils import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb")) + sorted((ROOT / "notebooks").glob("solutions/*.ipynb"))
NAMES = [path.relative_to(ROOT).as_posix() for path in NOTEBOOKS]
MOST_BYTES = 20_000_000  # of a clone
LARGE = "saved_dict/voxel_reference.pth"


def open_in_colab(server, name: str) -> None:
    server.paths = [f"fileId={quote(f'{GITHUB}/blob/main/{name}', safe='')}"]


def run(argv: list[str], folder, environment) -> subprocess.CompletedProcess:
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("name", NAMES)
def test_notebook_runs_in_colab(name, environment, server, python, tmp_path):
    open_in_colab(server, name)
    shutil.copy(ROOT / name, tmp_path / "opened.ipynb")
    execute = [python, "-m", "nbconvert", "--to", "notebook", "--execute", "--output", "ran", "opened.ipynb"]
    done = run(execute, tmp_path, environment)
    assert done.returncode == 0, done.stderr[-3000:]
    ran = json.loads((tmp_path / "ran.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in ran["cells"] for output in cell.get("outputs", [])]
    setup = "".join("".join(output["text"]) for output in ran["cells"][1]["outputs"])
    assert setup.startswith("cloning https://github.com/someone/course main into course\n")
    assert "on the CPU, smoke run" in setup
    warned = "".join("".join(output["text"]) for output in outputs if output.get("name") == "stderr")
    assert "constrained_layout not applied" not in warned


SETUP = f"""{colab.BOOTSTRAP}
from utils.runs.pretrained import load_pretrained
size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
print("clone", size, Path.cwd() == root, (root / {LARGE!r}).exists())
load_pretrained("voxel_reference")
print("fetched", (root / {LARGE!r}).stat().st_size)
"""


def test_a_clone_is_small_and_fetches_a_large_state_dict_when_it_is_used(environment, server, python, tmp_path):
    open_in_colab(server, NAMES[0])
    stub = environment["PYTHONPATH"].split(":")[0]
    environment = environment | {"PIP_TARGET": str(tmp_path), "PYTHONPATH": f"{stub}:{tmp_path}"}
    done = run([python, "-c", SETUP.replace("SAVE_TO_DRIVE = False", "SAVE_TO_DRIVE = True")], tmp_path, environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "installing msgspec" in lines and "mounted /content/drive" in lines
    [clone] = [line.split() for line in lines if line.startswith("clone ")]
    assert int(clone[1]) < MOST_BYTES and clone[2:] == ["True", "False"], clone
    assert f"downloading {LARGE} (16.3 MB)" in lines and f"fetched {(ROOT / LARGE).stat().st_size}" in lines
