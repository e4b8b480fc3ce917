"""A bundle: one exported backbone in one or more precisions, its tokenizer, and its tasks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from mmap import ACCESS_READ, mmap
from pathlib import Path

from edgetune_runtime import contract, files, strict
from edgetune_runtime.errors import BundleError, TaskError
from edgetune_runtime.external import external_files, without_weights
from edgetune_runtime.facts import BackboneFacts
from edgetune_runtime.manifest import Manifest
from edgetune_runtime.task import Task

_MOST_TOKENS = 1 << 31
_CHUNK_BYTES = 1 << 20


WeightFiles = Mapping[str, bytes] | Path
"""The weight files of a graph: their bytes by name, or the folder that holds them."""


class Bundle:
    """A bundle on disk: its manifest, its files (checked when they are read), and its tasks.

    Args:
        path: the bundle's folder.

    Attributes:
        manifest_sha256: SHA-256 of the manifest's bytes.

    Raises:
        BundleError: the folder is not a bundle, or its manifest is damaged or has another format version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with files.open_inside(self.path, files.MANIFEST) as file:
                data = file.read()
        except OSError as error:
            missing = not self.path.exists()
            reason = "there is no such folder" if missing else f"{files.MANIFEST}: {error.strerror}"
            raise BundleError(
                f"{self.path} is not a bundle ({reason}): expected a folder that 'edgetune export' wrote"
                + ("" if missing else ", with the file itself in it")
            ) from error
        self.manifest_sha256 = files.sha256(data)
        self._digests: dict[tuple[str, int, int, int], str] = {}
        self.manifest = Manifest.from_json(data, str(self.path / files.MANIFEST))

    def __repr__(self) -> str:
        precisions = ", ".join(self.manifest.graphs)
        return f"<Bundle {self.path}: {self.facts.name} ({self.manifest.architecture}), {precisions}>"

    @property
    def facts(self) -> BackboneFacts:
        """What tasks and texts need to know about the backbone."""
        return self.manifest.facts

    def read(self, name: str) -> bytes:
        """Read a file that the manifest lists, and check its SHA-256.

        Raises:
            BundleError: it is missing, links out of the bundle, or differs from the exported file.
        """
        try:
            with files.open_inside(self.path, name) as file:
                data = file.read()
        except OSError as error:
            raise self._incomplete(name, error) from error
        self._check_digest(name, files.sha256(data))
        return data

    def digest(self, name: str) -> str:
        """SHA-256 of a file that the manifest lists, checked as in `read`, without loading it into memory.

        A file that was checked is not read again while its size and times stay.

        Raises:
            BundleError: it is missing, links out of the bundle, or differs from the exported file.
        """
        try:
            with files.open_inside(self.path, name) as file:
                state = os.fstat(file.fileno())
                key = name, state.st_ino, state.st_size, max(state.st_mtime_ns, state.st_ctime_ns)
                found = self._digests.get(key) or hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise self._incomplete(name, error) from error
        self._check_digest(name, found)
        self._digests[key] = found
        return found

    def copy_graph(self, precision: str, variant: str, folder: Path) -> bytes:
        """Copy the files of a graph, checked as in `read`, so that its weights can be mapped from the copy.

        Args:
            precision: a precision of the bundle.
            variant: one of the facts' variants, or the base.
            folder: the target folder; nobody else may write to it.

        Returns:
            The graph; it takes its large weights from the files in that folder.

        Raises:
            BundleError: see `read_graph`.
            OSError: the folder is not writable.
        """
        names = self.graph_files(precision, variant)
        for name in names:
            try:
                opened = files.open_inside(self.path, name)
            except OSError as error:
                raise self._incomplete(name, error) from error
            digest = hashlib.sha256()
            with opened, (folder / Path(name).name).open("wb") as copied:
                while chunk := opened.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    copied.write(chunk)
            self._check_digest(name, digest.hexdigest())
        return self._mapped(folder / Path(names[0]).name, names)

    def map_graph(self, precision: str, variant: str) -> bytes:
        """The graph, with its large weights taken from the bundle's own files.

        Use it only if nobody else writes to the bundle.

        Raises:
            BundleError: see `read_graph`.
        """
        names = self.graph_files(precision, variant)
        for name in names:
            self.digest(name)
        return self._mapped(self.path / names[0], names)

    def _mapped(self, path: Path, names: Sequence[str]) -> bytes:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as mapped:
            graph = without_weights(mapped, path.name)
        self._check_files(graph, {Path(name).name for name in names}, names)
        return graph

    def read_graph(self, precision: str, variant: str = contract.BASE) -> tuple[bytes, dict[str, bytes]]:
        """The bytes of a precision's graph, and the bytes of its weight file by the name that the graph uses.

        Args:
            precision: a precision of the bundle.
            variant: one of the facts' variants, or the base.

        Raises:
            BundleError: a file is missing, links out of the bundle or differs from the exported file, or the graph
                names another file.
        """
        file, *beside = self.graph_files(precision, variant)
        graph = self.read(file)
        weights = {Path(name).name: self.read(name) for name in beside}
        self._check_files(graph, set(weights), [file, *beside])
        return graph, weights

    def graph_source(self, precision: str, variant: str) -> tuple[bytes, WeightFiles]:
        """A precision's graph and the source of its weights: here the bytes that `read_graph` returns."""
        return self.read_graph(precision, variant)

    def _check_files(self, graph: bytes, allowed: set[str], names: Sequence[str]) -> None:
        """Raise `BundleError` if a graph takes weights from a file that is not allowed."""
        other = external_files(graph) - allowed
        if other:
            expected = ", ".join(Path(name).name for name in names[1:])
            raise BundleError(
                f"{self.path / names[0]} takes weights from {', '.join(map(repr, sorted(other)))}: expected "
                f"{expected or 'none outside of it'}; export the bundle again"
            )

    def graph_files(self, precision: str, variant: str = contract.BASE) -> list[str]:
        """Paths inside the bundle of a precision's graph and, if they are in another file, of its weights."""
        return self.manifest.graphs[precision].paths_of(variant)

    def variants(self, precision: str) -> list[str]:
        """The variants of a precision whose files exist in the bundle, the base first."""
        names = (contract.BASE, *self.manifest.graphs[precision].variants)
        return [
            name
            for name in names
            if name == contract.BASE
            or all(os.path.lexists(self.path / path) for path in self.graph_files(precision, name))
        ]

    def has_graph(self, precision: str) -> bool:
        """Whether the bundle has a precision's files. An edge device may omit the precisions that it does not run."""
        known = precision in self.manifest.graphs
        return known and all(os.path.lexists(self.path / name) for name in self.graph_files(precision))

    def graph_bytes(self, precision: str) -> int:
        """Size of a precision on disk in bytes, over all variants that exist."""
        there = {name for variant in self.variants(precision) for name in self.graph_files(precision, variant)}
        return sum((self.path / name).stat().st_size for name in there)

    def precision(self, wanted: str | None) -> str:
        """The precision to use: `wanted`, or int8 if the bundle has it.

        Raises:
            BundleError: the bundle does not have `wanted`.
        """
        have = self.manifest.graphs
        if wanted is None:
            return "int8" if "int8" in have else next(iter(have))
        if wanted not in have:
            raise BundleError(
                f"{self.path} has no precision {wanted!r}: expected one of {', '.join(sorted(have))}; "
                f"'edgetune export' can write others"
            )
        return wanted

    def vocabulary_size(self) -> int:
        """Number of token ids that the backbone knows.

        Raises:
            BundleError: `config.json` is missing, differs from the exported file, or lacks the number.
        """
        data = self.read(files.CONFIG)
        try:
            return strict.whole_number(strict.json_value(data)["vocab_size"], 1, _MOST_TOKENS)
        except (KeyError, ValueError, TypeError) as error:
            raise BundleError(
                f"{self.path / files.CONFIG} does not say the size of the vocabulary ({type(error).__name__}: "
                f"{error}): export the bundle again"
            ) from error

    def task_names(self) -> list[str]:
        """Sorted names of the tasks in the bundle. `load_task` raises an error for those that cannot be read.

        Raises:
            BundleError: the folder of tasks links out of the bundle, or cannot be listed.
        """
        return sorted(name for name, why in self._task_files() if why is None)

    def task_stamps(self) -> dict[str, tuple[int, ...]] | None:
        """For each task name a stamp that changes when the task's file changes; `None` if there is no folder.

        A stamp is the device, inode, length and last change time (in nanoseconds) of the file.

        Raises:
            BundleError: the folder of tasks links out of the bundle, or cannot be listed.
        """
        if not self._tasks_folder().is_dir():
            return None
        stamps: dict[str, tuple[int, ...]] = {}
        for name in self.task_names():
            with suppress(OSError):  # it was just removed, or is a broken link
                found = (self.path / files.task_file(name)).stat()
                stamps[name] = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        return stamps

    def unread_tasks(self) -> dict[str, str]:
        """Files in the task folder that are not read as tasks: the file's name, and why. Hidden files are ignored.

        Raises:
            BundleError: the folder of tasks links out of the bundle, or cannot be listed.
        """
        return {name: why for name, why in sorted(self._task_files()) if why is not None}

    def _task_files(self) -> Iterator[tuple[str, str | None]]:
        """Task names with `None`, and names of other files with the reason why they are not tasks."""
        folder = self._tasks_folder()
        try:
            with os.scandir(folder) as entries:
                found = [entry.name for entry in islice(entries, files.LISTING_LIMIT + 1)]
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise self._incomplete(files.TASKS, error) from error
        if len(found) > files.LISTING_LIMIT:
            raise BundleError(f"{self.path / files.TASKS} has more than {files.LISTING_LIMIT:,} entries: take some out")
        for name in found:
            path = f"{files.TASKS}/{name}"
            if files.is_task_path(path):
                yield name.removesuffix(files.TASK_SUFFIX), None
            elif path != files.INDEX and not name.startswith("."):
                yield name, files.why_no_task(name)

    def load_task(self, name: str) -> Task:
        """Read one of the bundle's tasks.

        Raises:
            TaskError: the task does not exist, links out of the bundle, is damaged, or was made for another backbone.
        """
        path = self.path / files.task_file(name)
        try:
            with files.open_inside(self.path, files.task_file(name)) as file:
                data = file.read()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._no_task(name) from error
        except OSError as error:
            self._tasks_folder()  # if the folder is the cause
            raise TaskError(
                f"{path} cannot be read ({error.strerror}): copy the file itself there, or take it out with "
                f"'edgetune tasks remove {self.path} {name}'"
            ) from error
        task = Task.from_bytes(data, str(path))
        self.check_task(task)
        return task.renamed(name)

    def check_task(self, task: Task) -> None:
        """Raise `TaskError` unless the task was made for this bundle's backbone."""
        self.facts.check(task)

    def add_task(self, task: Task) -> Path:
        """Add a task to the bundle, or replace the task of the same name, with one atomic rename.

        Raises:
            TaskError: it was made for another backbone.
            BundleError: the folder of tasks links out of the bundle.
        """
        self.check_task(task)
        path = self.task_path(task.name)
        task.save(path)
        return path

    def task_path(self, name: str) -> Path:
        """Path of the task with that name.

        Raises:
            TaskError: the name is not valid for a task.
            BundleError: the folder of tasks links out of the bundle.
        """
        self._tasks_folder()
        return self.path / files.task_file(name)

    def remove_task(self, name: str, missing_ok: bool = False) -> None:
        """Remove a task from the bundle.

        Args:
            name: the task.
            missing_ok: whether the task may be missing already.

        Raises:
            TaskError: the task does not exist, or its file cannot be removed.
            BundleError: the folder of tasks links out of the bundle.
        """
        path = self.task_path(name)
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError) as error:
            if missing_ok:
                return
            raise self._no_task(name) from error
        except OSError as error:
            raise TaskError(f"{path} cannot be removed ({error.strerror}): remove it by other means") from error
        files.sync_folder(path.parent)

    def _incomplete(self, name: str, error: OSError) -> BundleError:
        return BundleError(
            f"{self.path} is incomplete ({name}: {error.strerror}): copy the file itself there, or export it again"
        )

    def _check_digest(self, name: str, found: str) -> None:
        expected = self.manifest.files.get(name)
        if found != expected:
            raise BundleError(
                f"{self.path / name} is damaged: its SHA-256 is {found[:12]}…, the manifest says "
                f"{str(expected)[:12]}…; copy or export the bundle again"
            )

    def _tasks_folder(self) -> Path:
        try:
            return files.resolved_inside(self.path, files.TASKS)
        except OSError as error:
            folder = self.path / files.TASKS
            raise BundleError(
                f"{folder} is a link ({error.strerror}): copy the folder itself into the bundle"
            ) from error

    def _no_task(self, name: str) -> TaskError:
        have = ", ".join(self.task_names()) or "none"
        unread = [f"{file} is none ({why})" for file, why in self.unread_tasks().items() if Path(file).stem == name]
        also = "".join(f", and {one}" for one in unread)
        return TaskError(
            f"no task '{name}' in {self.path}: it has {have}{also}; put others there with "
            f"'edgetune tasks add {self.path} FILE'"
        )
