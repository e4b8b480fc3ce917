"""Labelled texts as `Trainer` takes them: token ids and places, a row and a batch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from edgetune.data.labelled import LabelledText
from edgetune_export.backbone import Backbone, pad
from edgetune_runtime.task import Task

Rows = list[dict[str, Any]]


def encode_rows(backbone: Backbone, rows: Sequence[LabelledText], draft: Task, index: int = 0) -> Rows:
    """Rows as `Trainer` takes them: token ids, as the trained task will read them, and places of task and label."""
    encoder = backbone.text_encoder
    tokens = encoder.encode([row.text for row in rows], [draft] * len(rows))
    cut = sum(row.truncated for row in tokens)
    if cut:
        print(
            f"{cut} of {len(rows)} texts are longer than {encoder.max_length(draft)} tokens: their ends are not read",
            file=sys.stderr,
        )
    places = {label: place for place, label in enumerate(draft.labels)}
    return [
        {"input_ids": token.ids, "task_index": index, "labels": places[row.label]}
        for token, row in zip(tokens, rows, strict=True)
    ]


def collate(rows: Rows) -> dict[str, Tensor]:
    """A batch of rows from `encode_rows`, as the tuner's forward takes it."""
    input_ids, attention_mask = pad([row["input_ids"] for row in rows])
    places = {name: torch.tensor([row[name] for row in rows]) for name in ("task_index", "labels")}
    return {"input_ids": input_ids, "attention_mask": attention_mask, **places}
