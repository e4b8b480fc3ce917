"""Rows to classify, from a stream or from a file of any format."""

from __future__ import annotations

import codecs
import json
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal, cast

from edgetune.data import sources
from edgetune.data.json_files import is_json, json_record
from edgetune.data.labelled import say
from edgetune.data.lines import MOST_LINE_BYTES, check_is_text, checked_encoding, encoding_of, packing_of
from edgetune.data.question_files import CONTEXT_COLUMN, QUESTION_COLUMN, are_questions
from edgetune.data.records import Record, as_text, chunks, text_of, value_of
from edgetune.data.sources import Note, Source, format_of
from edgetune.data.tables import columns_of, open_table
from edgetune.data.text_files import TEXT_COLUMN, TEXT_PAIR_COLUMN, Reading, text_record
from edgetune_runtime.errors import DataError
from edgetune_runtime.text import is_unicode

Kind = Literal["auto", "text", "jsonl", "json", "csv"]
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class Request:
    """One row to classify.

    Attributes:
        line: its line, or its row number in a file without lines; from 1.
        id: the row's id, or the line if no row has an id. `None` if the row cannot be read, or lacks an id while other
            rows have one.
        text: the text; `None` if the row has no valid text.
        task: the task that the row names, if any.
        problem: what is wrong with the row, if anything.
        text_pair: the second text, if the row has one that is not null or empty.
        pair_problem: what is wrong with the second text, if anything.
    """

    line: int
    id: Any = None
    text: str | None = None
    task: str | None = None
    problem: str | None = None
    text_pair: str | None = None
    pair_problem: str | None = None


def read_requests(
    path: Path,
    kind: Kind = "auto",
    text_column: str = TEXT_COLUMN,
    reading: Reading = Reading(),  # noqa: B008 - it never changes
    note: Note = say,
    text_pair_column: str = TEXT_PAIR_COLUMN,
) -> Iterator[list[Request]]:
    """Read rows to classify from a file, in chunks.

    Args:
        path: the file. A pipe is read as a stream.
        kind: the format of the rows: texts, one JSON object per line, a JSON array, or fields with separators. "auto"
            decides by the file's name or, if that is not clear, by its beginning.
        text_column: the column with the texts.
        reading: what the user says about the file.
        note: receives messages for the user.
        text_pair_column: the column with the second texts, which is read if it exists.

    Raises:
        DataError: the file cannot be read, or lacks the column.
        MissingPackageError: the file is Parquet and pyarrow is not installed.
    """
    named = format_of(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        if kind == "auto" and named == "parquet":
            raise DataError(f"{path} is a pipe, and Parquet cannot be read from one: save it as a file")
        with path.open("rb") as stream:
            as_named = cast(Kind, named or kind) if kind == "auto" else kind
            yield from stream_requests(stream, as_named, text_column, reading, note, text_pair_column)
        return
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file, or use 'edgetune score' for a folder")
    if kind == "auto":
        split = ":" in path.name and not path.exists()
        (source,) = sources.find([path], note) if named or split else [Source(path, "lines")]
    else:
        source = Source(path, kind)
    text_column, text_pair_column = _columns(columns_of(source, reading), text_column, text_pair_column)
    with open_table(source, reading, {text_column: "text_column"}, ("id", "task", text_pair_column), note) as table:
        column = TEXT_COLUMN if table.texts else text_column
        own = "id" in table.columns if table.columns else not table.texts and _has_ids(source, reading)
        for chunk in chunks(table.records):
            yield [_request(record, column, own, text_pair_column) for record in chunk]


def _columns(there: Collection[str], text: str, pair: str) -> tuple[str, str]:
    """The columns of the texts and of the second texts.

    If there is no text column, these may be questions and contexts.
    """
    if text == TEXT_COLUMN and text not in there and are_questions(there):
        return QUESTION_COLUMN, CONTEXT_COLUMN if pair == TEXT_PAIR_COLUMN else pair
    return text, pair


def _has_ids(source: Source, reading: Reading) -> bool:
    """Whether any row of a JSON file has an id. If so, no row is identified by its line."""
    with open_table(source, reading, {}, (), lambda _: None) as table:
        return any("id" in record.values for record in table.records)


def stream_requests(
    stream: IO[bytes],
    kind: Kind = "auto",
    text_column: str = TEXT_COLUMN,
    reading: Reading = Reading(),  # noqa: B008 - it never changes
    note: Note = say,
    text_pair_column: str = TEXT_PAIR_COLUMN,
) -> Iterator[list[Request]]:
    """Read rows to classify from a stream as they arrive, so that rows of a slow stream are answered immediately.

    Lines are read as they arrive; formats that can only be read as a whole are saved to disk first. Arguments and
    errors are those of `read_requests`. One difference: the first valid row decides whether rows have ids.
    """
    read = getattr(stream, "read1", stream.read)
    head = b""
    while _is_undecided(head, kind, reading) and (chunk := read(_CHUNK_BYTES)):
        head += chunk
    data = chain([head], iter(lambda: read(_CHUNK_BYTES), b""))
    check_is_text(head, "the input")
    encoding, begun = _begun(head, reading)
    asked = kind
    if kind == "auto":
        kind = ("json" if begun.startswith("[") else "jsonl") if is_json(begun) else "text"
        if text_column in re.split(r"[,;|\t]", begun.partition("\n")[0].strip())[:1_000] and "\n" in begun:
            note(f"the input begins with '{text_column}', as a CSV file does: use `kind` csv if it is one")
    if kind in ("json", "csv") or packing_of(head):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "stdin")
            with path.open("wb") as file:
                file.writelines(data)
            yield from read_requests(
                path, asked if packing_of(head) else kind, text_column, reading, note, text_pair_column
            )
        return
    number, own = 0, None if kind == "jsonl" else False
    for lines in _lines(data, encoding):
        requests = []
        for line in lines:
            number += 1
            text = line.removeprefix("\ufeff") if number == 1 else line
            if not text.strip():
                continue
            record = json_record(text, number) if kind == "jsonl" else text_record(text, number)
            if len(text) >= MOST_LINE_BYTES:
                record = Record(number, problem=f"a line of more than {MOST_LINE_BYTES:,} characters")
            if record.problem is None:
                own = own or "id" in record.values
            named = _columns(record.values, text_column if kind == "jsonl" else TEXT_COLUMN, text_pair_column)
            requests.append(_request(record, named[0], own, named[1]))
        if requests:
            yield requests


