"""What only notebooks need: setting up, and showing sources, tables and pictures as a reader wants them."""

import importlib.util
import inspect
import io
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import ROOT, CourseError, smoke

if TYPE_CHECKING:  # in Colab this module is imported before what it shows is installed
    from matplotlib.figure import Figure

    from ..experiments import Experiment

NEEDED = {  # module → package: what the course imports and Colab may lack, never torch or numpy
    "h5py": "h5py",
    "matplotlib": "matplotlib",
    "msgspec": "msgspec",
    "sklearn": "scikit-learn",
    "torchsummary": "torchsummary",
    "tqdm": "tqdm",
}


def setup() -> None:
    """Install what is missing in Colab, and say where and how this notebook runs. Raises CourseError for what is missing elsewhere."""
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing and "google.colab" in sys.modules:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)
    elif missing:
        raise CourseError(f"{', '.join(missing)} not installed: run `python -m pip install -r requirements.txt` in {ROOT.name}/")
    import torch

    device = "a GPU" if torch.cuda.is_available() else "Apple's GPU" if torch.backends.mps.is_available() else "the CPU"
    print(f"torch {torch.__version__} on {device}{', smoke run: a few hundred images, one epoch' if smoke() else ''}")


def markdown(text: str) -> None:
    """Show Markdown, such as a table of utils.report.tables, rendered."""
    from IPython.display import Markdown, display

    display(Markdown(text))


def source(*things: Callable | type) -> None:
    """Show the source of functions, classes or methods, highlighted: what the notebook is about, as it runs."""
    for thing in things:
        markdown(f"```python\n{inspect.cleandoc(chr(10) + inspect.getsource(thing))}\n```")


def picture(figure: "Figure", alt: str) -> None:
    """Show a figure with a text for those who can't see it."""
    from IPython.display import Image, display
    from PIL import Image as Pictures

    whole, png = io.BytesIO(), io.BytesIO()
    figure.savefig(whole, format="png", dpi=100)
    Pictures.open(whole).convert("RGB").quantize(256).save(png, format="png", optimize=True)  # a third of the bytes
    display(Image(png.getvalue(), format="png", alt=alt), metadata={"image/png": {"alt": alt}})


def costs(*experiments: "Experiment") -> None:
    """Show what a run of each experiment took, from the facts of its published logs: the median, for each machine they were made on."""
    from ..runs import records
    from . import tables

    lines = []
    for experiment in experiments:
        machines: dict[str, list[float]] = {}
        for record in records.published(experiment):
            where, threads = record.facts.environment.device, record.facts.environment.threads
            machines.setdefault(f"{where}, {threads} thread{'s' * (threads > 1)}", []).append(record.facts.seconds)
        takes = []
        for machine, seconds in sorted(machines.items(), key=lambda item: -len(item[1])):
            median = statistics.median(seconds)
            time = f"{median:.0f} s" if median < 100 else f"{median / 60:.0f} min"
            takes.append(f"{time}{'' if takes else ' for one seed'} ({tables.escape(machine)}; median of {len(seconds)})")
        lines.append(f"- `{experiment.name}`: {', '.join(takes) or 'no run is published yet'}")
    markdown("What training takes, from the published logs (other processes ran beside):\n\n" + "\n".join(lines))
