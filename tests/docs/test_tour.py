"""The notebook runs from its first cell to its last, with a tiny model whose answers mean nothing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def run_tour() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_tour", DOCS / "run_tour.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_runs(run_tour: ModuleType, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGETUNE_MODEL", str(model_folder))
    *_, last = run_tour.executed(tmp_path).cells
    assert "'status': 'ok'" in last.outputs[-1].data["text/plain"]


def test_it_is_kept_with_what_it_prints() -> None:
    notebook = nbformat.read(DOCS / "tour.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    assert sum("image/png" in output.get("data", {}) for cell in code for output in cell.outputs) == 2
