"""A client's connection: uvicorn's, with limits on the size of headers and the time that they may take.

uvicorn limits neither, and also not how long a client may delay reading its answer. `app` limits bodies when it reads
them.
"""

from __future__ import annotations

from asyncio import TimerHandle, Transport
from http import HTTPStatus
from typing import ClassVar

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from edgetune.server.messages import Error, encode
from edgetune.server.metrics import Metrics
from edgetune.server.settings import Settings

_MOST_PIPELINED = 8  # requests on one connection that wait for earlier ones


class Connection(HttpToolsProtocol):
    """A connection; `bound` returns a subclass with the limits of a server."""

    settings: ClassVar[Settings]
    metrics: ClassVar[Metrics]

    _timer: TimerHandle | None = None
    _write_timer: TimerHandle | None = None
    _begun = False
    _header_bytes = 0
    _in_header = True
    _open = 0  # requests whose answers are not sent yet
    _running: RequestResponseCycle | None = None
    _refusal: bytes | None = None

    @classmethod
    def bound(cls, settings: Settings, metrics: Metrics) -> type[Connection]:
        """The connection class for one server."""
        return type("BoundConnection", (cls,), {"settings": settings, "metrics": metrics})

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """A client connected."""
        super().connection_made(transport)
        if len(self.connections) > self.settings.max_connections:
            self._refuse(HTTPStatus.TOO_MANY_REQUESTS, "busy", "too many connections: come again later")
        else:
            self._expect_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client disconnected."""
        self._stop_timer()
        self.resume_writing()
        self._abandon(self._running)  # uvicorn notifies only the last request
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes arrived."""
        if self._refusal is not None:
            return
        if self._in_header:
            self._header_bytes += len(data)
            if self._timer is None:
                self._expect_header()
        super().data_received(data)
        # A header that ended in these bytes was measured in `on_headers_complete`.
        if self._in_header and self._header_bytes > self.settings.max_header_bytes:
            self._refuse_header()

    def on_message_begin(self) -> None:
        """The first bytes of a request arrived."""
        super().on_message_begin()
        self._begun = True
        if self._timer is None:
            self._expect_header()

    def on_headers_complete(self) -> None:
        """A request's header is complete."""
        self._stop_timer()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.settings.max_header_bytes:
            self._refuse_header()
        elif len(self.pipeline) >= _MOST_PIPELINED:
            self._refuse(HTTPStatus.TOO_MANY_REQUESTS, "busy", "too many requests at once on one connection")
        elif self.parser.should_upgrade():  # after this, the parser would mistake a body for a request
            self._refuse(HTTPStatus.BAD_REQUEST, "malformed", "there is nothing to upgrade to: leave out 'Upgrade'")
        if self._refusal is None:
            super().on_headers_complete()
            self._in_header = False
            self._open += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header arrived, or a trailer after a chunked body, which is ignored."""
        if self._in_header:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Part of a body arrived."""
        if self._refusal is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is complete; the next bytes are the header of another request."""
        self._in_header, self._header_bytes, self._begun = True, 0, False
        if self._refusal is None:
            super().on_message_complete()
            if not self._open:  # it was answered before it was complete
                self._stop_timer()
                self._expect_header()

    def on_response_complete(self) -> None:
        """An answer was sent. The rest of its request is discarded, but only for a limited time."""
        self._open -= 1
        unread = self.cycle.more_body and not self.pipeline
        super().on_response_complete()
        if self._refusal is not None:
            self._say_refusal()
        elif unread:
            self._stop_timer()
            self._timer = self.loop.call_later(self.settings.client_s, self.transport.close)
        if self.transport.is_closing():
            self._expect_reading()

    def pause_writing(self) -> None:
        """The client has stopped reading."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """The client is reading again."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        if self.flow is not None:
            super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """The bytes are not valid HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, "malformed", "this is not sound HTTP")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _expect_header(self) -> None:
        self._timer = self.loop.call_later(self.settings.client_s, self._late)

    def _late(self) -> None:
        self._timer = None
        if self._open:  # it is sent first
            self._expect_header()
        elif self._begun:
            late = f"the header did not come within {self.settings.client_s:g} s"
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "slow_client", late)
        else:
            self.transport.close()

    def _expect_reading(self) -> None:
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.settings.client_s, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse_header(self) -> None:
        limit = f"the header is larger than {self.settings.max_header_bytes} bytes"
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too_large", limit)

    def _refuse(self, status: HTTPStatus, reason: str, message: str) -> None:
        if self._refusal is not None:
            return
        self._stop_timer()
        self.metrics.requests.labels("none", str(int(status))).inc()
        self.metrics.failures.labels(reason).inc()
        body = encode(Error(message))
        head = f"HTTP/1.1 {int(status)} {status.phrase}\r\ncontent-type: application/json\r\n"
        head += "retry-after: 1\r\n" if status == HTTPStatus.TOO_MANY_REQUESTS else ""
        if self.settings.cors_origins:  # the client is unknown, and this line contains no secret
            head += "access-control-allow-origin: *\r\n"
        head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self._refusal = head.encode() + body
        if not self._in_header:  # the last request ended inside its body
            if self.pipeline:
                self.pipeline.popleft()
            else:
                self._abandon(self.cycle)
                if self.cycle.response_started:
                    self.transport.close()
            self._open -= 1
        self._say_refusal()

    def _say_refusal(self) -> None:
        # Earlier requests are answered first; otherwise their clients would mistake this for their answer.
        if not self._open and self._refusal is not None and not self.transport.is_closing():
            self.transport.write(self._refusal)
            self.transport.close()
            self._expect_reading()

    @staticmethod
    def _abandon(cycle: RequestResponseCycle | None) -> None:
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
