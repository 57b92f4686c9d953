"""The server of `make serve`: this machine only, no link out of the folder followed, bounded, and without torch."""

import gzip
import http.client
import socket
import subprocess
import sys
import threading

import pytest

from tools.site import __main__ as server
from utils import ROOT, CourseError


@pytest.fixture
def address(tmp_path):
    """Host and port of a server of a small site."""
    folder = tmp_path / "site"
    (folder / "vendor").mkdir(parents=True)
    (folder / "index.html").write_text("<p>here</p>")
    (folder / "vendor" / "large.wasm").write_bytes(b"\0asm" * 500_000)
    (tmp_path / "secret.json").write_text('"secret"')
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    (folder / "out").symlink_to(tmp_path)
    with server.server(folder=folder) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running.server_address
        running.shutdown()


def get(address, path: str, **headers) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(*address, timeout=30)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def test_this_machine_is_served_and_large_files_are_packed(address):
    assert address[0] == "127.0.0.1" and get(address, "/").read() == b"<p>here</p>"
    answer = get(address, "/vendor/large.wasm", **{"Accept-Encoding": "gzip"})
    content = answer.read()
    assert answer.headers["Content-Type"] == "application/wasm" and answer.headers["Content-Encoding"] == "gzip"
    assert len(content) < 20_000 and gzip.decompress(content) == b"\0asm" * 500_000


def test_a_page_elsewhere_whose_name_leads_to_this_machine_reads_nothing(address):
    for host, status in (("elsewhere.org", 421), ("127.0.0.1.elsewhere.org:8000", 421), ("localhost:8000", 200)):
        assert get(address, "/", Host=host).status == status


def test_no_link_out_of_the_folder_is_followed_and_no_folder_listed(address):
    for path in ("/link.json", "/out/secret.json", "/out/", "/../secret.json", "/%2e%2e/secret.json", "/vendor/"):
        for headers in ({}, {"Accept-Encoding": "gzip"}):
            answer = get(address, path, **headers)
            assert answer.status == 404 and b'secret"' not in answer.read(), path


def test_connections_are_bounded_and_the_rest_waits(address, monkeypatch):
    monkeypatch.setattr(server.Handler, "timeout", 600)
    silent = [socket.create_connection(address) for _ in range(server.CONNECTIONS)]
    with socket.create_connection(address) as waiting:
        waiting.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        waiting.settimeout(0.5)
        with pytest.raises(TimeoutError):
            waiting.recv(1)
        silent.pop().close()
        waiting.settimeout(60)
        assert waiting.recv(12) == b"HTTP/1.0 200"
    for one in silent:
        one.close()


def test_a_port_that_can_not_be_had_is_one_line(address):
    for port in (65536, address[1]):
        with pytest.raises(CourseError, match=rf"^port {port} can't be had \(.*\): expected a free one") as refusal:
            server.server(port)
        assert "\n" not in str(refusal.value)


def test_serving_imports_no_torch():
    command = [sys.executable, "-c", "import sys, tools.site.__main__; print('torch' in sys.modules)"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == "False\n", found.stderr
