"""The setup cell that every notebook shares, the repository's address in notebooks and README, README's table of
lessons.

python -m tools.colab               stamp the address of this checkout's remote
python -m tools.colab owner/name    stamp this address
python -m tools.colab ""            remove the address and the badges

Needs Python alone. Where a release exists (a tag v…), the badges open its notebooks.
"""

from tools import command  # isort: skip

import csv
import io
import json
import re
import statistics
import subprocess
from contextlib import suppress
from pathlib import Path

from utils import ROOT, CourseError
from utils.experiments import EXPERIMENTS

BOOTSTRAP = """\
# @title Setup: finds the course; in Colab or Kaggle, clones it first {display-mode: "form"}
# @markdown `REPO` is needed only if this notebook was not opened from GitHub: type the course's address, as owner/name.
REPO = ""  # @param {type:"string"}
SAVE_TO_DRIVE = False  # @param {type:"boolean"}
import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote
from urllib.request import urlopen


def is_course(folder):
    return (folder / "train.py").is_file() and (folder / "references.json").is_file()


def git(*arguments):
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stderr.strip()} (no connection? On Kaggle, turn on Internet in the settings)"
    return done.stdout


here = Path.cwd()
root = next(filter(is_course, [here, *here.parents, here / "course", here / "mnist-course"]), None)
if root is None:
    opened = []
    with suppress(KeyError, OSError, ValueError):  # Colab knows which file on GitHub the notebook was opened from
        sessions = "http://{COLAB_JUPYTER_IP}:{KMP_TARGET_PORT}/api/sessions".format(**os.environ)
        paths = [unquote(session["path"]) for session in json.load(urlopen(sessions, timeout=10))]
        opened = [path.partition("://github.com/")[2] for path in paths]
    address = re.compile(r"(\\w[\\w.-]*/\\w[\\w.-]*?)(?:\\.git)?(?:/(?:blob|tree)/(.+?))?(?:/(?:notebooks/.*)?)?")
    found = next(filter(None, map(address.fullmatch, [*opened, REPO.strip().rpartition("github.com/")[2]])), None)
    todo = "type the course's address on GitHub as owner/name into the field REPO above, then run this cell again"
    assert found, f"REPO is {REPO!r}: {todo}"
    url, version = f"https://github.com/{found[1]}", found[2]
    if not version:  # the newest release, if there is one
        tags = git("ls-remote", "--refs", "--sort=-version:refname", url, "refs/tags/v*").split()
        version = tags[1].removeprefix("refs/tags/") if tags else ""
    root = here / ("mnist-course" if (here / "course").exists() else "course")
    print("cloning", url, version, "into", root.name)
    settings = ["course.cloned=true", "core.sparseCheckout=true", "core.sparseCheckoutCone=false"]
    settings = [f"--config={setting}" for setting in settings]
    some = ["--depth=1", "--no-checkout", "--filter=blob:limit=1m", *([f"--branch={version}"] if version else [])]
    git("clone", "--quiet", *some, *settings, url, str(root))
    # a state dict is fetched when it is used
    git("-C", str(root), "sparse-checkout", "set", "/*", "!/saved_dict/*.pth")
    git("-C", str(root), "checkout", "--quiet")
if root not in (here, *here.parents):
    os.chdir(root)
sys.path.insert(0, str(root))
from utils.report import notebook

notebook.setup(SAVE_TO_DRIVE)"""
LINE = 'REPO = ""'
LARGEST = 16 * 2**20  # bytes of a notebook
COLAB = "https://colab.research.google.com/github/{repo}/blob/{version}/notebooks/{name}"
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({})"
ANY_BADGE = re.compile(r"\[!\[Open in Colab\].*?\)\]\(.*?\)\s*")
WRITTEN = "<!-- {}: written by `make colab`, do not edit -->", "<!-- end of {} -->"
GITHUB = re.compile(r"(?:https://|ssh://|git://)?(?:[^@/]+@)?github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?")


