"""Checks before every request (is the server ready, does the client have access), and logging after it."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Iterable

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgetune.server.errors import RequestError, not_found
from edgetune.server.responses import error_response
from edgetune.server.service import Service

OPEN_PATHS = frozenset(
    {
        *("/", "/page.js", "/dom.js", "/transport.js", "/page.css", "/openapi.json"),
        *("/v2/health/live", "/v2/health/ready", "/health", "/ping", "/version"),
    }
)
"""Paths that need no key and answer in every phase. They do not reveal anything about the tasks."""

OWN_CLASSIFY = "/v1/classify"
"""edgetune's own route. The format of its answers depends on the task's kind."""

VLLM_CLASSIFY = "/classify"
"""vLLM's route, with one format for all answers."""

CLASSIFY = (VLLM_CLASSIFY, OWN_CLASSIFY)

EMBEDDINGS = "/v1/embeddings"
"""OpenAI's route for embeddings."""

RERANK = "/rerank"
"""text-embeddings-inference's route for ranking texts."""

_QUEUED = frozenset((*CLASSIFY, EMBEDDINGS, RERANK))
"""Paths whose texts wait in the queue. Paths of the Open Inference Protocol contain a task, and end in `/infer`."""

TASK_CHANGES = "/v2/repository/models/"
"""Paths with this prefix change tasks, and need the task key."""

_READABLE_HEADERS = ("Retry-After", "Server-Timing", "Inference-Header-Content-Length")
_ALWAYS = OPEN_PATHS | {"/metrics"}
_log = logging.getLogger("edgetune.access")


class Access:
    """Wraps the application.

    Args:
        app: the application.
        service: the service.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._answer: ASGIApp = self._checked
        if service.settings.cors_origins:
            # Outside the checks, so that pages of these origins can read error responses too. Pages send keys in a
            # header; credentials of the browser are not used.
            self._answer = CORSMiddleware(
                self._checked,
                allow_origins=service.settings.cors_origins,
                allow_methods=("GET", "HEAD", "POST"),
                allow_headers=("*",),
                allow_private_network=True,
                expose_headers=_READABLE_HEADERS,
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = time.monotonic()
        status = 0
        state = scope.setdefault("state", {})

        async def counting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if not self._service.ready:  # so that the client sends nothing more on this connection
                    others = [header for header in message["headers"] if header[0] != b"connection"]
                    message["headers"] = [*others, (b"connection", b"close")]
            await send(message)

        try:
            await self._answer(scope, receive, counting)
        finally:
            self._note(scope, status, time.monotonic() - began)
            if "reason" in state:
                self._service.metrics.failures.labels(state["reason"]).inc()

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope)
        app = self._app if refusal is None else error_response(refusal, scope)
        await app(scope, receive, send)

    def _refusal(self, scope: Scope) -> RequestError | None:
        path: str = scope["path"]
        settings = self._service.settings
        if not path.isprintable():  # the pattern of a route would ignore a line end
            return not_found("there is nothing at this path: /openapi.json describes what there is")
        if path not in _ALWAYS and not self._service.ready:
            return self._service.not_ready()
        if path.startswith(TASK_CHANGES):
            if settings.task_key is None:
                return RequestError(403, "forbidden", "tasks cannot be changed: this server does not allow it")
            keys: Iterable[str] = (settings.task_key,)
        else:
            keys = settings.api_keys
        if path not in OPEN_PATHS and keys and not _has_key(scope, keys):
            return RequestError(
                401, "unauthorized", "expected the header 'Authorization: Bearer KEY'", {"www-authenticate": "Bearer"}
            )
        if scope["method"] == "POST" and (path in _QUEUED or path.endswith("/infer")):
            return self._service.scheduler.lack_of_room()  # here, because it costs least here
        return None

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("endpoint"), "__name__", "none")
        metrics = self._service.metrics
        metrics.requests.labels(route, str(status)).inc()
        metrics.request_seconds.observe(seconds)
        if _log.isEnabledFor(logging.INFO):
            client = scope["client"] or ("", 0)
            line = {"method": scope["method"], "path": scope["path"], "status": status, "ms": round(seconds * 1e3, 3)}
            _log.info({**line, "client": client[0], **scope["state"]})


def _has_key(scope: Scope, keys: Iterable[str]) -> bool:
    sent = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(sent) != 1 or sent[0][:7].lower() != b"bearer ":
        return False
    return any(hmac.compare_digest(sent[0][7:].strip(), key.encode()) for key in keys)
