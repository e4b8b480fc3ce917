"""Long work finishes, even if nobody reads its stderr."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

from conftest import TEXTS

_PIPE_BYTES = 4096


def test_a_run_ends_if_nobody_reads_its_progress(bundle_folder: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    for place in range(60):  # each prints a note, because its row has so many lines
        lines = "\n" * (30 + place)
        (rows / f"{place:02}.csv").write_text(f'text,label\n"{TEXTS[place % len(TEXTS)]}{lines}",1\n')
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    arguments = ["score", bundle_folder, rows, "--task", "colour", "--out", tmp_path / "out", "--workers", "1"]
    with os.fdopen(reader, "rb") as unread:
        done = subprocess.run(
            [sys.executable, "-m", "edgetune", *map(str, arguments), "--json"],
            stdout=subprocess.PIPE,
            stderr=writer,
            timeout=120,
            check=False,
        )
        os.close(writer)
        assert done.returncode == 0
        assert json.loads(done.stdout)["rows"] == 60
        told = unread.read()
        assert b"00.csv, line 2: a row of 31 lines" in told
        assert b"59.csv" not in told  # so there was more output than the pipe holds
