"""The tasks that a server answers for: those of its engine, told as HTTP tells them."""

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
    """Tasks by name. A task is replaced as a whole: who has looked one up goes on with it.

    Args:
        engine: the engine, whose tasks these are.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self) -> Iterator[str]:
        """Read all tasks of the bundle; gives what is wrong with those that cannot be used, which are left out."""
        bundle = self._engine.bundle
        for file, why in bundle.unread_tasks().items():
            yield f"{bundle.path / files.TASKS / file} is not read: {why}"
        for name in self._engine.task_names:
            try:
                _ = self._engine.task(name).sha256  # now, and not while somebody waits
            except TaskError as error:
                self._engine.remove_task(name)
                yield str(error)

    def refresh(self, names: Collection[str]) -> Changes:
        """Take what changed in the bundle's folder, for requests that come from now on.

        Args:
            names: the tasks to look at.

        Raises:
            BundleError: the folder cannot be looked through.
        """
        changes = self._engine.refresh_tasks(names)
        for name in (*changes.added, *changes.replaced):
            _ = self._engine.task(name).sha256  # now, and not while somebody waits
        return changes

    def task(self, name: str, version: str | None = None) -> Task:
        """The task of that name.

        Raises:
            RequestError: there is none, or it has another version.
        """
        task = self._engine.catalog.get(name)
        if task is None:
            raise self._no_task(name)
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
        tasks = self._engine.catalog.loaded
        if len(tasks) != 1:
            raise unusable(f"no 'model' came, and there are {len(tasks)} tasks: name one of GET /v1/models")
        return tasks[0]

    def reading(self, name: str | None) -> Task:
        """What reads texts to make vectors of them: the task of that name, or the backbone by itself.

        Args:
            name: of a task; `None`, or the backbone's name unless a task has it, for the backbone.

        Raises:
            RequestError: there is no such task.
        """
        bare = self._engine.bare_task
        if name is None or (name == bare.name and self._engine.catalog.get(name) is None):
            return bare
        return self.task(name)

    def ranking(self, name: str | None) -> Task:
        """The task of that name; the only one that can rank if none is named.

        Raises:
            RequestError: there is no such task, or none is named and there is not exactly one that can rank.
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
        """Load a task, or replace the one of that name, in the bundle and for requests that come from now on.

        Args:
            name: what to call it, whatever it calls itself.
            data: the bytes of its file.

        Raises:
            RequestError: it is not a sound task of this backbone.
        """
        try:
            task = self._engine.store_task(name, data, "the body")
        except TaskError as error:
            raise unusable(str(error)) from error
        _ = task.sha256
        return task

    def remove(self, name: str) -> None:
        """Take a task out of the bundle, and out of service for requests that come from now on.

        Raises:
            RequestError: there is none.
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
