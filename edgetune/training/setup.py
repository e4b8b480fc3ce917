"""The setup of a training run: tasks without trained parts, tokenized rows, a prompt and heads to train."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import set_seed

from edgetune.data.labelled import LabelledText, say
from edgetune.data.sources import Note
from edgetune.training import heads, methods, verbalizer
from edgetune.training.batches import Rows, encode_rows, features_of, targets_of
from edgetune.training.objectives import Scale, objective_of
from edgetune.training.options import TrainingOptions
from edgetune.training.tuner import PromptTuner
from edgetune_export.backbone import Backbone
from edgetune_runtime import contract
from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import DataError
from edgetune_runtime.fitting import balance
from edgetune_runtime.fitting.balance import Spread
from edgetune_runtime.fitting.by_kind import Measure, fitting_of
from edgetune_runtime.fitting.describe import About, about_labels, undescribed
from edgetune_runtime.fitting.draft import fitted_draft, new_draft
from edgetune_runtime.fitting.label_set import label_set
from edgetune_runtime.kinds import Kind
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.task import Task

_MOST_ROWS_OF_A_FIRST_HEAD = 2000  # more would change only the starting point, not the result


@dataclass(frozen=True)
class TaskData:
    """A task to train: its name, its file, and its rows.

    Attributes:
        name: name of the task.
        out: the task file to write.
        train: training texts.
        dev: development texts, which choose the best epoch, and then the temperature and the thresholds.
        kind: the kind of answer.
        pairs: whether each text is a pair of texts.
    """

    name: str
    out: Path
    train: Sequence[LabelledText]
    dev: Sequence[LabelledText]
    kind: Kind = SINGLE_LABEL
    pairs: bool = False


@dataclass(frozen=True)
class Setup:
    """The setup of a training run.

    Attributes:
        tuner: the module to train.
        drafts: the tasks without their trained parts.
        spreads: for each task the spread of its rows over its labels.
        rows: the rows of all tasks, under "train" and "dev", for `Collator`.
        weights: for each task the weight of each label's rows; `None` if all count the same.
        unfitted: indices of the tasks whose heads are still zero; see `fit_first_heads`.
        about: for each task its label descriptions, or `None`.
    """

    tuner: PromptTuner
    drafts: list[Task]
    spreads: list[Spread]
    rows: dict[str, Rows]
    weights: list[Array | None]
    unfitted: list[int]
    about: list[About | None]

    def row_weights(self, place: int, targets: Array) -> Array | None:
        """The weights of a task's rows with these targets; `None` if all count the same. Shape: [rows]."""
        return balance.row_weights(self.weights[place], targets)

    def own(self, split: str, place: int) -> Rows:
        """The rows of one task."""
        return [row for row in self.rows[split] if row["task_index"] == place]

    @property
    def usual(self) -> list[Measure]:
        """For each task, the measure that chooses the epoch if no label is rare."""
        return [fitting_of(draft.kind).measure for draft in self.drafts]

    @property
    def measures(self) -> list[Measure]:
        """For each task, the measure that chooses the epoch."""
        return [spread.measure for spread in self.spreads]


def set_up(backbone: Backbone, tasks: Sequence[TaskData], options: TrainingOptions, note: Note = say) -> Setup:
    """Prepare a training run. Arguments and errors are those of `train`."""
    drafts = [_draft(backbone, one, options) for one in tasks]
    encoded = {
        split: [
            row
            for index, (one, draft) in enumerate(zip(tasks, drafts, strict=True))
            for row in encode_rows(backbone, getattr(one, split), draft, index, note)
        ]
        for split in ("train", "dev")
    }
    scales = [objective_of(one.kind).scale([row.target for row in one.train]) for one in tasks]
    spreads = [
        Spread(draft.labels, [row.target for row in one.train], [row.target for row in one.dev], one.kind)
        for one, draft in zip(tasks, drafts, strict=True)
    ]
    balance.check_class_weight(options.class_weight, spreads)
    about = _about(drafts, options, note)
    weights = [spread.weights(options.class_weight) for spread in spreads]
    tuner, unfitted = _new_tuner(backbone, drafts, encoded["train"], weights, scales, options)
    return Setup(tuner, drafts, spreads, encoded, weights, unfitted, about)


