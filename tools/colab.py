"""The bootstrap cell that every notebook shares, and the repository's address stamped into notebooks and README.

python -m tools.colab owner/name    stamp the address and the badges
python -m tools.colab ""            remove them
"""

from tools import command  # isort: skip

import re
from pathlib import Path

import nbformat

from utils import ROOT, CourseError, files

BOOTSTRAP = """\
# @title Setup: finds the course; in Colab it is cloned first {display-mode: "form"}
import subprocess
import sys
from pathlib import Path

REPO = ""  # where Colab clones from, stamped by `make colab REPO=owner/name`
root = next((folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "utils" / "notebook.py").is_file()), Path("course"))
if not root.exists():
    assert REPO, "Open this notebook inside the course's folder, or run `make colab REPO=owner/name` there and push"
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", REPO, str(root)], check=True)
sys.path.insert(0, str(root.resolve()))
from utils import notebook

notebook.setup()"""
LINE = 'REPO = ""'
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/{repo}/blob/main/notebooks/{name})"
ANY_BADGE = re.compile(r"\[!\[Open in Colab\].*?\)\]\(.*?\)\s*")
START, END = "<!-- notebooks: written by `make colab`, do not edit -->", "<!-- end of notebooks -->"


def address(repo: str) -> str:
    """owner/name → its GitHub address; a path or URL stays what it is."""
    return f"https://github.com/{repo}" if re.fullmatch(r"[\w.-]+/[\w.-]+", repo) else repo


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
    badge = BADGE.format(repo=repo, name=path.name) + "\n\n" if address(repo) != repo else ""
    title.source = badge + ANY_BADGE.sub("", title.source)
    cell.source = bootstrap(repo)
    return (nbformat.writes(notebook) + "\n").encode()


def listing(repo: str) -> str:
    """README's list of notebooks: title, badge once stamped."""
    lines = [f"```\ngit clone {address(repo)}\n```\n"] if repo else []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        title = ANY_BADGE.sub("", nbformat.read(path, as_version=4).cells[0].source).splitlines()[0].lstrip("# ")
        badge = " " + BADGE.format(repo=repo, name=path.name) if address(repo) != repo else ""
        lines.append(f"- [{title}](notebooks/{path.name}){badge}")
    return "\n".join(lines)


def main(words: list[str]) -> None:
    parser = command.Parser(prog="python -m tools.colab", description=__doc__)
    parser.add_argument("repo", nargs="?", default="", metavar="owner/name")
    repo = parser.parse_args(words).repo
    if re.search(r"[\s\"'\\]", repo):  # it is written into the notebooks' code
        raise CourseError(f"{repo!r} is no address: expected owner/name, a URL or a path without blanks and quotes")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    if text.count(START) != 1 or text.count(END) != 1:
        raise CourseError(f"README.md must hold the two lines {START!r} and {END!r} once each")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        files.write(path, stamp(path, repo))
    before, rest = text.split(START)
    files.write(readme, f"{before}{START}\n\n{listing(repo)}\n\n{END}{rest.split(END)[1]}".encode())


if __name__ == "__main__":
    command.main("colab", main)
