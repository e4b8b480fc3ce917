"""Text with separators: CSV, TSV and similar formats.

The `csv` module does the parsing. A stray quote spoils only its own line, not the lines after it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import islice

from edgetune.data.lines import MOST_LINE_BYTES, Lines
from edgetune.data.records import Record, repeated, unique_names
from edgetune_runtime.errors import DataError
from edgetune_runtime.text import is_unicode

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
MOST_LINES = 10_000
"""Maximum number of lines of a row. A quote that does not close within them counts as stray."""

MANY_LINES = 20
"""A row with this many lines may have a missing quote."""

_SNIFFED_ROWS = 50
_DELIMITER_LINE = re.compile(r'\ufeff?"?sep=(.)"?[\r\n]*')
# A line end inside a line belongs to a field, but the csv module would end the row there. So it is replaced by lone
# surrogates, which decoding never returns.
_HIDDEN = {ord("\r"): "\udc0d", ord("\n"): "\udc0a"}
_SHOWN = {0xDC0D: "\r", 0xDC0A: "\n"}


def sniff_delimiter(head: str, newline: str, usual: str) -> str:
    """Find the separator with which the first rows have as many fields as the header.

    Args:
        head: the beginning of the file.
        newline: the line end.
        usual: the usual separator for this file name. It is kept unless another fits better.
    """
    told = _DELIMITER_LINE.fullmatch(head.partition(newline)[0])
    if told:
        return told[1]
    *lines, rest = head.split(newline)
    whole = [_hide(line + newline) for line in lines] or [rest]

    def fit(delimiter: str) -> tuple[bool, float, bool]:
        try:
            rows = list(islice(csv.reader(whole, delimiter=delimiter), _SNIFFED_ROWS))
        except csv.Error:
            rows = []
        header, *others = [len(row) for row in rows if row] or [0]
        alike = sum(width == header for width in others) / max(1, len(others))
        return header > 1, alike, delimiter == usual

    best = max(DELIMITERS, key=fit)
    return best if fit(best)[0] else usual


class CsvRecords:
    """The rows of a CSV file. Its header is read immediately.

    Args:
        lines: the file's lines, at the beginning.
        delimiter: the field separator.
        quotes: whether fields may be quoted; otherwise quotes belong to the text.

    Attributes:
        columns: unique names of the columns; see `unique_names`.
        repeated: names that occur more than once in the header.
        longest: for rows with many lines, the number of lines of the longest and the line on which it begins; otherwise
            zeros.
        doubtful: the number of rows whose lines would all be valid rows if quotes belonged to the text, and the line on
            which the first begins; otherwise zeros.

    Raises:
        DataError: the header is missing or cannot be read.
    """

    def __init__(self, lines: Lines, delimiter: str, quotes: bool = True) -> None:
        csv.field_size_limit(MOST_LINE_BYTES)
        self._delimiter = delimiter
        self._quotes = quotes
        self.longest = self.doubtful = (0, 0)
        if _DELIMITER_LINE.fullmatch(lines.text() or ""):
            lines.take()  # a line that Excel writes before the header
        found = next(self._rows(lines), None)
        if found is None:
            raise DataError(f"{lines.path} is empty: expected a header and one row a line")
        number, names, problem = found
        if problem is not None or not is_unicode("".join(names)):
            reason = problem or "not UTF-8 text: name the file's encoding with `encoding`, such as cp1252"
            raise DataError(f"{lines.path}, line {number}: {reason}; expected a header, and one row a line")
        self.columns = unique_names(names)
        self.repeated = repeated(names)
        self._header = names

    def read(self, lines: Lines) -> Iterator[Record]:
        """The rows of lines from anywhere after the header. Blank lines are skipped."""
        width = len(self.columns)
        for number, fields, problem in self._rows(lines):
            if problem is None and len(fields) != width:
                problem = f"{len(fields)} field{'s' * (len(fields) != 1)} where the header has {width}"
            elif problem is None and width > 1 and self._is_header(fields):
                problem = "the header once more: were files joined? Take the line out"
            yield Record(number, dict(zip(self.columns, fields, strict=False)), problem)

    def _rows(self, lines: Lines) -> Iterator[tuple[int, list[str], str | None]]:
        feed = _Feed(lines)
        reader = csv.reader(
            feed,
            delimiter=self._delimiter,
            strict=True,
            quoting=csv.QUOTE_MINIMAL if self._quotes else csv.QUOTE_NONE,
        )
        while True:
            feed.taken, feed.hid = 0, False
            try:
                fields = next(reader, None)
            except csv.Error as error:
                # The lines after the first one may be valid rows, so only that line is lost.
                number, read = lines.number + 1, feed.taken
                lines.take()
                yield number, [], _problem(str(error), number, read)
                continue
            if fields is None:
                return
            number = lines.number + 1
            if feed.taken > 1 and len(fields) > 1 and self._are_rows(lines, feed.taken, len(fields)):
                self.doubtful = (self.doubtful[0] + 1, self.doubtful[1] or number)
            lines.take(feed.taken)
            if feed.taken >= MANY_LINES and feed.taken > self.longest[0]:
                self.longest = (feed.taken, number)
            if fields:
                yield number, [one.translate(_SHOWN) for one in fields] if feed.hid else fields, None

    def _is_header(self, fields: list[str]) -> bool:
        return (
            fields[-1] == self._header[-1]
            and fields[1:] == self._header[1:]
            and fields[0].removeprefix("\ufeff") == self._header[0]
        )

    def _are_rows(self, lines: Lines, taken: int, width: int) -> bool:
        return all((lines.text(place) or "").count(self._delimiter) == width - 1 for place in range(taken))


class _Feed:
    """Feeds lines to `csv.reader` without consuming them."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.taken = 0
        self.hid = False

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = self._lines.text(self.taken) if self.taken < MOST_LINES else None
        if line is None:
            raise StopIteration
        self.taken += 1
        shown = _hide(line)
        self.hid |= shown is not line
        return shown


def _hide(line: str) -> str:
    if "\r" not in line and line.find("\n", 0, -1) < 0:
        return line
    body = line.rstrip("\r\n")
    if "\r" in body or "\n" in body:
        return body.translate(_HIDDEN) + line[len(body) :]
    return line


def _problem(error: str, number: int, read: int) -> str:
    if error == "unexpected end of data":
        return "a quote opens here and never closes"
    where = f" (up to line {number + read - 1})" if read > 1 else ""
    if "expected after" in error:
        return f"a quote closes inside a field{where}: double the quotes that belong to a text"
    return f"not sound CSV ({error}){where}"