def _begun(head: bytes, reading: Reading) -> tuple[str, str]:
    """The encoding of a stream with this beginning, and the decoded beginning."""
    encoding = checked_encoding(reading.encoding) if reading.encoding else encoding_of(head)
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head)
    return encoding, text.removeprefix("\ufeff").lstrip()


def _is_undecided(head: bytes, kind: Kind, reading: Reading) -> bool:
    """Whether more of a stream is needed to decide how to read it."""
    if len(head) < 4 and (not head.isascii() or b"\0" in head or not head):  # a byte order mark, or UTF-16
        return True
    _, begun = _begun(head, reading)
    return kind == "auto" and not begun.removeprefix("[").lstrip()


def _lines(chunks: Iterable[bytes], encoding: str) -> Iterator[list[str]]:
    """The lines that each chunk completes, and the rest at the end."""
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape" if encoding == "utf-8" else "edgetune.mark")
    rest: list[str] = []
    size = 0
    for chunk in chain(chunks, [b""]):
        first, *others = decoder.decode(chunk, final=not chunk).split("\n")
        if size < MOST_LINE_BYTES:  # longer lines are rejected, so there is no need to keep more
            rest.append(first)
            size += len(first)
        if others:
            *whole, last = others
            yield ["".join(rest), *whole]
            rest, size = [last], len(last)
    if any(rest):
        yield ["".join(rest)]


def _request(record: Record, column: str, own: bool | None, pair_column: str) -> Request:
    """The request for a row.

    Args:
        record: the row.
        column: the column with the text.
        own: whether rows have ids; `None` if that is not known yet.
        pair_column: the column with the second text.
    """
    line = record.number
    if record.problem is not None:
        return Request(line, line if own is False else None, problem=record.problem)
    try:
        identity = _as_json(value_of(record, "id")) if "id" in record.values else line if own is False else None
    except ValueError as error:
        return Request(line, problem=str(error))
    try:
        task = value_of(record, "task") if "task" in record.values else None
        if task is not None and not isinstance(task, str):
            raise ValueError(f"'task' is {json.dumps(task, default=str)[:60]}: expected a task's name")
        text = text_of(record, column)
    except ValueError as error:
        return Request(line, identity, problem=str(error))
    try:
        second = value_of(record, pair_column) if pair_column in record.values else None
        second = None if second is None else as_text(second, pair_column) or None
    except ValueError as error:  # this matters only to tasks that take pairs
        return Request(line, identity, text, task or None, pair_problem=str(error))
    return Request(line, identity, text, task or None, text_pair=second)


def _as_json(value: Any) -> Any:
    """An id as a JSON value; values from other formats (dates, decimals, NaN) become text.

    Raises:
        ValueError: it is not valid Unicode.
    """
    try:
        shown = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        value = shown = str(value)
    if not is_unicode(shown):
        raise ValueError("'id' has half of a surrogate pair, or is not UTF-8: expected whole characters")
    return value
