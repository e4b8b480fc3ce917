"""A short version of `tests/torture/mutate.py`, which `make torture` runs at full length."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "torture" / "mutate.py"


def test_mutated_files_are_refused_or_answer(bundle_folder: Path) -> None:
    command = [sys.executable, SCRIPT, bundle_folder, "--number", "300", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "300 mutations, seed 0" in done.stdout