def set_up_again(setup: Setup, options: TrainingOptions) -> Setup:
    """The same tasks and rows with a new prompt and new heads. The options may differ only in the seed."""
    backbone, scales = setup.tuner.backbone, setup.tuner.scales
    tuner, unfitted = _new_tuner(backbone, setup.drafts, setup.rows["train"], setup.weights, scales, options)
    return dataclasses.replace(setup, tuner=tuner, unfitted=unfitted)


def _about(drafts: Sequence[Task], options: TrainingOptions, note: Note) -> list[About | None]:
    """For each task its label descriptions."""
    if len(drafts) > 1 and isinstance(options.descriptions, Mapping):
        raise DataError(f"`descriptions` came with {len(drafts)} tasks: expected them with one; train it alone")
    found = [about_labels(options.descriptions, draft) for draft in drafts]
    for draft, own in zip(drafts, found, strict=True):
        for remark in [] if own is None or own.by_name else undescribed(draft.labels, own.descriptions):
            note(f"{draft.name}: {remark}")
    return found


def fit_first_heads(setup: Setup, options: TrainingOptions) -> None:
    """Fit the heads that have no other initial values to the features of the initial prompt."""
    for place in setup.unfitted:
        own = setup.own("train", place)
        some = random.Random(options.seed).sample(own, min(len(own), _MOST_ROWS_OF_A_FIRST_HEAD))
        inputs, targets = features_of(setup.tuner, some), targets_of(some)
        heads.begin_fitted(setup.tuner, place, setup.drafts[place], inputs, targets, setup.row_weights(place, targets))


def _new_tuner(
    backbone: Backbone,
    drafts: Sequence[Task],
    rows: Rows,
    weights: Sequence[Array | None],
    scales: Sequence[Scale],
    options: TrainingOptions,
) -> tuple[PromptTuner, list[int]]:
    """A module to train, and the indices of the tasks whose heads are still zero."""
    set_seed(options.seed)
    parts = _beginning(backbone, options, drafts, rows)
    new = [heads.new(backbone, draft).requires_grad_(options.train_head) for draft in drafts]
    tuner = PromptTuner(backbone, parts, new, drafts, weights, scales, options.backbone_dropout)
    unfitted = [
        place
        for place, (head, draft) in enumerate(zip(new, drafts, strict=True))
        if not heads.begin_as_told(head, backbone, draft, options.label_words, options.init_from, scales[place])
    ]
    return tuner, unfitted


def _draft(backbone: Backbone, one: TaskData, options: TrainingOptions) -> Task:
    """The task without its trained parts."""
    labels = label_set([row.target for row in one.train], [row.target for row in one.dev], one.kind)
    prompt = options.lengths.get("prompt", 0)
    if max(prompt, _tokens(options)) >= backbone.max_positions:
        raise DataError(
            f"a prompt of {_tokens(options)} tokens leaves no room for text: {backbone.name} has "
            f"{backbone.max_positions} positions"
        )
    embeddings = np.zeros((prompt, backbone.sizes.embedding), np.float32)
    if options.label_words:
        verbalizer.check_mask(backbone, options.template, options.pooling)
    new = new_draft(
        backbone.facts,
        backbone.text_encoder,
        name=one.name,
        labels=labels,
        kind=one.kind,
        pairs=one.pairs,
        pooling=options.pooling,
        template=options.template,
        max_length=options.max_length,
        long_texts=options.long_texts,
        stride=options.stride,
        method=options.title,
    )
    new = dataclasses.replace(
        new,
        tensors={contract.PROMPT_EMBEDDINGS: embeddings} if prompt else {},
        position_offset=_position_offset(backbone, options),
    )
    return fitted_draft(backbone.text_encoder, new)


def _position_offset(backbone: Backbone, options: TrainingOptions) -> int:
    if options.positions_behind_prompt:
        return _tokens(options)
    if options.init_from is not None:
        return options.init_from.position_offset
    return backbone.position_offset(_tokens(options))


def _tokens(options: TrainingOptions) -> int:
    """Number of tokens of the parts before the text's positions."""
    takes = {name for name, training in methods.trainings(options).items() if training.part.takes_positions}
    return sum(length for name, length in options.lengths.items() if name in takes)


def _beginning(
    backbone: Backbone, options: TrainingOptions, drafts: Sequence[Task], rows: Rows
) -> methods.TrainedParts:
    if options.init_from is None:
        ids = [row["input_ids"] for row in rows]
        return methods.begin(options, backbone, ids, [label for draft in drafts for label in draft.labels])
    return methods.begin_from(options, options.init_from)
