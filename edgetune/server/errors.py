"""Reasons for rejecting a request, with their HTTP status."""

from __future__ import annotations

import math
from collections.abc import Mapping

from edgetune_runtime.errors import EdgetuneError


class RequestError(EdgetuneError):
    """A rejected request.

    Args:
        status: the HTTP status.
        reason: one word for the metrics.
        message: one line for the client.
        headers: headers of the response.
    """

    def __init__(self, status: int, reason: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.headers = dict(headers or {})


def busy(wait_s: float, message: str) -> RequestError:
    """The server is overloaded; the client should retry in about `wait_s`."""
    return RequestError(429, "busy", message, {"retry-after": str(max(1, math.ceil(wait_s)))})


def draining() -> RequestError:
    """The server is shutting down."""
    return RequestError(503, "draining", "the server is stopping: ask another one")


def too_large(message: str) -> RequestError:
    """More bytes, characters or rows than the server accepts. The rest of the request is not read."""
    return RequestError(413, "too_large", message, {"connection": "close"})


def malformed(message: str) -> RequestError:
    """Bytes that do not have the declared format."""
    return RequestError(400, "malformed", message)


def unusable(message: str) -> RequestError:
    """A valid message that asks for something impossible."""
    return RequestError(422, "unusable", message)


def unfit(message: str) -> RequestError:
    """A valid message that this task cannot answer, although other tasks could."""
    return RequestError(400, "unfit", message)


def not_found(message: str) -> RequestError:
    """The task, version or path does not exist."""
    return RequestError(404, "not_found", message)
