"""The parts of a running server, and its state."""

from __future__ import annotations

from collections.abc import Iterator

from edgetune.server.catalog import Catalog
from edgetune.server.errors import RequestError, draining
from edgetune.server.scheduler import Scheduler
from edgetune.server.settings import Settings
from edgetune.server.watch import Watch
from edgetune_runtime.engine import Engine


class Service:
    """An engine with its tasks and its queue. It is first starting, then ready, then draining.

    Args:
        engine: the engine.
        settings: limits and keys.

    Attributes:
        engine: the engine.
        watch: watches the bundle's folder, if the settings ask for it.
        draining: whether the server is shutting down.
    """

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine = engine
        self.settings = settings
        self.catalog = Catalog(engine)
        self.scheduler = Scheduler(engine, settings.queue_rows, settings.queue_s)
        self.metrics = self.scheduler.metrics
        self.watch = None if settings.watch_s is None else Watch(engine.bundle, self.catalog, self.metrics)
        self._started = False
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether requests are accepted."""
        return self._started and not self.draining

    def start(self) -> Iterator[str]:
        """Read the tasks and open the sessions. Returns the problems of skipped tasks."""
        if self.watch is not None:
            self.watch.begin()
        yield from self.catalog.read()
        self.scheduler.start()
        self._started = True

    def drain(self) -> None:
        """Stop accepting requests."""
        self.draining = True

    def not_ready(self) -> RequestError:
        """The error for a request that comes too early or too late."""
        if self.draining:
            return draining()
        return RequestError(503, "starting", "the server is starting: come again", {"retry-after": "1"})
