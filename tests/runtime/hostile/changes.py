"""Functions that change a valid bundle."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgetune_runtime import files

Change = Callable[[Path], object]
Cases = Iterator[tuple[str, Change, str]]
"""Names, changes of a bundle's folder, and part of the error message."""

TASK = "tasks/colour.safetensors"
FP32 = "onnx/model.onnx"
DAMAGED = "is damaged"


def put(name: str, data: bytes | str, sign: bool = False) -> Change:
    """Replace the contents of a file and, with `sign`, its SHA-256 in the manifest."""

    def change(folder: Path) -> None:
        raw = data.encode() if isinstance(data, str) else data
        (folder / name).write_bytes(raw)
        if sign:
            sign_file(folder, name, raw)

    return change


def sign_file(folder: Path, name: str, data: bytes) -> None:
    manifest = json.loads((folder / files.MANIFEST).read_bytes())
    manifest["files"][name] = files.sha256(data)
    (folder / files.MANIFEST).write_text(json.dumps(manifest))


def edit(name: str, change_data: Callable[[bytes], bytes], sign: bool = False) -> Change:
    return lambda folder: put(name, change_data((folder / name).read_bytes()), sign)(folder)


def edit_json(name: str, change_value: Callable[[Any], object], sign: bool = False) -> Change:
    """A file's JSON changed in place."""

    def changed(data: bytes) -> bytes:
        value = json.loads(data)
        change_value(value)
        return json.dumps(value).encode()

    return edit(name, changed, sign)


def manifest_with(*path: str, value: Any) -> Change:
    return edit_json(files.MANIFEST, lambda record: set_at(record, path, value))


def manifest_without(field: str) -> Change:
    return edit_json(files.MANIFEST, lambda record: record.pop(field))


def set_at(record: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        record = record[key]
    record[path[-1]] = value


def link_outside(name: str) -> Change:
    def change(folder: Path) -> None:
        outside = folder.parent / "outside"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return change


def link_to(name: str, target: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return change


def replaced(name: str, make: Callable[[Path], object]) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


def make_socket(path: Path) -> None:
    # A socket's path may have a hundred bytes: it is made by its name.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def sparse(name: str, size_bytes: int) -> Change:
    return lambda folder: os.truncate(folder / name, size_bytes)


def flip(name: str) -> Change:
    def changed(data: bytes) -> bytes:
        middle = len(data) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]

    return edit(name, changed)
