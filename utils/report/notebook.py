"""What only notebooks need: setting up, and showing sources, tables and pictures as a reader wants them."""

import importlib.util
import inspect
import io
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from .. import ROOT, CourseError, smoke

if TYPE_CHECKING:  # in Colab this module is imported before what it shows is installed
    from matplotlib.figure import Figure

    from ..experiments import Experiment

NEEDED = {  # module → package: what the course imports and Colab or Kaggle may lack, never torch or numpy
    "PIL": "pillow",
    "h5py": "h5py",
    "matplotlib": "matplotlib",
    "msgspec": "msgspec",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "torchsummary": "torchsummary",
    "tqdm": "tqdm",
}


def setup(save_to_drive: bool = False) -> None:
    """Make this notebook ready to run and print where it runs. In a clone that the notebook made itself, install what is missing.

    save_to_drive: keep your own runs in Google Drive, which Colab mounts. Raises CourseError for what is missing elsewhere.
    """
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing and cloned():
        install(missing)
    elif missing:
        raise CourseError(f"{', '.join(missing)} not installed: run `python -m pip install -r requirements.txt` in {ROOT.name}/")
    if save_to_drive:
        keep_runs_in_drive()
    import torch

    from ..training import devices

    device = {"cuda": "a GPU", "mps": "Apple's GPU", "cpu": "the CPU"}[devices.pick_device().type]
    print(f"torch {torch.__version__} on {device}{', smoke run: a few hundred images, one epoch' if smoke() else ''}")


def cloned() -> bool:
    """Whether the setup cell of a notebook cloned this course (see tools.colab), so that the machine is a guest's."""
    with suppress(OSError):  # without git nothing was cloned
        return subprocess.run(["git", "-C", str(ROOT), "config", "course.cloned"], capture_output=True).returncode == 0
    return False


def install(packages: list[str]) -> None:
    """Install packages for this kernel's own interpreter. Raises CourseError where pip can't."""
    print("installing", ", ".join(packages))
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *packages], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise CourseError(f"pip could not install {', '.join(packages)}: {reason}. Connect to the Internet and run this cell again.")
    importlib.invalidate_caches()


def keep_runs_in_drive() -> None:
    """Let your own runs go to a folder of your Google Drive, where they outlive Colab's machine. Raises CourseError outside Colab."""
    try:
        from google.colab import drive
    except ImportError as error:
        raise CourseError("only Colab can save to Google Drive: set SAVE_TO_DRIVE = False (COURSE_RUNS names another folder)") from error
    drive.mount("/content/drive")
    os.environ["COURSE_RUNS"] = "/content/drive/MyDrive/mnist-course"
    print("your own runs go to", os.environ["COURSE_RUNS"])


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
    display(Image(png.getvalue(), format="png", metadata={"alt": alt}))  # Image(alt=…) needs IPython 8, which Colab lacks


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