def git(*arguments: str) -> str:
    """What git prints in this checkout; nothing where it fails."""
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def remote() -> str:
    """owner/name of this checkout's remote `origin`. Raises CourseError where there is none, or it is not on GitHub."""
    found = git("remote", "get-url", "origin")
    match = GITHUB.fullmatch(found)
    if not match:
        found = f"its remote `origin` is {found!r}" if found else "it has no remote `origin`"
        raise CourseError(f"this checkout has no known address on GitHub: {found}. Type it: make colab REPO=owner/name")
    return match[1]


def colab_address(repo: str, name: str) -> str:
    """The address that opens a notebook in Colab: of the newest release (a tag v…) that holds it, else of main."""
    newest = git("tag", "--list", "v*", "--sort=-version:refname").partition("\n")[0]
    version = newest if newest and git("ls-tree", newest, f"notebooks/{name}") else "main"
    return COLAB.format(repo=repo, version=version, name=name)


def badge(repo: str, name: str) -> str:
    return BADGE.format(colab_address(repo, name)) if repo else ""


def bootstrap(repo: str = "") -> str:
    """The source of the setup cell, with the address owner/name or none."""
    return BOOTSTRAP.replace(LINE, f'REPO = "{repo}"')


def stamped(source: str) -> str:
    """The address in a setup cell, or nothing."""
    found = re.search(r'^REPO = "(.*?)"', source, re.MULTILINE)
    return found[1] if found else ""


def read(path: Path) -> tuple[dict, str, str]:
    """A notebook, the source of its title cell and that of its setup cell. Raises CourseError if it has no such
    cells."""
    try:
        with path.open("rb") if path.is_file() else io.BytesIO() as file:
            notebook = json.loads(file.read(LARGEST))
        title, setup = ("".join(cell["source"]) for cell in notebook["cells"][:2])
        if title.strip():
            return notebook, title, setup
        reason = "an empty title"
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}"
    raise CourseError(
        f"{path.name} is no notebook of the course ({reason}): expected a title and a setup cell. Check it out again."
    )


