"""Bundles on HTTP servers."""

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
    """A bundle on an HTTP or HTTPS server, for reading only, with the standard library.

    Args:
        url: the bundle's URL. A user and password in it are sent, and its query is added to every request.
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
        # A proxy's cached file may be older than the index.
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
        except OSError:  # some servers and signed URLs do not allow it
            response = self._response(path, "GET")
        with response:
            length = response.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None


def _web_opener() -> urllib.request.OpenerDirector:
    """An opener that follows redirects, except to local files and FTP."""
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
