"""Bundles in object stores and on other machines, through fsspec."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any, BinaryIO

from edgetune.sync.places import PARTIAL, WRITTEN_FOLDERS, Destination, task_sizes
from edgetune_runtime import files


class Store(Destination):
    """A folder on a filesystem of fsspec.

    Args:
        name: its name for people.
        filesystem: fsspec's filesystem.
        root: the folder's path in it.
    """

    def __init__(self, name: str, filesystem: Any, root: str) -> None:
        super().__init__(name)
        self._files = filesystem
        self._root = root.rstrip("/")
        self._files.invalidate_cache()

    def sweep(self) -> None:
        """Delete files that interrupted syncs left behind."""
        if self._puts_whole():
            return
        for folder in WRITTEN_FOLDERS:
            with suppress(FileNotFoundError), self._told("read", folder):
                at = self._at(folder).rstrip("/")
                for entry in self._files.ls(at, detail=True):
                    name = entry["name"].rpartition("/")[2]
                    if name.startswith(".") and name.endswith(PARTIAL):
                        self._files.rm_file(f"{at}/{name}")

    def _puts_whole(self) -> bool:
        """Whether it is an object store, which shows files only when they are complete, and has no rename."""
        from fsspec import AbstractFileSystem  # type: ignore[import-untyped]

        return type(self._files).mv is AbstractFileSystem.mv

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _open(self, path: str) -> BinaryIO:
        return self._files.open(self._at(path), "rb")

    def _size(self, path: str) -> int | None:
        return self._files.info(self._at(path))["size"]

    def _write(self, path: str, chunks: Iterator[bytes]) -> None:
        target = self._at(path)
        if self._puts_whole():
            first, second = next(chunks, b""), next(chunks, None)
            if second is None:
                self._files.pipe_file(target, first)
                return
            with self._files.transaction:
                self._fill(target, chain((first, second), chunks))
            return
        folder, _, name = target.rpartition("/")
        self._files.makedirs(folder, exist_ok=True)
        partial = f"{folder}/.{name}.{secrets.token_hex(4)}{PARTIAL}"
        try:
            self._fill(partial, chunks)
            self._files.mv(partial, target)
        except BaseException:
            with suppress(Exception):  # the error to report is why it cannot be written
                self._files.rm_file(partial)
            raise

    def _fill(self, path: str, chunks: Iterable[bytes]) -> None:
        with self._files.open(path, "wb") as file:
            for chunk in chunks:
                file.write(chunk)

    def _remove(self, path: str) -> None:
        self._files.rm_file(self._at(path))

    def _task_sizes(self) -> dict[str, int]:
        try:
            found = self._files.ls(self._at(files.TASKS), detail=True)
        except FileNotFoundError:
            return {}
        return task_sizes(
            {entry["name"].rpartition("/")[2]: entry["size"] for entry in found if entry["type"] == "file"}
        )
