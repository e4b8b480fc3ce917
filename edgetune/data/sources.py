"""Which files are meant, and the columns that their paths add."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from edgetune.data.lines import PACKINGS
from edgetune_runtime.errors import DataError

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
}
"""How files are read, by the ending of their names. Text may be packed, and then ends in one of `PACKINGS` too."""

_NO_FORMAT = (".zip", ".7z", ".tar", ".tgz", ".rar", ".lz4", ".snappy", ".xlsx", ".xls", ".arrow", ".feather", ".orc")
_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Source:
    """A file to read.

    Attributes:
        path: the file.
        format: one of the values of `FORMATS`; "text", a text a line; or "lines", text or JSON, as it begins.
        split: which of its splits, if it is a JSON file that has several.
        partitions: columns that its path adds, as Hive and Spark write them (`lang=de/day=1/part.parquet`), with the
            text that all its rows have there; `None` is null.
    """

    path: Path
    format: str
    split: str = ""
    partitions: tuple[tuple[str, str | None], ...] = ()

    @classmethod
    def of(cls, path: Path, split: str = "") -> Source:
        """The source that a path names.

        Raises:
            DataError: the name does not tell the format, or has a partition twice.
        """
        found = format_of(path)
        if found is None:
            raise DataError(
                f"{path} ends in {path.suffix!r}: expected one of {', '.join(FORMATS)}, text perhaps packed as "
                f"{', '.join(PACKINGS)}"
            )
        pairs = [folder.partition("=") for folder in path.parts[:-1] if "=" in folder.lstrip("=")]
        partitions = tuple((unquote(key), None if value == _NULL else unquote(value)) for key, _, value in pairs)
        if len(dict(partitions)) < len(partitions):
            raise DataError(f"{path} has two folders for one partition: expected each name once")
        return cls(path, found, split, partitions)


def format_of(path: Path) -> str | None:
    """How a file is read, by its name; `None` if that does not say."""
    inner = Path(path.stem) if path.suffix.lower() in PACKINGS else path
    found = FORMATS.get(inner.suffix.lower())
    return None if found == "parquet" and inner is not path else found


def find(inputs: Sequence[Path]) -> list[Source]:
    """The files that are meant: those named, and of a folder all that can be read, in the order of their paths.

    Raises:
        DataError: there is none, or they are of several formats, or one comes twice.
    """
    found: list[Source] = []
    for path in inputs:
        if path.is_dir():
            inside = sorted(_data_in(path))
            if not inside:
                raise DataError(f"{path} has no data: expected files that end in {', '.join(FORMATS)}")
            found += map(Source.of, inside)
        else:
            found.append(_file(str(path)) or Source.of(path))
    seen: set[Path] = set()
    for source in found:
        if not source.path.is_file():
            raise DataError(f"{source.path} cannot be read: there is no such file")
        if source.path.resolve() in seen:
            raise DataError(f"{source.path} comes twice among the inputs: name each once")
        seen.add(source.path.resolve())
    formats = {source.format: str(source.path) for source in found}
    if len(formats) > 1:
        raise DataError(f"the inputs are of several formats ({' and '.join(formats.values())}): read them one by one")
    return found


def named(name: str) -> list[Source] | None:
    """The files that a name means: a file, `FILE:SPLIT`, or a folder; `None` if it may be a data set of the hub.

    Raises:
        DataError: it ends as files do, and there is none; or what `find` raises.
    """
    path = Path(name)
    if path.is_dir():
        return None if _is_data_set(path) else find([path])
    source = _file(name)
    if source is None and format_of(path) is not None:
        raise DataError(f"{path} cannot be read: there is no such file")
    return None if source is None else [source]


def _file(name: str) -> Source | None:
    path = Path(name)
    if path.is_file():
        return Source.of(path)
    left, _, split = name.rpartition(":")
    return Source.of(Path(left), split) if left and Path(left).is_file() else None


_SPLIT_NAMES = ("train", "test", "dev", "valid", "eval")


def _is_data_set(folder: Path) -> bool:
    """Whether a folder is one that `datasets` reads by splits: it has a card, or files that are called as splits."""
    if (folder / "README.md").is_file() or any(folder.glob("*.py")) or (folder / "dataset_dict.json").is_file():
        return True
    names = [path.relative_to(folder).as_posix().lower() for path in _data_in(folder)]
    return any(split in name for name in names for split in _SPLIT_NAMES)


def _data_in(folder: Path) -> Iterator[Path]:
    """Files of a folder that can be read, links followed; what begins with a dot or an underscore is no data."""
    for parent, folders, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        for path in (Path(parent, name) for name in names if not name.startswith((".", "_"))):
            if format_of(path) is not None:
                yield path
            elif path.suffix.lower() in (*_NO_FORMAT, *PACKINGS):
                raise DataError(
                    f"{path} is not read: unpack it, save it in another format, or take it out of the folder"
                )


def _unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be looked through ({error.strerror}): change that, or take it out")
