"""Kinds of answer: one module and one entry in `KINDS` per kind.

A kind defines how labels are read from data, how logits become an answer, how the answer looks in JSON, tables and
protocols, and how the quality of answers is measured. `edgetune.training.objectives` defines how it is trained.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgetune_runtime.kinds.kind import Answer, Entity, Figures, Kind, Read, Result, Status, Target
from edgetune_runtime.kinds.multi_label import MULTI_LABEL, LabelsResult
from edgetune_runtime.kinds.score import SCORE, ScoreResult
from edgetune_runtime.kinds.single_label import SINGLE_LABEL, LabelResult, probabilities
from edgetune_runtime.kinds.spans import SPANS, AnswerResult
from edgetune_runtime.kinds.tokens import TOKENS, EntitiesResult, FoundEntity

__all__ = [
    "KINDS",
    "Answer",
    "AnswerResult",
    "EntitiesResult",
    "Entity",
    "Figures",
    "FoundEntity",
    "Kind",
    "LabelResult",
    "LabelsResult",
    "Read",
    "Result",
    "ScoreResult",
    "Status",
    "Target",
    "kind_seen",
    "probabilities",
]

KINDS: dict[str, Kind] = {kind.name: kind for kind in (SPANS, TOKENS, MULTI_LABEL, SCORE, SINGLE_LABEL)}
"""Name → kind. The first kind that recognizes the data is used, so the kind that accepts everything comes last."""


def kind_seen(values: Sequence[object]) -> Kind:
    """The kind that a column of labels looks like."""
    return next(kind for kind in KINDS.values() if kind.sees(values))
