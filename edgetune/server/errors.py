"""Why a request is refused, with the HTTP status that says so."""

from __future__ import annotations

import math
from collections.abc import Mapping

from edgetune_runtime.errors import EdgetuneError


class RequestError(EdgetuneError):
    """A request that is not answered.

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
    """More is asked than the server can do: come again in about `wait_s`."""
    return RequestError(429, "busy", message, {"retry-after": str(max(1, math.ceil(wait_s)))})


def draining() -> RequestError:
    """The server is about to end."""
    return RequestError(503, "draining", "the server is stopping: ask another one")


def too_large(message: str) -> RequestError:
    """More bytes, characters or rows than the server takes; what is still to come is not read."""
    return RequestError(413, "too_large", message, {"connection": "close"})


def malformed(message: str) -> RequestError:
    """Bytes that are not what they say they are."""
    return RequestError(400, "malformed", message)


def unusable(message: str) -> RequestError:
    """A sound message that asks for what cannot be done."""
    return RequestError(422, "unusable", message)


def unfit(message: str) -> RequestError:
    """A sound message that other tasks could answer, and this one cannot."""
    return RequestError(400, "unfit", message)


def not_found(message: str) -> RequestError:
    """No such task, version or path."""
    return RequestError(404, "not_found", message)
