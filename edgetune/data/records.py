"""What every reader gives: records, each with its place and, if it cannot be used, the reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from edgetune_runtime.text import is_unicode

CHUNK_ROWS = 256
"""Rows that are read and answered at a time."""

_CHUNK_CHARACTERS = 16_000_000


class Record(NamedTuple):
    """One row of a file.

    Attributes:
        number: the line that it begins on, or its place in a file without lines; from 1.
        values: column → value. Only the columns that are read need to make sense.
        problem: why the row cannot be read, if it cannot.
        repeated: columns that the row has more than once; `values` has one value of each.
    """

    number: int
    values: Mapping[str, Any] = MappingProxyType({})
    problem: str | None = None
    repeated: frozenset[str] = frozenset()


def repeated(names: Iterable[str]) -> frozenset[str]:
    """The names that come more than once."""
    return frozenset(name for name, number in Counter(names).items() if number > 1)


def chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Records, some at a time: not so many that their texts take much memory."""
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
    """Names of columns, each once, as pandas gives them: "Unnamed: 0" for one without, "a.1" for a second "a"."""
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
        ValueError: there is none, or more than one.
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
        ValueError: there is none; the message says what is there.
    """
    return as_text(value_of(record, column), column)


def as_text(value: object, column: str) -> str:
    """The value of a column as a text.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str):
        raise ValueError(f"'{column}' is {json.dumps(value, default=str)[:60]}: expected a string")
    if (problem := unicode_problem(value, column)) is not None:
        raise ValueError(problem)
    return value


def unicode_problem(value: str, column: str) -> str | None:
    """Why the value of a column is not whole characters; `None` if it is."""
    if is_unicode(value):
        return None
    shown = ascii(value)[:60].replace("\\udc", "\\x")  # as the bytes that they stand for
    if any("\udc80" <= character <= "\udcff" for character in value):
        return f"'{column}' is not UTF-8 text ({shown}): name the file's encoding, such as cp1252, with `encoding`"
    return f"'{column}' has half of a surrogate pair ({shown}): expected whole characters"
