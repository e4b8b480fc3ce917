"""JSON responses, including errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Scope

from edgetune.server.errors import RequestError
from edgetune.server.messages import Error, encode


def json_response(message: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response with a message."""
    return Response(encode(message), status, headers, "application/json")


def error_response(error: RequestError, scope: Scope) -> Response:
    """An error response in one line, which the log contains too."""
    scope["state"]["error"] = str(error)
    scope["state"]["reason"] = error.reason
    return json_response(Error(str(error)), error.status, error.headers)
