"""Places of bundles. All paths are relative to a bundle."""

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
"""Suffix of files that are being written."""

WRITTEN_FOLDERS = ("", files.GRAPHS, files.TASKS)
"""Folders of a bundle that contain files; the first is the bundle's own."""

_DEAD_AFTER_S = 600  # far longer than any write waits for its next chunk


class Place(ABC):
    """A place with a bundle.

    Attributes:
        name: its name for people, without passwords.
        bytes_read: number of bytes read from it.
        bytes_written: number of bytes written to it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.bytes_read = self.bytes_written = 0

    def chunks(self, path: str) -> Generator[bytes, None, None]:
        """A file's bytes, some at a time.

        Raises:
            FileNotFoundError: the file does not exist.
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
        """A file's bytes. If there are more than `limit_bytes`, only enough to detect this.

        Raises:
            FileNotFoundError: the file does not exist.
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
        """Raise `BundleError` if the place is known not to exist."""

    def size(self, path: str) -> int | None:
        """A file's length; `None` where that is not told.

        Raises:
            FileNotFoundError: the file does not exist.
            BundleError: the request fails.
        """
        with self._told("read", path):
            return self._size(path)

    @abstractmethod
    def _open(self, path: str) -> BinaryIO: ...

    @abstractmethod
    def _size(self, path: str) -> int | None: ...

    @contextmanager
    def _told(self, done: str, path: str) -> Iterator[None]:
        """Wrap access to the place.

        Every error of its transport becomes a one-line error, except that a file does not exist.
        """
        try:
            yield
        except (EdgetuneError, FileNotFoundError):
            raise
        except Exception as error:
            # Each of fsspec's filesystems raises its own errors.
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise BundleError(
                f"{self.name}/{path} cannot be {done} ({reason}): see that the place can be reached, and run this again"
            ) from error


class Destination(Place):
    """A place that can be written to."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Wrap all changes of one sync.

        Most places show each file as soon as it is complete; some show all files at the end.

        Raises:
            BundleError: they cannot be written.
        """
        yield

    def write(self, path: str, chunks: Iterable[bytes]) -> None:
        """Write a file: readers see either the old bytes or the new ones.

        If the chunks raise an error, the old bytes stay.

        Raises:
            BundleError: it cannot be written.
        """
        try:
            with self._told("written", path):
                self._write(path, self._counted(chunks))
        except FileNotFoundError as error:
            raise BundleError(f"{self.name}/{path} cannot be written: there is no such place; name another") from error

    def remove(self, path: str) -> None:
        """Remove a file, if it exists.

        Raises:
            BundleError: it cannot be removed.
        """
        with suppress(FileNotFoundError), self._told("removed", path):
            self._remove(path)

    def task_sizes(self) -> dict[str, int]:
        """The tasks at this place, and the lengths of their files.

        Raises:
            BundleError: the request fails.
        """
        with self._told("read", files.TASKS):
            return self._task_sizes()

    @abstractmethod
    def sweep(self) -> None:
        """Remove files that killed writers left behind."""

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
    """A folder on this machine.

    Args:
        path: the folder, which may not exist.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path

    def sweep(self) -> None:
        """Delete files that interrupted syncs left behind."""
        for folder in WRITTEN_FOLDERS:
            with suppress(OSError):  # if the folder cannot be listed or changed, the sync itself reports it
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
                with suppress(FileNotFoundError):  # somebody is removing it right now
                    # Entries that are not files are listed too; reading them raises an error that says what they are.
                    sizes[entry.name] = entry.stat().st_size if entry.is_file() else 0
        return task_sizes(sizes)


def task_sizes(sizes: dict[str, int]) -> dict[str, int]:
    """The files in the task folder that are tasks, by task name."""
    if len(sizes) > files.LISTING_LIMIT:
        raise BundleError(f"the folder of tasks has more than {files.LISTING_LIMIT:,} files: take some out")
    return {
        name.removesuffix(files.TASK_SUFFIX): size
        for name, size in sorted(sizes.items())
        if files.is_task_path(f"{files.TASKS}/{name}")
    }
