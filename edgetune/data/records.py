"""Records, the output of every reader: each has its place and, if it is not valid, the reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from edgetune_runtime.text import is_unicode

CHUNK_ROWS = 256
"""Number of rows that are read and answered at a time."""

_CHUNK_CHARACTERS = 16_000_000


class Record(NamedTuple):
    """One row of a file.

    Attributes:
        number: the line on which it begins, or its row number in a file without lines; from 1.
        values: column → value. Only the columns that are read need valid values.
        problem: why the row cannot be read; `None` if it can.
        repeated: columns that occur more than once in the row; `values` has one value of each.
    """

    number: int
    values: Mapping[str, Any] = MappingProxyType({})
    problem: str | None = None
    repeated: frozenset[str] = frozenset()


def repeated(names: Iterable[str]) -> frozenset[str]:
    """The names that occur more than once."""
    return frozenset(name for name, number in Counter(names).items() if number > 1)


def chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Records in chunks that limit the memory for their texts."""
    chunk: list[Record] = []
    size = 0
    for record in records:
        chunk.append(record)
        for value in record.values.values():
            if type(value) is str:
                size += len(value)
        if len(chunk) == CHUNK_ROWS or size > _CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def unique_names(names: Sequence[str]) -> list[str]:
    """Unique column names, as in pandas: "Unnamed: 0" for a missing name, "a.1" for a second "a"."""
    named = [name or f"Unnamed: {place}" for place, name in enumerate(names)]
    taken, seen, unique = set(named), Counter[str](), []
    for name in named:
        one = name
        while seen[name] and one in taken:
            one = f"{name}.{seen[name]}"
            seen[name] += one in taken
        seen[name] += 1
        taken.add(one)
        unique.append(one)
    return unique


def value_of(record: Record, column: str) -> Any:
    """The value in a column of a record.

    Raises:
        ValueError: there is no value, or more than one.
    """
    if column not in record.values:
        have = ", ".join(map(str, record.values))[:100] or "none"
        raise ValueError(f"no column '{column}' among {have}")
    if column in record.repeated:
        raise ValueError(f"'{column}' comes more than once: expected it once")
    return record.values[column]


def text_of(record: Record, column: str) -> str:
    """The text in a column of a record.

    Raises:
        ValueError: it is not a text; the message says what it is.
    """
    return as_text(value_of(record, column), column)


def as_text(value: object, column: str) -> str:
    """Check that the value of a column is a text.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str):
        raise ValueError(f"'{column}' is {json.dumps(value, default=str)[:60]}: expected a string")
    if (problem := unicode_problem(value, column)) is not None:
        raise ValueError(problem)
    return value


def unicode_problem(value: str, column: str) -> str | None:
    """Why the value of a column is not valid Unicode; `None` if it is."""
    if is_unicode(value):
        return None
    shown = ascii(value)[:60].replace("\\udc", "\\x")  # show them as the bytes that they stand for
    if any("\udc80" <= character <= "\udcff" for character in value):
        return f"'{column}' is not UTF-8 text ({shown}): name the file's encoding, such as cp1252, with `encoding`"
    return f"'{column}' has half of a surrogate pair ({shown}): expected whole characters"
