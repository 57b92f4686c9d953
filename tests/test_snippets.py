"""Every command and every snippet in an exercise or in docs/training.md works as printed."""

import json
import os
import re
import subprocess
import sys

import nbformat
import pytest
from tiny import OFFLINE

from utils import ROOT

PAGES = [*sorted((ROOT / "notebooks").glob("*.ipynb")), ROOT / "docs" / "training.md"]
# in one process, since each would import torch anew; a snippet that needs the one before it must fail, so each has
# names of its own, and so must one that needs another page's runs, so each page has a folder of its own
RUNNER = """
import contextlib, io, json, os, pathlib, runpy, shlex, sys, tempfile, traceback
from tools import train
failed, root = {}, sys.argv[1]
for page, snippets in json.load(sys.stdin).items():
    failed[page], os.environ["COURSE_RUNS"] = [], os.path.join(root, page)
    for kind, text in snippets:
        try:
            with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as folder:
                if kind == "python":
                    snippet = pathlib.Path(folder, "snippet.py")
                    snippet.write_text(text, encoding="utf-8")
                    runpy.run_path(str(snippet))
                elif (words := shlex.split(text, comments=True))[1] == "train.py":
                    train.main(words[2:])
                else:
                    sys.argv = words[2:]
                    runpy.run_module(words[2], run_name="__main__")
        except SystemExit as stop:
            if stop.code:
                failed[page].append(f"{text}: exit status {stop.code}")
        except BaseException:
            failed[page].append(f"{text}: {traceback.format_exc(limit=-2)}")
print(json.dumps(failed))
"""


def snippets(path) -> list[tuple[str, str]]:
    """The commands and the Python of a page's fences, in order; only commands that need nothing but this machine."""
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    else:
        text = path.read_text(encoding="utf-8")
    fences = re.findall(r"```(bash|python)\n(.*?)```", text, re.DOTALL)
    found = []
    for kind, block in fences:
        commands = [line for line in block.splitlines() if line.startswith("python ")]
        found += [("command", line) for line in commands] if kind == "bash" else [("python", block)]
    needs_more = re.compile(r"photo\.jpg|tools\.report runs|--search|--final-state")  # files, extras, or a prompt
    return [(kind, text) for kind, text in found if kind == "python" or not needs_more.search(text)]


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """What failed on each page, by the page's name."""
    wanted = {path.stem: snippets(path) for path in PAGES}
    environment = os.environ | {"COURSE_SMOKE": "1", "MPLBACKEND": "Agg"} | OFFLINE
    command = [sys.executable, "-c", RUNNER, str(tmp_path_factory.mktemp("pages"))]
    ended = subprocess.run(command, cwd=ROOT, env=environment, input=json.dumps(wanted), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_what_a_page_prints_to_be_typed_works(path, failed):
    assert snippets(path), f"{path.name} prints nothing to try"
    assert failed[path.stem] == []
