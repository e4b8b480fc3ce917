"""The bank: the prompts and heads of a few tasks, stacked into the tensors that the graph takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgetune_runtime import contract
from edgetune_runtime.arrays import Array
from edgetune_runtime.contract import BackboneSizes
from edgetune_runtime.task import Task


def stack(tasks: Sequence[Task], sizes: BackboneSizes) -> dict[str, Array]:
    """Stack tasks of unequal lengths and label counts; what is padding is masked, or zero in the head.

    Args:
        tasks: the tasks, one a row of the bank. None gives one row with nothing in it.
        sizes: sizes of the backbone.

    Returns:
        One array for each of `contract.BANK_INPUTS`, shaped as it says. A task alone lends its own tensors.
    """
    lengths = {
        "tasks": max(1, len(tasks)),
        "prompt": max((task.prompt_length for task in tasks), default=0),
        "prefix": max((task.prefix_length for task in tasks), default=0),
        "labels": max((len(task.labels) for task in tasks), default=0),
    }
    shapes = {name: (sizes.shape(name, **lengths), spec.dtype) for name, spec in contract.BANK_INPUTS.items()}
    # A task alone fills its bank, so its tensors are not copied: a thousand tasks in use take their own bytes.
    alone = tasks[0].tensors if len(tasks) == 1 else {}
    bank = {
        name: alone[name].astype(dtype, copy=False)[np.newaxis] if name in alone else np.zeros(shape, dtype)
        for name, (shape, dtype) in shapes.items()
    }
    for row, task in enumerate(tasks):
        bank[contract.POSITION_OFFSET][row] = task.position_offset
        bank[contract.POOLING][row] = contract.POOLINGS.index(task.pooling)
        bank[contract.PROMPT_MASK][row, lengths["prompt"] - task.prompt_length :] = 1
        bank[contract.PREFIX_MASK][row, : task.prefix_length] = 1
        for name in () if alone else bank.keys() & task.tensors.keys():
            tensor = task.tensors[name]
            place: tuple[int | slice, ...] = (row, *(slice(0, size) for size in tensor.shape))
            if name == contract.PROMPT_EMBEDDINGS:
                place = (row, slice(lengths["prompt"] - task.prompt_length, None))
            bank[name][place] = tensor
    return bank
