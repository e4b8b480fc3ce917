"""File names, reading that stays inside a folder, and atomic writing."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path

from edgetune_runtime.errors import EdgetuneError, TaskError

MANIFEST = "edgetune.json"
CARD = "README.md"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
GRAPHS = "onnx"
TASKS = "tasks"
TASK_SUFFIX = ".safetensors"
INDEX = "tasks/index.json"
CACHE_VARIABLE = "EDGETUNE_CACHE"
PREPARED = "graphs"
PREPARED_GRAPH = "model.onnx"
PREPARED_WEIGHTS = "model.weights"

TASK_LIMIT_BYTES = 64_000_000
"""Largest task file: a prefix of 100 on 24 layers of 1024 takes 20 MB."""

LISTING_LIMIT = 100_000
"""Maximum number of entries of a folder that is listed."""

_LIMITS_BYTES = {
    CARD: 10_000_000,
    MANIFEST: 2_000_000,  # the parity figures of a thousand tasks in three precisions take 0.8 MB
    CONFIG: 1_000_000,
    TOKENIZER: 64_000_000,  # Gemma's 262,144 tokens take 33 MB
    INDEX: 25_000_000,  # LISTING_LIMIT tasks with the longest names
}
_GRAPH_SUFFIX = ".onnx"
_DATA_SUFFIX = ".data"
_HUB_REPOSITORIES = ("models--", "datasets--", "spaces--")
_TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PLAIN_PATH = re.compile(r"(?=.{1,255}$)[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")

# As far as the system has them: do not follow links, do not wait on a pipe, and do not translate line ends.
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def graph_file(precision: str) -> str:
    """Path of a precision's graph inside a bundle, with the file names that are common for ONNX models."""
    return f"{GRAPHS}/model.onnx" if precision == "fp32" else f"{GRAPHS}/model_{precision}.onnx"


def variant_file(graph: str, variant: str) -> str:
    """Path of a graph's variant, which takes its weights from the graph's file or from the graph's weight file."""
    return f"{graph.removesuffix(_GRAPH_SUFFIX)}_{variant}{_GRAPH_SUFFIX}"


def data_file(graph: str) -> str:
    """Path of the weights of a graph whose own file cannot hold them."""
    return f"{graph}{_DATA_SUFFIX}"


def task_file(name: str) -> str:
    """Path of a task inside a bundle."""
    return f"{TASKS}/{check_task_name(name)}{TASK_SUFFIX}"


def is_task_path(path: str) -> bool:
    """Whether a path inside a bundle is a task's path."""
    folder, _, name = path.rpartition("/")
    return folder == TASKS and name.endswith(TASK_SUFFIX) and is_task_name(name.removesuffix(TASK_SUFFIX))


def is_task_name(name: str) -> bool:
    """Whether a task can have this name; it becomes a file name."""
    return _TASK_NAME.fullmatch(name) is not None


def why_no_task(file: str) -> str:
    """Why a file in the task folder is not read as a task."""
    if not file.endswith(TASK_SUFFIX):
        return f"its name does not end in {TASK_SUFFIX}"
    return "its name is no task's: expected 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"


def check_task_name(name: str) -> str:
    """Return `name`, or raise `TaskError` if it is not a valid file name on every system."""
    if not is_task_name(name):
        raise TaskError(
            f"task name {name!r} cannot be used: expected 1 to 64 letters, digits, '.', '_' or '-', "
            f"the first a letter or digit"
        )
    return name


def limit_bytes(path: str) -> int | None:
    """Maximum size of a bundle's file in bytes; `None` for graphs and their weights."""
    return _LIMITS_BYTES.get(path, TASK_LIMIT_BYTES if path.startswith(f"{TASKS}/") else None)


def is_plain_path(name: str) -> bool:
    """Whether a path is allowed in a manifest: relative, without "..", and the same on every system."""
    return _PLAIN_PATH.fullmatch(name) is not None


def open_inside(root: Path, name: str) -> BufferedReader:
    """Open a file of a bundle for reading.

    The bundle's folder may itself be a link. Inside it, only two kinds of links are followed: those that stay inside
    the folder, as in a mounted Kubernetes ConfigMap, and those to files of the same repository in the Hugging Face
    hub's cache. The maximum size depends on the kind of file. A separate weight file is rejected if it has a second
    name (a hard link) through which it could be changed.

    Raises:
        OSError: the file does not exist or must not be read; `strerror` says why.
    """
    if not is_plain_path(name):
        raise OSError(errno.EINVAL, "not a plain path inside the bundle")
    path = resolved_inside(root, name)
    if name.endswith(_DATA_SUFFIX) and path.stat().st_nlink != 1:
        raise OSError(errno.EMLINK, "it is a hard link")
    return open_regular(path, limit_bytes(name))


def resolved_inside(root: Path, name: str) -> Path:
    """Resolve the links of a path inside a bundle's folder.

    Raises:
        OSError: a link is broken or leads out of the bundle; `strerror` says which.
    """
    path = root
    link = None
    for part in name.split("/"):
        path /= part
        if path.is_symlink():
            link = link or part
    if link is None:
        return path
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself, before Python 3.13
        raise OSError(errno.ELOOP, f"'{link}' is a link that leads nowhere") from error
    if not any(target.is_relative_to(folder) for folder in _own_folders(root.resolve())):
        raise OSError(errno.ELOOP, f"'{link}' is a link that leads out of the bundle")
    return target


def _own_folders(root: Path) -> Iterator[Path]:
    """Folders that may hold a bundle's files: its own and, in the hub's cache, its repository's folder of blobs.

    In the cache a snapshot is a folder of links, from models--NAME/snapshots/REVISION/FILE to
    models--NAME/blobs/DIGEST.
    """
    yield root
    for folder in (root, *root.parents):
        repository = folder.parent.parent
        if folder.parent.name == "snapshots" and repository.name.startswith(_HUB_REPOSITORIES):
            if not (repository / "blobs").is_symlink():
                yield repository / "blobs"
            return


def open_regular(path: Path, limit_bytes: int | None = None) -> BufferedReader:
    """Open a regular file of at most `limit_bytes` for reading; never blocks, as opening a pipe can.

    Raises:
        OSError: the file does not exist or must not be read; `strerror` says why.
    """
    _check_regular(path.lstat(), limit_bytes)  # devices are not opened at all
    file = os.fdopen(os.open(path, _READ), "rb")
    try:
        _check_regular(os.fstat(file.fileno()), limit_bytes)
    except OSError:
        file.close()
        raise
    return file


def _check_regular(found: os.stat_result, limit_bytes: int | None) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    if limit_bytes is not None and found.st_size > limit_bytes:
        raise OSError(errno.EFBIG, f"it has {found.st_size:,} bytes: expected at most {limit_bytes:,}")


def sha256(data: bytes | bytearray) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def write_atomic(path: Path, data: bytes | bytearray) -> None:
    """Write a file atomically: a reader sees either the old bytes or the new ones, even after an interruption."""
    write_chunks(path, (data,))


def write_chunks(path: Path, chunks: Iterable[bytes | bytearray | memoryview]) -> None:
    """Write a file like `write_atomic`, chunk by chunk. If the chunks raise an error, the old bytes stay."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    except OSError as error:
        raise EdgetuneError(f"{path} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).chmod(0o644)
        Path(partial).replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise EdgetuneError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        Path(partial).unlink(missing_ok=True)


def try_lock(descriptor: int) -> bool:
    """Lock a file or folder for this process until it is closed or the process ends.

    `False` if another process holds it.

    On systems without such locks (Windows, some file systems) this always succeeds.
    """
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


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
