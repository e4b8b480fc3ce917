"""The errors that edgetune raises for problems that a user can fix.

Every message says in one line what came, what was expected and what to do next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST = 2000
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def in_one_line(text: str) -> str:
    """Make text from a file safe to show: one line, no control characters, limited length."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
    return _UNPRINTABLE.sub(lambda found: ascii(found.group())[1:-1], " ".join(text.strip().splitlines()))


class EdgetuneError(Exception):
    """Base of all errors that a user can act on. The command line prints it as one line and exits with 1."""

    def __init__(self, message: str) -> None:
        super().__init__(in_one_line(message))


class DataError(EdgetuneError):
    """Rows of text or labels that cannot be used."""


class TaskError(EdgetuneError):
    """A task file that is damaged, unknown, or made for another backbone."""


class BundleError(EdgetuneError):
    """A bundle that is damaged, incomplete, or of another format version."""


class TextError(BundleError):
    """The tokenizer or the backbone fails on one text; other texts can still be answered."""


class BackboneError(EdgetuneError):
    """A model that cannot be loaded, trained or exported."""


class DeviceError(EdgetuneError):
    """A device or execution provider that is not available."""


class AccuracyDropError(EdgetuneError):
    """An exported precision loses more accuracy than the user allows."""


class MissingPackageError(EdgetuneError):
    """A package of an extra that is not installed.

    Args:
        package: the package that could not be imported.
        extra: the extra of edgetune that installs it.
    """

    def __init__(self, package: str, extra: str) -> None:
        self._given = package, extra
        super().__init__(
            f"the package '{package}' is needed for this and is not installed: pip install 'edgetune[{extra}]'"
        )

    def __reduce__(self) -> tuple[type[MissingPackageError], tuple[str, str]]:
        return type(self), self._given  # a worker process sends its error as a pickle


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Wrap imports from an extra: if one is missing, the error names the extra to install."""
    try:
        yield
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package.startswith("edgetune"):
            raise
        raise MissingPackageError(package, extra) from error
