"""Which notebooks show something else than what is published.

Cells with the tag `published` show what stands in logs/, saved_dict/ and logs/trials/, and nothing else. They are run again here, in this
process, and must print what is committed: every table and every number of a published run, recomputed.
"""

import os
from pathlib import Path

import nbformat

from utils import ROOT

TAG = "published"
# a cell with one of these has the tag, or says why not
SHOWS = ("tables.", "trials.", "records.", "bench.", "again.", "notebook.costs", "runs.run(")


def paths() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def notebooks() -> list[Path]:
    """The notebooks in which a published cell would now print something else."""
    return [path for path in paths() if differences(path)]


def untagged(path: Path) -> list[str]:
    """The cells that show what is published and have no tag; a cell that needs what was trained before it says `# not recomputed`."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells[3:] if cell.cell_type == "code"]
    free = [cell for cell in cells if TAG not in cell.metadata.get("tags", []) and "# not recomputed" not in cell.source]
    return [cell.source for cell in free if any(word in cell.source for word in SHOWS)]


def differences(path: Path) -> list[str]:
    """What the published cells of a notebook print now, where it is not what is committed; one text for each cell."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if TAG in cell.metadata.get("tags", [])]
    if not cells:
        return []
    found = []
    before = dict(os.environ), Path.cwd()
    os.environ |= {"COURSE_SMOKE": "0", "COURSE_PUBLISH": "1", "COURSE_RUNS": "no runs of one's own"}
    os.chdir(path.parent)
    try:
        shell = new_shell()
        run(shell, notebook.cells[2].source.replace("RETRAIN = True", "RETRAIN = False"))
        for cell in cells:
            now, committed = run(shell, cell.source), "\n".join(map(text_of, cell.outputs))
            if sorted(now.split()) != sorted(committed.split()):  # what is printed and what is shown are kept apart, so not in order
                found.append(f"{path.name} prints now\n{now}\ninstead of\n{committed}")
    finally:
        os.environ.clear()
        os.environ |= before[0]
        os.chdir(before[1])
    return found


def new_shell():
    """An IPython shell without a history, whose pictures are drawn into nothing."""
    import matplotlib
    from IPython.core.interactiveshell import InteractiveShell

    matplotlib.use("Agg")
    InteractiveShell.clear_instance()
    return InteractiveShell.instance(history_length=0)


def run(shell, source: str) -> str:
    """What a cell prints and shows, as text. Raises what the cell raises."""
    from IPython.utils.capture import capture_output

    with capture_output() as captured:
        result = shell.run_cell(source, silent=False)
    result.raise_error()
    shown = [{"data": output.data} for output in captured.outputs]
    return "\n".join([captured.stdout, *map(text_of, shown)])


def text_of(output: dict) -> str:
    """An output's printed text or Markdown; nothing of a picture, a highlighted source or an error stream."""
    if output.get("output_type") == "stream":
        return output["text"] if output["name"] == "stdout" else ""
    data = output.get("data", {})
    return "" if "image/png" in data else data.get("text/markdown", "")
