"""Reading rows of text: JSONL, CSV, or one text a line."""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgetune_runtime.errors import DataError

TEXT_COLUMN = "text"
LABEL_COLUMN = "label"
_CHUNK_BYTES = 1 << 16
_DEEPEST = 100


@dataclass(frozen=True)
class LabelledText:
    """A text and its label; an integer label is kept as its digits."""

    text: str
    label: str


def read_labelled(path: Path, text_column: str = TEXT_COLUMN, label_column: str = LABEL_COLUMN) -> list[LabelledText]:
    """Read labelled texts from a `.jsonl` or `.csv` file.

    Args:
        path: the file.
        text_column: name of the column with the texts.
        label_column: name of the column with the labels, strings or integers.

    Raises:
        DataError: the file cannot be read, is empty, lacks a column, or has a row of another kind.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # line ends inside a CSV field are kept
            content = file.read()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): expected a .jsonl or .csv file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}): convert it to UTF-8") from error
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} ends in {path.suffix!r}: expected .jsonl or .csv")
    records = reader(path, content)
    rows = [labelled(record, f"{path}, line {line}", text_column, label_column) for line, record in records]
    if not rows:
        raise DataError(f"{path} has no rows: expected one labelled text a line")
    return rows


def labelled(record: Any, place: str, text_column: str = TEXT_COLUMN, label_column: str = LABEL_COLUMN) -> LabelledText:
    """Make a labelled text of a record, which `place` names in errors."""
    if not isinstance(record, dict):
        raise DataError(f"{place}: {type(record).__name__} came where an object with columns was expected")
    for column in (text_column, label_column):
        if column not in record:
            names = [str(name) for name in record if name is not None]
            close = difflib.get_close_matches(column, names, n=1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            option = "--text-column" if column == text_column else "--label-column"
            raise DataError(
                f"{place}: no column '{column}' among {', '.join(names) or 'none'}: {hint}name it with {option}"
            )
    text, label = record[text_column], record[label_column]
    if not isinstance(text, str):
        raise DataError(f"{place}: '{text_column}' is {json.dumps(text, default=repr)[:60]}: expected a string")
    if isinstance(label, bool) or not isinstance(label, (str, int)) or label == "":
        raise DataError(
            f"{place}: '{label_column}' is {json.dumps(label, default=repr)[:60]}: expected a string or an integer"
        )
    for value in (text, str(label)):
        if not is_unicode(value):
            raise DataError(f"{place}: {ascii(value)[:60]} has half of a surrogate pair: expected whole characters")
    return LabelledText(text, str(label))


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def is_unicode(text: str) -> bool:
    """Whether a string is text: JSON can also spell halves of surrogate pairs, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _csv_records(path: Path, content: str) -> Iterator[tuple[int, Any]]:
    limit = csv.field_size_limit(max(csv.field_size_limit(), len(content)))
    try:
        reader = csv.DictReader(io.StringIO(content, newline=""))
        for record in reader:
            if None in record:
                raise DataError(
                    f"{path}, line {reader.line_num}: more fields than the header's {len(reader.fieldnames or ())}: "
                    f"put quotes around texts with commas"
                )
            yield reader.line_num, record
    except csv.Error as error:
        raise DataError(f"{path} is not sound CSV ({error}): expected a header and one row a line") from error
    finally:
        csv.field_size_limit(limit)


def _json_records(path: Path, content: str) -> Iterator[tuple[int, Any]]:
    # Not splitlines(): JSON strings may hold U+2028 and its like as they are.
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {number}: not JSON ({error}): expected one object a line") from error


_READERS = {".csv": _csv_records, ".jsonl": _json_records, ".json": _json_records, ".ndjson": _json_records}


@dataclass(frozen=True)
class Request:
    """One row to classify.

    Attributes:
        id: what the row calls itself, given back with its answer.
        text: the text; `None` where the row has none that can be used.
        task: the task that the row asks for, if it names one.
        problem: what is wrong with the row, if anything is.
    """

    id: Any = None
    text: str | None = None
    task: str | None = None
    problem: str | None = None


def read_requests(stream: IO[bytes], as_json: bool | None) -> Iterator[list[Request]]:
    """Read rows to classify, as many at a time as the stream has ready, so that a slow stream is answered.

    Args:
        stream: lines of text, or of JSON objects with `text` and, if wanted, `id` and `task`.
        as_json: which of the two; `None` decides by the first line.
    """
    number, first = 0, True
    for lines in _lines(stream):
        requests = []
        for line in lines:
            if first:
                line, first = line.removeprefix(codecs.BOM_UTF8), False
            if not line.strip():
                continue
            if as_json is None:
                as_json = line.lstrip().startswith(b"{")
            requests.append(_request(line, number, as_json))
            number += 1
        yield requests


def _lines(stream: IO[bytes]) -> Iterator[list[bytes]]:
    read = getattr(stream, "read1", stream.read)
    rest = b""
    while chunk := read(_CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            yield lines
    if rest:
        yield [rest]


def json_row(line: bytes) -> Any:
    """Read a line of JSON: UTF-8, no NaN, whole characters, nested at most a hundred deep.

    Raises:
        ValueError: it is none; the message says why.
    """
    try:
        record = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
        # Only an escape can spell half of a surrogate pair.
        if b"\\u" in line and not is_unicode(json.dumps(record, ensure_ascii=False)):
            raise ValueError("half of a surrogate pair")
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    # Where recursion ends depends on who calls; a row should be good or bad wherever it is read.
    if line.count(b"[") + line.count(b"{") > _DEEPEST and _depth(record) > _DEEPEST:
        raise ValueError("it is nested too deeply")
    return record


def _depth(value: Any) -> int:
    """How deeply lists and objects are nested."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, list | dict)]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def _request(line: bytes, number: int, as_json: bool) -> Request:
    try:
        record = json_row(line) if as_json else {"text": line.decode("utf-8").strip()}
    except ValueError as error:
        hint = "; --input text takes lines as they are" if as_json else ""
        return Request(id=number, problem=f"line cannot be read ({error}){hint}")
    if not isinstance(record, dict):
        return Request(id=number, problem=f"{type(record).__name__} came where a JSON object was expected")
    identity = record.get("id", number)
    value, task = record.get("text"), record.get("task")
    if "text" not in record:
        return Request(id=identity, problem="there is no 'text': expected one, a string")
    if not isinstance(value, str):
        return Request(id=identity, problem=f"'text' is {json.dumps(value)[:60]}: expected a string")
    if task is not None and not isinstance(task, str):
        return Request(id=identity, problem=f"'task' is {json.dumps(task)[:60]}: expected a task's name")
    return Request(id=identity, text=value, task=task)
