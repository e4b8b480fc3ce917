"""Bundles behind HTTP."""

from __future__ import annotations

import base64
import urllib.request
from typing import Any, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from edgetune.sync.places import Place

_TIMEOUT_S = 60
_GONE = (404, 410)


class Web(Place):
    """A bundle behind HTTP or HTTPS, to be read; the standard library suffices for that.

    Args:
        url: the bundle's; user and password in it are sent, and a query goes with every request.
    """

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        host = self._parts.netloc.rpartition("@")[2]
        self._parts = self._parts._replace(path=self._parts.path.rstrip("/"), fragment="")
        super().__init__(urlunsplit(self._parts._replace(netloc=host, query="")))
        user = self._parts.netloc.rpartition("@")[0]
        self._authorization = f"Basic {base64.b64encode(unquote(user).encode()).decode()}" if user else None
        self._parts = self._parts._replace(netloc=host)
        self._opener = _web_opener()

    def _open(self, path: str) -> BinaryIO:
        return self._response(path, "GET")

    def _response(self, path: str, method: str) -> Any:
        url = urlunsplit(self._parts._replace(path=f"{self._parts.path}/{quote(path)}"))
        # What lies in a proxy's cache may be of another moment than the index.
        headers = {"User-Agent": "edgetune", "Cache-Control": "no-cache"}
        request = urllib.request.Request(url, headers=headers, method=method)
        if self._authorization:
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            return self._opener.open(request, timeout=_TIMEOUT_S)
        except HTTPError as error:
            error.close()
            if error.code in _GONE:
                raise FileNotFoundError(url) from error
            raise OSError(f"HTTP status {error.code} {error.reason}") from error
        except URLError as error:
            raise OSError(getattr(error.reason, "strerror", None) or str(error.reason)) from error

    def _size(self, path: str) -> int | None:
        try:
            response = self._response(path, "HEAD")
        except FileNotFoundError:
            raise
        except OSError:  # not every server and signed URL allows it
            response = self._response(path, "GET")
        with response:
            length = response.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None


def _web_opener() -> urllib.request.OpenerDirector:
    """Follows redirects, and none that leads to a file of this machine or to FTP."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener
