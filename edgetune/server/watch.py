"""Watch a bundle's folder while a server runs: `tasks sync`, `pull`, a ConfigMap or a copied file may change tasks."""

from __future__ import annotations

import logging

from edgetune.server.catalog import Catalog
from edgetune.server.metrics import Metrics
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.catalog import Changes
from edgetune_runtime.errors import EdgetuneError

_log = logging.getLogger("edgetune.server")

Stamps = dict[str, tuple[int, ...]]


class Watch:
    """Loads changed tasks after their files have been the same for two checks, so that no half-written file is read.

    A file that is not valid is logged once, and the previous task stays in use. If the whole folder disappears, for
    example while a volume is remounted, all tasks stay in use.

    Args:
        bundle: the bundle to watch.
        catalog: the server's tasks.
        metrics: counts the changes.
    """

    def __init__(self, bundle: Bundle, catalog: Catalog, metrics: Metrics) -> None:
        self._bundle = bundle
        self._catalog = catalog
        self._metrics = metrics
        self._taken: Stamps = {}
        self._last: Stamps = {}
        self._problem: str | None = None

    def begin(self) -> None:
        """Remember the current state; call it before the tasks are read."""
        found = self._stamps() or {}
        self._taken, self._last = dict(found), found

    def look(self) -> None:
        """Check once, and load the changes that have settled."""
        found = self._stamps()
        if found is None:
            return
        names = self._taken.keys() | found.keys()
        settled = {name for name in names if found.get(name) == self._last.get(name)}
        changed = {name for name in settled if found.get(name) != self._taken.get(name)}
        self._last = found
        if not changed:
            return
        try:
            changes = self._catalog.refresh(changed)
        except EdgetuneError as error:
            self._tell(str(error))
            return  # the next check tries again
        for name in changed:
            if name in found:
                self._taken[name] = found[name]
            else:
                del self._taken[name]
        self._log_changes(changes)

    def _stamps(self) -> Stamps | None:
        try:
            found = self._bundle.task_stamps()
        except (EdgetuneError, OSError) as error:
            self._tell(str(error))
            return None
        self._tell(None if found is not None else f"{self._bundle.path} has no folder of tasks: those of before go on")
        return found

    def _tell(self, problem: str | None) -> None:
        """Log a problem of the folder once, until it is solved."""
        if problem not in (None, self._problem):
            _log.warning({"event": "watch_failed", "error": problem})
        self._problem = problem

    def _log_changes(self, changes: Changes) -> None:
        self._metrics.task_changes.labels("load").inc(len(changes.added) + len(changes.replaced))
        self._metrics.task_changes.labels("unload").inc(len(changes.removed))
        for problem in changes.failed.values():
            _log.warning({"event": "task_left_out", "error": problem})
        if changes.added or changes.replaced or changes.removed:
            told = {"added": changes.added, "replaced": changes.replaced, "removed": changes.removed}
            _log.info({"event": "tasks_changed", **told})
