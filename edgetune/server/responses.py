"""Responses in JSON, errors among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Scope

from edgetune.server.errors import RequestError
from edgetune.server.messages import Error, encode


def json_response(message: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A message."""
    return Response(encode(message), status, headers, "application/json")


def error_response(error: RequestError, scope: Scope) -> Response:
    """One line that says why not; the log has it too."""
    scope["state"]["error"] = str(error)
    scope["state"]["reason"] = error.reason
    return json_response(Error(str(error)), error.status, error.headers)
