"""Find the input files, and the columns that their paths add."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from edgetune.data.lines import PACKINGS
from edgetune_runtime.errors import DataError

Note = Callable[[str], object]
"""Receives messages for the user."""

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".conll": "conll",
}
"""File format by file extension. Compressed text files also have an extension of `PACKINGS`."""

_NO_FORMAT = (".zip", ".7z", ".tar", ".tgz", ".rar", ".lz4", ".snappy", ".xlsx", ".xls", ".arrow", ".feather", ".orc")
_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Source:
    """A file to read.

    Attributes:
        path: the file.
        format: one of the values of `FORMATS`; "text", one text per line; or "lines", text or JSON depending on how it
            begins.
        split: the split to read, if it is a JSON file with several.
        partitions: columns that its path adds, as Hive and Spark write them (`lang=de/day=1/part.parquet`), with the
            value for all its rows; `None` is null.
    """

    path: Path
    format: str
    split: str = ""
    partitions: tuple[tuple[str, str | None], ...] = ()

    @classmethod
    def of(cls, path: Path, split: str = "") -> Source:
        """The source for a path.

        Raises:
            DataError: the extension is unknown, a partition occurs twice, or the format has no splits.
        """
        found = format_of(path)
        if found is None:
            raise DataError(
                f"{path} ends in {path.suffix!r}: expected one of {', '.join(FORMATS)}, text perhaps packed as "
                f"{', '.join(PACKINGS)}"
            )
        if split and found != "json":
            raise DataError(f"{path}:{split} names a split, and only a .json file can have several: leave it out")
        pairs = [folder.partition("=") for folder in path.parts[:-1] if "=" in folder.lstrip("=")]
        partitions = tuple((unquote(key), None if value == _NULL else unquote(value)) for key, _, value in pairs)
        if len(dict(partitions)) < len(partitions):
            raise DataError(f"{path} has two folders for one partition: expected each name once")
        return cls(path, found, split, partitions)


def format_of(path: Path) -> str | None:
    """The format of a file by its name; `None` if it is unknown."""
    inner = Path(path.stem) if path.suffix.lower() in PACKINGS else path
    found = FORMATS.get(inner.suffix.lower())
    return None if found == "parquet" and inner is not path else found


def find(inputs: Sequence[Path], note: Note) -> list[Source]:
    """The input files: the named files, and all readable files in named folders, sorted by path.

    Args:
        inputs: files, or folders of them.
        note: receives messages for the user about skipped files.

    Raises:
        DataError: there are no files, they have several formats, or one occurs twice.
    """
    found: list[Source] = []
    for path in inputs:
        if path.is_dir():
            inside = sorted(_data_in(path, note))
            if not inside:
                raise DataError(f"{path} has no data: expected files that end in {', '.join(FORMATS)}")
            found += map(Source.of, inside)
        else:
            found.append(_file(str(path)))
    seen: set[tuple[Path, str]] = set()
    for source in found:
        if not source.path.is_file():  # a link in a folder may be broken
            raise DataError(f"{source.path} cannot be read: there is no such file; check the path")
        key = source.path.resolve(), source.split
        if key in seen:
            raise DataError(f"{source.path} comes twice among the inputs: name each once")
        seen.add(key)
    formats = {source.format: str(source.path) for source in found}
    if len(formats) > 1:
        raise DataError(f"the inputs are of several formats ({' and '.join(formats.values())}): read them one by one")
    return found


def named(name: str, note: Note) -> list[Source] | None:
    """The files for a name: a file, `FILE:SPLIT`, or a folder; `None` if it may be a data set on the hub.

    Raises:
        DataError: it has a file extension but does not exist; also see `find`.
    """
    path = Path(name)
    if path.is_dir():
        return None if _is_data_set(path, note) else find([path], note)
    is_file = path.exists() or Path(name.rpartition(":")[0]).is_file() or format_of(path) is not None
    return [_file(name)] if is_file else None


def _file(name: str) -> Source:
    """A file, or `FILE:SPLIT`."""
    path = Path(name)
    left, _, split = name.rpartition(":")
    if path.is_file():
        return Source.of(path)
    if left and Path(left).is_file():
        return Source.of(Path(left), split)
    if path.exists():
        raise DataError(f"{path} is a pipe or a device, which can only be read once: save it as a file")
    Source.of(path)  # report an unknown extension
    raise DataError(f"{path} cannot be read: there is no such file; check the path")


_SPLIT = re.compile(r"(?:.*[-._ ])?(?:train|test|dev|valid|validation|eval)(?:[-._ ].*)?")


def _is_data_set(folder: Path, note: Note) -> bool:
    """Whether `datasets` should read a folder: its card says so, or its files are named after splits.

    Raises:
        DataError: only some files are named after splits.
    """
    if (folder / "dataset_dict.json").is_file() or any(folder.glob("*.py")) or _has_card(folder / "README.md"):
        return True
    names = sorted(path.relative_to(folder).as_posix() for path in _data_in(folder, lambda _: None))
    splits = [name for name in names if _SPLIT.fullmatch(Path(name).name.lower())]
    others = [name for name in names if name not in splits]
    if splits and others:
        raise DataError(
            f"{folder} has files that are called as splits ({', '.join(splits[:3])}) and others "
            f"({', '.join(others[:3])}): name one file, or {folder}:train for a split"
        )
    if splits:
        note(f"{folder}: its files are called as splits: 'train' is read; name another as {folder}:test")
    return bool(splits)


def _has_card(readme: Path) -> bool:
    """Whether a README begins with the hub's metadata of a data set."""
    if not readme.is_file():
        return False
    opening, _, rest = readme.read_text(encoding="utf-8", errors="replace").partition("---")
    told = rest.partition("\n---")[0]
    return not opening.strip() and any(f"\n{key}:" in f"\n{told}" for key in ("configs", "dataset_info"))


def _data_in(folder: Path, note: Note) -> Iterator[Path]:
    """Readable files of a folder; links are followed, and names that begin with a dot or an underscore are skipped."""
    passed: set[str] = set()
    stems: dict[Path, Path] = {}
    unread: list[str] = []
    for parent, folders, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        real = os.path.realpath(parent)
        if real in passed:  # a link to a parent folder, or a second link to the same folder
            folders.clear()
            continue
        passed.add(real)
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        for path in (Path(parent, name) for name in sorted(names) if not name.startswith((".", "_"))):
            if format_of(path) is None:
                if path.suffix.lower() in (*_NO_FORMAT, *PACKINGS):
                    raise DataError(
                        f"{path} is not read: unpack it, save it in another format, or take it out of the folder"
                    )
                unread.append(path.name)
                continue
            stem = path.with_suffix("") if path.suffix.lower() in PACKINGS else path
            if stem in stems:
                raise DataError(f"{path} and {stems[stem]} are one file, packed and not: take one out")
            stems[stem] = path
            yield path
    if unread:
        note(f"{folder}: {len(unread):,} files are not read: {', '.join(unread[:3])}{', …' if len(unread) > 3 else ''}")


def _unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be looked through ({error.strerror}): change that, or take it out")
