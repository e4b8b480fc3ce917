"""Labelled texts as `Trainer` takes them: token ids and targets, by row and by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from edgetune.data.labelled import LabelledText, say
from edgetune.data.sources import Note
from edgetune_export.backbone import Backbone, batch
from edgetune_runtime.arrays import Array
from edgetune_runtime.errors import EdgetuneError
from edgetune_runtime.facts import BackboneFacts
from edgetune_runtime.fitting.by_kind import fitting_of
from edgetune_runtime.task import Task

if TYPE_CHECKING:
    from edgetune.training.tuner import PromptTuner

Rows = list[dict[str, Any]]

BATCH_SIZE = 64
"""Rows per batch if nothing is learned from them."""


class DivergedError(EdgetuneError):
    """A training that ended in numbers that are not finite."""

    def __init__(self) -> None:
        super().__init__(
            "the training diverged: it ended in numbers that are not finite; train with a lower `learning_rate`, or "
            "without `mixed_precision`"
        )


def encode_rows(
    backbone: Backbone, rows: Sequence[LabelledText], draft: Task, index: int = 0, note: Note = say
) -> Rows:
    """Rows as `Trainer` takes them: tokens, as the trained task will read them, place of the task, target.

    A text that is read in windows gives a row for each, with the same number under "text".
    """
    encoder = backbone.text_encoder
    tokens = encoder.encode([row.given for row in rows], [draft] * len(rows))
    cut = sum(row.truncated for row in tokens)
    if cut:
        note(f"{cut} of {len(rows)} texts are longer than {encoder.max_length(draft)} tokens: their ends are not read")
    encode = fitting_of(draft.kind).encode
    return [
        {
            "input_ids": window.ids,
            "tokens": window,
            "task_index": index,
            "labels": encode(row.target, draft.labels),
            "text": place,
        }
        for place, (token, row) in enumerate(zip(tokens, rows, strict=True))
        for window in token.windows
    ]


class Collator:
    """Makes batches of rows from `encode_rows`, as the tuner's forward takes them.

    Targets of tasks with fewer numbers than another are filled up with zeros.

    Args:
        facts: of the backbone.
        width: numbers of the longest target of any task.
    """

    def __init__(self, facts: BackboneFacts, width: int) -> None:
        self._facts, self._width = facts, width

    def __call__(self, rows: Rows) -> dict[str, Tensor]:
        """A batch."""
        labels = torch.zeros(len(rows), self._width)
        for place, row in enumerate(rows):
            labels[place, : len(row["labels"])] = torch.tensor(row["labels"])
        numbers = {name: torch.tensor([row[name] for row in rows]) for name in ("task_index", "text")}
        return {**batch([row["tokens"] for row in rows], self._facts), **numbers, "labels": labels}


def targets_of(rows: Rows) -> Array:
    """Targets of rows as numbers. Shape: [rows, numbers]."""
    return np.array([row["labels"] for row in rows])


def features_of(tuner: PromptTuner, rows: Rows) -> Array:
    """What the heads read of rows, with the parts as they are now. Shape: [rows, hidden]."""
    collate = Collator(tuner.backbone.facts, max(len(row["labels"]) for row in rows))
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]["input_ids"]))
    device = next(tuner.heads.parameters()).device
    found = np.zeros((len(rows), tuner.backbone.sizes.hidden), np.float32)
    with torch.no_grad():
        for start in range(0, len(order), BATCH_SIZE):
            places = order[start : start + BATCH_SIZE]
            batched = {name: tensor.to(device) for name, tensor in collate([rows[place] for place in places]).items()}
            found[places] = tuner.features(**batched).float().cpu().numpy()
    return found


def text_features(tuner: PromptTuner, rows: Rows) -> Array:
    """What the head reads of the texts of one task: of a text in windows, the mean. Shape: [texts, hidden]."""
    found, text = features_of(tuner, rows), np.array([row["text"] for row in rows])
    if not np.isfinite(found).all():
        raise DivergedError
    return texts_of(found, found, text)[0]


def text_targets(rows: Rows) -> Array:
    """Targets of the texts, in the order of `text_features`. Shape: [texts, numbers]."""
    first = {row["text"]: row for row in reversed(rows)}
    return targets_of([first[text] for text in sorted(first)])


def texts_of(logits: Array, targets: Array, text: Array) -> tuple[Array, Array]:
    """Logits and targets of the texts of one task, given those of their windows: logits are averaged.

    Args:
        text: which text each window belongs to.

    Shape:
        logits: [windows, labels] → [texts, labels]
        targets: [windows, numbers] → [texts, numbers]
        text: [windows]
    """
    order = np.argsort(text, kind="stable")
    _, first = np.unique(text[order], return_index=True)
    if len(first) == len(text):
        return logits, targets
    return np.stack([own.mean(axis=0) for own in np.split(logits[order], first[1:])]), targets[order][first]
