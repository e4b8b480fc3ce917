"""The README is true: its first commands and its Python code run, with a tiny model instead of the hub's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
TICKETS = {
    "the parcel never came": "delivery",
    "where is my parcel?": "delivery",
    "it came to the wrong house": "delivery",
    "it was charged twice": "billing",
    "please send the money back": "billing",
    "the invoice is wrong": "billing",
}


def block(language: str) -> str:
    """The README's first block of code in that language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def folder(tmp_path: Path, model_folder: Path) -> Path:
    shutil.copytree(model_folder, tmp_path / MODEL)
    rows = "".join(f'"{text}",{label}\n' for text, label in TICKETS.items())
    (tmp_path / "tickets.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    return tmp_path


def test_its_commands_run(folder: Path) -> None:
    first, *middle, last = block("shell").splitlines()
    assert first == "pip install 'edgetune[train]'" and last == "edgetune serve bundle"
    commands = "\n".join(line.replace("edgetune ", f"{sys.executable} -m edgetune ") for line in middle)
    done = subprocess.run(
        ["bash", "-e"], input=commands, cwd=folder, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r'"label": "(delivery|billing)"', done.stdout.splitlines()[-1])


def test_its_python_runs(folder: Path) -> None:
    given = f"texts, labels = {list(TICKETS)}, {list(TICKETS.values())}\n"
    *_, last = program = block("python").rstrip().splitlines()
    assert last.endswith(".label")
    whole = given + "\n".join([*program[:-1], f"print({last})"])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", whole], cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("delivery", "billing")
