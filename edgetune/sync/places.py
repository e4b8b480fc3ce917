"""Where bundles lie. All paths are those inside a bundle."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from edgetune_runtime import files
from edgetune_runtime.errors import BundleError, EdgetuneError

CHUNK_BYTES = 1 << 20

PARTIAL = ".partial"
"""How the names of files end that are being written."""

WRITTEN_FOLDERS = ("", files.GRAPHS, files.TASKS)
"""Folders of a bundle that have files; the first is its own."""

_DEAD_AFTER_S = 600  # far longer than any write waits for its next chunk


class Place(ABC):
    """A place where a bundle lies.

    Attributes:
        name: what people call it, without passwords.
        bytes_read: how many were read from it.
        bytes_written: how many were written to it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.bytes_read = self.bytes_written = 0

    def chunks(self, path: str) -> Generator[bytes, None, None]:
        """A file's bytes, some at a time.

        Raises:
            FileNotFoundError: there is no such file.
            BundleError: it cannot be read.
        """
        with self._told("read", path):
            file = self._open(path)
        with closing(file):
            while True:
                with self._told("read", path):
                    chunk = file.read(CHUNK_BYTES)
                if not chunk:
                    return
                self.bytes_read += len(chunk)
                yield chunk

    def read(self, path: str, limit_bytes: int) -> bytes:
        """A file's bytes; where there are more than `limit_bytes`, so many that this can be seen.

        Raises:
            FileNotFoundError: there is no such file.
            BundleError: it cannot be read.
        """
        found = bytearray()
        with closing(self.chunks(path)) as chunks:
            for chunk in chunks:
                found += chunk
                if len(found) > limit_bytes:
                    break
        return bytes(found[: limit_bytes + 1])

    def check_there(self) -> None:  # noqa: B027 - most cannot tell
        """Raise `BundleError` if it is known that there is no such place to read from."""

    def size(self, path: str) -> int | None:
        """A file's length; `None` where that is not told.

        Raises:
            FileNotFoundError: there is no such file.
            BundleError: this cannot be found out.
        """
        with self._told("read", path):
            return self._size(path)

    @abstractmethod
    def _open(self, path: str) -> BinaryIO: ...

    @abstractmethod
    def _size(self, path: str) -> int | None: ...

    @contextmanager
    def _told(self, done: str, path: str) -> Iterator[None]:
        """Around what goes to the place: whatever its transport raises is one line, but that there is no such file."""
        try:
            yield
        except (EdgetuneError, FileNotFoundError):
            raise
        except Exception as error:
            # Each of fsspec's filesystems raises errors of its own.
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise BundleError(
                f"{self.name}/{path} cannot be {done} ({reason}): see that the place can be reached, and run this again"
            ) from error


class Destination(Place):
    """A place that can be written to."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Around all changes of one sync. Most places show each file when it is whole; some show all at the end.

        Raises:
            BundleError: they cannot be written.
        """
        yield

    def write(self, path: str, chunks: Iterable[bytes]) -> None:
        """Write a file: who reads it sees the old bytes or the new ones. What the chunks raise leaves the old bytes.

        Raises:
            BundleError: it cannot be written.
        """
        try:
            with self._told("written", path):
                self._write(path, self._counted(chunks))
        except FileNotFoundError as error:
            raise BundleError(f"{self.name}/{path} cannot be written: there is no such place; name another") from error

    def remove(self, path: str) -> None:
        """Remove a file, if it is there.

        Raises:
            BundleError: it cannot be removed.
        """
        with suppress(FileNotFoundError), self._told("removed", path):
            self._remove(path)

    def task_sizes(self) -> dict[str, int]:
        """The tasks that lie there, and the lengths of their files.

        Raises:
            BundleError: this cannot be found out.
        """
        with self._told("read", files.TASKS):
            return self._task_sizes()

    @abstractmethod
    def sweep(self) -> None:
        """Remove what writers left that were killed."""

    @abstractmethod
    def _write(self, path: str, chunks: Iterator[bytes]) -> None: ...

    @abstractmethod
    def _remove(self, path: str) -> None: ...

    @abstractmethod
    def _task_sizes(self) -> dict[str, int]: ...

    def _counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.bytes_written += len(chunk)
            yield chunk


class Folder(Destination):
    """A folder of this machine.

    Args:
        path: the folder, which need not be there.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path

    def sweep(self) -> None:
        """Delete what syncs that were broken off have left."""
        for folder in WRITTEN_FOLDERS:
            with suppress(OSError):  # where this cannot be looked through or changed, syncing will say so
                for left in (self.path / folder).glob(f".*{PARTIAL}"):
                    if time.time() - left.lstat().st_mtime > _DEAD_AFTER_S:
                        left.unlink()

    def _open(self, path: str) -> BinaryIO:
        return files.open_inside(self.path, path)

    def _size(self, path: str) -> int | None:
        with self._open(path) as file:
            return os.fstat(file.fileno()).st_size

    def _write(self, path: str, chunks: Iterator[bytes]) -> None:
        file = self.path / path
        if file.parent.is_symlink() and file.parent != self.path:
            raise BundleError(f"{file.parent} is a link: copy the folder itself into the bundle")
        files.write_chunks(file, chunks)

    def _remove(self, path: str) -> None:
        (self.path / path).unlink()
        files.sync_folder((self.path / path).parent)

    def _task_sizes(self) -> dict[str, int]:
        try:
            folder = files.resolved_inside(self.path, files.TASKS)
        except OSError as error:
            raise BundleError(
                f"{self.path / files.TASKS} is a link ({error.strerror}): copy the folder itself into the bundle"
            ) from error
        sizes = {}
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # somebody removes it at this moment
                    # What is no file is listed too: who reads it is told what it is.
                    sizes[entry.name] = entry.stat().st_size if entry.is_file() else 0
        return task_sizes(sizes)


def task_sizes(sizes: dict[str, int]) -> dict[str, int]:
    """Those files of the folder of tasks that are tasks, by the task's name."""
    if len(sizes) > files.LISTING_LIMIT:
        raise BundleError(f"the folder of tasks has more than {files.LISTING_LIMIT:,} files: take some out")
    return {
        name.removesuffix(files.TASK_SUFFIX): size
        for name, size in sorted(sizes.items())
        if files.is_task_path(f"{files.TASKS}/{name}")
    }
