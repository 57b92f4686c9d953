"""A newcomer's errand, as README describes it: a residual network, a field with a new augmentation, a notebook."""

import os
import re
import shutil
import subprocess
import sys

import nbformat
from tiny import OFFLINE

from utils import ROOT

NETWORK = '''def newcomer(dropout: float = 0.0) -> nn.Sequential:
    """(N, 1, 28, 28) → (N, 10) logits: one residual block."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),  # 8×14×14  RF 3
        nn.ReLU(inplace=True),
        Residual(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)),  # 8×14×14  RF 11
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(8, 10),
    )


'''
FIELD = "    dim: float = 0.0  # ± fraction of the brightness, uniformly per image\n"
CHANGE = '''def dim(images: Tensor, generator: torch.Generator, strength: float, shard: slice = WHOLE, whole=None):
    """Change the brightness of each image; generator, shard, whole: as of `affine`."""
    if not strength:
        return images
    numbers = torch.rand(whole or len(images), device=images.device, generator=generator)[shard] * 2 - 1
    return images * (1 + strength * numbers[:, None, None, None])


'''
ENTRY = """NEWCOMER = Experiment(
    "newcomer",
    replace(BASE.recipe, model="newcomer", dim=0.5),
    teaches="brighter and darker copies, and one residual block",
    notebook="99_newcomer",
)

"""

CELLS = (
    "from utils import models, runs\nfrom utils.report import diagrams, notebook, plots, tables",
    "from utils.runs import records",
    'from utils.experiments import EXPERIMENTS\nexperiment = EXPERIMENTS["newcomer"]',
    "network = models.build(experiment.recipe.model)",
    "print(models.count_parameters(network), models.receptive_field(network))",
    'notebook.picture(diagrams.network(network, (1, 28, 28)), "one residual block")',
    "result = runs.run(experiment)\nnotebook.markdown(tables.summary([result]))",
    'notebook.picture(plots.curves([result.history], experiment.name), "curves")',
    "notebook.markdown(tables.compare({experiment: records.own(experiment)}))",
)


def insert(path, before, text):
    """Write `text` in front of the one place where a file says `before`."""
    content = path.read_text(encoding="utf-8")
    assert content.count(before) == 1, f"{path.name} says {before!r} {content.count(before)} times"
    path.write_text(content.replace(before, text + before), encoding="utf-8")


DO = """
import os
import re
from tools import report, train
train.main("newcomer --data digits --device cpu --dim 0.2 --quiet".split())
report.main(["--check"])
os.chdir("notebooks")
shell, path = report.new_shell(), report.ROOT / "notebooks" / "99_newcomer.ipynb"
for cell in report.read_notebook(path).cells[1:]:
    report.run_cell(shell, cell.source)
"""


def test_a_new_experiment_trains_with_its_field_as_a_flag_and_changes_nothing_published_and_its_notebook_runs(tmp_path):
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    insert(tmp_path / "utils" / "models.py", "def _is_network(", NETWORK)
    insert(tmp_path / "utils" / "experiments.py", "    fresh: bool = False", FIELD)
    insert(tmp_path / "utils" / "experiments.py", "EXPERIMENTS = {", ENTRY)
    insert(tmp_path / "utils" / "data" / "augment.py", "@lru_cache\ndef _pixels(", CHANGE)
    call = "        images = dim(images, generator, recipe.dim, **part)\n"
    insert(tmp_path / "utils" / "data" / "augment.py", "        return erase_square(", call)
    notebook = nbformat.read(tmp_path / "notebooks" / "01_base.ipynb", as_version=4)
    notebook.cells = [*notebook.cells[:2], *(nbformat.v4.new_code_cell(source) for source in CELLS)]
    nbformat.write(notebook, tmp_path / "notebooks" / "99_newcomer.ipynb")
    environment = os.environ | {"COURSE_SMOKE": "1", "PYTHONIOENCODING": "utf-8"} | OFFLINE
    command = [sys.executable, "-c", DO]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8")
    assert ended.returncode == 0 and "| newcomer " in ended.stdout, ended.stderr[-2000:]
    changed = re.findall(r"^(?!\+\+\+|---)[+-].*", ended.stdout, re.MULTILINE)
    assert len(changed) == 1 and changed[0].startswith("+| 99 | [Base"), changed  # its row in the table of lessons
