"""A task: a prompt, a head, and the backbone that they were made for. `task_file` stores it."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgetune_runtime import contract, files, strict, task_file
from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import TaskError
from edgetune_runtime.kinds import KINDS, Kind
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.lazy import lazy
from edgetune_runtime.parts import HEAD, PARTS, PREFIX, SOFT_PROMPT, titled_lengths

MOST_LABELS = 10_000
LONGEST_LABEL = task_file.LONGEST_TEXT
"""Maximum length of a label, and of other strings except the template, in characters."""

_LONGEST_TEMPLATE = 100_000

# Values of trained tasks stay below 11. Sums, squares and cubes of a million are far below float32's 3e38.
_LARGEST_NUMBER = 1e6

_LABELS_SHOWN = 5


@dataclass(frozen=True, eq=False, repr=False)
class Task:
    """A classification task on one backbone.

    Attributes:
        name: the task's name.
        labels: the labels, in the order of the head's rows.
        backbone_sha256: fingerprint of the weights that the task was trained on.
        tensors: the parts and the head, without the tasks dimension (shapes: `contract.TASK_TENSORS`).
        method: how it was trained ("prefix", "prompt").
        base_model: the backbone's name, for people.
        pooling: where features are read, one of `contract.POOLINGS`; for answers to questions also `contract.ENDS`.
        position_offset: position id of the text's first token.
        template: the text around each text. It contains `{text}`, and may contain `{text_pair}` for the second text of
            a pair and `{mask}` for the mask token.
        max_length: maximum number of tokens per text, including special tokens.
        temperature: logits are divided by it before they become probabilities.
        metrics: figures from training, such as the accuracy on development data.
        kind_name: the kind of answer, one of `KINDS`.
        thresholds: for each label the lowest score at which it applies; only for multi-label tasks.
        pairs: whether a text is a pair of texts.
        long_texts: how a text that is longer than `max_length` is read: "cut" drops its end, "windows" reads all of it
            in overlapping parts and averages their logits.
        stride: number of tokens by which windows overlap.
        graph_inputs: graph inputs that this task needs, in addition to those that every graph has.
        unknown: unknown optional fields of the file; they are preserved when it is written.
    """

    name: str
    labels: tuple[str, ...]
    backbone_sha256: str
    tensors: Mapping[str, Array]
    method: str
    base_model: str
    pooling: str
    position_offset: int = 0
    template: str = contract.TEXT_SLOT
    max_length: int = contract.DEFAULT_MAX_LENGTH
    temperature: float = 1.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    kind_name: str = SINGLE_LABEL.name
    thresholds: tuple[float, ...] = ()
    pairs: bool = False
    long_texts: str = contract.CUT
    stride: int = 0
    graph_inputs: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        shown = ", ".join(self.labels[:_LABELS_SHOWN]) + (", …" if len(self.labels) > _LABELS_SHOWN else "")
        return f"<Task {self.name}: {self.kind_name} ({shown}), {self.method}, for {self.base_model}>"

    @property
    def kind(self) -> Kind:
        """The kind of answer."""
        return KINDS[self.kind_name]

    @property
    def head_rows(self) -> int:
        """Number of rows of the head; for most kinds one per label."""
        return self.kind.head_rows(len(self.labels))

    @property
    def requires(self) -> tuple[str, ...]:
        """Requirements that a reader of this task must support; empty if edgetune 0.1 supports it."""
        parts = [part.requires for part in PARTS.values() if part.requires and part.length_of(self.tensors)]
        inputs = [f"input:{name}" for name in self.graph_inputs]
        pairs = ["pairs"] if self.pairs else []
        pooling = [f"pooling:{self.pooling}"] if self.pooling in contract.NAMED_POOLINGS else []
        windows = ["long:windows"] if self.long_texts == contract.WINDOWS else []
        return (*self.kind.requires, *parts, *pooling, *pairs, *windows, *inputs)

    @property
    def prompt_length(self) -> int:
        """Number of tokens that are fed as prompt embeddings."""
        return SOFT_PROMPT.length_of(self.tensors)

    @property
    def prefix_length(self) -> int:
        """Number of keys and values before those of the text, in every layer."""
        return PREFIX.length_of(self.tensors)

    @property
    def parts(self) -> dict[str, int]:
        """Its parts except the head, by title, with their lengths."""
        return titled_lengths(self.tensors)

    @property
    def num_parameters(self) -> int:
        """Number of parameters that the task stores."""
        return sum(int(tensor.size) for tensor in self.tensors.values())

    @lazy
    def needed_inputs(self) -> frozenset[str]:
        """Inputs that a graph must have for this task; of the inputs that every graph has, only some are listed."""
        empty = {name for name in contract.PART_INPUTS & self.tensors.keys() if not self.tensors[name].size}
        return frozenset((*self.graph_inputs, *(self.tensors.keys() & contract.BANK_INPUTS.keys()))) - empty

    @lazy
    def head(self) -> tuple[Array, Array]:
        """Weight and bias of the head, as float32. Shape: [labels, hidden], [labels]."""
        # In C order, as from a file: sums over rows and over columns differ in their last bits.
        weight, bias = (np.ascontiguousarray(self.tensors[name], np.float32) for name in HEAD.tensors)
        return weight, bias

    @lazy
    def sha256(self) -> str:
        """SHA-256 of the task's file, which serves as its version."""
        return files.sha256(self.to_bytes())

    @lazy
    def parts_sha256(self) -> str:
        """SHA-256 of everything that affects the features of a token; tasks with the same value share a pass.

        It does not cover labels, head, template and kind.
        """
        names = [name for part in PARTS.values() if part is not HEAD for name in part.tensors if name in self.tensors]
        return task_file.digest(
            {"position_offset": str(self.position_offset)},
            {name: self.tensors[name] for name in names if self.tensors[name].size},
        )

    def to_bytes(self) -> bytes:
        """The task as the bytes of a `.safetensors` file. Equal tasks give equal bytes."""
        return task_file.write(self)

    def save(self, path: Path | str) -> None:
        """Write the task file atomically.

        Raises:
            TaskError: the task is not valid, so it could not be read again.
        """
        data = self.to_bytes()
        Task.from_bytes(data, f"the task '{self.name}'")
        files.write_atomic(Path(path), data)

    @classmethod
    def from_bytes(cls, data: bytes, origin: str) -> Task:
        """Read a task from the bytes of its file.

        Args:
            data: the bytes.
            origin: how errors refer to them.

        Raises:
            TaskError: they are not a complete, valid task file, or it has requirements that this version does not
                support.
        """
        fields, tensors = task_file.read(data, origin)
        task = cls(**fields, tensors=tensors)
        task.check(origin)
        return task

    @classmethod
    def load(cls, path: Path | str) -> Task:
        """Read a task file.

        Raises:
            TaskError: it does not exist, or is not a complete, valid task file.
        """
        try:
            # The path is the user's own, so it may be or contain a link.
            with files.open_regular(Path(os.path.realpath(path)), files.TASK_LIMIT_BYTES) as file:
                data = file.read()
        except OSError as error:
            raise TaskError(
                f"the task file {path} cannot be read ({error.strerror}): expected a .safetensors file "
                f"that 'edgetune train' wrote"
            ) from error
        return cls.from_bytes(data, str(path))

    def renamed(self, name: str) -> Task:
        """The same task with another name."""
        return dataclasses.replace(self, name=files.check_task_name(name))

    def check(self, origin: str) -> None:
        """Raise `TaskError` unless tensors, labels and settings are valid and fit each other.

        Args:
            origin: how errors refer to the task.
        """
        self._check_tensors(origin)
        kind = self.kind
        fewest, most = kind.labels
        own = len(self.labels)
        rows = (self.head_rows, *(len(self.tensors[name]) for name in HEAD.tensors))
        if len(set(rows)) != 1 or len(set(self.labels)) != own or not fewest <= own <= most:
            per = "one per row" if rows[0] == own else f"and {rows[0]:,} rows"
            raise TaskError(
                f"{origin} has {own} labels for a head of {rows[1]} rows and {rows[2]} biases: expected "
                f"at least {fewest} and at most {most:,} labels for the kind '{kind.name}', all different, {per}"
            )
        if kind.reading is None and self.pooling not in contract.POOLINGS:
            raise TaskError(f"{origin} has pooling {self.pooling!r:.40}: expected one of {list(contract.POOLINGS)}")
        if kind.reading is not None and self.pooling not in kind.reading.poolings:
            raise TaskError(
                f"{origin} has pooling {self.pooling!r:.40}: expected one of {', '.join(kind.reading.poolings)} for "
                f"the kind '{kind.name}', which reads each piece of a text on its own"
            )
        if kind.reading is not None and kind.reading.second and not self.pairs:
            raise TaskError(
                f"{origin} reads single texts: expected pairs for the kind '{kind.name}', which reads the second"
            )
        check_template(self.template, self.pooling, origin, self.pairs)
        sound = self.position_offset >= 0 and self.max_length >= 1
        if not (sound and math.isfinite(self.temperature) and self.temperature > 0):
            raise TaskError(
                f"{origin} has position_offset {self.position_offset}, max_length {self.max_length}, "
                f"temperature {self.temperature}: expected an offset of at least 0, a length of at least 1 and a "
                f"temperature above 0"
            )
        if self.long_texts not in contract.LONG_TEXTS or self.stride < 0 or self.stride >= self.max_length:
            raise TaskError(
                f"{origin} has long_texts {self.long_texts!r:.40} and stride {self.stride}: expected one of "
                f"{', '.join(contract.LONG_TEXTS)}, and a stride of at least 0 and below the max_length "
                f"{self.max_length}"
            )
        try:
            kind.check(self)
        except ValueError as error:
            raise TaskError(f"{origin} has {error}; train it again") from error

    def _check_tensors(self, origin: str) -> None:
        names = set(self.tensors)
        halves = [part for part in PARTS.values() if 0 < len(names & set(part.tensors)) < len(part.tensors)]
        if not set(HEAD.tensors) <= names <= set(contract.TASK_TENSORS) or halves:
            optional = [name for name in contract.TASK_TENSORS if name not in HEAD.tensors]
            raise TaskError(
                f"{origin} has the tensors {sorted(names)!r:.300}: expected {list(HEAD.tensors)} and any of "
                f"{optional} (keys and values together)"
            )
        for name, tensor in self.tensors.items():
            dims = contract.TASK_TENSORS[name]
            if tensor.dtype != np.float32 or tensor.ndim != len(dims):
                raise TaskError(
                    f"{origin} has {name} as {tensor.dtype} {list(tensor.shape)}: expected float32 {list(dims)}"
                )
            if tensor.size and not np.abs([tensor.min(), tensor.max()]).max() <= _LARGEST_NUMBER:
                raise TaskError(
                    f"{origin} has numbers in {name} that are not finite or not from {-_LARGEST_NUMBER:,.0f} to "
                    f"{_LARGEST_NUMBER:,.0f}: train it again"
                )


