"""Which files in logs/ and saved_dict/ are published. All others are reported, and copied nowhere."""

import os
import re
import stat
from pathlib import Path

from .. import printable
from ..experiments import EXPERIMENTS
from .records import seed_of

SINGLE = ("logs/reproductions.jsonl", "logs/ensemble.json", "logs/runs.csv")


def published(root: Path) -> tuple[list[Path], list[str]]:
    """All published files below logs/ and saved_dict/, and one line for each other entry or missing twin."""
    paths, findings = [], []
    for path in _entries(root):
        mode, name = path.lstat().st_mode, path.relative_to(root).as_posix()
        if stat.S_ISDIR(mode):
            wrong = "" if _is_known_folder(name) else "belongs to no experiment: delete it"
        elif not stat.S_ISREG(mode):
            kind = "a link" if stat.S_ISLNK(mode) else "a pipe, a device or a socket"
            wrong = f"is {kind}: expected a file. Delete it"
        else:
            wrong = _why_stray(path, name)
            paths += [] if wrong else [path]
        findings += [printable(f"{name} {wrong}")] if wrong else []
    return paths, findings


def _entries(root: Path) -> list[Path]:
    """Files, folders and links below logs/ and saved_dict/, in order, without following links."""
    found = [path for path in (root / "logs", root / "saved_dict") if path.is_symlink()]
    for top in (root / "logs", root / "saved_dict"):
        if top not in found:
            found += [Path(folder, name) for folder, folders, names in os.walk(top) for name in (*folders, *names)]
    return sorted(found)


def _is_known_folder(name: str) -> bool:
    top, _, inner = name.partition("/")
    return top == "logs" and (inner in EXPERIMENTS or inner in ("trials", "benchmarks"))


def _why_stray(path: Path, name: str) -> str:
    """Why a regular file is not published, or what it lacks; "" if nothing is wrong."""
    folder, suffix, is_known = path.parent.name, path.suffix, path.stem in EXPERIMENTS
    if name in SINGLE or re.fullmatch(r"logs/benchmarks/\w+\.json", name):
        return ""
    if is_known and name in (f"logs/trials/{path.stem}.jsonl", f"saved_dict/{path.stem}.pth"):
        return ""  # a missing sidecar is reported where it is read
    if is_known and name == f"saved_dict/{path.name}" and suffix in (".json", ".bin"):
        return "" if path.with_suffix(".pth").is_file() else "has no state dict beside it"
    twins = {".csv": ".json", ".json": ".csv"}
    if name == f"logs/{folder}/{path.name}" and folder in EXPERIMENTS and seed_of(path) is not None and suffix in twins:
        twin = path.with_suffix(twins[suffix])
        return "" if twin.is_file() else f"has no {twin.name} beside it"
    return "belongs to no experiment: delete it"
