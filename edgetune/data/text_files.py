"""Detect the format of text files, and read their rows."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgetune.data import json_files
from edgetune.data.conll_files import read_sentences
from edgetune.data.csv_files import DELIMITERS, CsvRecords, sniff_delimiter
from edgetune.data.lines import Coding, LineFile, Lines, open_binary, open_lines, sniff
from edgetune.data.records import Record
from edgetune.data.sources import FORMATS, Note, Source
from edgetune_runtime.errors import DataError

TEXT_COLUMN = "text"
TEXT_PAIR_COLUMN = "text_pair"
_ENDINGS = ", ".join(FORMATS)
_ENDS_IN_CR = re.compile(r'(?:"[^"]*"|[^"\r\n])*\r(?!\r*\n)')
"""A header, which may have line ends in quotes, and what ends it: not \\n, and not \\r\\n."""


@contextmanager
def repeats_counted(note: Note) -> Iterator[Note]:
    """Combine notes about many files.

    A note is printed for the first file, and at the end the number of further files with the same note.
    """
    told: Counter[str] = Counter()

    def first(message: str) -> None:
        what = message.partition(": ")[2]
        told[what] += 1
        if told[what] == 1:
            note(message)

    yield first
    for what, number in told.items():
        if number > 1:
            note(f"{number - 1:,} more like it: {what}")


@dataclass(frozen=True)
class Reading:
    """What the user says about text files; `None` means that it is detected from the file.

    Attributes:
        encoding: the encoding's name.
        delimiter: the field separator of a CSV file.
        quotes: whether the fields of a CSV file may be quoted; otherwise quotes belong to the text.
    """

    encoding: str | None = None
    delimiter: str | None = None
    quotes: bool = True


@dataclass(frozen=True)
class Form:
    """How a text file is read.

    Attributes:
        kind: fields with separators, one JSON object per line, a single JSON value, one word per line, or one text per
            line.
        coding: how bytes are decoded to lines.
        delimiter: the field separator.
        quotes: whether fields may be quoted.
        split: the split of a JSON value to read.
    """

    kind: Literal["csv", "json", "document", "conll", "text"]
    coding: Coding
    delimiter: str = ""
    quotes: bool = True
    split: str = ""

    @property
    def seekable(self) -> bool:
        """Whether reading can start anywhere; otherwise the file is read from its beginning."""
        return self.kind != "document" and self.coding.plain

    @property
    def unit(self) -> str:
        """The unit in which its rows are counted."""
        return "row" if self.kind == "document" else "line"


def form_of(source: Source, reading: Reading, note: Note) -> Form:
    """Detect how to read a text file.

    Args:
        source: the file.
        reading: what the user says of it.
        note: receives messages for the user about anything unusual.

    Raises:
        DataError: it cannot be read.
    """
    path = source.path
    coding, head = sniff(path, reading.encoding)
    if coding.encoding != "utf-8" and reading.encoding is None:
        note(f"{path}: it is read as {coding.encoding}")
    if source.format == "csv":
        coding = replace(coding, newline="\r" if _ENDS_IN_CR.match(head) else "\n")
        usual = "\t" if {".tsv", ".tab"} & {suffix.lower() for suffix in path.suffixes} else ","
        delimiter = reading.delimiter or sniff_delimiter(head, coding.newline, usual)
        if delimiter != usual and reading.delimiter is None:
            note(f"{path}: {DELIMITERS.get(delimiter, repr(delimiter))} separate the fields")
        return Form("csv", coding, delimiter, reading.quotes)
    if source.format == "conll":
        return Form("conll", coding)
    if source.format == "lines" and "\0" in head:
        raise DataError(f"{path} is not text: it has zero bytes; expected lines of text or JSON, or one of {_ENDINGS}")
    if source.format == "text" or (source.format == "lines" and not json_files.is_json(head)):
        return Form("text", coding)
    document = bool(source.split)
    if not document:
        with Lines(path, lambda: open_lines(path, coding), coding.plain) as lines:
            document = json_files.is_document(head, lines, by_lines=source.format != "json")
    return Form("document" if document else "json", coding, split=source.split)


class TextFile(AbstractContextManager["TextFile"]):
    """An open text file of rows.

    Args:
        path: the file.
        form: how to read it.

    Attributes:
        lines: its lines, after the header if it has one.

    Raises:
        DataError: it cannot be read, or lacks a required header.
    """

    def __init__(self, path: Path, form: Form) -> None:
        self.lines = Lines(path, lambda: _open(path, form), form.seekable)
        self._kind = form.kind
        self._csv: CsvRecords | None = None
        if form.kind == "csv":
            try:
                self._csv = CsvRecords(self.lines, form.delimiter, form.quotes)
            except DataError:
                self.lines.close()
                raise

    def __exit__(self, *_: object) -> None:
        self.lines.close()

    @property
    def columns(self) -> list[str] | None:
        """The columns of its header; `None` without a header."""
        return None if self._csv is None else self._csv.columns

    @property
    def repeated(self) -> frozenset[str]:
        """Names that occur more than once in the header."""
        return frozenset() if self._csv is None else self._csv.repeated

    def read(self) -> Iterator[Record]:
        """The rows from the current position of `lines`."""
        if self._csv is not None:
            return self._csv.read(self.lines)
        if self._kind == "conll":
            return read_sentences(self.lines, TEXT_COLUMN)
        return _texts(self.lines) if self._kind == "text" else json_files.read_lines(self.lines)

    def tell_doubtful_rows(self, note: Note) -> None:
        """Note rows of several lines whose quotes may belong to the text."""
        if self._csv is None:
            return
        (lines, number), (rows, first) = self._csv.longest, self._csv.doubtful
        if lines:
            note(f"{self.lines.path}, line {number}: a row of {lines:,} lines begins here: is a quote missing?")
        if rows:
            note(
                f"{self.lines.path}, line {first}: the quotes of {rows:,} rows, this one the first, enclose lines that "
                f"could be rows; if quotes belong to the texts, say so with `quotes`"
            )


def _texts(lines: Lines) -> Iterator[Record]:
    while (line := lines.text()) is not None:
        lines.take()
        if line.strip():
            yield text_record(line, lines.number)


def text_record(line: str, number: int) -> Record:
    """The record for a line of text."""
    return Record(number, {TEXT_COLUMN: line.strip()})


def _open(path: Path, form: Form) -> LineFile:
    if form.kind != "document":
        return open_lines(path, form.coding)
    text = io.TextIOWrapper(open_binary(path, form.coding), form.coding.encoding, "edgetune.mark", newline="")
    return json_files.Document(path, text, form.split)