def check_template(template: str, pooling: str, origin: str, pairs: bool = False) -> None:
    """Raise `TaskError` unless a template is text and contains each slot as often as it should.

    Args:
        template: the template.
        pooling: where features are read; "mask" needs a mask slot.
        origin: how errors refer to the owner of the template.
        pairs: whether it is for pairs of texts, and so may have a slot for the second one.
    """
    try:
        strict.plain_text(template, _LONGEST_TEMPLATE)
    except ValueError as error:
        raise TaskError(f"{origin} has the template {template!r:.300}: {error}; write another") from error
    slots = template.count(contract.TEXT_SLOT), template.count(contract.MASK_SLOT)
    if slots != (1, int(pooling == "mask")):
        raise TaskError(
            f"{origin} has the template {template!r:.300} for pooling '{pooling}': expected one {contract.TEXT_SLOT}, "
            f"and one {contract.MASK_SLOT} if the pooling is 'mask', else none"
        )
    if not pairs:  # in which {text_pair} is ordinary text
        return
    second = template.count(contract.TEXT_PAIR_SLOT)
    if second > 1:
        raise TaskError(
            f"{origin} has the template {template!r:.300} with {second} {contract.TEXT_PAIR_SLOT}: expected at most one"
        )
    if not second and template != contract.TEXT_SLOT:
        raise TaskError(
            f"{origin} has the template {template!r:.300} for pairs of texts: expected {contract.TEXT_SLOT} and "
            f"{contract.TEXT_PAIR_SLOT} in it, or no template"
        )
