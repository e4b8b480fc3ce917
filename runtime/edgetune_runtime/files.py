"""Names on disk, and writing that is never half done."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

from edgetune_runtime.errors import EdgetuneError, TaskError

MANIFEST = "edgetune.json"
CARD = "README.md"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
GRAPHS = "onnx"
TASKS = "tasks"
TASK_SUFFIX = ".safetensors"
CACHE_VARIABLE = "EDGETUNE_CACHE"
PREPARED = "graphs"
PREPARED_GRAPH = "model.onnx"
PREPARED_WEIGHTS = "model.weights"

_TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def graph_file(precision: str) -> str:
    """Path of a precision's graph inside a bundle, in the names that ONNX users know."""
    return f"{GRAPHS}/model.onnx" if precision == "fp32" else f"{GRAPHS}/model_{precision}.onnx"


def data_file(graph: str) -> str:
    """Path of the weights that do not fit into a graph's own file."""
    return f"{graph}.data"


def task_file(name: str) -> str:
    """Path of a task inside a bundle."""
    return f"{TASKS}/{check_task_name(name)}{TASK_SUFFIX}"


def is_task_name(name: str) -> bool:
    """Whether a task can be called this: it becomes a file's name."""
    return _TASK_NAME.fullmatch(name) is not None


def check_task_name(name: str) -> str:
    """Give back `name`, or raise `TaskError` where it could not be a file's name everywhere."""
    if not is_task_name(name):
        raise TaskError(
            f"task name {name!r} cannot be used: expected 1 to 64 letters, digits, '.', '_' or '-', "
            f"the first a letter or digit"
        )
    return name


def sha256(data: bytes | bytearray) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def write_atomic(path: Path, data: bytes | bytearray) -> None:
    """Write a file so that a reader sees the old bytes or the new ones, whenever this is interrupted."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    except OSError as error:
        raise EdgetuneError(f"{path} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).chmod(0o644)
        Path(partial).replace(path)
    except OSError as error:
        raise EdgetuneError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        Path(partial).unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Make what was written to a file survive a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut. Windows neither offers nor needs this."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
