"""The setup cell that every notebook shares, and the repository's address and badges in the notebooks and README.

python -m tools.colab               stamp the address of this checkout's remote
python -m tools.colab owner/name    stamp this address
python -m tools.colab ""            remove the address and the badges

Needs Python alone. Where a release exists (a tag v…), the badges open its notebooks.
"""

from tools import command  # isort: skip

import json
import re
import subprocess
from pathlib import Path

from utils import ROOT, CourseError

BOOTSTRAP = """\
# @title Setup: finds the course; in Colab or Kaggle, clones it first {display-mode: "form"}
# @markdown `REPO` is only needed if this notebook was not opened from GitHub: type the course's address there, as owner/name.
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
        opened = [unquote(session["path"]).partition("://github.com/")[2] for session in json.load(urlopen(sessions, timeout=10))]
    address = re.compile(r"(\\w[\\w.-]*/\\w[\\w.-]*?)(?:\\.git)?(?:/(?:blob|tree)/(.+?))?(?:/(?:notebooks/.*)?)?")
    found = next(filter(None, map(address.fullmatch, [*opened, REPO.strip().rpartition("github.com/")[2]])), None)
    assert found, f"REPO is {REPO!r}: type the course's address on GitHub as owner/name into the field REPO above, then run this cell again"
    url, version = f"https://github.com/{found[1]}", found[2]
    if not version:  # the newest release, if there is one
        tags = git("ls-remote", "--refs", "--sort=-version:refname", url, "refs/tags/v*").split()
        version = tags[1].removeprefix("refs/tags/") if tags else ""
    root = here / ("mnist-course" if (here / "course").exists() else "course")
    print("cloning", url, version, "into", root.name)
    settings = [f"--config={one}=true" for one in ("course.cloned", "core.sparseCheckout")] + ["--config=core.sparseCheckoutCone=false"]
    some = ["--depth=1", "--no-checkout", "--filter=blob:limit=1m", *([f"--branch={version}"] if version else [])]
    git("clone", "--quiet", *some, *settings, url, str(root))
    git("-C", str(root), "sparse-checkout", "set", "/*", "!/saved_dict/*.pth")  # a state dict is fetched when it is used
    git("-C", str(root), "checkout", "--quiet")
if root not in (here, *here.parents):
    os.chdir(root)
sys.path.insert(0, str(root))
from utils.report import notebook

notebook.setup(SAVE_TO_DRIVE)"""
LINE = 'REPO = ""'
BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{repo}/blob/{version}/notebooks/{name})"
)
ANY_BADGE = re.compile(r"\[!\[Open in Colab\].*?\)\]\(.*?\)\s*")
WRITTEN = "<!-- {}: written by `make colab`, do not edit -->", "<!-- end of {} -->"
GITHUB = re.compile(r"(?:https://|ssh://|git://)?(?:[^@/]+@)?github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?")


def git(*arguments: str) -> str:
    """What git prints in this checkout; nothing where it fails."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def remote() -> str:
    """owner/name of this checkout's remote `origin`. Raises CourseError where there is none, or it is not on GitHub."""
    found = git("remote", "get-url", "origin")
    match = GITHUB.fullmatch(found)
    if not match:
        message = f"its remote `origin` is {found!r}" if found else "it has no remote `origin`"
        raise CourseError(f"this checkout's address is unknown: expected one on GitHub, {message}. Type it: make colab REPO=owner/name")
    return match[1]


def version_of(name: str) -> str:
    """The version whose notebook the badge opens: the newest release (a tag v…) that holds this notebook, else main."""
    newest = git("tag", "--list", "v*", "--sort=-version:refname").partition("\n")[0]
    return newest if newest and git("ls-tree", newest, f"notebooks/{name}") else "main"


def badge(repo: str, name: str) -> str:
    return BADGE.format(repo=repo, version=version_of(name), name=name) if repo else ""


def bootstrap(repo: str = "") -> str:
    """The source of the setup cell, with the address owner/name or none."""
    return BOOTSTRAP.replace(LINE, f'REPO = "{repo}"')


def stamped(source: str) -> str:
    """The address in a setup cell, or nothing."""
    found = re.search(r'^REPO = "(.*?)"', source, re.MULTILINE)
    return found[1] if found else ""


def stamp(path: Path, repo: str) -> bytes:
    """The notebook at `path` with the address in its setup cell and the badge on top of its first cell."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    title, cell = notebook["cells"][:2]
    mark = badge(repo, path.relative_to(ROOT / "notebooks").as_posix())
    title["source"] = (mark + "\n\n" * bool(mark) + ANY_BADGE.sub("", "".join(title["source"]))).splitlines(keepends=True)
    cell["source"] = bootstrap(repo).splitlines(keepends=True)
    return (json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()  # as nbformat writes it


def listing(repo: str) -> str:
    """README's list of notebooks: title, badge once stamped."""
    lines = [f"```\ngit clone https://github.com/{repo}\n```\n"] if repo else []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        title = ANY_BADGE.sub("", first).splitlines()[0].lstrip("# ")
        lines.append(f"- [{title}](notebooks/{path.name}) {badge(repo, path.name)}".rstrip())
    return "\n".join(lines)


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


def between(text: str, start: str, end: str, section: str) -> str:
    """README's text with a section between two lines that stand in it once each. Raises CourseError where they don't."""
    if text.count(start) != 1 or text.count(end) != 1 or text.index(end) < text.index(start):
        raise CourseError(f"README.md must hold the two lines {start!r} and {end!r} once each, in this order")
    before, rest = text.split(start)
    return "\n\n".join(filter(None, [f"{before}{start}", section, f"{end}{rest.split(end)[1]}"]))


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
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    for name, section in (("badges", badges(repo)), ("notebooks", listing(repo))):
        text = between(text, *(marker.format(name) for marker in WRITTEN), section)
    for path in [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "notebooks").glob("solutions/*.ipynb")]:
        write(path, stamp(path, repo))
    write(readme, text.encode())


if __name__ == "__main__":
    command.main("colab", main)
