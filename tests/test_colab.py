"""The setup cell finds or clones the course; the tool that writes it needs Python alone."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import quote

import pytest
import torch

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
SAID = "cloning https://github.com/someone/course {} into course\nruns in course {}\n"


def git(*arguments) -> None:
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    subprocess.run(["git", *identity, *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A tiny course with a branch, a release and an older one, as GitHub serves it."""
    folder = tmp_path_factory.mktemp("origin")
    git("init", "--quiet", "--initial-branch=main", folder)
    git("-C", folder, "config", "uploadpack.allowFilter", "true")
    for name, text in COURSE.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    for version in ("v1.9", "v1.10", "some/branch", "main"):
        (folder / "version").write_text(version)
        git("-C", folder, "add", "--all")
        git("-C", folder, "commit", "--quiet", "--message", version)
        if version != "main":
            git("-C", folder, *(["branch"] if "/" in version else ["tag"]), version)
    return folder


@pytest.fixture
def machine(origin, tmp_path):
    """A folder in which `run` executes the setup cell; `paths`: what Colab's sessions API answers (None: no Colab)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps([{"path": path} for path in made.paths]).encode())

        def log_message(self, *_):
            pass

    def run(repo: str = "") -> subprocess.CompletedProcess:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "PYTHON"))}
        environment |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.file://{origin}.insteadOf"}
        environment |= {"GIT_CONFIG_VALUE_0": "https://github.com/someone/course", "no_proxy": "127.0.0.1"}
        if made.paths is not None:
            environment |= {"COLAB_JUPYTER_IP": "127.0.0.1", "KMP_TARGET_PORT": str(server.server_port)}
        argv = [sys.executable, "-c", colab.bootstrap(repo)]
        return subprocess.run(argv, cwd=made.folder, env=environment, capture_output=True, text=True)

    (tmp_path / "content").mkdir()
    made = SimpleNamespace(folder=tmp_path / "content", paths=None, run=run)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()


def opened(address: str) -> str:
    return f"fileId={quote(address, safe='')}"


GITHUB = "https://github.com/someone/course"
CLONED = [  # what is typed into the form, what Colab says it has opened, and the version
    ("other/stamped", [opened(f"{GITHUB}/blob/some/branch/notebooks/01_base.ipynb")], "some/branch"),
    ("someone/course", ["fileId=1AbCdEfGh"], "v1.10"),
    (f"{GITHUB}.git", None, "v1.10"),
    (f"{GITHUB}/blob/main/notebooks/01_base.ipynb", None, "main"),
]


@pytest.mark.parametrize(("typed", "paths", "version"), CLONED)
def test_what_is_cloned_is_the_opened_version_or_the_address_in_the_form_or_its_newest_release(
    typed, paths, version, machine
):
    machine.paths = paths
    done = machine.run(typed)
    assert done.stdout == SAID.format(version, version), done.stderr


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("", "REPO is ''"),
        ("someone/course/my notebooks", "REPO is 'someone/course/my notebooks': type the course's address on GitHub"),
        ("someone/course/tree/absent", "warning: Could not find remote branch absent to clone"),
    ],
)
def test_without_an_address_or_a_connection_the_message_states_why(typed, reason, machine):
    done = machine.run(typed)
    assert done.returncode and f"AssertionError: {reason}" in done.stderr and "runs in" not in done.stdout


def test_an_unrelated_folder_called_course_is_left_alone_and_a_second_run_finds_the_clone(machine, monkeypatch):
    clone = machine.folder / "mnist-course"
    (machine.folder / "course").mkdir()
    (machine.folder / "course" / "train.py").touch()
    assert "runs in mnist-course v1.10\n" in machine.run("someone/course").stdout
    assert machine.run().stdout == "runs in mnist-course v1.10\n"
    assert len(list((machine.folder / "course").iterdir())) == 1
    for root, made_by_the_cell in ((clone, True), (ROOT, False)):
        monkeypatch.setattr(notebook, "ROOT", root)
        assert notebook.cloned() == made_by_the_cell
    (clone / "notebooks").mkdir()
    machine.folder = clone / "notebooks"  # a folder of the course: nothing is cloned, and the folder stays
    (machine.folder / "version").write_text("here")
    assert machine.run().stdout == "runs in notebooks here\n"


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


def test_a_state_dict_that_a_clone_left_out_is_fetched_when_it_is_used(tmp_path, monkeypatch, capsys):
    whole, clone, path = tmp_path / "whole", tmp_path / "clone", tmp_path / "clone" / "saved_dict" / "base.pth"
    content = (ROOT / "saved_dict" / "base.pth").read_bytes()
    files.write(whole / "saved_dict" / "base.pth", content)
    files.write(whole / "saved_dict" / "base.json", (ROOT / "saved_dict" / "base.json").read_bytes())
    git("init", "--quiet", whole)
    for key in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
        git("-C", whole, "config", key, "true")
    git("-C", whole, "add", "--all")
    git("-C", whole, "commit", "--quiet", "--message=all")
    settings = ["--config=core.sparseCheckout=true", "--config=core.sparseCheckoutCone=false"]
    git("clone", "--filter=blob:limit=20k", "--no-checkout", *settings, f"file://{whole}", clone)
    git("-C", clone, "sparse-checkout", "set", "/*", "!/saved_dict/*.pth")
    git("-C", clone, "checkout", "--quiet")
    monkeypatch.setattr(workspace, "root", clone)

    whole.rename(tmp_path / "gone")
    with pytest.raises(CourseError, match=r"^saved_dict/base.pth is not in this clone, and git could not download it"):
        pretrained.find_weights("base")
    (tmp_path / "gone").rename(whole)
    capsys.readouterr()
    assert not path.exists() and pretrained.find_weights("base") == path and path.read_bytes() == content
    assert capsys.readouterr().out == "downloading saved_dict/base.pth (0.0 MB)\n"
    pretrained.load_pretrained("base")
    assert capsys.readouterr().out == ""
    git("-C", clone, "sparse-checkout", "disable")
    path.unlink()  # deleted by the reader
    with pytest.raises(CourseError, match="is called 'base'"):
        pretrained.find_weights("base")


# ---- devices


NO_KERNEL = "CUDA error: no kernel image is available for execution on the device"


@pytest.fixture
def broken(monkeypatch):
    """A function that lets PyTorch list GPUs that it cannot use."""

    def lists(cuda: bool, mps: bool, message: str = f"{NO_KERNEL}\nCompile with…") -> None:
        def ones(*size, device=None, real=torch.ones):
            if torch.device(device).type != "cpu":
                raise RuntimeError(message)
            return real(*size, device=device)

        monkeypatch.setattr(torch, "ones", ones)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    devices._first_that_works.cache_clear()
    yield lists
    devices._first_that_works.cache_clear()


def test_a_gpu_that_fails_is_named_once_and_the_next_device_is_used_unless_it_was_asked_for(broken, capsys):
    broken(cuda=True, mps=True)
    assert devices.pick_device() == devices.pick_device() == torch.device("cpu")
    told = f"CUDA can't be used ({NO_KERNEL}): MPS is next\nMPS can't be used ({NO_KERNEL}): CPU is next\n"
    assert capsys.readouterr().out == told
    with pytest.raises(CourseError, match=rf"device 'cuda:0' can't be used \({NO_KERNEL}\): choose --device cpu"):
        devices.pick_device("cuda:0")


def test_voxels_on_mps_name_the_version_of_torch_that_they_need(broken, capsys):
    message = "The operator 'aten::grid_sampler_3d' is not currently implemented for the MPS device."
    broken(cuda=False, mps=True, message=message)
    assert devices.pick_device(kind="voxels") == torch.device("cpu")
    assert f"MPS can't be used ({message}; voxels need torch 2.9 or newer there)" in capsys.readouterr().out


# ---- the tool


def test_the_tool_needs_python_alone():
    """-S: without a single installed package."""
    argv = [sys.executable, "-S", "-m", "tools.colab", "--help"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "owner/name" in done.stdout, done.stderr


def test_badges_open_the_newest_release_that_holds_the_notebook(tmp_path, monkeypatch):
    monkeypatch.setattr(colab, "ROOT", tmp_path)
    git("init", "--quiet", tmp_path)
    for version, name in {"v1.9": "01.ipynb", "v1.10": "02.ipynb", "later": "03.ipynb"}.items():
        files.write(tmp_path / "notebooks" / name, b"")
        git("-C", tmp_path, "add", "--all")
        git("-C", tmp_path, "commit", "--quiet", "--message", version)
        git("-C", tmp_path, "tag", version)
    for name, newest in (("01", "v1.10"), ("02", "v1.10"), ("03", "main")):
        assert f"/someone/course/blob/{newest}/notebooks/{name}.ipynb" in colab.badge("someone/course", f"{name}.ipynb")
