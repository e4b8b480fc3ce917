"""Run docs/tour.ipynb and store it with its output: `python docs/run_tour.py`, or `make tour`.

The kernel's messages on stderr are omitted, because they only show progress.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("tour.ipynb")


def executed(folder: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a run in that folder."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def main() -> None:
    """Run it with the demo's model."""
    from edgetune.demo.program import packaged_model

    os.environ.setdefault("EDGETUNE_MODEL", packaged_model())
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(executed(Path(folder)), NOTEBOOK)


if __name__ == "__main__":
    main()
