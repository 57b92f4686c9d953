"""Every snippet of docs/weights.md works as the page says, and so does the one for pandas in docs/results.md."""

import re
import shutil
import subprocess
import sys

import pytest
import torch

from tools import export
from utils import ROOT, files
from utils.data import datasets
from utils.runs import load_pretrained

PAGE = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")


def snippet(marker: str) -> str:
    """The page's only Python block that contains `marker`."""
    [found] = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if marker in block]
    return found


def test_the_two_files_are_enough_and_pt2_needs_no_course(tmp_path):
    """In a process that can't import the repository."""
    for suffix in (".pth", ".json"):
        shutil.copy(ROOT / "saved_dict" / f"base{suffix}", tmp_path)
    codes = [snippet("hashlib")]
    if not torch.__version__.startswith("2.6."):  # which does not export what is scaled in place
        export.export("base", tmp_path / "base.pt2", "pt2")
        codes.append(snippet("print(network(image)"))
    code = "\n".join(f"exec({code!r}, {{}})" for code in codes)
    command = [sys.executable, "-I", "-W", "ignore", "-c", f"{code}\nimport sys; assert 'utils' not in sys.modules"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.stdout == "1\n" * len(codes), ended.stderr[-2000:]


def test_fine_tuning_in_one_epoch_separates_five_classes(tmp_path, monkeypatch, capsys):
    """Digits stand in for Fashion-MNIST, which need not be there."""
    digits, paths = datasets.load("digits"), datasets.SOURCES["fashion_mnist"].files(tmp_path)
    for split, images, labels in ((digits.train, *paths[:2]), (digits.test, *paths[2:])):
        files.write_idx(images, split.images.squeeze(1))
        files.write_idx(labels, split.labels.byte())
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    monkeypatch.setenv("COURSE_SMOKE", "0")
    exec(snippet("AdamW"), {})
    printed = capsys.readouterr().out
    percent = re.fullmatch(r"fashion_mnist, 5 classes: (\d+\.\d)% of the test images\n", printed)
    assert percent and float(percent[1]) > 40, printed  # chance is 20 %; the new layer starts at random


def test_safetensors_restores_shared_weights(tmp_path, monkeypatch):
    export.export("frontier_99", tmp_path / "frontier_99.safetensors", "safetensors")
    monkeypatch.chdir(tmp_path)
    exec(snippet("load_model"), found := {"COURSE": str(ROOT)})
    read, published = found["network"].state_dict(), load_pretrained("frontier_99")[0].state_dict()
    assert read.keys() == published.keys() and all(map(torch.equal, read.values(), published.values()))


def test_the_three_lines_of_pandas_read_every_run(monkeypatch):
    pytest.importorskip("pandas", reason="the packages of requirements-extra.txt are not installed")
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(ROOT)
    exec(code, found := {})
    assert len(found["runs"]) == len(list((ROOT / "logs").glob("*/seed*.csv")))
    assert found["runs"].percent.min() > 70 and not found["runs"].isna().any(axis=None)
