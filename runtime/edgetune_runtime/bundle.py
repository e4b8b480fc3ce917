"""A bundle: one exported backbone in one or more precisions, its tokenizer, and tasks beside it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from edgetune_runtime import contract, files, strict
from edgetune_runtime.contract import BackboneSizes
from edgetune_runtime.errors import BundleError, TaskError
from edgetune_runtime.external import external_files
from edgetune_runtime.task import Task, check_fits

_LONGEST_TEXT = 1000
_LARGEST_SIZE = 1 << 16  # of a backbone's dimensions; the shapes made of them stay countable in 64 bits
_MOST_POSITIONS = 1 << 24
_MOST_TOKENS = 1 << 31
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class TaskParity:
    """What a precision answers beside PyTorch, for one task on real text.

    Attributes:
        rows: texts compared.
        max_logit_difference: the largest, over all texts and labels.
        label_agreement: share of texts with the same label.
        accuracy_torch: accuracy of the PyTorch path; `None` where the texts had no labels.
        accuracy: accuracy of this precision; `None` where the texts had no labels.
    """

    rows: int
    max_logit_difference: float
    label_agreement: float
    accuracy_torch: float | None = None
    accuracy: float | None = None

    @property
    def accuracy_drop(self) -> float | None:
        """Accuracy lost against PyTorch (negative where it was won)."""
        if self.accuracy is None or self.accuracy_torch is None:
            return None
        return self.accuracy_torch - self.accuracy


@dataclass(frozen=True)
class Graph:
    """One precision of the backbone.

    Attributes:
        file: path of the graph inside the bundle.
        batch_invariant: whether a row's answer is the same whatever rows it is batched with. Where it is
            not (dynamic int8: the activation scale is taken over the whole batch), rows run one by one.
        parity: task name → what was measured at export.
        data: path of the graph's weights inside the bundle, where its own file cannot hold them (past 2 GB).
    """

    file: str
    batch_invariant: bool
    parity: Mapping[str, TaskParity] = field(default_factory=dict)
    data: str | None = None

    @property
    def paths(self) -> list[str]:
        """Paths inside the bundle of the graph and, where it has one, the file of its weights."""
        return [name for name in (self.file, self.data) if name is not None]


@dataclass(frozen=True)
class Manifest:
    """The contents of `edgetune.json`.

    Attributes:
        base_model: name of the backbone, for people.
        architecture: its `model_type`.
        backbone_sha256: fingerprint of its weights; a task must carry the same.
        sizes: sizes that fix the shapes of prompts and heads.
        max_positions: positions that the backbone has.
        poolings: where features can be read, some of `contract.POOLINGS`; the first is the backbone's usual one.
        mask_token: what `{mask}` in a template becomes; empty where the backbone has no such token.
        graphs: precision → its graph.
        files: path inside the bundle → SHA-256, of every file but the tasks (which carry their own).
        edgetune_version: the version that wrote the bundle.
    """

    base_model: str
    architecture: str
    backbone_sha256: str
    sizes: BackboneSizes
    max_positions: int
    poolings: tuple[str, ...]
    mask_token: str
    graphs: Mapping[str, Graph]
    files: Mapping[str, str]
    edgetune_version: str
    format_version: int = contract.FORMAT_VERSION

    def to_json(self) -> bytes:
        """The manifest as the bytes of `edgetune.json`, the graph's inputs and outputs spelled out in it."""
        record = asdict(self)
        record["inputs"] = {name: asdict(spec) for name, spec in contract.INPUTS.items()}
        record["outputs"] = {name: {"dtype": "float32", "dims": dims} for name, dims in contract.OUTPUTS.items()}
        return (json.dumps(record, indent=2, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, origin: str) -> Manifest:
        """Read a manifest.

        Raises:
            BundleError: it is not JSON, of another format version, lacks a field, or a field is not what it should be.
        """
        try:
            record: dict[str, Any] = strict.json_value(data)
            version = record["format_version"]
            if type(version) is not int or version != contract.FORMAT_VERSION:
                raise BundleError(
                    f"{origin} has bundle format version {version}, expected {contract.FORMAT_VERSION}: export it "
                    f"again, or install the edgetune that wrote it"
                )
            sizes = {name: strict.whole_number(size, 1, _LARGEST_SIZE) for name, size in record["sizes"].items()}
            manifest = cls(
                base_model=strict.plain_text(record["base_model"], _LONGEST_TEXT),
                architecture=strict.plain_text(record["architecture"], _LONGEST_TEXT),
                backbone_sha256=strict.plain_text(record["backbone_sha256"], _LONGEST_TEXT),
                sizes=BackboneSizes(**sizes),
                max_positions=strict.whole_number(record["max_positions"], 1, _MOST_POSITIONS),
                poolings=tuple(record["poolings"]),
                mask_token=strict.plain_text(record["mask_token"], _LONGEST_TEXT),
                graphs={precision: _graph(precision, graph) for precision, graph in record["graphs"].items()},
                files=_digests(record["files"]),
                edgetune_version=strict.plain_text(record["edgetune_version"], _LONGEST_TEXT),
            )
            known = manifest.poolings and set(manifest.poolings) <= set(contract.POOLINGS)
            if not manifest.graphs or not known:
                raise ValueError(f"{len(manifest.graphs)} graphs, poolings {manifest.poolings}")
            return manifest
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise BundleError(
                f"{origin} is not a sound edgetune manifest ({type(error).__name__}: {error}): export the bundle again"
            ) from error


def _graph(precision: str, record: Mapping[str, Any]) -> Graph:
    file, data, invariant = record["file"], record.get("data"), record["batch_invariant"]
    if not files.is_plain_path(precision) or file != files.graph_file(precision):
        raise ValueError(f"a graph or its weights in {file!r:.300}")
    if data not in (None, files.data_file(file)):
        raise ValueError(f"a graph or its weights in {data!r:.300}")
    if not isinstance(invariant, bool):
        raise ValueError(f"batch_invariant {invariant!r:.40}")
    parity = {name: TaskParity(**measured) for name, measured in record["parity"].items()}
    odd = [value for one in parity.values() for value in vars(one).values() if type(value) not in _MEASURED]
    if odd:
        raise ValueError(f"a parity of {odd[0]!r:.40}")
    return Graph(file, invariant, parity, data)


_MEASURED = (int, float, type(None))


def _digests(record: Mapping[str, Any]) -> dict[str, str]:
    for name, digest in record.items():
        if not files.is_plain_path(name) or not _SHA256.fullmatch(digest):
            raise ValueError(f"a file {name!r:.300} with the SHA-256 {digest!r:.80}")
    return dict(record)


class Bundle:
    """A bundle on disk: its manifest, its files (checked as they are read), and its tasks.

    Args:
        path: the bundle's folder.

    Raises:
        BundleError: the folder is no bundle, or its manifest is damaged or of another format version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with files.open_inside(self.path, files.MANIFEST) as file:
                data = file.read()
        except OSError as error:
            raise BundleError(
                f"{self.path} is not a bundle ({files.MANIFEST}: {error.strerror}): expected a folder that "
                f"'edgetune export' wrote, with the file itself in it"
            ) from error
        self.manifest = Manifest.from_json(data, str(self.path / files.MANIFEST))

    def read(self, name: str) -> bytes:
        """Bytes of a file of the manifest, checked against its SHA-256.

        Raises:
            BundleError: it is missing, a link out of the bundle, or not the file that was exported.
        """
        try:
            with files.open_inside(self.path, name) as file:
                data = file.read()
        except OSError as error:
            raise self._incomplete(name, error) from error
        self._check_digest(name, files.sha256(data))
        return data

    def digest(self, name: str) -> str:
        """SHA-256 of a file of the manifest, checked like `read` does, without holding it in memory.

        Raises:
            BundleError: it is missing, a link out of the bundle, or not the file that was exported.
        """
        try:
            with files.open_inside(self.path, name) as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise self._incomplete(name, error) from error
        self._check_digest(name, found)
        return found

    def read_graph(self, precision: str) -> tuple[bytes, dict[str, bytes]]:
        """The bytes of a precision's graph and of the file of its weights, by the name that the graph gives it.

        Raises:
            BundleError: a file is missing, a link out of the bundle or not what was exported, or the graph names
                another file.
        """
        record = self.manifest.graphs[precision]
        graph = self.read(record.file)
        weights = {} if record.data is None else {Path(record.data).name: self.read(record.data)}
        other = external_files(graph) - set(weights)
        if other:
            raise BundleError(
                f"{self.path / record.file} takes weights from {', '.join(map(repr, sorted(other)))}: expected "
                f"{', '.join(weights) or 'none outside of it'}; export the bundle again"
            )
        return graph, weights

    def graph_files(self, precision: str) -> list[str]:
        """Paths inside the bundle of a precision's graph and, where it has one, the file of its weights."""
        return self.manifest.graphs[precision].paths

    def has_graph(self, precision: str) -> bool:
        """Whether a precision is in the bundle with its files: an edge device may leave out those it does not run."""
        known = precision in self.manifest.graphs
        return known and all(os.path.lexists(self.path / name) for name in self.graph_files(precision))

    def graph_bytes(self, precision: str) -> int:
        """Bytes of a precision on disk."""
        return sum((self.path / name).stat().st_size for name in self.graph_files(precision))

    def precision(self, wanted: str | None) -> str:
        """The precision to use: `wanted`, or int8 where the bundle has it.

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
        """Token ids that the backbone knows.

        Raises:
            BundleError: `config.json` is missing, not what was exported, or does not say it.
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
        """Names of the tasks in the bundle, sorted; `load_task` says which of them cannot be read.

        Raises:
            BundleError: the folder of tasks leads out of the bundle, or cannot be looked through.
        """
        return sorted(name for name, why in self._task_files() if why is None)

    def unread_tasks(self) -> dict[str, str]:
        """What lies among the tasks and is not read as one: the file's name, and why. Hidden files do not count.

        Raises:
            BundleError: the folder of tasks leads out of the bundle, or cannot be looked through.
        """
        return {name: why for name, why in sorted(self._task_files()) if why is not None}

    def _task_files(self) -> Iterator[tuple[str, str | None]]:
        """Names of tasks with `None`, and names of other files with the reason why they are none."""
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
            TaskError: there is no such task, or it is a link out of the bundle, damaged, or made for another backbone.
        """
        path = self.path / files.task_file(name)
        try:
            with files.open_inside(self.path, files.task_file(name)) as file:
                data = file.read()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._no_task(name) from error
        except OSError as error:
            self._tasks_folder()  # if it is to blame
            raise TaskError(
                f"{path} cannot be read ({error.strerror}): copy the file itself there, or take it out with "
                f"'edgetune tasks remove {self.path} {name}'"
            ) from error
        task = Task.from_bytes(data, str(path))
        self.check_task(task)
        return task.renamed(name)

    def check_task(self, task: Task) -> None:
        """Raise `TaskError` unless the task was made for this bundle's backbone."""
        manifest = self.manifest
        check_fits(
            task,
            manifest.backbone_sha256,
            manifest.base_model,
            manifest.sizes,
            manifest.poolings,
            manifest.max_positions,
        )

    def add_task(self, task: Task) -> Path:
        """Put a task into the bundle, or in the place of the one of the same name, in one rename.

        Raises:
            TaskError: it was made for another backbone.
            BundleError: the folder of tasks leads out of the bundle.
        """
        self.check_task(task)
        self._tasks_folder()
        path = self.path / files.task_file(task.name)
        task.save(path)
        return path

    def remove_task(self, name: str) -> None:
        """Take a task out of the bundle.

        Raises:
            TaskError: there is no such task.
            BundleError: the folder of tasks leads out of the bundle.
        """
        self._tasks_folder()
        path = self.path / files.task_file(name)
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError) as error:
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
