"""Rows that share a pass: equal tokens with equal parts go through the backbone only once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgetune_runtime import contract
from edgetune_runtime.arrays import Array
from edgetune_runtime.passes import Pass, Runner
from edgetune_runtime.pieces import Span
from edgetune_runtime.task import Task
from edgetune_runtime.text import Tokens


def shared_passes(
    rows: Sequence[tuple[Tokens, Task]], runner: Runner
) -> tuple[list[Pass], list[tuple[int, tuple[int, ...]]]]:
    """The passes that rows need, and for each row its pass and the indices of its spans in that pass."""
    if len(rows) == 1:
        ((tokens, task),) = rows
        return [Pass(tokens, task)], [(0, tuple(range(len(tokens.spans))))]
    passes: dict[Any, int] = {}
    found: list[tuple[Tokens, Task, dict[Span, int]]] = []
    places = []
    for tokens, task in rows:
        key = (tuple(tokens.ids), tuple(tokens.type_ids), runner.parts(task))
        place = passes.setdefault(key, len(found))
        if place == len(found):
            found.append((tokens, task, {}))
        spans = found[place][2]
        places.append((place, tuple(spans.setdefault(span, len(spans)) for span in tokens.spans)))
    return [
        Pass(Tokens(tokens.ids, tokens.truncated, tokens.type_ids, tuple(spans)), task) for tokens, task, spans in found
    ], places


def head_logits(features: Array, task: Task) -> Array:
    """A task's logits.

    BLAS is not used: it would start its own threads, and its sums depend on the number of rows. This way a task's
    logits are bit-identical whatever else shares the pass.

    Shape:
        features: [spans, hidden]
        output: [spans, labels]; if the pooling reads a span for each row of the head, [pieces, rows of the head]
    """
    weight, bias = task.head
    logits: Array = np.einsum("sh,lh->sl", features, weight) + bias
    return of_pieces(logits, task)


def of_pieces(logits: Array, task: Task) -> Array:
    """Logits of pieces, given the logits of their spans. For `contract.ENDS`, each row of the head uses its own span.

    Shape:
        logits: [spans, rows of the head]
        output: [spans, rows of the head], or [pieces, rows of the head]
    """
    number = len(contract.reads(task.pooling))
    if number == 1:
        return logits
    found: Array = np.ascontiguousarray(logits.reshape(-1, number, number).diagonal(axis1=1, axis2=2))
    return found