def stamp(path: Path, repo: str) -> bytes:
    """The notebook at `path` with the address in its setup cell and the badge on top of its first cell."""
    notebook, text, _ = read(path)
    title, cell = notebook["cells"][:2]
    mark = badge(repo, path.relative_to(ROOT / "notebooks").as_posix())
    title["source"] = (mark + "\n\n" * bool(mark) + ANY_BADGE.sub("", text)).splitlines(keepends=True)
    cell["source"] = bootstrap(repo).splitlines(keepends=True)
    return (json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()  # as nbformat writes it


def address() -> str:
    """The address that is stamped into the notebooks of this checkout, or nothing."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        return stamped(read(path)[2])
    return ""


def minutes(notebook: str, runs: str) -> str:
    """Median minutes of a published training run of a notebook's networks, without ablations; runs: the text of
    logs/runs.csv."""
    shown = {name for name, experiment in EXPERIMENTS.items() if experiment.notebook == notebook and experiment.weights}
    try:
        found = [float(row["seconds"]) for row in csv.DictReader(runs.splitlines()) if row["experiment"] in shown]
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise CourseError(
            f"logs/runs.csv is damaged ({error}): expected experiment and seconds. Check it out again."
        ) from error
    return f"{statistics.median(found) / 60:.1f}" if found else "–"


def read_text(path: Path) -> str:
    """A page or a table of the repository. Raises CourseError if it can't be read, or is much larger."""
    with suppress(OSError):
        if path.is_file() and path.stat().st_size <= LARGEST:
            return path.read_text(encoding="utf-8", errors="replace")
    raise CourseError(f"{path.name} is no readable file of at most {LARGEST:,} bytes: check it out again")


def read_runs(path: Path) -> str:
    """The text of logs/runs.csv. Raises CourseError if it is not such a table."""
    text = read_text(path)
    if not {"experiment", "seconds"} <= set(text.partition("\n")[0].strip().split(",")):
        raise CourseError(f"{path.name} is no table of runs: python -m tools.report writes it")
    return text


# by the number of its first lesson
PARTS = {"01": "Foundations", "07": "Design", "13": "Three dimensions", "15": "In use"}


def title(path: Path) -> str:
    """The title of a lesson, which is its question, without its number."""
    return re.sub(r"^#+ *(\d+ · )?", "", ANY_BADGE.sub("", read(path)[1]).lstrip().splitlines()[0])


def lessons(repo: str, runs: str) -> str:
    """README's table of notebooks: number, question, minutes, and links to Colab (if stamped) and to the solutions."""
    lines = ["|  | lesson | minutes | Colab | solution |", "| --- | --- | --: | --- | --- |"]
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        number = path.stem.partition("_")[0]
        colab = f"[open]({colab_address(repo, path.name)})" if repo else "–"
        is_solved = (path.parent / "solutions" / path.name).is_file()
        solution = f"[{number}](notebooks/solutions/{path.name})" if is_solved else "–"
        question = f"[{title(path)}](notebooks/{path.name})"
        lines += [f"| | **{PARTS[number]}** | | | |"] if number in PARTS else []
        lines.append(f"| {number} | {question} | {minutes(path.stem, runs)} | {colab} | {solution} |")
    return "\n".join(lines)


def clone(repo: str) -> str:
    """The command that clones the course. Nothing until stamped."""
    return f"```\ngit clone https://github.com/{repo}\n```" if repo else ""


def badges(repo: str) -> str:
    """README's line of badges: whether the workflows are green, and where the web pages are. Nothing until stamped."""
    if not repo:
        return ""
    owner, name = repo.split("/")
    home = f"{owner.lower()}.github.io"
    pages = f"https://{home}/" if name.lower() == home else f"https://{home}/{name}/"
    workflows = [f"https://github.com/{repo}/actions/workflows/{name}.yml" for name in ("tests", "pages")]
    shields = [f"[![{Path(one).stem}]({one}/badge.svg?branch=main)]({one})" for one in workflows]
    return " ".join([*shields, f"**[Draw a digit, explore the results, read the course]({pages})**"])


def between(text: str, start: str, end: str, section: str, name: str = "README.md") -> str:
    """The text of the page `name` with a section between two lines. Raises CourseError unless it has each line once."""
    counts = text.count(start), text.count(end)
    if counts != (1, 1) or text.index(end) < text.index(start):
        found = f"found {start!r} {counts[0]} × and {end!r} {counts[1]} ×"
        raise CourseError(f"{name}: {found}, expected each once, in this order. Write both lines there.")
    before, rest = text.split(start)
    return "\n\n".join(filter(None, [f"{before}{start}", section, f"{end}{rest.split(end)[1]}"]))


def readme(text: str, repo: str, runs: str) -> str:
    """README's text with its badges, the command that clones the course, and the table of lessons.

    runs: the text of logs/runs.csv.
    """
    for name, section in (("badges", badges(repo)), ("clone", clone(repo)), ("lessons", lessons(repo, runs))):
        text = between(text, *(marker.format(name) for marker in WRITTEN), section)
    return text


def write(path: Path, content: bytes) -> None:
    """Replace a file in one step. (utils.files does more, but needs torch.)"""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.replace(path)


def main(argv: list[str]) -> None:
    parser = command.Parser(prog="python -m tools.colab", description=__doc__)
    parser.add_argument("repo", nargs="?", metavar="owner/name")
    given = parser.parse_args(argv).repo
    repo = remote() if given is None else given
    if repo and not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):  # it is written into the notebooks' code
        raise CourseError(f"{repo!r} is not an address on GitHub: expected owner/name")
    page = ROOT / "README.md"
    runs = read_runs(ROOT / "logs" / "runs.csv")
    text = readme(read_text(page), repo, runs)
    for path in [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "notebooks").glob("solutions/*.ipynb")]:
        write(path, stamp(path, repo))
    write(page, text.encode())


if __name__ == "__main__":
    command.main("colab", main)
