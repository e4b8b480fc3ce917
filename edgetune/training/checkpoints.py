"""The folder of an unfinished training: what it was begun with, and where it can go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from edgetune.data.sources import Note
from edgetune_runtime import files
from edgetune_runtime.errors import EdgetuneError

_OPTIONS_FILE = "options.json"


def prepare(folder: Path, settings: dict[str, Any], resume: bool, note: Note) -> str | None:
    """Make the folder ready; gives the checkpoint to go on from, if any.

    Args:
        folder: of the checkpoints.
        settings: what tells this training from another, as JSON has it.
        resume: go on with an unfinished training; else it is discarded.
        note: receives messages for the user.

    Raises:
        EdgetuneError: the unfinished training was begun with other settings, or the folder cannot be written.
    """
    stamp = json.dumps(settings, sort_keys=True)
    stamp_file = folder / _OPTIONS_FILE
    if resume and stamp_file.is_file():
        if stamp_file.read_text() != stamp:
            raise EdgetuneError(
                f"the unfinished training in {folder} had another model, other options or data: repeat them, or "
                f"leave out `resume` to begin again"
            )
        # Trainer writes its state last: a checkpoint without it is not whole.
        whole = [state.parent for state in folder.glob("checkpoint-*/trainer_state.json")]
        return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None
    if resume and not folder.exists():
        note(f"there is no unfinished training in {folder}: beginning from the start")
    if folder.exists():
        note(f"an unfinished training in {folder} is discarded (`resume` would go on with it)")
        shutil.rmtree(folder, ignore_errors=True)
    files.write_atomic(stamp_file, stamp.encode())
    return None
