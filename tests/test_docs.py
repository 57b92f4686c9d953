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

PAGE = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")


def snippet(marker: str) -> str:
    """The page's only Python block that contains `marker`."""
    [found] = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if marker in block]
    return found


def run(code: str, folder, course: bool = False) -> str:
    """What the code prints in `folder`; course: whether it can import the repository."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}" if course else code
    command = [sys.executable, "-I", "-W", "ignore", "-c", code]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def export_pt2(folder) -> None:
    if torch.__version__.startswith("2.6."):
        pytest.skip("torch 2.6 does not export what is scaled in place")
    export.export("base", folder / "base.pt2", "pt2")


def test_the_two_files_are_enough(tmp_path):
    for suffix in (".pth", ".json"):
        shutil.copy(ROOT / "saved_dict" / f"base{suffix}", tmp_path)
    assert run(snippet("hashlib") + "\nimport sys; assert 'utils' not in sys.modules", tmp_path) == "1\n"


def test_fine_tuning_in_one_epoch_separates_five_classes(tmp_path, monkeypatch):
    """Digits stand in for Fashion-MNIST, which need not be there."""
    digits, paths = datasets.load("digits"), datasets.SOURCES["fashion_mnist"].files(tmp_path)
    for split, images, labels in ((digits.train, *paths[:2]), (digits.test, *paths[2:])):
        files.write_idx(images, split.images.squeeze(1))
        files.write_idx(labels, split.labels.byte())
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    monkeypatch.setenv("COURSE_SMOKE", "0")
    printed = run(snippet("AdamW"), tmp_path, course=True)
    percent = re.fullmatch(r"fashion_mnist, 5 classes: (\d+\.\d)% of the test images\n", printed)
    assert percent and float(percent[1]) > 40, printed  # chance is 20 %; the new layer starts at random


def test_safetensors_restores_shared_weights(tmp_path):
    export.export("frontier_99", tmp_path / "frontier_99.safetensors", "safetensors")
    check = f"""
COURSE = {str(ROOT)!r}
{snippet("load_model")}
published = torch.hub.load(COURSE, "frontier_99", source="local", pretrained=True).state_dict()
same = [torch.equal(tensor, published[name]) for name, tensor in network.state_dict().items()]
print(len(same) == len(published), all(same))
"""
    assert run(check, tmp_path) == "True True\n"


def test_pt2_needs_no_course(tmp_path):
    export_pt2(tmp_path)
    assert run(snippet("print(network(image)"), tmp_path) == "1\n"


def test_executorch_gives_the_same_outputs(tmp_path):
    pytest.importorskip("executorch", reason="pip install executorch")
    export_pt2(tmp_path)
    check = """
from executorch.runtime import Runtime
images = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
method = Runtime.get().load_program("base.pte").load_method("forward")
torch.testing.assert_close(method.execute([images])[0], program.module()(images))
"""
    run(snippet("to_edge_transform_and_lower") + check, tmp_path)


def test_litert_gives_the_same_outputs(tmp_path):
    pytest.importorskip("litert_torch", reason="pip install litert-torch")
    export_pt2(tmp_path)
    check = """
import numpy as np
from ai_edge_litert.interpreter import Interpreter
image = torch.randint(0, 256, (1, 1, 28, 28), dtype=torch.uint8)
runner = Interpreter("base.tflite").get_signature_runner()
[found] = runner(args_0=image.numpy()).values()
np.testing.assert_allclose(found, network(image).detach().numpy(), atol=1e-3)
"""
    run(snippet("litert_torch.convert") + check, tmp_path)


def test_the_three_lines_of_pandas_read_every_run():
    pytest.importorskip("pandas", reason="the packages of requirements-extra.txt are not installed")
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    printed = run(code + "print(len(runs), runs.percent.min() > 70, runs.isna().sum().sum())", ROOT)
    assert printed.splitlines()[-1] == f"{len(list((ROOT / 'logs').glob('*/seed*.csv')))} True 0", printed
