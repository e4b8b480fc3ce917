"""The folder of an unfinished training run: its settings, and the progress of each seed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune.data.sources import Note
from edgetune.training.outcomes import Outcome
from edgetune_runtime import files
from edgetune_runtime.errors import EdgetuneError
from edgetune_runtime.task import Task

_OPTIONS_FILE = "options.json"


@dataclass(frozen=True)
class Unfinished:
    """An unfinished training run.

    Attributes:
        folder: the folder with its state.
    """

    folder: Path

    def of_seed(self, seed: int) -> Path:
        """The folder for the checkpoints of one seed."""
        return self.folder / f"seed-{seed}"

    def checkpoint(self, seed: int) -> str | None:
        """The checkpoint from which training with this seed continues, if there is one."""
        # Trainer writes its state last, so a checkpoint without it is incomplete.
        whole = [state.parent for state in self.of_seed(seed).glob("checkpoint-*/trainer_state.json")]
        return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None

    def outcome(self, seed: int, drafts: Sequence[Task]) -> Outcome | None:
        """The outcome of training with this seed, if it is finished.

        Raises:
            EdgetuneError: the file is damaged.
        """
        file = self._outcome_file(seed)
        return Outcome.load(file, drafts) if file.is_file() else None

    def finish(self, seed: int, outcome: Outcome) -> None:
        """Save the outcome of training with this seed, and delete its checkpoints."""
        outcome.save(self._outcome_file(seed))
        shutil.rmtree(self.of_seed(seed), ignore_errors=True)

    def discard(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _outcome_file(self, seed: int) -> Path:
        return self.folder / f"seed-{seed}.safetensors"


def prepare(folder: Path, settings: dict[str, Any], resume: bool, note: Note) -> Unfinished:
    """Prepare the folder.

    Args:
        folder: the folder of the unfinished training run.
        settings: the settings that identify this training run, as JSON.
        resume: continue an unfinished training run; otherwise it is discarded.
        note: receives messages for the user.

    Raises:
        EdgetuneError: the unfinished training run has other settings, or the folder is not writable.
    """
    stamp = json.dumps(settings, sort_keys=True)
    stamp_file = folder / _OPTIONS_FILE
    found = Unfinished(folder)
    if resume and stamp_file.is_file():
        if stamp_file.read_text() != stamp:
            raise EdgetuneError(
                f"the unfinished training in {folder} had another model, other options or data: repeat them, or "
                f"leave out `resume` to begin again"
            )
        return found
    if resume and not folder.exists():
        note(f"there is no unfinished training in {folder}: beginning from the start")
    if folder.exists():
        note(f"an unfinished training in {folder} is discarded (`resume` would go on with it)")
        found.discard()
    files.write_atomic(stamp_file, stamp.encode())
    return found
