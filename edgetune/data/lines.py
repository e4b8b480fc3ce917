"""The lines of a file as UTF-8, regardless of the file's compression and encoding."""

from __future__ import annotations

import bz2
import codecs
import gzip
import hashlib
import io
import lzma
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

from edgetune_runtime.errors import DataError, MissingPackageError

MOST_LINE_BYTES = 64_000_000
HEAD_BYTES = 1 << 18
"""Number of bytes at the beginning of a file that are used to detect its format."""

_UTF_8 = "utf-8"
BOMS = {  # longer marks first, because UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: _UTF_8,
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_OTHER_FORMS = {
    rb"PAR1[^ -~]": "a Parquet file: name it .parquet",
    rb"PK\x03\x04": "a zip archive or an Excel workbook: unpack it, or save the sheet as CSV",
    rb"\xd0\xcf\x11\xe0": "an Excel workbook: save the sheet as CSV",
    rb"SQLite format 3\x00": "an SQLite database: export the table as CSV",
    rb"ORC[^ -~\t\r\n]": "an ORC file: save it as Parquet",
    rb"ARROW1\x00": "an Arrow file: save it as Parquet",
    rb"version https://git-lfs": "a Git LFS pointer: run git lfs pull",
}
"""How files of other formats begin."""


def _undecodable(error: UnicodeError) -> tuple[str, int]:
    """Replace undecodable bytes with a byte that is not valid in UTF-8, so that their row is invalid."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", error.end


codecs.register_error("edgetune.mark", _undecodable)


def _open_zst(path: Path) -> IO[bytes]:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingPackageError("pyarrow", "score") from error
    return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd"))


@dataclass(frozen=True)
class Packing:
    """A compression format: how such a file begins, and how to open it."""

    beginning: re.Pattern[bytes]
    open: Callable[[Path], Any]


PACKINGS = {
    ".gz": Packing(re.compile(rb"\x1f\x8b"), gzip.open),
    ".bz2": Packing(re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), bz2.open),
    ".xz": Packing(re.compile(rb"\xfd7zXZ\x00"), lzma.open),
    ".zst": Packing(re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), _open_zst),
}
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class Coding:
    """How the bytes of a file become lines.

    Attributes:
        packing: one of `PACKINGS`; empty if the file is not compressed.
        encoding: the name of a codec.
        newline: the line end: "\\n" (also for "\\r\\n"), or only "\\r".
    """

    packing: str = ""
    encoding: str = _UTF_8
    newline: str = "\n"

    @property
    def plain(self) -> bool:
        """Whether the file's bytes are the lines, so that reading can start anywhere."""
        return self == Coding()


def sniff(path: Path, encoding: str | None = None) -> tuple[Coding, str]:
    """Detect how a file is coded, and read its beginning.

    Args:
        path: the file.
        encoding: its encoding, if the user named one. Otherwise a byte order mark decides. Without a mark, text with
            zero bytes is UTF-16, and everything else is UTF-8.

    Raises:
        DataError: the file cannot be read, or is not a text file.
    """
    with readable(path):
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        packing = packing_of(head)
        if packing:
            with PACKINGS[packing].open(path) as file:
                head = file.read(HEAD_BYTES)
    check_is_text(head, str(path))
    encoding = checked_encoding(encoding) if encoding else encoding_of(head)
    text = codecs.getincrementaldecoder(encoding)("edgetune.mark").decode(head).removeprefix("\ufeff")
    newline = "\r" if "\r" in text and "\n" not in text else "\n"
    return Coding(packing, encoding, newline), text


def packing_of(head: bytes) -> str:
    """The compression of a file with this beginning, one of `PACKINGS`; empty if it is not compressed."""
    return next((name for name, one in PACKINGS.items() if one.beginning.match(head)), "")


def check_is_text(head: bytes, name: str) -> None:
    """Raise `DataError` if a file with this beginning is not text."""
    for beginning, what in _OTHER_FORMS.items():
        if re.match(beginning, head):
            raise DataError(f"{name} is {what}")


def encoding_of(head: bytes) -> str:
    """The encoding of text with this beginning.

    A byte order mark decides; without one, zero bytes mean UTF-16, and everything else is UTF-8.
    """
    for mark, encoding in BOMS.items():
        if head.startswith(mark):
            return encoding
    # The first two characters of data are ASCII, so zero bytes reveal UTF-16 (as in RFC 4627, section 3).
    zeros = [byte == 0 for byte in head[:4]]
    if zeros == [False, True, False, True]:
        return "utf-16-le"
    return "utf-16-be" if zeros == [True, False, True, False] else _UTF_8


def checked_encoding(name: str) -> str:
    """Python's name of a codec.

    Raises:
        DataError: there is no such text codec.
    """
    try:
        codec = codecs.lookup(name)
        if not codec._is_text_encoding:  # base64 and similar codecs
            raise LookupError(name)
        codecs.getincrementaldecoder(name)("edgetune.mark").decode("text".encode(name))
    except (LookupError, UnicodeError) as error:
        raise DataError(
            f"the encoding {name!r} is not known: expected a name such as utf-8, utf-16 or cp1252"
        ) from error
    return _UTF_8 if codec.name in ("utf-8", "utf-8-sig") else codec.name


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Wrap the reading of a file: failures are raised as a `DataError` that names the file."""
    try:
        yield
    except _DAMAGED as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return DataError(f"{path} cannot be read ({reason}): check the path, or copy the file again")


class LineFile(Protocol):
    """A source of lines."""

    def readline(self, size: int, /) -> bytes:
        """The next line with its line end, as UTF-8; empty at the end of the file. At most `size` bytes."""

    def close(self) -> None:
        """Close it."""


class _Decoded:
    """The lines of a compressed or encoded file, as UTF-8."""

    def __init__(self, file: IO[bytes], coding: Coding) -> None:
        self._text = io.TextIOWrapper(file, coding.encoding, "edgetune.mark", newline=coding.newline)

    def readline(self, size: int, /) -> bytes:
        return self._text.readline(size).encode("utf-8", "surrogateescape")

    def close(self) -> None:
        self._text.close()


def open_lines(path: Path, coding: Coding) -> LineFile:
    """Open a file for reading line by line."""
    file = open_binary(path, coding)
    return file if coding.plain else _Decoded(file, coding)


def open_binary(path: Path, coding: Coding) -> IO[bytes]:
    """Open a file for reading its decompressed bytes."""
    return PACKINGS[coding.packing].open(path) if coding.packing else path.open("rb")


class Lines(AbstractContextManager["Lines"]):
    """Lines with lookahead; lines that are taken are counted and hashed.

    Args:
        path: the file's path, for errors.
        open_file: opens the file at its beginning.
        plain: whether the opened file is the file itself, so that reading can start anywhere.

    Attributes:
        position: start of the next line, in bytes of UTF-8.
        number: number of lines before it, from the beginning of the file.
        sha256: hash of the bytes that were taken since the last call of `start`.
    """

    def __init__(self, path: Path, open_file: Callable[[], LineFile], plain: bool) -> None:
        self.path = path
        self._open_file = open_file
        self._plain = plain
        self._ahead: deque[bytes] = deque()
        self._stop: int | None = None
        self._reopen()
        self.sha256 = hashlib.sha256()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _reopen(self) -> None:
        with readable(self.path):
            self._file = self._open_file()
        self._moved(0, 0)

    def _moved(self, position: int, number: int) -> None:
        self.position = self._read_to = position
        self.number = number
        self._ahead.clear()

    def start(self, position: int | None = None, number: int = 0, stop: int | None = None) -> None:
        """Start hashing, here or at another position.

        If the file is not plain, it is read up to that position, if necessary from its beginning.

        Args:
            position: start of a line, in bytes of UTF-8.
            number: number of lines before that position.
            stop: position at which to stop, in bytes of UTF-8.
        """
        if position is not None:
            self._stop = None
            if self._plain:
                cast(IO[bytes], self._file).seek(position)
                self._moved(position, number)
            elif position < self.position:
                self.close()
                self._reopen()
            while self.position < position and self.peek() is not None:
                self.take()
            self._stop = stop
        self.sha256 = hashlib.sha256()

    def peek(self, ahead: int = 0) -> bytes | None:
        """The line `ahead` lines after the next one; `None` after the last line.

        Raises:
            DataError: the file cannot be read, or has a line that is too long.
        """
        while len(self._ahead) <= ahead:
            if self._stop is not None and self._read_to >= self._stop:
                return None
            try:
                line = self._file.readline(MOST_LINE_BYTES)
            except _DAMAGED as error:
                raise _unreadable(self.path, error) from error
            if not line:
                return None
            if len(line) >= MOST_LINE_BYTES:
                number = self.number + len(self._ahead) + 1
                raise DataError(
                    f"{self.path}, line {number}: more than {MOST_LINE_BYTES:,} bytes: expected one row a line"
                )
            self._ahead.append(line)
            self._read_to += len(line)
        return self._ahead[ahead]

    def take(self, count: int = 1) -> None:
        """Take lines that were peeked at."""
        for _ in range(count):
            line = self._ahead.popleft()
            self.sha256.update(line)
            self.position += len(line)
            self.number += 1

    def text(self, ahead: int = 0) -> str | None:
        """The line `ahead` lines after the next one, decoded; bytes that are not UTF-8 become lone surrogates."""
        line = self.peek(ahead)
        if line is None:
            return None
        if self.position == 0 and ahead == 0:
            line = line.removeprefix(codecs.BOM_UTF8)
        return line.decode("utf-8", "surrogateescape")
