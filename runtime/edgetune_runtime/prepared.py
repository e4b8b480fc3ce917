"""Prepared graphs: a bundle's graph as this CPU runs it, kept so that its weights are mapped and not made again.

When onnxruntime loads a graph it optimizes it and lays its weights out anew, in memory of its own. Here that is done
once and written to the user's cache folder. From then on loading maps the file: many times faster, and all sessions
and processes that run the backbone share one copy of its weights. An entry belongs to the SHA-256 of the graph, the
version of onnxruntime and the CPU; those that nothing has used for a month go when another is written.

`EDGETUNE_CACHE` names another folder; empty, nothing is kept.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import onnxruntime as ort
import platformdirs

from edgetune_runtime import files, session
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.errors import BundleError

FOLDER_VARIABLE = "EDGETUNE_CACHE"

_UNUSED_S = 30 * 24 * 3600
_PARTIAL = ".partial"


def open_graph(bundle: Bundle, precision: str, threads: int) -> ort.InferenceSession:
    """Make a CPU session of a bundle's graph, prepared where that can be kept.

    Args:
        bundle: the bundle.
        precision: one of its precisions.
        threads: threads inside one run.

    Raises:
        BundleError: a file is missing or damaged, or onnxruntime cannot load the graph.
    """
    folder = cache_folder()
    if folder is not None:
        digests = [bundle.digest(name) for name in bundle.graph_files(precision)]
        entry = folder / hashlib.sha256(repr((digests, session.preparation())).encode()).hexdigest()[:32]
        for _ in range(2):  # once more where what is there cannot be loaded
            if not entry.is_dir() and not _write(bundle, precision, entry):
                break
            try:
                opened = session.open_prepared(entry, threads)
            except BundleError:
                shutil.rmtree(entry, ignore_errors=True)
                continue
            with suppress(OSError):  # a cache that others fill may be read-only
                os.utime(entry)
            return opened
    graph, weights = bundle.read_graph(precision)
    return session.open_session(graph, "cpu", threads, weights)


def cache_folder() -> Path | None:
    """Where prepared graphs are kept; `None`: nowhere."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named is None:
        return platformdirs.user_cache_path("edgetune", appauthor=False)
    return Path(named) if named else None


def _write(bundle: Bundle, precision: str, entry: Path) -> bool:
    """Prepare a graph, all of it or nothing; tells whether the entry is there."""
    graph, weights = bundle.read_graph(precision)
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(suffix=_PARTIAL, dir=entry.parent))
    except OSError:
        return False
    try:
        session.write_prepared(graph, weights, staging)
        for file in staging.iterdir():
            files.sync_file(file)
        staging.chmod(0o755)
        staging.replace(entry)
    except (OSError, BundleError):  # another process was first, the disk is full, or the graph is not sound
        return entry.is_dir()
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    _drop_unused(entry.parent)
    return True


def _drop_unused(folder: Path) -> None:
    for entry in folder.iterdir():
        with suppress(OSError):
            if time.time() - entry.stat().st_mtime > _UNUSED_S:
                shutil.rmtree(entry, ignore_errors=True)
