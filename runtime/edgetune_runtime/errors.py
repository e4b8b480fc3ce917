"""The one family of errors that edgetune raises for what a user can put right.

Every message says what came, what was expected and what to do next, in one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST = 2000
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def in_one_line(text: str) -> str:
    """Text that a file may have chosen, as it can be shown: one line, no control characters, not without end."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
    return _UNPRINTABLE.sub(lambda found: ascii(found.group())[1:-1], " ".join(text.strip().splitlines()))


class EdgetuneError(Exception):
    """Base of all errors that a user can act on. The CLI prints it as one line and exits with 1."""

    def __init__(self, message: str) -> None:
        super().__init__(in_one_line(message))


class DataError(EdgetuneError):
    """Rows of text or labels that cannot be used."""


class TaskError(EdgetuneError):
    """A task file that is damaged, unknown, or made for another backbone."""


class BundleError(EdgetuneError):
    """A bundle that is damaged, incomplete, or of another format version."""


class TextError(BundleError):
    """One text that the tokenizer or the backbone fails on; others can be answered."""


class BackboneError(EdgetuneError):
    """A model that cannot be loaded, trained on or exported."""


class DeviceError(EdgetuneError):
    """A device or execution provider that is not there."""


class AccuracyDropError(EdgetuneError):
    """An exported precision lost more accuracy than the user allows."""


class MissingPackageError(EdgetuneError):
    """A package of an extra that is not installed.

    Args:
        package: what could not be imported.
        extra: the extra of edgetune that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        self._given = package, extra
        super().__init__(
            f"the package '{package}' is needed for this and is not installed: pip install 'edgetune[{extra}]'"
        )

    def __reduce__(self) -> tuple[type[MissingPackageError], tuple[str, str]]:
        return type(self), self._given  # a worker's error comes to the run as a pickle


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Around imports that an extra brings: says which to install if one is missing."""
    try:
        yield
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package.startswith("edgetune"):
            raise
        raise MissingPackageError(package, extra) from error
