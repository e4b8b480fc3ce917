"""Whether a bundle from elsewhere is sound: every file of it looked at, and what could do harm tried out apart."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

from edgetune_runtime import files
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.errors import EdgetuneError, in_one_line
from edgetune_runtime.probe import probe_bundle, probe_tokenizer


@dataclass(frozen=True)
class Finding:
    """What was found of one thing.

    Attributes:
        subject: what was looked at: a file, or what is made of files.
        status: "sound"; "fault", which should keep the bundle from being used; or "note", which need not.
        message: what was found, where it is not sound.
    """

    subject: str
    status: Literal["sound", "fault", "note"] = "sound"
    message: str = ""


def findings(folder: Path) -> Iterator[Finding]:
    """Look at a bundle: manifest, files and their SHA-256, tokenizer, graphs, tasks, and what else lies there.

    Each finding comes as it is made. After a fault the rest is looked at all the same; without a sound manifest
    nothing else is known.
    """
    try:
        bundle = Bundle(folder)
    except EdgetuneError as error:
        yield Finding(files.MANIFEST, "fault", str(error))
        return
    yield Finding(files.MANIFEST)
    precision_of = {name: precision for precision in bundle.manifest.graphs for name in bundle.graph_files(precision)}
    for name in sorted(bundle.manifest.files):
        if name in precision_of and not os.path.lexists(bundle.path / name):
            yield Finding(name, "note", f"it is not there: {precision_of[name]} cannot be run")
        else:
            yield _found(name, partial(bundle.digest, name))
    yield _found("vocabulary", bundle.vocabulary_size)
    yield _found("tokenizer", partial(probe_tokenizer, bundle))
    runnable = [precision for precision in bundle.manifest.graphs if bundle.has_graph(precision)]
    if not runnable:
        yield Finding(files.GRAPHS, "fault", "there is no graph: copy or export the bundle again")
    for precision in runnable:
        yield _found(f"graph {precision}", partial(probe_bundle, bundle, [precision]))
    yield from _tasks(bundle)
    yield from _others(bundle)


def _found(subject: str, check: Callable[[], object]) -> Finding:
    try:
        check()
    except EdgetuneError as error:
        return Finding(subject, "fault", str(error))
    return Finding(subject)


def _tasks(bundle: Bundle) -> Iterator[Finding]:
    try:
        names = bundle.task_names()
    except EdgetuneError as error:
        yield Finding(files.TASKS, "fault", str(error))
        return
    for name in names:
        yield _found(f"task {name}", partial(bundle.load_task, name))


def _others(bundle: Bundle) -> Iterator[Finding]:
    """What lies in the folder and is neither a file of the manifest, nor a task, nor the index of those."""
    known = {files.MANIFEST, *bundle.manifest.files}
    for path in islice(_entries(bundle.path), files.LISTING_LIMIT):
        name = in_one_line(path.relative_to(bundle.path).as_posix())
        mode = path.lstat().st_mode
        if name in known:  # read, or told to be unreadable
            continue
        if stat.S_ISLNK(mode):
            yield Finding(name, "fault", "it is a link: copy what it leads to, or remove it")
        elif not stat.S_ISREG(mode):
            yield Finding(name, "fault", "it is not a regular file: remove it")
        elif not files.is_task_path(name) and name != files.INDEX:
            yield Finding(name, "note", "the manifest does not name it, and nothing reads it")


def _entries(folder: Path) -> Iterator[Path]:
    """All that lies below a folder, but folders; no link is followed."""
    for parent, folders, names in os.walk(folder):
        yield from (Path(parent, name) for name in sorted(names))
        yield from (path for name in sorted(folders) if (path := Path(parent, name)).is_symlink())
