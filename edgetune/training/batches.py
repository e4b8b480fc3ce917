"""Labelled texts for `Trainer`: token ids and targets, by row and by batch."""

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
from edgetune_runtime.fitting.examples import Examples
from edgetune_runtime.kinds import Kind
from edgetune_runtime.task import Task

if TYPE_CHECKING:
    from edgetune.training.tuner import PromptTuner

Rows = list[dict[str, Any]]

NO_TEXT = -1
"""Text number of spans that only pad a row of a batch. All negative numbers mean the same, because `Trainer` pads with
its own."""

BATCH_SIZE = 64
"""Number of rows per batch without training."""


class DivergedError(EdgetuneError):
    """Training ended with numbers that are not finite."""

    def __init__(self) -> None:
        super().__init__(
            "the training diverged: it ended in numbers that are not finite; train with a lower `learning_rate`, or "
            "without `mixed_precision`"
        )


def encode_rows(
    backbone: Backbone, rows: Sequence[LabelledText], draft: Task, index: int = 0, note: Note = say
) -> Rows:
    """Rows for `Trainer`: tokens as the trained task will read them, index of the task, target of each span.

    A text in windows gives one row per window, with the same number under "text".
    """
    encoder = backbone.text_encoder
    tokens = encoder.encode([row.given for row in rows], [draft] * len(rows))
    cut = sum(row.truncated for row in tokens)
    if cut:
        note(f"{cut} of {len(rows)} texts are longer than {encoder.max_length(draft)} tokens: their ends are not read")
    examples = Examples.of(draft.kind, [row.target for row in rows], [row.read for row in tokens], draft.labels)
    for remark in examples.remarks:
        note(f"{draft.name}: {remark}")
    found: Rows = []
    for place, (token, own) in enumerate(zip(tokens, examples.numbers_by_text, strict=True)):
        left = own
        for window in token.windows:
            numbers = left[: len(window.spans)] if window.by_piece else own
            left = left[len(window.spans) :]
            given = {"target": rows[place].target, "read": token.read}
            found.append(
                {"input_ids": window.ids, "tokens": window, "task_index": index, "labels": numbers, "text": place}
                | given
            )
    return found


class Collator:
    """Makes batches of rows from `encode_rows`, for the tuner's forward.

    Targets of tasks with fewer numbers than others are padded with zeros.

    Args:
        facts: the backbone's facts.
        width: length of the longest target of any task.
    """

    def __init__(self, facts: BackboneFacts, width: int) -> None:
        self._facts, self._width = facts, width

    def __call__(self, rows: Rows) -> dict[str, Tensor]:
        """A batch.

        Shape:
            labels: [batch, most spans, numbers]
            text: [batch, most spans]; negative for padding
            task_index: [batch]
        """
        most = max(1, *(len(row["labels"]) for row in rows))
        labels = torch.zeros(len(rows), most, self._width)
        text = torch.full((len(rows), most), NO_TEXT)
        for place, row in enumerate(rows):
            spans, numbers = row["labels"].shape
            labels[place, :spans, :numbers] = torch.from_numpy(row["labels"])
            text[place, :spans] = row["text"]
        task_index = torch.tensor([row["task_index"] for row in rows])
        given = {"task_index": task_index, "text": text, "labels": labels}
        return {**batch([row["tokens"] for row in rows], self._facts), **given}


def width_of(rows: Rows) -> int:
    """Length of the longest target."""
    return max(row["labels"].shape[1] for row in rows)


def targets_of(rows: Rows) -> Array:
    """Numeric targets of the spans of rows. Shape: [spans, numbers]."""
    return np.concatenate([row["labels"] for row in rows])


def features_of(tuner: PromptTuner, rows: Rows) -> Array:
    """Features of the spans of rows, with the current parts. Shape: [spans, hidden]."""
    collate = Collator(tuner.backbone.facts, width_of(rows))
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]["input_ids"]))
    device = next(tuner.heads.parameters()).device
    found: list[Array] = [np.zeros((0, tuner.backbone.sizes.hidden), np.float32)] * len(rows)
    with torch.no_grad():
        for start in range(0, len(order), BATCH_SIZE):
            places = order[start : start + BATCH_SIZE]
            batched = {name: tensor.to(device) for name, tensor in collate([rows[place] for place in places]).items()}
            for place, own in zip(places, tuner.features(**batched).float().cpu().numpy(), strict=True):
                found[place] = own[: len(rows[place]["labels"])]
    return np.concatenate(found)


def text_features(tuner: PromptTuner, rows: Rows) -> Array:
    """Features of the texts of one task; for a text in windows, the mean.

    Shape:
        output: [texts, hidden]; if the task's kind has a `reading`, [pieces, hidden]
    """
    found = features_of(tuner, rows)
    if not np.isfinite(found).all():
        raise DivergedError
    text = np.repeat([row["text"] for row in rows], [len(row["labels"]) for row in rows])
    return texts_of(found, found, text, rows[0]["tokens"].by_piece)[0]


def examples_of(kind: Kind, rows: Rows) -> Examples:
    """The texts of rows of one task, in the order of `text_features`."""
    windows: dict[int, Rows] = {}
    for row in rows:
        windows.setdefault(row["text"], []).append(row)
    own = [windows[text] for text in sorted(windows)]
    numbers = [targets_of(some if some[0]["tokens"].by_piece else some[:1]) for some in own]
    return Examples(
        kind,
        [some[0]["target"] for some in own],
        [some[0]["read"] for some in own],
        np.concatenate(numbers),
        np.repeat(np.arange(len(own)), list(map(len, numbers))),
    )


def texts_of(logits: Array, targets: Array, text: Array, by_piece: bool = False) -> tuple[Array, Array]:
    """Logits and targets of the texts of one task, given those of their windows. Logits are averaged.

    Args:
        text: the text to which each window belongs.
        by_piece: whether texts are answered piece by piece; then rows are only sorted by text.

    Shape:
        logits: [windows, labels] → [texts, labels]
        targets: [windows, numbers] → [texts, numbers]
        text: [windows]
    """
    order = np.argsort(text, kind="stable")
    if by_piece:
        return logits[order], targets[order]
    _, first = np.unique(text[order], return_index=True)
    if len(first) == len(text):
        return logits, targets
    return np.stack([own.mean(axis=0) for own in np.split(logits[order], first[1:])]), targets[order][first]
