"""CoNLL files: one word per line, with any number of columns. The last column is the tag. A blank line ends a text."""

from __future__ import annotations

from collections.abc import Iterator

from edgetune.data.lines import Lines
from edgetune.data.records import Record
from edgetune_runtime.tags import is_tag

TOKENS_COLUMN, TAGS_COLUMN = "tokens", "tags"

_DOCUMENT = "-DOCSTART-"


def read_sentences(lines: Lines, text_column: str) -> Iterator[Record]:
    """The texts of a file, each with its words and their tags.

    Comments (`# …`) and lines that begin a document (`-DOCSTART-`) are skipped.

    Args:
        lines: the file's lines.
        text_column: name of the resulting column with the words, joined by spaces.
    """
    rows: list[list[str]] = []
    first, problem = 0, None
    while (line := lines.text()) is not None:
        lines.take()
        columns = _columns(line.removeprefix("\ufeff"))
        if columns and not _is_no_word(columns):
            first = first if rows else lines.number
            rows.append(columns)
            if len(columns) < 2 and problem is None:
                problem = f"line {lines.number} has one column: expected a word and, in the last column, its tag"
        if rows and (not columns or lines.text() is None):
            words, tags = [row[0] for row in rows], [row[-1] for row in rows]
            values = {text_column: " ".join(words), TOKENS_COLUMN: words, TAGS_COLUMN: tags}
            yield Record(first, {} if problem else values, problem)
            rows, problem = [], None


def _columns(line: str) -> list[str]:
    """The fields of a line, separated by tabs if it has any, otherwise by spaces."""
    stripped = line.strip()
    return [column.strip() for column in stripped.split("\t")] if "\t" in stripped else stripped.split()


def _is_no_word(columns: list[str]) -> bool:
    return columns[0] == _DOCUMENT or (columns[0].startswith("#") and not is_tag(columns[-1]))
