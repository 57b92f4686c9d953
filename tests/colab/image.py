"""Colab's image: a kernel with its versions, and the list of those versions.

python tests/colab/image.py FOLDER           make FOLDER an environment with the image's kernel, beside this one's torch
python tests/colab/image.py pip-freeze.txt   print image.txt with the versions of the list that Colab publishes
"""

import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

LIST = Path(__file__).with_name("image.txt")
NOT_THERE = ("msgspec", "nbval", "optuna", "onnx")  # of what this environment may hold


def make(folder: Path) -> None:
    """An environment that sees the packages of this one, but for those that the image lacks, and the image's kernel
    before them."""
    venv.create(folder, clear=True, with_pip=True, symlinks=True)
    python, shared = folder / "bin" / "python", folder / "shared"
    shared.mkdir()
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if not package.name.startswith((*NOT_THERE, "pip", "__")) and package.suffix != ".pth":
            (shared / package.name).symlink_to(package)
    purelib = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    ).strip()
    Path(purelib, "shared.pth").write_text(f"{shared.resolve()}\n")
    kernel = LIST.read_text().split("\n\n")[0].splitlines()[2:]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *kernel], check=True)


def current(frozen: str) -> str:
    """image.txt with the versions of a `pip freeze`, where it names them (as NAME==VERSION or NAME @
    ADDRESS/NAME-VERSION…)."""

    def version(found: re.Match) -> str:
        name = re.sub("[-_]", "[-_]", found[1])
        new = re.search(rf"^{name}(?:==| @ .*/{name}-)(\d[\w.]*)", frozen, re.MULTILINE | re.IGNORECASE)
        return f"{found[1]}=={new[1]}" if new else found[0]

    return re.sub(r"^([\w-]+)==(\S+)", version, LIST.read_text(), flags=re.MULTILINE)


if __name__ == "__main__":
    given = Path(sys.argv[1])
    if given.is_file():
        print(current(given.read_text()), end="")
    else:
        make(given)
