"""Which notebooks differ from the published results.

Cells with the tag `published` show only what logs/, saved_dict/ and logs/trials/ contain. This module runs them again
in this process and compares every table and every number with the committed outputs.
"""

import os
from pathlib import Path

import nbformat

from utils import ROOT, CourseError, files

TAG = "published"
# a cell with one of these has the tag, or a comment states why not
SHOWS = ("tables.", "trials.", "records.", "measurements.", "runs.load(", "published=True")
SHOWS += tuple(f"notebook.{name}(" for name in ("card", "curves", "compare", "frontier", "changes", "study"))


def paths() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def read(path: Path) -> nbformat.NotebookNode:
    """A notebook. Raises CourseError if the file is not one."""
    content = files.read(path)
    try:
        notebook = nbformat.reads(content.decode(), as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # a damaged file can raise any exception
        name = files.display_path(path)
        raise CourseError(f"{name} is no notebook ({type(error).__name__}). Check out the file again.") from error
    return notebook


def notebooks() -> list[Path]:
    """The notebooks in which a published cell would now print something else."""
    return [path for path in paths() if differences(path)]


def untagged(path: Path) -> list[str]:
    """Cells that show published results without the tag; a cell that depends on a training says `# not recomputed`."""
    cells = [cell for cell in read(path).cells[3:] if cell.cell_type == "code"]
    free = [c for c in cells if TAG not in c.metadata.get("tags", []) and "# not recomputed" not in c.source]
    return [cell.source for cell in free if any(word in cell.source for word in SHOWS)]


def differences(path: Path) -> list[str]:
    """One text for each published cell that now prints something else."""
    notebook = read(path)
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
            now, committed = run(shell, cell.source), (printed(cell.outputs), displayed(cell.outputs))
            if [text.split() for text in now] != [text.split() for text in committed]:
                found.append("\n".join([f"{path.name} shows now", *now, "instead of", *committed]))
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


def run(shell, source: str) -> tuple[str, str]:
    """The text that a cell prints, and the Markdown that it displays. Raises what the cell raises."""
    from IPython.utils.capture import capture_output

    with capture_output() as captured:
        result = shell.run_cell(source, silent=False)
    result.raise_error()
    outputs = [{"output_type": "display_data", "data": output.data} for output in captured.outputs]
    return captured.stdout, displayed(outputs)


def printed(outputs: list[dict]) -> str:
    """The standard output in a cell's outputs."""
    streams = [output for output in outputs if output["output_type"] == "stream" and output["name"] == "stdout"]
    return "".join(output["text"] for output in streams)


def displayed(outputs: list[dict]) -> str:
    """The Markdown in a cell's outputs, without pictures and highlighted sources."""
    shown = [output.get("data", {}) for output in outputs if output["output_type"] != "stream"]
    return "\n".join(data.get("text/markdown", "") for data in shown if "image/png" not in data)
