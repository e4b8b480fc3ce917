"""A task as onnxruntime's native adapter, for programs that run the graph without edgetune.

The adapter holds every bank input for that one task. The caller feeds only the text and a `task_index` of zeros.
It does not contain labels, template, lengths or temperature, because the format holds only tensors.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnxruntime as ort

from edgetune_runtime import bank, files
from edgetune_runtime.facts import BackboneFacts
from edgetune_runtime.task import Task

_VERSION = 1


def save_adapter(task: Task, facts: BackboneFacts, path: Path) -> str:
    """Write a task as an `.onnx_adapter` file, atomically.

    Args:
        task: the task.
        facts: the facts of its backbone.
        path: the file.

    Returns:
        The graph variant that the adapter is for.

    Raises:
        TaskError: the task was made for another backbone, or has parts that no graph of this backbone takes.
    """
    facts.check(task)
    variant = facts.variant_for(task)
    adapter = ort.AdapterFormat()
    adapter.set_adapter_version(_VERSION)
    adapter.set_model_version(_VERSION)
    arrays = bank.stack([task], facts.sizes, facts.inputs_of(variant))
    adapter.set_parameters({name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()})
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "adapter"
        adapter.export_adapter(str(written))  # it can only write to files
        files.write_atomic(path, written.read_bytes())
    return variant
