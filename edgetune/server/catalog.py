"""The tasks of a server: the tasks of its engine, with errors as HTTP responses."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from edgetune.server.errors import RequestError, not_found, unfit, unusable
from edgetune_runtime import files
from edgetune_runtime.catalog import Changes
from edgetune_runtime.engine import Engine
from edgetune_runtime.errors import TaskError
from edgetune_runtime.ranking import can_rank
from edgetune_runtime.task import Task


class Catalog:
    """Tasks by name. A task is replaced as a whole: requests that already looked it up keep the old one.

    Args:
        engine: the engine with the tasks.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self) -> Iterator[str]:
        """Read all tasks of the bundle. Returns the problems of tasks that are not valid; these are skipped."""
        bundle = self._engine.bundle
        for file, why in bundle.unread_tasks().items():
            yield f"{bundle.path / files.TASKS / file} is not read: {why}"
        for name in self._engine.task_names:
            try:
                _ = self._engine.task(name).sha256  # now, so that no request waits for it
            except TaskError as error:
                self._engine.remove_task(name)
                yield str(error)

    def refresh(self, names: Collection[str]) -> Changes:
        """Apply the changes in the bundle's folder, for requests from now on.

        Args:
            names: the tasks to look at.

        Raises:
            BundleError: the folder cannot be listed.
        """
        changes = self._engine.refresh_tasks(names)
        for name in (*changes.added, *changes.replaced):
            _ = self._engine.task(name).sha256  # now, so that no request waits for it
        return changes

    def task(self, name: str, version: str | None = None) -> Task:
        """The task of that name.

        Raises:
            RequestError: the task does not exist, or has another version.
        """
        task = self._engine.catalog.get(name)
        if task is None:
            raise self._no_task(name)
        if version not in (None, task.sha256):
            raise not_found(f"task '{name}' has no version {str(version)[:64]!r}: expected {task.sha256}")
        return task

    def named(self, name: str | None) -> Task:
        """The task of that name; without a name, the only task.

        Raises:
            RequestError: the task does not exist, or no name is given and there is not exactly one task.
        """
        if name is not None:
            return self.task(name)
        tasks = self._engine.catalog.loaded
        if len(tasks) != 1:
            raise unusable(f"no 'model' came, and there are {len(tasks)} tasks: name one of GET /v1/models")
        return tasks[0]

    def reading(self, name: str | None) -> Task:
        """The task that reads texts for embeddings: the task of that name, or the backbone without a task.

        Args:
            name: name of a task. `None` means the backbone, and so does the backbone's name, unless a task has that
                name.

        Raises:
            RequestError: the task does not exist.
        """
        bare = self._engine.bare_task
        if name is None or (name == bare.name and self._engine.catalog.get(name) is None):
            return bare
        return self.task(name)

    def ranking(self, name: str | None) -> Task:
        """The task of that name; without a name, the only task that can rank.

        Raises:
            RequestError: the task does not exist, or no name is given and there is not exactly one task that can rank.
        """
        if name is not None:
            return self.task(name)
        able = [task for task in self.tasks() if can_rank(task)]
        if not able:
            raise unfit(
                "no task here can rank: expected one that takes pairs of texts, and gives one label or a number"
            )
        if len(able) > 1:
            have = ", ".join(task.name for task in able)
            raise unusable(f"no 'model' came, and {len(able)} tasks can rank: expected one of {have}")
        return able[0]

    def tasks(self) -> list[Task]:
        """All tasks, sorted by name."""
        return sorted(self._engine.catalog.loaded, key=lambda task: task.name)

    def put(self, name: str, data: bytes) -> Task:
        """Load a task, or replace the one of that name, in the bundle and for requests from now on.

        Args:
            name: its name, whatever its file says.
            data: the bytes of the task file.

        Raises:
            RequestError: it is not a valid task for this backbone.
        """
        try:
            task = self._engine.store_task(name, data, "the body")
        except TaskError as error:
            raise unusable(str(error)) from error
        _ = task.sha256
        return task

    def remove(self, name: str) -> None:
        """Remove a task from the bundle and, for requests from now on, from the server.

        Raises:
            RequestError: the task does not exist.
            TaskError: its file cannot be removed.
        """
        try:
            self._engine.discard_task(name)
        except TaskError as error:
            if self._engine.catalog.get(name) is None:
                raise self._no_task(name) from error
            raise

    def _no_task(self, name: str) -> RequestError:
        if files.is_task_name(name) and self._engine.bundle.task_path(name).is_file():
            return not_found(
                f"task '{name}' is in the bundle's folder and not in use: it came after the server started, or cannot "
                f"be used, which the log says; start the server again, or let it watch the folder"
            )
        return not_found(f"there is no task {name[:64]!r}: GET /tasks lists the tasks")
