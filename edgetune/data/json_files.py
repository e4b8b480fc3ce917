"""JSON: one object per line, an array of objects, or columns as pandas writes them.

The `json` module does the parsing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from edgetune.data.lines import MOST_LINE_BYTES, LineFile, Lines, readable
from edgetune.data.question_files import is_squad, questions
from edgetune.data.records import Record, repeated
from edgetune_runtime.errors import DataError

_DEEPEST = 100
_CHUNK_CHARACTERS = 1 << 16


class _Repeated(dict[str, Any]):
    """An object with duplicate keys, which `repeated` lists."""

    repeated: frozenset[str]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    marked = _Repeated(found)
    marked.repeated = repeated(name for name, _ in pairs)
    return marked


def _object_of_a_document(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"the key '{min(repeated(name for name, _ in pairs))}' comes more than once in one object")
    return found


_KINDS = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
_DECODER = json.JSONDecoder(object_pairs_hook=_object)
_DOCUMENT_DECODER = json.JSONDecoder(object_pairs_hook=_object_of_a_document)
# Here elements are only separated; numbers are checked when their row is read.
_SPLITTER = json.JSONDecoder(parse_int=len)


def json_value(text: str, decoder: json.JSONDecoder = _DECODER) -> Any:
    """Read one JSON value, nested at most a hundred levels deep.

    NaN and infinities are accepted, because writers use them.

    Raises:
        ValueError: it is not valid JSON; the message says why.
    """
    try:
        value = decoder.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    # The recursion limit depends on the caller's depth, but a row should be valid or invalid wherever it is read.
    if text.count("[") + text.count("{") > _DEEPEST and _depth(value) > _DEEPEST:
        raise ValueError("it is nested too deeply")
    return value


def _depth(value: Any) -> int:
    """Nesting depth of lists and objects."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, list | dict)]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def json_record(text: str, number: int) -> Record:
    """The record of one JSON object."""
    try:
        value = json_value(text.rstrip("\r\n").removeprefix("\ufeff"))  # concatenated files contain byte order marks
    except ValueError as error:
        return Record(number, problem=f"not JSON ({error})")
    if not isinstance(value, dict):
        return Record(number, problem=f"{_KINDS.get(type(value), 'a number')} came instead of a JSON object")
    return Record(number, value, repeated=value.repeated if isinstance(value, _Repeated) else frozenset())


def read_lines(lines: Lines) -> Iterator[Record]:
    """The rows of lines with one object each. Blank lines are skipped."""
    for line in _not_blank(lines):
        yield json_record(line, lines.number)


def is_json(text: str) -> bool:
    """Whether text begins like lines of JSON or an array of objects. Plain text may also begin with a bracket."""
    beginning = text.lstrip()
    inside = beginning[1:].strip()
    return beginning.startswith("{") or (beginning.startswith("[") and (inside.startswith("{") or inside == "]"))


def is_document(head: str, lines: Lines, by_lines: bool) -> bool:
    """Whether a file is a single JSON value instead of one value per line.

    Args:
        head: the beginning of the file.
        lines: the file's lines, from the first.
        by_lines: whether its name says that it has one object per line.
    """
    beginning = head.lstrip()
    if beginning.startswith("["):
        first, *others = (line for line in beginning.split("\n") if line.strip())
        return (
            first.strip() == "["
            or not others
            or not any(isinstance(_or_none(line), list | dict) for line in (first, others[0]))
        )
    if by_lines or not beginning.startswith("{"):
        return False
    found = list(islice(_not_blank(lines), 2))
    return len(found) == 1 or not any(isinstance(_or_none(line), dict) for line in found)


def _not_blank(lines: Lines) -> Iterator[str]:
    while (line := lines.text()) is not None:
        lines.take()
        if line.strip():
            yield line


def _or_none(text: str) -> Any:
    try:
        return json_value(text)
    except ValueError:
        return None


