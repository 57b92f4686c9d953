"""The bootstrap cell that every notebook shares, and the repository's address stamped into notebooks and README.

python -m tools.colab               stamp the address of this checkout's remote, and the badges
python -m tools.colab owner/name    stamp this address
python -m tools.colab ""            remove them
"""

from tools import command  # isort: skip

import re
import subprocess
from pathlib import Path

import nbformat

from utils import ROOT, CourseError, files

BOOTSTRAP = """\
# @title Setup: finds the course; in Colab it is cloned first {display-mode: "form"}
import subprocess
import sys
from pathlib import Path

REPO = ""  # where Colab clones from, stamped by `make colab REPO=owner/name`
root = next((folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "utils" / "report" / "notebook.py").is_file()), Path("course"))
if not root.exists():
    assert REPO, "Open this notebook inside the course's folder, or run `make colab REPO=owner/name` there and push"
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", REPO, str(root)], check=True)
sys.path.insert(0, str(root.resolve()))
from utils.report import notebook

notebook.setup()"""
LINE = 'REPO = ""'
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/{repo}/blob/main/notebooks/{name})"
ANY_BADGE = re.compile(r"\[!\[Open in Colab\].*?\)\]\(.*?\)\s*")
WRITTEN = "<!-- {}: written by `make colab`, do not edit -->", "<!-- end of {} -->"
GITHUB = re.compile(r"(?:https://|ssh://|git://)?(?:[^@/]+@)?github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?")


def is_on_github(repo: str) -> bool:
    """Whether it is owner/name; a path or URL is not."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", repo))


def address(repo: str) -> str:
    """owner/name → its GitHub address; a path or URL stays what it is."""
    return f"https://github.com/{repo}" if is_on_github(repo) else repo


def remote() -> str:
    """owner/name of this checkout's remote `origin`. Raises CourseError where there is none, or it is not on GitHub."""
    found = subprocess.run(["git", "remote", "get-url", "origin"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    match = GITHUB.fullmatch(found)
    if not match:
        said = f"its remote `origin` is {found!r}" if found else "it has no remote `origin`"
        raise CourseError(f"the address of this checkout is not known: expected one on GitHub, {said}. Say it: make colab REPO=owner/name")
    return match[1]


def bootstrap(repo: str = "") -> str:
    """The source of the bootstrap cell for a repository: owner/name, a URL, a path, or nothing."""
    return BOOTSTRAP.replace(LINE, f'REPO = "{address(repo)}"')


def stamped(source: str) -> str:
    """The address in a bootstrap cell, or nothing."""
    found = re.search(r'^REPO = "(.*?)"', source, re.MULTILINE)
    return found[1] if found else ""


def stamp(path: Path, repo: str) -> bytes:
    """The notebook at `path` with the address in its bootstrap cell and the badge on top of its first cell."""
    notebook = nbformat.read(path, as_version=4)
    title, cell = notebook.cells[:2]
    name = path.relative_to(ROOT / "notebooks").as_posix()
    badge = BADGE.format(repo=repo, name=name) + "\n\n" if is_on_github(repo) else ""
    title.source = badge + ANY_BADGE.sub("", title.source)
    cell.source = bootstrap(repo)
    return (nbformat.writes(notebook) + "\n").encode()


def listing(repo: str) -> str:
    """README's list of notebooks: title, badge once stamped."""
    lines = [f"```\ngit clone {address(repo)}\n```\n"] if repo else []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        title = ANY_BADGE.sub("", nbformat.read(path, as_version=4).cells[0].source).splitlines()[0].lstrip("# ")
        badge = " " + BADGE.format(repo=repo, name=path.name) if is_on_github(repo) else ""
        lines.append(f"- [{title}](notebooks/{path.name}){badge}")
    return "\n".join(lines)


def badges(repo: str) -> str:
    """README's line of badges: whether the workflows are green, and where the web pages are. Nothing until stamped."""
    if not is_on_github(repo):
        return ""
    owner, name = repo.split("/")
    home = f"{owner.lower()}.github.io"
    pages = f"https://{home}/" if name.lower() == home else f"https://{home}/{name}/"
    workflows = [f"{address(repo)}/actions/workflows/{name}.yml" for name in ("tests", "pages")]
    shields = [f"[![{Path(one).stem}]({one}/badge.svg?branch=main)]({one})" for one in workflows]
    return " ".join([*shields, f"**[Draw a digit, explore the results, read the course]({pages})**"])


def between(text: str, start: str, end: str, section: str) -> str:
    """README's text with a section between two lines that stand in it once each. Raises CourseError where they don't."""
    if text.count(start) != 1 or text.count(end) != 1 or text.index(end) < text.index(start):
        raise CourseError(f"README.md must hold the two lines {start!r} and {end!r} once each, in this order")
    before, rest = text.split(start)
    return "\n\n".join(filter(None, [f"{before}{start}", section, f"{end}{rest.split(end)[1]}"]))


def main(words: list[str]) -> None:
    parser = command.Parser(prog="python -m tools.colab", description=__doc__)
    parser.add_argument("repo", nargs="?", metavar="owner/name")
    given = parser.parse_args(words).repo
    repo = remote() if given is None else given
    if re.search(r"[\s\"'\\]", repo):  # it is written into the notebooks' code
        raise CourseError(f"{repo!r} is no address: expected owner/name, a URL or a path without blanks and quotes")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    for name, section in (("badges", badges(repo)), ("notebooks", listing(repo))):
        text = between(text, *(marker.format(name) for marker in WRITTEN), section)
    for path in [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "notebooks").glob("solutions/*.ipynb")]:
        files.write(path, stamp(path, repo))
    files.write(readme, text.encode())


if __name__ == "__main__":
    command.main("colab", main)
