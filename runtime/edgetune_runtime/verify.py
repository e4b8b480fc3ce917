"""Check a bundle from elsewhere: inspect every file, and try out dangerous ones in a separate process."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

from edgetune_runtime import contract, files
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.errors import EdgetuneError, in_one_line
from edgetune_runtime.probe import probe_bundle, probe_tokenizer


@dataclass(frozen=True)
class Finding:
    """The finding about one item.

    Attributes:
        subject: the item: a file, or something made of files.
        status: "sound"; "fault", if the bundle should not be used; or "note", if it can be used anyway.
        message: the problem, if it is not sound.
    """

    subject: str
    status: Literal["sound", "fault", "note"] = "sound"
    message: str = ""


def findings(folder: Path) -> Iterator[Finding]:
    """Check a bundle: manifest, files and their SHA-256, tokenizer, graphs, tasks, and other files in the folder.

    Findings are yielded one by one. After a fault the check continues; but without a sound manifest nothing else can be
    checked.
    """
    try:
        bundle = Bundle(folder)
    except EdgetuneError as error:
        yield Finding(files.MANIFEST, "fault", str(error))
        return
    yield Finding(files.MANIFEST)
    graph_of = {
        name: precision if name in graph.paths_of(contract.BASE) else f"{precision} with tasks that need {variant}"
        for precision, graph in bundle.manifest.graphs.items()
        for variant in (contract.BASE, *graph.variants)
        for name in graph.paths_of(variant)
    }
    for name in sorted(bundle.manifest.files):
        missing = not os.path.lexists(bundle.path / name)
        if name in graph_of and missing:
            yield Finding(name, "note", f"it is not there: {graph_of[name]} cannot be run")
        elif name == files.CARD:  # people may edit it, and no answer depends on it
            yield Finding(name, "note", "it is not there") if missing else _card(bundle)
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


def _card(bundle: Bundle) -> Finding:
    try:
        with files.open_inside(bundle.path, files.CARD) as file:
            found = files.sha256(file.read())
    except OSError as error:
        return Finding(files.CARD, "fault", f"it cannot be read ({error.strerror}): copy the file itself there")
    if found != bundle.manifest.files[files.CARD]:
        return Finding(files.CARD, "note", "it was edited since the export")
    return Finding(files.CARD)


def _tasks(bundle: Bundle) -> Iterator[Finding]:
    try:
        names = bundle.task_names()
    except EdgetuneError as error:
        yield Finding(files.TASKS, "fault", str(error))
        return
    for name in names:
        yield _found(f"task {name}", partial(bundle.load_task, name))


def _others(bundle: Bundle) -> Iterator[Finding]:
    """Files in the folder that are neither in the manifest, nor tasks, nor the index of tasks."""
    read = {files.MANIFEST, *bundle.manifest.files, files.INDEX}
    tasks = {files.task_file(name) for name in _names(bundle)}
    through = {_target(bundle, name) for name in (*read, *tasks)}
    unread: dict[str, int] = {}
    for path in islice(_entries(bundle.path), files.LISTING_LIMIT):
        name = in_one_line(path.relative_to(bundle.path).as_posix())
        mode = path.lstat().st_mode
        if name in bundle.manifest.files or name == files.MANIFEST or name in tasks:  # read, or reported as unreadable
            continue
        if stat.S_ISLNK(mode) and _target(bundle, name) is None:
            yield Finding(name, "fault", "it is a link that leads out of the bundle, or nowhere: remove it")
        elif not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
            yield Finding(name, "fault", "it is not a regular file: remove it")
        elif name != files.INDEX and path.resolve() not in through and not path.is_dir():
            # A folder that does not belong to a bundle, such as .git, counts as one item.
            top, slash, _ = name.partition("/")
            own = not slash or top in (files.GRAPHS, files.TASKS)
            subject = name if own else f"{top}/"
            unread[subject] = unread.get(subject, 0) + 1
    for name, number in unread.items():
        what = f"its {number:,} files, and nothing reads them" if name.endswith("/") else "it, and nothing reads it"
        yield Finding(name, "note", f"the manifest does not name {what}")


def _names(bundle: Bundle) -> list[str]:
    try:
        return bundle.task_names()
    except EdgetuneError:  # already reported
        return []


def _target(bundle: Bundle, name: str) -> Path | None:
    """The file that a path resolves to; `None` if it leads out of the bundle or does not exist."""
    try:
        return files.resolved_inside(bundle.path, name).resolve()
    except OSError:
        return None


def _entries(folder: Path) -> Iterator[Path]:
    """All files below a folder; links are not followed."""
    for parent, folders, names in os.walk(folder):
        yield from (Path(parent, name) for name in sorted(names))
        yield from (path for name in sorted(folders) if (path := Path(parent, name)).is_symlink())
