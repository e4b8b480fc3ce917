"""`tasks/index.json`, the list of a published bundle's tasks. A few kilobytes show whether anything changed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgetune_runtime import files, strict
from edgetune_runtime.errors import BundleError
from edgetune_runtime.manifest import Manifest

FORMAT_VERSION = 1
"""Version of the index's format; other versions are rejected."""

_FIELDS = {"format_version", "bundle", "tasks", "replacing"}
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """A task's file, identified by its SHA-256 and length."""

    sha256: str
    size: int

    @classmethod
    def of(cls, data: bytes) -> Entry:
        """The entry of a file's bytes."""
        return cls(files.sha256(data), len(data))


@dataclass(frozen=True)
class Index:
    """The contents of `tasks/index.json`.

    Attributes:
        bundle: `fingerprint` of the bundle with the tasks.
        tasks: name → entry of its file.
        replacing: the files that a publisher is currently writing. Until it has finished (or, if it was killed, until
            the next publisher has checked them), such a task may have either the entry in `tasks` or this one.
    """

    bundle: str
    tasks: Mapping[str, Entry]
    replacing: Mapping[str, Entry] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """The index as the bytes of its file. Equal indexes give equal bytes."""
        record = {
            "format_version": FORMAT_VERSION,
            "bundle": self.bundle,
            "tasks": _record(self.tasks),
            "replacing": _record(self.replacing),
        }
        return json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, origin: str) -> Index:
        """Read an index.

        Raises:
            BundleError: it is not JSON, has another format version, or a field is not valid.
        """
        try:
            if len(data) > (files.limit_bytes(files.INDEX) or 0):
                raise ValueError(f"more than {files.limit_bytes(files.INDEX):,} bytes")
            record: dict[str, Any] = strict.json_value(data)
            version = record["format_version"]
            if type(version) is not int or version != FORMAT_VERSION:
                raise BundleError(
                    f"{origin} has index format version {version!r:.40}, expected {FORMAT_VERSION}: install the "
                    f"edgetune that wrote it, or publish again with this one"
                )
            if record.keys() != _FIELDS:
                raise ValueError(f"the fields {sorted(record)!r:.300}")
            return cls(_digest(record["bundle"]), _entries(record["tasks"]), _entries(record["replacing"]))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise BundleError(
                f"{origin} is not a sound index of tasks ({type(error).__name__}: {error}): publish the bundle again "
                f"with 'edgetune tasks sync'"
            ) from error


def fingerprint(manifest: Manifest) -> str:
    """The identity of a bundle: the backbone, and the digest of every file that affects answers.

    Two exports with the same files are the same bundle, even if the measured figures in the manifest and the model card
    differ.
    """
    digests = {name: digest for name, digest in manifest.files.items() if name != files.CARD}
    text = json.dumps([manifest.facts.sha256, digests], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _name(name: object) -> str:
    if not isinstance(name, str) or not files.is_task_name(name):
        raise ValueError(f"{name!r:.300}: expected the name of a task")
    return name


def _digest(value: object) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError(f"{value!r:.80}: expected a SHA-256")
    return value


def _record(entries: Mapping[str, Entry]) -> dict[str, Any]:
    return {name: {"sha256": entry.sha256, "bytes": entry.size} for name, entry in entries.items()}


def _entries(record: Mapping[str, Any]) -> dict[str, Entry]:
    return {_name(name): _entry(entry) for name, entry in record.items()}


def _entry(record: Mapping[str, Any]) -> Entry:
    if record.keys() != {"sha256", "bytes"}:
        raise ValueError(f"a task with the fields {sorted(record)!r:.300}")
    return Entry(_digest(record["sha256"]), strict.whole_number(record["bytes"], 1, files.TASK_LIMIT_BYTES))
