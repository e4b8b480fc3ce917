"""Bundles on the Hugging Face hub. A sync makes all its changes in one commit."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from edgetune.sync.places import Destination, task_sizes
from edgetune_runtime import files, hub
from edgetune_runtime.errors import BundleError, EdgetuneError
from edgetune_runtime.hub import HubName

_MESSAGE = "Publish with edgetune"
_LISTED = 20
_WAITING_BYTES = 32_000_000


class Hub(Destination):
    """A repository on the hub, at one commit.

    Reads use the commit that was newest at the first access. Written files are sent in batches, and become visible only
    with the final commit. The commit fails if somebody else has committed meanwhile.

    Args:
        name: the repository and its revision.
        private: whether a new repository is private; `None` uses its owner's setting.
    """

    def __init__(self, name: HubName, private: bool | None = None) -> None:
        super().__init__(str(name))
        self._library = hub.library()
        self._api = self._library.HfApi(library_name="edgetune")
        self._repository, self._revision = name.repository, name.revision
        self._private = private
        self._changes: dict[str, Any] = {}
        self._waiting: list[Any] = []

    def check_there(self) -> None:
        """Raise `BundleError` unless the repository has the revision."""
        with self._told("read", files.MANIFEST):
            vars(self)["_commit"] = self._newest(self._revision)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Wrap all changes of one sync, which become one commit."""
        vars(self).pop("_commit", None)
        self._changes, self._waiting = {}, []
        yield
        if self._changes:
            with self._told("written", files.MANIFEST):
                self._commit_all()
            vars(self).pop("_commit", None)

    def sweep(self) -> None:
        """Do nothing: the hub deletes files that were sent but never committed."""

    def _newest(self, revision: str | None) -> str:
        return self._api.model_info(self._repository, revision=revision, expand=["sha"]).sha

    @cached_property
    def _commit(self) -> str | None:
        """The commit to read; `None` if the repository does not exist. A new branch starts from the main branch."""
        errors = self._library.errors
        try:
            try:
                return self._newest(self._revision)
            except errors.RevisionNotFoundError:
                return self._newest(None)
        except errors.RepositoryNotFoundError:  # also if it is private and there is no token; creating it shows which
            return None

    def _at_commit(self) -> str:
        if self._commit is None:
            raise FileNotFoundError(self.name)
        return self._commit

    @cached_property
    def _streams(self) -> Any:
        return self._library.HfFileSystem(skip_instance_cache=True)

    def _open(self, path: str) -> BinaryIO:
        if written := getattr(self._changes.get(path), "path_or_fileobj", b""):
            return BytesIO(written)
        # An interrupted stream is resumed. The URL is given, because huggingface_hub would list the file's folder to
        # find it.
        at = f"{self._repository}@{self._at_commit()}/{path}"
        stream = self._library.HfFileSystemStreamFile(self._streams, at, block_size=0)
        stream.url = lambda: self._url(path)
        return stream

    def _url(self, path: str) -> str:
        return self._library.hf_hub_url(self._repository, path, revision=self._at_commit())

    def _size(self, path: str) -> int | None:
        return self._library.get_hf_file_metadata(self._url(path)).size

    def _task_sizes(self) -> dict[str, int]:
        try:
            entries = list(self._api.list_repo_tree(self._repository, files.TASKS, revision=self._at_commit()))
        except (FileNotFoundError, self._library.errors.EntryNotFoundError):
            return {}
        return task_sizes(
            {Path(entry.path).name: entry.size for entry in entries if getattr(entry, "size", None) is not None}
        )

    def _write(self, path: str, chunks: Iterator[bytes]) -> None:
        self._make()
        if files.limit_bytes(path) is not None:
            self._add(path, b"".join(chunks))
            if sum(len(one.path_or_fileobj) for one in self._waiting) > _WAITING_BYTES:
                self._send(self._waiting)
                self._waiting = []
            return
        with tempfile.TemporaryDirectory(prefix="edgetune-") as folder:
            spool = Path(folder, "file")
            with spool.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
            addition = self._add(path, str(spool))
            self._waiting.remove(addition)
            self._send([addition])
            if addition.path_or_fileobj:  # the hub requires small files inside the commit
                self._waiting.remove(self._add(path, spool.read_bytes()))

    def _make(self) -> None:
        """Create the repository and the branch if they do not exist."""
        if self._commit is None:
            self._api.create_repo(self._repository, private=self._private, exist_ok=True)
            del self._commit
        if self._revision is not None and not self._changes:
            try:
                self._newest(self._revision)
            except self._library.errors.RevisionNotFoundError:
                self._api.create_branch(self._repository, branch=self._revision, revision=self._commit, exist_ok=True)

    def _add(self, path: str, content: bytes | str) -> Any:
        addition = self._library.CommitOperationAdd(path_in_repo=path, path_or_fileobj=content)
        self._changes[path] = addition
        self._waiting.append(addition)
        return addition

    def _send(self, additions: list[Any]) -> None:
        """Send large files now. The hub stores them by SHA-256, and does not request files that it has."""
        self._api.preupload_lfs_files(self._repository, additions, revision=self._revision)

    def _remove(self, path: str) -> None:
        self._changes[path] = self._library.CommitOperationDelete(path_in_repo=path)

    def _commit_all(self) -> None:
        paths = sorted(self._changes)
        listed = "\n".join(paths[:_LISTED]) + (f"\nand {len(paths) - _LISTED} more" if len(paths) > _LISTED else "")
        commit = self._api.create_commit(
            self._repository,
            list(self._changes.values()),
            commit_message=_MESSAGE,
            commit_description=listed,
            revision=self._revision,
            parent_commit=self._commit,
        )
        added = [path for path, change in self._changes.items() if hasattr(change, "path_or_fileobj")]
        found = {one.path for one in self._api.get_paths_info(self._repository, added, revision=commit.oid)}
        if missing := [path for path in added if path not in found]:
            raise BundleError(
                f"{self.name} has not taken {', '.join(missing[:_LISTED])}: see whether its .gitignore names them, and "
                f"push again"
            )

    @contextmanager
    def _told(self, done: str, path: str) -> Iterator[None]:
        try:
            yield
        except (EdgetuneError, FileNotFoundError):
            raise
        except self._library.errors.EntryNotFoundError as error:
            raise FileNotFoundError(f"{self.name}/{path}") from error
        except Exception as error:
            raise BundleError(f"{self.name} cannot be {done}: {hub.why(error)}") from error
