"""What a training begins with: tasks without what they will learn, rows as tokens, a prompt and heads to train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import set_seed

from edgetune.data.labelled import LabelledText, say
from edgetune.data.sources import Note
from edgetune.data.splits import label_set
from edgetune.training import balance, heads, prompts, verbalizer
from edgetune.training.balance import Spread
from edgetune.training.batches import Rows, encode_rows
from edgetune.training.objectives import Measure, objective_of
from edgetune.training.options import TrainingOptions
from edgetune.training.tuner import PromptTuner
from edgetune_export.backbone import Backbone
from edgetune_runtime import contract
from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import DataError
from edgetune_runtime.kinds import Kind
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.task import Task


@dataclass(frozen=True)
class TaskData:
    """A task to train: its name, where it goes, and its rows.

    Attributes:
        name: name of the task.
        out: the task file to write.
        train: texts to learn from.
        dev: texts that choose the best epoch, and then the temperature and the thresholds.
        kind: what an answer is.
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
    """What a training begins with.

    Attributes:
        tuner: the module to train.
        drafts: the tasks but for what they will learn.
        spreads: for each task, how its rows are spread over its labels.
        rows: the rows of all tasks, under "train" and "dev", as `Collator` takes them.
    """

    tuner: PromptTuner
    drafts: list[Task]
    spreads: list[Spread]
    rows: dict[str, Rows]

    @property
    def usual(self) -> list[Measure]:
        """For each task, by what the epoch is chosen if no label is rare."""
        return [objective_of(draft.kind).measure for draft in self.drafts]

    @property
    def measures(self) -> list[Measure]:
        """For each task, by what the epoch is chosen."""
        return [spread.measure for spread in self.spreads]


def set_up(backbone: Backbone, tasks: Sequence[TaskData], options: TrainingOptions, note: Note = say) -> Setup:
    """Make ready what a training begins with. Arguments and errors are those of `train`."""
    drafts = [_draft(backbone, one, options) for one in tasks]
    set_seed(options.seed)
    encoded = {
        split: [
            row
            for index, (one, draft) in enumerate(zip(tasks, drafts, strict=True))
            for row in encode_rows(backbone, getattr(one, split), draft, index, note)
        ]
        for split in ("train", "dev")
    }
    prompt = _beginning(backbone, options, drafts, encoded["train"])
    scales = [objective_of(one.kind).scale([row.target for row in one.train]) for one in tasks]
    new = [
        heads.begin(backbone, draft, _targets(encoded["train"], place), options.label_words, options.init_from, scale)
        for place, (draft, scale) in enumerate(zip(drafts, scales, strict=True))
    ]
    spreads = [Spread(draft.labels, one.train, one.dev, one.kind) for one, draft in zip(tasks, drafts, strict=True)]
    balance.check_class_weight(options.class_weight, spreads)
    weights = [spread.weights(options.class_weight) for spread in spreads]
    heads_to_train = [head.requires_grad_(options.train_head) for head in new]
    return Setup(PromptTuner(backbone, prompt, heads_to_train, drafts, weights, scales), drafts, spreads, encoded)


def _targets(rows: Rows, place: int) -> Array:
    """The targets of one task's rows. Shape: [rows, numbers]."""
    return np.array([row["labels"] for row in rows if row["task_index"] == place])


def _draft(backbone: Backbone, one: TaskData, options: TrainingOptions) -> Task:
    """The task but for what it will learn."""
    labels = label_set(one.train, one.dev, one.kind)
    if options.prompt_length >= backbone.max_positions:
        raise DataError(
            f"a prompt of {options.prompt_length} tokens leaves no room for text: {backbone.name} has "
            f"{backbone.max_positions} positions"
        )
    embeddings = np.zeros((options.prompt_length, backbone.sizes.embedding), np.float32)
    feeds_prompt = contract.PROMPT_EMBEDDINGS in prompts.METHODS[options.method].prompt.names
    template = _template(backbone, one, options)
    in_segments = one.pairs and contract.TEXT_PAIR_SLOT not in template and backbone.has_segments
    draft = Task(
        name=one.name,
        labels=labels,
        backbone_sha256=backbone.facts.sha256,
        tensors={contract.PROMPT_EMBEDDINGS: embeddings} if feeds_prompt else {},
        method=options.method,
        base_model=backbone.name,
        pooling=verbalizer.pooling_of(backbone, template, options.pooling, options.label_words, one.pairs),
        position_offset=_position_offset(backbone, options),
        template=template,
        max_length=options.max_length,
        kind_name=one.kind.name,
        pairs=one.pairs,
        long_texts=options.long_texts,
        stride=options.stride if options.long_texts == contract.WINDOWS else 0,
        graph_inputs=(contract.TOKEN_TYPE_IDS,) if in_segments else (),
    )
    draft = backbone.text_encoder.fitted(draft)
    if draft.stride >= draft.max_length:
        raise DataError(
            f"`stride` {draft.stride} came for windows of {draft.max_length} tokens, which would not move on: expected "
            f"a lower `stride`, or a higher `max_length`"
        )
    return draft


def _template(backbone: Backbone, one: TaskData, options: TrainingOptions) -> str:
    """The template; pairs that the tokenizer would join without anything between them are set apart by a line break."""
    plain = one.pairs and options.template == contract.TEXT_SLOT
    if plain and not backbone.text_encoder.separates_pairs:
        return f"{contract.TEXT_SLOT}\n{contract.TEXT_PAIR_SLOT}"
    return options.template


def _position_offset(backbone: Backbone, options: TrainingOptions) -> int:
    if not prompts.METHODS[options.method].prompt.takes_positions:
        return 0
    if options.positions_behind_prompt:
        return options.prompt_length
    if options.init_from is not None:
        return options.init_from.position_offset
    return backbone.position_offset(options.prompt_length)


def _beginning(backbone: Backbone, options: TrainingOptions, drafts: Sequence[Task], rows: Rows) -> prompts.Prompt:
    if options.init_from is None:
        ids = [row["input_ids"] for row in rows]
        labels = [label for draft in drafts for label in draft.labels]
        return prompts.begin(
            options.method, backbone, options.prompt_length, options.init, ids, labels, options.init_text
        )
    backbone.facts.check(options.init_from)
    return prompts.begin_from(options.method, options.init_from)
