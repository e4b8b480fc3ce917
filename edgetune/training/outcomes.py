"""The outcome of training with one seed, which can be stored until the other seeds are finished."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from edgetune.training.epochs import Epoch
from edgetune.training.rungs import Rung
from edgetune_runtime import files
from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import EdgetuneError
from edgetune_runtime.task import Task

_LOGITS, _TENSOR = "logits", "tensor."


@dataclass(frozen=True)
class Outcome:
    """The outcome of training with one seed.

    Attributes:
        rungs: for each task the trained candidates, with logits for the held-out rows.
        history: the results of each epoch on development data; empty for other recipes.
    """

    rungs: list[list[Rung]]
    history: list[Epoch]

    def save(self, file: Path) -> None:
        """Write it atomically. The drafts of the tasks are omitted, because they are the same for all seeds."""
        tensors: dict[str, Array] = {}
        for place, own in enumerate(self.rungs):
            for number, rung in enumerate(own):
                named = {_LOGITS: rung.logits, **{_TENSOR + name: values for name, values in rung.tensors.items()}}
                tensors |= {f"{place}.{number}.{name}": np.ascontiguousarray(one) for name, one in named.items()}
        metadata = {
            "rungs": json.dumps([[rung.name for rung in own] for own in self.rungs]),
            "history": json.dumps([dataclasses.asdict(epoch) for epoch in self.history]),
        }
        files.write_atomic(file, safetensors.numpy.save(tensors, metadata))

    @classmethod
    def load(cls, file: Path, drafts: Sequence[Task]) -> Outcome:
        """Read the output of `save`, for the same tasks.

        Raises:
            EdgetuneError: the file is damaged.
        """
        try:
            with safe_open(file, framework="np") as opened:
                metadata, tensors = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
        except SafetensorError as error:
            raise EdgetuneError(
                f"{file} is damaged ({error}): leave out `resume` to begin the training again"
            ) from error

        def rung(place: int, number: int, name: str) -> Rung:
            start = f"{place}.{number}."
            own = {key.removeprefix(start): values for key, values in tensors.items() if key.startswith(start)}
            logits = own.pop(_LOGITS)
            learned = {key.removeprefix(_TENSOR): values for key, values in own.items()}
            return Rung(name, drafts[place], learned, logits)

        return cls(
            [
                [rung(place, number, name) for number, name in enumerate(names)]
                for place, names in enumerate(json.loads(metadata["rungs"]))
            ],
            [Epoch(**epoch) for epoch in json.loads(metadata["history"])],
        )
