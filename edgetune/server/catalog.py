"""The tasks that a server answers for: in the engine, and in the bundle on disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress

from edgetune.server.errors import not_found, unusable
from edgetune_runtime import files
from edgetune_runtime.engine import Engine
from edgetune_runtime.errors import TaskError
from edgetune_runtime.task import Task


class Catalog:
    """Tasks by name. A task is replaced as a whole: who has looked one up goes on with it.

    Args:
        engine: the engine, whose tasks these are.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tasks: dict[str, Task] = {}
        self._writing = threading.Lock()

    def read(self) -> Iterator[str]:
        """Read all tasks of the bundle; gives what is wrong with those that cannot be used, which are left out."""
        bundle = self._engine.bundle
        for file, why in bundle.unread_tasks().items():
            yield f"{bundle.path / files.TASKS / file} is not read: {why}"
        for name in self._engine.task_names:
            try:
                task = self._engine.task(name)
            except TaskError as error:
                self._engine.remove_task(name)
                yield str(error)
            else:
                self._serve(task)

    def task(self, name: str, version: str | None = None) -> Task:
        """The task of that name.

        Raises:
            RequestError: there is none, or it has another version.
        """
        task = self._tasks.get(name)
        if task is None:
            raise not_found(f"there is no task {name[:64]!r}: GET /tasks lists those that there are")
        if version not in (None, task.sha256):
            raise not_found(f"task '{name}' has no version {str(version)[:64]!r}: expected {task.sha256}")
        return task

    def named(self, name: str | None) -> Task:
        """The task of that name; the only one if none is named.

        Raises:
            RequestError: there is no such task, or none is named and there is not exactly one.
        """
        if name is not None:
            return self.task(name)
        if len(self._tasks) != 1:
            raise unusable(f"no 'model' came, and there are {len(self._tasks)} tasks: name one of GET /v1/models")
        return next(iter(self._tasks.values()))

    def tasks(self) -> list[Task]:
        """All tasks, sorted by name."""
        return [task for _, task in sorted(self._tasks.items())]

    def put(self, name: str, data: bytes) -> Task:
        """Load a task, or replace the one of that name, in the bundle and for requests that come from now on.

        Args:
            name: what to call it, whatever it calls itself.
            data: the bytes of its file.

        Raises:
            RequestError: it is not a sound task of this backbone.
        """
        try:
            task = Task.from_bytes(data, "the body").renamed(name)
            self._engine.bundle.check_task(task)
        except TaskError as error:
            raise unusable(str(error)) from error
        with self._writing:  # so that disk and memory end with the same one
            self._engine.bundle.add_task(task)
            self._serve(self._engine.add_task(task))
        return task

    def remove(self, name: str) -> None:
        """Take a task out of the bundle, and out of service for requests that come from now on.

        Raises:
            RequestError: there is none.
        """
        with self._writing:
            self.task(name)
            with suppress(TaskError):  # its file was taken away by somebody else
                self._engine.bundle.remove_task(name)
            self._engine.remove_task(name)
            del self._tasks[name]

    def _serve(self, task: Task) -> None:
        _ = task.sha256  # now, and not while somebody waits
        self._tasks[task.name] = task
