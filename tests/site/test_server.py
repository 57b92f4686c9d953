"""The server of `make serve`: this machine only, its folder only, and started without torch."""

import http.client
import subprocess
import sys
import threading

import pytest

from tools.site import server
from utils import ROOT, CourseError


@pytest.fixture
def address(tmp_path):
    """Host and port of a server of a small site."""
    folder = tmp_path / "site"
    (folder / "vendor").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "index.html").write_text("<p>here</p>")
    (folder / "vendor" / "large.wasm").write_bytes(b"\0asm" * 500_000)
    (tmp_path / "secret.json").write_text('"secret"')
    running = server.server(folder=folder)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running.server_address
    running.shutdown()
    running.server_close()


def get(address, path: str, **headers) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(*address, timeout=30)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def test_only_this_machine_is_served(address):
    assert address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "host", ["elsewhere.org", "elsewhere.org:8000", "127.0.0.1.elsewhere.org", "", "localhost@elsewhere.org"]
)
def test_another_host_is_refused(address, host):
    """A page elsewhere can give its own name this machine's address, and would read what is served."""
    assert get(address, "/", Host=host).status == 421


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "localhost", "localhost:8000"])
def test_this_host_is_served(address, host):
    assert get(address, "/", Host=host).read() == b"<p>here</p>"


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.json",
        "/%2e%2e/secret.json",
        "/vendor/",
        "/empty/",
        "/x%00",
        "/" + "x" * 300,
    ],
)
def test_nothing_outside_is_read_and_no_folder_listed(address, path):
    answer = get(address, path)
    assert answer.status == 404 and b'secret"' not in answer.read()


def test_files_have_the_types_that_browsers_require(address):
    answer = get(address, "/vendor/large.wasm")
    assert answer.headers["Content-Type"] == "application/wasm" and len(answer.read()) == 2_000_000


@pytest.mark.parametrize("port", [-1, 65536, 10**400])
def test_a_port_out_of_range_is_one_line(port):
    with pytest.raises(CourseError, match="expected a free one from 0 to 65535") as refusal:
        server.server(port)
    assert "\n" not in str(refusal.value)


def test_a_port_in_use_is_one_line(address):
    with pytest.raises(CourseError, match=f"port {address[1]} can't be had") as refusal:
        server.server(address[1])
    assert "\n" not in str(refusal.value)


def test_serving_imports_no_torch():
    found = subprocess.run(
        [sys.executable, "-c", "import sys, tools.site.__main__; print('torch' in sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.stdout == "False\n", found.stderr
