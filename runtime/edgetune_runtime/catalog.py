"""The available tasks: those of a bundle on disk, and those added, swapped and removed since."""

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
    """Changes found in a bundle's folder and applied.

    Attributes:
        added: new tasks.
        replaced: tasks with a new version.
        removed: tasks that no longer exist.
        failed: task → why its file cannot be used. If an earlier version exists, it stays in use.
    """

    added: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)


class Catalog:
    """Tasks by name. A task is replaced as a whole: callers that already looked it up keep the old one.

    Thread-safe. Only `store` and `discard` change the bundle on disk.

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
        """The state in which this catalog differs from a new one of the same bundle."""
        with self._lock:
            return {
                "in_bundle": set(self._in_bundle),
                "added": {name: self._loaded[name] for name in self._added},
            }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self._in_bundle = state["in_bundle"]
        for task in state["added"].values():
            self.add(task)

    def renew(self) -> None:
        """Make it usable in a forked process, where a lock held by another thread would never be released."""
        self._lock, self._writing = threading.Lock(), threading.Lock()

    @property
    def names(self) -> list[str]:
        """Sorted names of all tasks."""
        with self._lock:
            return sorted(self._in_bundle | set(self._loaded))

    @property
    def loaded(self) -> list[Task]:
        """The tasks that are loaded."""
        with self._lock:
            return list(self._loaded.values())

    def get(self, name: str) -> Task | None:
        """The task of that name, if it is loaded."""
        with self._lock:
            return self._loaded.get(name)

    def task(self, name: str) -> Task:
        """The task of that name, read from the bundle on first use.

        Raises:
            TaskError: the task does not exist, or its file is damaged or was made for another backbone.
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
            # Meanwhile another thread may have added a newer one, which takes precedence, or removed it.
            return self._loaded.setdefault(name, read) if name in self._in_bundle else read

    def add(self, task: Task | str | Path, name: str | None = None) -> Task:
        """Add a task, or replace the one of the same name.

        Args:
            task: a task or its file.
            name: its name here; by default the task's own name.

        Raises:
            TaskError: the file is damaged, or the task was made for another backbone.
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
        """Add a task, or replace the one of the same name, here and in the bundle on disk.

        Args:
            name: its name here, whatever its file says.
            data: the bytes of the task file.
            origin: how errors refer to them.

        Raises:
            TaskError: they are not a valid task file, or the task was made for another backbone.
            EdgetuneError: the bundle cannot be written.
        """
        new = Task.from_bytes(data, origin).renamed(name)
        self._bundle.check_task(new)
        with self._writing:  # so that disk and memory end up with the same one
            files.write_atomic(self._bundle.task_path(name), new.to_bytes())
            with self._lock:
                self._loaded[name] = new
                self._in_bundle.add(name)
                self._added.discard(name)
        return new

    def discard(self, name: str) -> None:
        """Remove a task, both here and from the bundle on disk.

        Raises:
            TaskError: the task does not exist, or its file cannot be removed.
        """
        with self._writing:
            if name not in self.names:
                raise self._unknown(name)
            self._bundle.remove_task(name, missing_ok=True)
            self.remove(name)

    def refresh(self, names: Collection[str] | None = None) -> Changes:
        """Apply the changes in the bundle on disk, all at once. Tasks that were added here stay.

        Args:
            names: the tasks to look at; `None` for all.

        Raises:
            BundleError: the folder of tasks links out of the bundle, or cannot be listed.
        """
        with self._writing:
            there = set(self._bundle.task_names())
            with self._lock:
                old, known, added = dict(self._loaded), set(self._in_bundle), set(self._added)
            looked_at = (there | known if names is None else set(names)) - added
            new: dict[str, Task] = {}
            failed: dict[str, str] = {}
            # A task that was never used is read on first use.
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
        """The task for a user's argument: a file, which is added, or the name of a task.

        Raises:
            TaskError: the task does not exist, or its file is damaged or was made for another backbone.
        """
        path = Path(name_or_file)
        is_file = path.is_file() or path.suffix == files.TASK_SUFFIX
        return self.add(path) if is_file else self.task(name_or_file)

    def remove(self, name: str) -> None:
        """Remove a task.

        Raises:
            TaskError: the task does not exist.
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
