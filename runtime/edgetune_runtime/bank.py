"""The bank: the parts of a few tasks, stacked into the tensors that the graph takes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from edgetune_runtime import contract
from edgetune_runtime.arrays import Array
from edgetune_runtime.contract import BackboneSizes
from edgetune_runtime.parts import PARTS
from edgetune_runtime.task import Task


def stack(
    tasks: Sequence[Task], sizes: BackboneSizes, names: Collection[str] = tuple(contract.BANK_INPUTS)
) -> dict[str, Array]:
    """Stack tasks of unequal lengths and label counts. Padding is masked, or zero in the head.

    Args:
        tasks: the tasks, one per row of the bank. An empty list gives one empty row.
        sizes: the backbone's sizes.
        names: the wanted inputs; names that are not bank inputs are ignored.

    Returns:
        An array for each wanted name in `contract.BANK_INPUTS`. A single task's own tensors are used without a copy.

    Shape:
        output: as `contract.BANK_INPUTS`
    """
    lengths = {"tasks": max(1, len(tasks))}
    for part in PARTS.values():
        lengths[part.length] = max((part.length_of(task.tensors) for task in tasks), default=0)
    # A single task fills its bank, so its tensors are not copied: a thousand tasks in use take only their own bytes.
    alone = tasks[0].tensors if len(tasks) == 1 else {}
    bank = {
        name: alone[name].astype(spec.dtype, copy=False)[np.newaxis]
        if name in alone
        else np.zeros(sizes.shape(name, **lengths), spec.dtype)
        for name, spec in contract.BANK_INPUTS.items()
        if name in names
    }
    if not tasks:
        return bank
    if contract.POSITION_OFFSET in bank:
        bank[contract.POSITION_OFFSET][:] = [task.position_offset for task in tasks]
    if contract.POOLING in bank:
        bank[contract.POOLING][:] = [contract.POOLINGS.index(contract.reads(task.pooling)[0]) for task in tasks]
    for part in PARTS.values():
        most = lengths[part.length]
        for row, task in enumerate(tasks):
            length = part.length_of(task.tensors)
            filled = slice(most - length, most) if part.side == "left" else slice(length)
            if part.mask in bank:
                bank[part.mask][row, filled] = 1
            for name in () if alone else bank.keys() & set(part.tensors) & task.tensors.keys():
                place = [filled if dim == part.length else slice(None) for dim in contract.TASK_TENSORS[name]]
                bank[name][(row, *place)] = task.tensors[name]
    return bank
