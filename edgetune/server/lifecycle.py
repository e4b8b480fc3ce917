"""Start and stop a server.

It answers 503 until it is ready, and again after SIGTERM until all accepted requests are answered.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from edgetune.server.app import build_app
from edgetune.server.connection import Connection
from edgetune.server.service import Service
from edgetune_runtime.errors import EdgetuneError

_log = logging.getLogger("edgetune.server")
_BACKLOG = 1024
_LONGEST_RUN_S = 60  # for a request's texts, after the first of them has started
_SWITCH_S = 0.0005  # finished runs should not wait 5 ms (Python's default) for the event loop to release the GIL


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
        EdgetuneError: the address is not available.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        used = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "another program uses it" if used else error
        raise EdgetuneError(
            f"{host}:{port} cannot be listened on ({reason}): choose another `host` or `port`"
        ) from error


def serve(service: Service, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until a signal asks to stop; a second signal stops immediately.

    Args:
        service: the service.
        listener: the listening socket; it is closed at the end.
        on_ready: called as soon as requests are accepted.

    Raises:
        EdgetuneError: the service cannot start.
    """
    settings = service.settings
    config = uvicorn.Config(
        build_app(service),
        http=Connection.bound(settings, service.metrics),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=math.ceil(settings.queue_s + settings.client_s) + _LONGEST_RUN_S,
        timeout_keep_alive=settings.keep_alive_s,  # type: ignore[arg-type]  # it is only waited for
    )
    sys.setswitchinterval(_SWITCH_S)
    server = _Server(config, service, on_ready)
    server.run(sockets=[listener])
    if server.problem is not None:
        raise server.problem


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, service: Service, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.problem: BaseException | None = None
        self._service = service
        self._on_ready = on_ready
        self._drain_from = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._starting = asyncio.create_task(asyncio.to_thread(self._start))
        self._starting.add_done_callback(self._started)

    async def on_tick(self, counter: int) -> bool:
        if self._service.draining:
            waited = time.monotonic() - self._drain_from >= self._service.settings.drain_s
            self.should_exit |= waited and self._service.scheduler.idle
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if not self.force_exit:
            await asyncio.to_thread(self._service.scheduler.close)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.draining:
            self.should_exit = self.force_exit = True
        else:
            self._drain_from = time.monotonic()
            self._service.drain()

    def _start(self) -> None:
        for problem in self._service.start():
            _log.warning({"event": "task_left_out", "error": problem})

    def _started(self, starting: asyncio.Task[None]) -> None:
        if starting.cancelled():  # a signal arrived first
            return
        self.problem = starting.exception()
        if self.problem is not None:
            self.should_exit = True
        elif self._service.ready:
            self._on_ready()
            self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """Watch for changed tasks until the process ends or is asked to stop."""
        watch, period_s = self._service.watch, self._service.settings.watch_s
        while watch is not None and period_s is not None and self._service.ready:
            await asyncio.sleep(period_s)
            await asyncio.to_thread(watch.look)
