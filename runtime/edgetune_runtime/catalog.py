"""The tasks that can be asked for: those of a bundle on disk, and those added, swapped and removed since."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgetune_runtime import files
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.errors import TaskError
from edgetune_runtime.task import Task


@dataclass(frozen=True)
class Changes:
    """What changed in a bundle's folder, and was taken.

    Attributes:
        added: tasks that were not there.
        replaced: tasks that were there in another version.
        removed: tasks that are there no more.
        failed: task → why its file cannot be used; where it was there before, that one goes on.
    """

    added: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)


class Catalog:
    """Tasks by name. A task is replaced as a whole: whoever has looked one up goes on with it.

    Safe to use from several threads. The bundle on disk stays as it is, except for `store` and `discard`.

    Args:
        bundle: the bundle.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._in_bundle = set(bundle.task_names())
        self._loaded: dict[str, Task] = {}
        self._added: set[str] = set()

    def state(self) -> dict[str, Any]:
        """What tells this catalog from a new one of the same bundle."""
        with self._lock:
            return {
                "in_bundle": set(self._in_bundle),
                "added": {name: self._loaded[name] for name in self._added},
            }

    def restore(self, state: dict[str, Any]) -> None:
        """Become the catalog that `state` was taken of."""
        self._in_bundle = state["in_bundle"]
        for task in state["added"].values():
            self.add(task)

    def renew(self) -> None:
        """Make it usable in a forked process, where another thread's lock would never be released."""
        self._lock, self._writing = threading.Lock(), threading.Lock()

    @property
    def names(self) -> list[str]:
        """Names of all tasks, sorted."""
        with self._lock:
            return sorted(self._in_bundle | set(self._loaded))

    @property
    def loaded(self) -> list[Task]:
        """The tasks that have been read."""
        with self._lock:
            return list(self._loaded.values())

    def get(self, name: str) -> Task | None:
        """The task of that name, if it has been read."""
        with self._lock:
            return self._loaded.get(name)

    def task(self, name: str) -> Task:
        """The task of that name, read from the bundle when it is first asked for.

        Raises:
            TaskError: there is no such task, or its file is damaged or made for another backbone.
        """
        with self._lock:
            if name in self._loaded:
                return self._loaded[name]
            if name not in self._in_bundle:
                have = ", ".join(sorted(self._in_bundle | set(self._loaded))) or "none"
                raise TaskError(
                    f"no task '{name}' here: the engine has {have}; add one with "
                    f"'edgetune tasks add {self._bundle.path} FILE'"
                )
        read = self._bundle.load_task(name)
        with self._lock:
            # Meanwhile another thread may have put a newer one there, which stands, or removed it.
            return self._loaded.setdefault(name, read) if name in self._in_bundle else read

    def add(self, task: Task | str | Path, name: str | None = None) -> Task:
        """Add a task, or swap the one of the same name.

        Args:
            task: a task or its file.
            name: what to call it; its own name otherwise.

        Raises:
            TaskError: the file is damaged or the task was made for another backbone.
        """
        new = task if isinstance(task, Task) else Task.load(Path(task))
        if name is not None:
            new = new.renamed(name)
        self._bundle.check_task(new)
        with self._lock:
            self._loaded[new.name] = new
            self._added.add(new.name)
        return new

    def store(self, name: str, data: bytes, origin: str) -> Task:
        """Add a task, or swap the one of the same name, here and in the bundle on disk.

        Args:
            name: what to call it, whatever it calls itself.
            data: the bytes of its file.
            origin: what to call them in an error.

        Raises:
            TaskError: they are not a sound task file, or the task was made for another backbone.
            EdgetuneError: the bundle cannot be written.
        """
        new = Task.from_bytes(data, origin).renamed(name)
        self._bundle.check_task(new)
        with self._writing:  # so that disk and memory end with the same one
            files.write_atomic(self._bundle.task_path(name), new.to_bytes())
            with self._lock:
                self._loaded[name] = new
                self._in_bundle.add(name)
                self._added.discard(name)
        return new

    def discard(self, name: str) -> None:
        """Remove a task, here and from the bundle on disk.

        Raises:
            TaskError: there is no such task, or its file cannot be removed.
        """
        with self._writing:
            if name not in self.names:
                raise self._unknown(name)
            self._bundle.remove_task(name, missing_ok=True)
            self.remove(name)

    def refresh(self, names: Collection[str] | None = None) -> Changes:
        """Take what changed in the bundle on disk; all of it is seen at once. Tasks that were added here stay.

        Args:
            names: the only tasks to look at; all where it is `None`.

        Raises:
            BundleError: the folder of tasks leads out of the bundle, or cannot be looked through.
        """
        with self._writing:
            there = set(self._bundle.task_names())
            with self._lock:
                old, known, added = dict(self._loaded), set(self._in_bundle), set(self._added)
            looked_at = (there | known if names is None else set(names)) - added
            new: dict[str, Task] = {}
            failed: dict[str, str] = {}
            # One that was never asked for is read when it is.
            for name in sorted(looked_at & there - (known - old.keys())):
                try:
                    task = self._bundle.load_task(name)
                    if name not in old or old[name].sha256 != task.sha256:
                        new[name] = task
                except TaskError as error:
                    failed[name] = str(error)
            gone = (looked_at & known) - there
            with self._lock:
                for name in gone:
                    self._loaded.pop(name, None)
                self._loaded |= new
                self._in_bundle = (self._in_bundle - gone) | new.keys()
        return Changes(
            added=tuple(name for name in new if name not in known),
            replaced=tuple(name for name in new if name in known),
            removed=tuple(sorted(gone)),
            failed=failed,
        )

    def find(self, name_or_file: str) -> Task:
        """The task that a user means: a file, which is added, or a task by its name.

        Raises:
            TaskError: there is no such task, or its file is damaged or made for another backbone.
        """
        path = Path(name_or_file)
        is_file = path.is_file() or path.suffix == files.TASK_SUFFIX
        return self.add(path) if is_file else self.task(name_or_file)

    def remove(self, name: str) -> None:
        """Remove a task.

        Raises:
            TaskError: there is no such task.
        """
        with self._lock:
            known = name in self._loaded or name in self._in_bundle
            self._loaded.pop(name, None)
            self._in_bundle.discard(name)
            self._added.discard(name)
        if not known:
            raise self._unknown(name)

    def _unknown(self, name: str) -> TaskError:
        return TaskError(f"no task '{name}' to remove: the engine has {', '.join(self.names) or 'none'}")
