"""Open a place from a path or a URL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from edgetune.sync.hub import Hub
from edgetune.sync.places import Folder, Place
from edgetune.sync.store import Store
from edgetune.sync.web import Web
from edgetune_runtime.errors import BundleError
from edgetune_runtime.hub import HubName, is_bundle_name

_SCHEMES: dict[str, Callable[[str], Place]] = {
    "": lambda path: Folder(Path(path)),
    "file": lambda url: Folder(Path(url2pathname(urlsplit(url).path))),
    "http": Web,
    "https": Web,
    "hf": lambda url: Hub(HubName.parse(url)) if is_bundle_name(url) else _store(url),
}
"""Scheme → function that opens its URLs; fsspec opens all others."""


def open_place(text: str) -> Place:
    """The place for a path or a URL. fsspec is imported only if the standard library is not sufficient.

    Raises:
        BundleError: it is not supported, or a package for it is missing.
    """
    try:
        scheme = urlsplit(text).scheme.lower() if "://" in text or "::" in text else ""
        return _SCHEMES.get(scheme, _store)(text)
    except ValueError as error:
        raise BundleError(f"{_public(text)} is not a place ({error}): expected a folder or a URL") from error


def _store(url: str) -> Store:
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    try:
        filesystem, root = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise BundleError(
            f"{_public(url)} cannot be opened ({error}): expected a folder, or a URL of a kind that fsspec knows and "
            f"whose package is installed"
        ) from error
    return Store(_public(url), filesystem, root)


def _public(url: str) -> str:
    """A URL without user and password."""
    kind, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{kind}://{host.rpartition('@')[2]}{slash}{path}"
