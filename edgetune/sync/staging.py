"""A new bundle is written beside its place and appears there by one rename."""

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
    """A folder to write a bundle into, which takes the place of `destination` unless something is raised.

    Its name is always the same: where a sync was interrupted, the next goes on with the files that it had whole.

    Args:
        destination: the folder to be, which is not there or empty.
        digests: path → SHA-256 of the files that may be kept.

    Raises:
        BundleError: another sync writes there, or it cannot be written.
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
            if os.name == "nt" and destination.exists():  # there a rename does not replace an empty folder
                destination.rmdir()
            staging.replace(destination)
            files.sync_folder(destination.parent)
    except OSError as error:
        raise BundleError(
            f"{destination} cannot be written ({error.strerror}): run this again, or name another folder"
        ) from error


@contextmanager
def _locked(folder: Path, destination: Path) -> Iterator[None]:
    """A folder is this process's alone until it ends, however it ends; Windows has no such lock."""
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            # Another inode: it was renamed before it was locked.
            mine = files.try_lock(handle) and os.path.samestat(os.fstat(handle), folder.stat())
        except FileNotFoundError:
            mine = False
        if not mine:
            raise BundleError(f"another sync writes {destination} at this moment: run this again when it has ended")
        yield
    finally:
        os.close(handle)


def _keep(staging: Path, digests: Mapping[str, str]) -> None:
    """Remove all that an interrupted sync left but the files that are whole."""
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
    except OSError:  # not what may be read from a bundle
        return None
