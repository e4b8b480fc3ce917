"""Write a new bundle next to its destination, and move it there with one rename."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from edgetune.sync.places import Folder
from edgetune_runtime import files
from edgetune_runtime.errors import BundleError


@contextmanager
def staged(destination: Path, digests: Mapping[str, str]) -> Iterator[Folder]:
    """A folder to write a bundle into. It replaces `destination`, unless an error is raised.

    Its name is always the same, so that after an interrupted sync the next one continues with the complete files.

    Args:
        destination: the final folder, which is missing or empty.
        digests: path → SHA-256 of files that may be kept.

    Raises:
        BundleError: another sync is writing to it, or it is not writable.
    """
    destination = Path(os.path.realpath(destination))
    staging = destination.with_name(f".{destination.name}.sync.partial")
    try:
        staging.mkdir(parents=True, exist_ok=True)
        with _locked(staging, destination):
            _keep(staging, digests)
            yield Folder(staging)
            for folder in (staging / files.GRAPHS, staging / files.TASKS, staging):
                if folder.is_dir():
                    files.sync_folder(folder)
            if os.name == "nt" and destination.exists():  # on Windows a rename does not replace an empty folder
                destination.rmdir()
            staging.replace(destination)
            files.sync_folder(destination.parent)
    except OSError as error:
        raise BundleError(
            f"{destination} cannot be written ({error.strerror}): run this again, or name another folder"
        ) from error


@contextmanager
def _locked(folder: Path, destination: Path) -> Iterator[None]:
    """Lock a folder for this process until it ends, however it ends. Windows has no such lock."""
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            # If the inode differs, the folder was renamed before it was locked.
            mine = files.try_lock(handle) and os.path.samestat(os.fstat(handle), folder.stat())
        except FileNotFoundError:
            mine = False
        if not mine:
            raise BundleError(f"another sync writes {destination} at this moment: run this again when it has ended")
        yield
    finally:
        os.close(handle)


def _keep(staging: Path, digests: Mapping[str, str]) -> None:
    """Remove everything that an interrupted sync left, except complete files."""
    for parent, folders, names in os.walk(staging, topdown=False):
        for path in (Path(parent, name) for name in names):
            name = path.relative_to(staging).as_posix()
            if name not in digests or _digest(staging, name) != digests[name]:
                path.unlink()
        for path in (Path(parent, name) for name in folders):
            if path.is_symlink():
                path.unlink()
            with suppress(OSError):  # not empty
                path.rmdir()


def _digest(staging: Path, name: str) -> str | None:
    try:
        with files.open_inside(staging, name) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # a file that a bundle must not contain
        return None
