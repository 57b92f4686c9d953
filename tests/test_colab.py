"""The setup cell finds or clones the course; the tool that writes it needs Python alone."""

import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import pytest
import sessions
import torch
from sessions import GITHUB, git

from tools import colab
from utils import ROOT, CourseError, files, workspace
from utils.report import notebook
from utils.runs import pretrained
from utils.training import devices

NOTEBOOK = """from pathlib import Path
def setup(save_to_drive):
    print('runs in', Path.cwd().name, Path('version').read_text())
"""
COURSE = {"train.py": "", "references.json": "{}", "utils/__init__.py": "", "utils/report/notebook.py": NOTEBOOK}
LARGE = "saved_dict/small_cnn.pth"


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A tiny course with two releases and a branch, as GitHub serves it; each version adds a notebook."""
    folder = tmp_path_factory.mktemp("origin")
    git("init", "--quiet", "--initial-branch=main", folder)
    for key in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
        git("-C", folder, "config", key, "true")
    for name, text in COURSE.items():
        files.write(folder / name, text.encode())
    for path in (LARGE, LARGE.replace(".pth", ".json")):
        files.write(folder / path, (ROOT / path).read_bytes())
    for version in ("v1.9", "v1.10", "some/branch", "main"):
        for name in ("version", f"notebooks/{Path(version).name}.ipynb"):
            files.write(folder / name, version.encode())
        git("-C", folder, "add", "--all")
        git("-C", folder, "commit", "--quiet", "--message", version)
        if version != "main":
            git("-C", folder, *(["branch"] if "/" in version else ["tag"]), version)
    return folder


@pytest.fixture
def run(origin, tmp_path):
    """Executes the setup cell with the form's REPO; `paths`: what Colab's sessions API answers (None: no Colab)."""
    with sessions.colab() as served:

        def run(typed: str = "", paths: list[str] | None = None, folder=tmp_path) -> subprocess.CompletedProcess:
            served.paths = paths
            variables = sessions.environment(origin) | (served.variables if paths else {})
            argv = [sys.executable, "-c", colab.bootstrap(typed)]
            return subprocess.run(argv, cwd=folder, env=variables, capture_output=True, text=True)

        yield run


@pytest.mark.parametrize(
    ("typed", "paths", "version"),
    [
        ("other/stamped", [f"fileId={quote(f'{GITHUB}/blob/some/branch/notebooks/1.ipynb', safe='')}"], "some/branch"),
        ("someone/course", ["fileId=1AbCdEfGh"], "v1.10"),
        (f"{GITHUB}.git", None, "v1.10"),
        (f"{GITHUB}/blob/main/notebooks/01_base.ipynb", None, "main"),
    ],
)
def test_what_is_cloned_is_the_opened_version_or_the_address_in_the_form_or_its_newest_release(
    typed, paths, version, run
):
    done = run(typed, paths)
    assert done.stdout == f"cloning {GITHUB} {version} into course\nruns in course {version}\n", done.stderr


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("", "REPO is ''"),
        ("someone/course/my notebooks", "REPO is 'someone/course/my notebooks': type the course's address on GitHub"),
        ("someone/course/tree/absent", "warning: Could not find remote branch absent to clone"),
    ],
)
def test_without_an_address_or_a_connection_the_message_states_why(typed, reason, run):
    done = run(typed)
    assert done.returncode and f"AssertionError: {reason}" in done.stderr and "runs in" not in done.stdout


def test_an_unrelated_folder_called_course_is_left_alone_and_a_second_run_finds_the_clone(run, tmp_path, monkeypatch):
    clone = tmp_path / "mnist-course"
    files.write(tmp_path / "course" / "train.py", b"")
    assert "runs in mnist-course v1.10\n" in run("someone/course").stdout
    assert run().stdout == "runs in mnist-course v1.10\n"
    assert len(list((tmp_path / "course").iterdir())) == 1
    for root, made_by_the_cell in ((clone, True), (ROOT, False)):
        monkeypatch.setattr(notebook, "ROOT", root)
        assert notebook.cloned() == made_by_the_cell
    files.write(clone / "notebooks" / "version", b"here")  # a folder of the course: nothing is cloned, and it stays
    assert run(folder=clone / "notebooks").stdout == "runs in notebooks here\n"


# ---- what the cloned course does then


def test_what_is_missing_is_installed_by_the_kernel_s_own_interpreter_of_a_clone_alone(monkeypatch, capsys):
    found, called, ended = notebook.importlib.util.find_spec, [], subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(notebook.importlib.util, "find_spec", lambda name: None if name == "msgspec" else found(name))
    monkeypatch.setattr(notebook, "cloned", lambda: True)
    monkeypatch.setattr(notebook.subprocess, "run", lambda argv, **_: called.append(argv) or ended)
    notebook.setup()
    assert called == [[sys.executable, "-m", "pip", "install", "--quiet", "msgspec"]]
    assert "installing msgspec\n" in capsys.readouterr().out
    ended = subprocess.CompletedProcess([], 1, "", "WARNING: one\nERROR: No matching distribution found for msgspec\n")
    with pytest.raises(CourseError, match=r"pip could not install msgspec: ERROR: No matching .* msgspec\. Connect"):
        notebook.setup()
    monkeypatch.setattr(notebook, "cloned", lambda: False)  # on your own machine
    with pytest.raises(CourseError, match=r"msgspec not installed: run `python -m pip install -r requirements\.txt`"):
        notebook.setup()
    assert len(called) == 2


def test_runs_go_to_drive_only_in_colab(monkeypatch, tmp_path):
    monkeypatch.delenv("COURSE_RUNS", raising=False)
    with pytest.raises(CourseError, match="only Colab can save to Google Drive: set SAVE_TO_DRIVE = False"):
        notebook.setup(save_to_drive=True)
    mounted = []
    drive = SimpleNamespace(mount=mounted.append)
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace(drive=drive))
    monkeypatch.setitem(sys.modules, "google", SimpleNamespace(colab=sys.modules["google.colab"]))
    monkeypatch.setenv("COURSE_RUNS", "")
    notebook.setup(save_to_drive=True)
    assert mounted == ["/content/drive"] and os.environ["COURSE_RUNS"] == "/content/drive/MyDrive/mnist-course"


def test_a_state_dict_that_a_clone_left_out_is_fetched_when_it_is_used(run, origin, tmp_path, monkeypatch, capsys):
    clone, path = tmp_path / "course", tmp_path / "course" / LARGE
    run(f"{GITHUB}/tree/main")
    monkeypatch.setattr(workspace, "root", clone)

    def connect(repository) -> None:
        for key, value in sessions.environment(repository).items():
            monkeypatch.setenv(key, value)

    connect(tmp_path / "gone")
    with pytest.raises(CourseError, match=rf"^{LARGE} is not in this clone, and git could not download it"):
        pretrained.find_weights("small_cnn")
    connect(origin)
    capsys.readouterr()
    assert not path.exists() and pretrained.find_weights("small_cnn") == path
    assert path.read_bytes() == (ROOT / LARGE).read_bytes()
    assert capsys.readouterr().out == f"downloading {LARGE} (3.0 MB)\n"
    pretrained.load_pretrained("small_cnn")
    assert capsys.readouterr().out == ""
    git("-C", clone, "sparse-checkout", "disable")
    path.unlink()  # deleted by the reader
    with pytest.raises(CourseError, match="is called 'small_cnn'"):
        pretrained.find_weights("small_cnn")


# ---- devices


@pytest.mark.parametrize(
    ("kind", "reason", "told"),
    [
        ("images", "CUDA error: no kernel image is available\nCompile with…", "{}"),
        ("voxels", "The operator 'grid' is not implemented", "{}; voxels need torch 2.9 or newer there"),
    ],
)
def test_a_gpu_that_fails_is_named_once_and_the_next_device_is_used_unless_it_was_asked_for(
    kind, reason, told, monkeypatch, capsys
):
    def ones(*size, device=None, real=torch.ones):
        if torch.device(device).type != "cpu":
            raise RuntimeError(reason)
        return real(*size, device=device)

    monkeypatch.setattr(torch, "ones", ones)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(devices, "_first_that_works", lru_cache(devices._first_that_works.__wrapped__))
    assert devices.pick_device(kind=kind) == devices.pick_device(kind=kind) == torch.device("cpu")
    line = reason.splitlines()[0]
    expected = f"CUDA can't be used ({line}): MPS is next\nMPS can't be used ({told.format(line)}): CPU is next\n"
    assert capsys.readouterr().out == expected
    with pytest.raises(CourseError, match=r"device 'cuda:0' can't be used \(.*\): choose --device cpu"):
        devices.pick_device("cuda:0")


# ---- the tool


def test_the_tool_needs_python_alone():
    """-S: without a single installed package."""
    argv = [sys.executable, "-S", "-m", "tools.colab", "--help"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "owner/name" in done.stdout, done.stderr


def test_badges_open_the_newest_release_that_holds_the_notebook(origin, monkeypatch):
    monkeypatch.setattr(colab, "ROOT", origin)
    for name, newest in (("v1.9", "v1.10"), ("v1.10", "v1.10"), ("main", "main")):
        assert f"/someone/course/blob/{newest}/notebooks/{name}.ipynb" in colab.badge("someone/course", f"{name}.ipynb")
