"""The contents of a source: its index, its manifest, and files that are checked while they are read."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from edgetune.sync.index import Entry, Index, fingerprint
from edgetune.sync.places import Destination, Folder, Place
from edgetune_runtime import files
from edgetune_runtime.errors import BundleError, TaskError
from edgetune_runtime.manifest import Manifest
from edgetune_runtime.task import Task

PAUSES_S = (0.5, 1.0, 2.0)
"""Pauses before retries if a task's file does not match the index."""


class Offer:
    """A source's bundle. In a folder, the files themselves count; elsewhere the index lists the tasks.

    Args:
        source: the place of the bundle.
        card: the model card to offer; by default the source's own.

    Attributes:
        index: the source's tasks, as last read.
        unreadable: tasks of a folder whose files cannot be read, and why.

    Raises:
        BundleError: the bundle or a required index does not exist, or cannot be read.
    """

    def __init__(self, source: Place, card: bytes | None = None) -> None:
        source.check_there()
        self.source = source
        self._card = card
        self.unreadable: dict[str, str] = {}
        self.index = self._read_index()

    def _read_index(self) -> Index:
        if isinstance(self.source, Folder):
            return Index(fingerprint(self._manifest()[0]), entries(self.source, unreadable=self.unreadable))
        data = index_bytes(self.source)
        if data is None:
            raise BundleError(
                f"{self.source.name} has no {files.INDEX}: publish the bundle there with "
                f"'edgetune tasks sync BUNDLE URL'"
            )
        return Index.from_json(data, f"{self.source.name}/{files.INDEX}")

    def manifest(self) -> tuple[Manifest, bytes]:
        """The manifest that belongs to the index, and the bytes of its file.

        Raises:
            BundleError: it is missing, not valid, or does not belong to the index.
        """
        found, data = self._manifest()
        if fingerprint(found) != self.index.bundle:
            raise BundleError(
                f"{self.source.name} has the index of another bundle's tasks: publish it again with "
                f"'edgetune tasks sync BUNDLE URL', or run this again if that is under way"
            )
        return found, data

    def _manifest(self) -> tuple[Manifest, bytes]:
        found = manifest_of(self.source)
        if found is None:
            raise BundleError(
                f"{self.source.name} is not a bundle (it has no {files.MANIFEST}): expected a folder that "
                f"'edgetune export' wrote, or that 'edgetune tasks sync' published"
            )
        return found

    def precisions(self, manifest: Manifest, wanted: Sequence[str]) -> list[str]:
        """The wanted precisions; by default all that exist.

        Raises:
            BundleError: a wanted precision does not exist.
        """
        found = []
        for precision in dict.fromkeys(wanted or manifest.graphs):
            if precision not in manifest.graphs:
                raise BundleError(
                    f"{self.source.name} has no precision {precision!r}: expected some of "
                    f"{', '.join(sorted(manifest.graphs))}"
                )
            try:
                for path in manifest.graphs[precision].paths:
                    self.source.size(path)
                found.append(precision)
            except FileNotFoundError as error:
                if wanted:
                    raise BundleError(
                        f"{self.source.name} has left out the precision {precision!r}: copy or export it there first"
                    ) from error
        return found

    def size(self, path: str) -> int | None:
        """A file's length; `None` if it is unknown.

        Raises:
            BundleError: it does not exist, or the request fails.
        """
        with self._complete(path):
            return self.source.size(path)

    def card(self) -> bytes | None:
        """The bytes of the model card, which people may have edited; `None` if it does not exist.

        Raises:
            BundleError: it cannot be read, or is too large.
        """
        if self._card is not None:
            return self._card
        try:
            limit = files.limit_bytes(files.CARD) or 0
            data = self.source.read(files.CARD, limit)
        except FileNotFoundError:
            return None
        if len(data) > limit:
            raise BundleError(f"{self.source.name}/{files.CARD} has more than {limit:,} bytes: make it shorter")
        return data

    def chunks(self, path: str, expected: str) -> Iterator[bytes]:
        """A file's bytes, in chunks.

        Raises:
            BundleError: it does not exist or cannot be read; or, at its end, its SHA-256 is not `expected`.
        """
        limit, digest, done = files.limit_bytes(path), hashlib.sha256(), 0
        with self._complete(path):
            for chunk in self.source.chunks(path):
                digest.update(chunk)
                done += len(chunk)
                if limit is not None and done > limit:
                    raise BundleError(f"{self.source.name}/{path} has more than the {limit:,} bytes that are expected")
                yield chunk
        if digest.hexdigest() != expected:
            raise BundleError(
                f"{self.source.name}/{path} is damaged: its SHA-256 is {digest.hexdigest()[:12]}…, the manifest says "
                f"{expected[:12]}…; publish or export the bundle again"
            )

    @contextmanager
    def _complete(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise BundleError(
                f"{self.source.name} is incomplete ({path} is not there): publish or export the bundle again"
            ) from error

    def task(self, name: str, manifest: Manifest) -> bytes | None:
        """The bytes of a task's file; `None` if the source no longer has it.

        A publisher may be replacing the file, so if the index and the file do not match, both are read again a few
        times.

        Raises:
            TaskError: they do not match the index, or are not a valid task for this backbone.
            BundleError: the source cannot be read, or now has another bundle.
        """
        data = self._fetched(name)
        if data is not None:
            manifest.facts.check(Task.from_bytes(data, f"{self.source.name}/{files.task_file(name)}"))
        return data

    def _fetched(self, name: str) -> bytes | None:
        pauses = iter(PAUSES_S)
        while (entry := self.index.tasks.get(name)) is not None:
            either = (entry, self.index.replacing.get(name, entry))
            limit = max(one.size for one in either)
            try:
                data = self.source.read(files.task_file(name), limit)
                if Entry.of(data) in either:
                    return data
                more = "more than " if len(data) > limit else ""
                found = f"has {more}{min(len(data), limit):,} bytes with the SHA-256 {files.sha256(data)[:12]}…"
            except FileNotFoundError:
                found = "is not there"
            pause = next(pauses, None)
            if pause is None:
                raise TaskError(
                    f"the file of task '{name}' in {self.source.name} {found}, and the index says {entry.size:,} "
                    f"bytes with {entry.sha256[:12]}…: publish it again with 'edgetune tasks sync'"
                )
            time.sleep(pause)
            bundle = self.index.bundle
            self.index = self._read_index()
            if self.index.bundle != bundle:
                raise BundleError(f"{self.source.name} has become another bundle meanwhile: run this again")
        return None


def manifest_of(place: Place) -> tuple[Manifest, bytes] | None:
    """A place's manifest and the bytes of its file; `None` if there is no bundle.

    Raises:
        BundleError: it cannot be read, or is not valid.
    """
    try:
        data = place.read(files.MANIFEST, files.limit_bytes(files.MANIFEST) or 0)
    except FileNotFoundError:
        return None
    return Manifest.from_json(data, f"{place.name}/{files.MANIFEST}"), data


def index_bytes(place: Place) -> bytes | None:
    """The bytes of a place's index; `None` if it does not exist.

    Raises:
        BundleError: it cannot be read.
    """
    try:
        return place.read(files.INDEX, files.limit_bytes(files.INDEX) or 0)
    except FileNotFoundError:
        return None


def entries(
    place: Destination, index: Index | None = None, unreadable: dict[str, str] | None = None
) -> dict[str, Entry]:
    """The tasks at a place. Tasks that are not covered by an index are read.

    Args:
        place: the place.
        index: the known index of the place.
        unreadable: receives a folder's tasks that cannot be read, such as links that lead out of it.

    Raises:
        BundleError: they cannot be read.
    """
    known = {} if index is None else {name: index.tasks[name] for name in index.tasks.keys() - index.replacing.keys()}
    found = {}
    for name, size in place.task_sizes().items():
        if name in known and known[name].size == size:
            found[name] = known[name]
            continue
        try:
            found[name] = Entry.of(place.read(files.task_file(name), files.TASK_LIMIT_BYTES))
        except FileNotFoundError:  # it was just removed
            continue
        except BundleError as error:
            if not isinstance(place, Folder):
                raise
            if unreadable is not None:
                unreadable[name] = str(error)
    return found
