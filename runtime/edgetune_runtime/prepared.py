"""Prepared graphs: a bundle's graph as this CPU runs it, kept so that its weights are mapped and not made again.

When onnxruntime loads a graph, it optimizes it and copies its weights to memory in a new layout. Here that is done
once and written to the user's cache folder. From then on loading maps the file: many times faster, and all sessions
and processes that run the backbone share one copy of its weights. An entry belongs to the SHA-256 of the graph, the
version of onnxruntime and the CPU; those that nothing has used for a month go when another is written. Entries are
made of files that were hashed, and trusted from then on: the folder has to be one that only the user writes to.

`EDGETUNE_CACHE` names another folder; empty, nothing is kept. A leading `~` and variables of the environment stand for
what a shell makes of them, since in a file of variables no shell does; a relative one lies in the working directory.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import onnxruntime as ort
import platformdirs

from edgetune_runtime import files, session
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.devices import CPU
from edgetune_runtime.errors import BundleError, EdgetuneError
from edgetune_runtime.setups import EXPORTED, Form

_UNUSED_S = 30 * 24 * 3600


def open_graph(
    bundle: Bundle,
    precision: str,
    variant: str,
    threads: int,
    form: Form = EXPORTED,
    folder: Path | None = None,
) -> ort.InferenceSession:
    """Make a CPU session of a bundle's graph, prepared if the cache folder can be used.

    Args:
        bundle: the bundle.
        precision: one of its precisions.
        variant: one of the facts' variants, or the base.
        threads: threads inside one run.
        form: what is made of the graph.
        folder: the cache folder; by default `cache_folder()`.

    Raises:
        BundleError: a file is missing or damaged, or onnxruntime cannot load the graph.
        EdgetuneError: `EDGETUNE_CACHE` names the home of a user who has none.
    """
    folder = folder or cache_folder()
    inputs = bundle.facts.inputs_of(variant)
    if folder is not None:
        digests = [bundle.digest(name) for name in bundle.graph_files(precision, variant)]
        made_of = (digests, session.preparation(), *([] if form == EXPORTED else [form]))
        entry = folder / hashlib.sha256(repr(made_of).encode()).hexdigest()
        opened = _mapped(entry, threads, inputs)
        if opened is None and _write(bundle, precision, variant, entry, form):
            opened = _mapped(entry, threads, inputs)
        if opened is not None:
            return opened
    graph, weights = bundle.read_graph(precision, variant)
    return session.open_session(graph, CPU, threads, inputs, weights, form)


def cache_folder() -> Path | None:
    """The folder for prepared graphs; `None` if they are not kept.

    Raises:
        EdgetuneError: `EDGETUNE_CACHE` names the home of a user who has none.
    """
    named = os.environ.get(files.CACHE_VARIABLE)
    if named is not None:
        return _named(named) / files.PREPARED if named else None
    try:
        folder = platformdirs.user_cache_path("edgetune", appauthor=False) / files.PREPARED
    except RuntimeError:  # a user without a home
        return None
    return folder if folder.is_absolute() else None


def _named(path: str) -> Path:
    try:
        return Path(os.path.expandvars(path)).expanduser().absolute()
    except RuntimeError as error:
        raise EdgetuneError(
            f"{files.CACHE_VARIABLE} is {path!r}, and that user has no home folder: give a path that begins with /"
        ) from error


def _mapped(entry: Path, threads: int, inputs: Collection[str]) -> ort.InferenceSession | None:
    """A session of an entry; `None` if there is no entry. An entry that cannot be loaded is deleted."""
    if not os.path.isdir(entry):  # noqa: PTH112 - `Path.is_dir` raises if a parent folder is not accessible
        return None
    try:
        opened = session.open_prepared(entry, threads, inputs)
    except BundleError:
        shutil.rmtree(entry, ignore_errors=True)
        return None
    with suppress(OSError):  # a cache that others fill may be read-only
        os.utime(entry)
    return opened


def _write(bundle: Bundle, precision: str, variant: str, entry: Path, form: Form) -> bool:
    """Prepare a graph, all of it or nothing; tells whether the entry can be tried."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(suffix=".partial", dir=entry.parent))
    except OSError:
        return False
    try:
        source = staging / "source"
        source.mkdir()
        # Weights of a copy can be mapped, so that memory holds them once, in their final layout.
        session.write_prepared(bundle.copy_graph(precision, variant, source), source, staging, form)
        shutil.rmtree(source)
        for file in staging.iterdir():
            files.sync_file(file)
        staging.chmod(0o755)
        staging.replace(entry)
    except (OSError, BundleError):  # another process was first, the disk is full, or the graph is not sound
        return True
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    with suppress(OSError):
        _drop_unused(entry.parent)
    return True


def _drop_unused(folder: Path) -> None:
    for entry in folder.iterdir():
        if time.time() - entry.stat().st_mtime > _UNUSED_S:
            shutil.rmtree(entry, ignore_errors=True)