class Document(LineFile):
    """The rows of a single JSON value, as lines of JSON: the elements of an array, or rows assembled from columns.

    An array is read element by element, so it may be larger than memory.

    Args:
        path: the file's path, for errors.
        file: the opened text file.
        split: the split to read, if the file has several.
    """

    def __init__(self, path: Path, file: IO[str], split: str = "") -> None:
        self._path = path
        self._file = file
        self._split = split
        self._lines = self._rows()

    def readline(self, size: int, /) -> bytes:
        """The next row as a line of UTF-8."""
        line = next(self._lines, None)
        return b"" if line is None else line.encode("utf-8", "surrogateescape")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _rows(self) -> Iterator[str]:
        with readable(self._path):
            buffer = self._file.read(_CHUNK_CHARACTERS).removeprefix("\ufeff")
            if not buffer.lstrip().startswith("["):
                yield from self._whole(buffer + self._file.read())
                return
            if self._split:
                raise DataError(f"{self._path} is one array and has no split '{self._split}': leave the split out")
            yield from self._elements(buffer)

    def _elements(self, buffer: str) -> Iterator[str]:
        place, count = buffer.index("[") + 1, 0
        while True:
            place = _behind_space(buffer, place)
            reason, end = "the array does not end", place
            if buffer[place : place + 1] != "]" or count:  # an empty array
                try:
                    _, end = _SPLITTER.raw_decode(buffer, place)
                except json.JSONDecodeError as error:
                    reason, end = error.msg, len(buffer)
                except RecursionError:
                    reason, end = "it is nested too deeply", len(buffer)
            after = _behind_space(buffer, end)
            if after >= len(buffer):  # the element may continue after the text read so far
                more = "" if len(buffer) > MOST_LINE_BYTES else self._file.read(max(_CHUNK_CHARACTERS, len(buffer)))
                if not more:
                    raise DataError(f"{self._path}, row {count + 1}: not JSON ({reason}): expected an array of objects")
                buffer, place = buffer[place:] + more, 0
                continue
            if end > place:
                count += 1
                # Inside strings line ends are escaped, so literal line ends are white space.
                yield buffer[place:end].replace("\n", " ").replace("\r", " ") + "\n"
            if buffer[after] == "]":
                self._check_end(buffer[after + 1 :])
                return
            if buffer[after] != ",":
                raise DataError(
                    f"{self._path}, row {count}: not JSON ({buffer[after]!r} instead of ',' or ']'): expected "
                    f"an array of objects"
                )
            place = after + 1

    def _check_end(self, rest: str) -> None:
        while rest:
            if rest.strip():
                raise DataError(f"{self._path} goes on behind its array: expected one array, or one object a line")
            rest = self._file.read(_CHUNK_CHARACTERS)

    def _whole(self, text: str) -> Iterator[str]:
        try:
            value = json_value(text, _DOCUMENT_DECODER)
        except ValueError as error:
            raise DataError(
                f"{self._path} is not JSON ({error}): expected one object a line, or an array of objects"
            ) from error
        try:
            return iter([json.dumps(row) + "\n" for row in self._records(value)])
        except ValueError as error:
            raise DataError(f"{self._path}: {error}") from error

    def _records(self, value: Any) -> Iterator[Any]:
        """The rows of an object: written by pandas or SQuAD, or the rows of one of its splits."""
        if not isinstance(value, dict) or not value:
            return iter([value])
        if is_squad(value) and not self._split:
            return questions(value)
        inner = list(value.values())
        lists = all(isinstance(one, list) for one in inner)
        data, names = value.get("data"), value.get("columns")
        if isinstance(data, list) and ("schema" in value or isinstance(names, list)):  # orient="table", orient="split"
            return (_row(names, row) for row in data) if isinstance(names, list) else iter(data)
        if lists and (self._split or any(isinstance(row, dict) for row in chain.from_iterable(inner))):
            if self._split not in value:
                raise DataError(
                    f"{self._path} has the splits {', '.join(value)}: name one, as {self._path}:{next(iter(value))}"
                )
            return iter(value[self._split])
        if self._split:
            raise DataError(f"{self._path} has no splits, so none called '{self._split}': leave the split out")
        if lists and len({len(one) for one in inner}) == 1:
            return (_row(list(value), row) for row in zip(*inner, strict=True))
        if all(isinstance(one, dict) for one in inner):
            return iter(_by_columns(value))
        return iter([value])


def _row(names: Sequence[Any], values: Any) -> Any:
    """Convert a row from a list to an object. Any other value stays as it is, and is rejected as a row later."""
    if twice := repeated(map(str, names)):
        raise ValueError(f"the column '{min(twice)}' comes more than once")
    if not isinstance(values, list | tuple) or len(values) != len(names):
        return values
    return dict(zip(map(str, names), values, strict=True))


def _by_columns(value: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of an object of objects: either rows by number (orient="index") or columns (pandas' default)."""
    index = dict.fromkeys(chain.from_iterable(value.values()))
    if all(name.isdecimal() for name in value):
        if all(row.isdecimal() for row in index):
            raise ValueError("rows and columns are both called by numbers: write it with orient='records'")
        return list(value.values())
    return [{name: column[row] for name, column in value.items() if row in column} for row in index]


def _behind_space(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place
