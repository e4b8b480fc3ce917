"""Convert between heads of token-level models, which compute logits for every token, and heads of tasks.

The rows of a token classifier are tags; the rows of a question answering model are "it begins here" and "it ends here".
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from edgetune.peft_adapters import files as peft
from edgetune_export.backbone import Backbone
from edgetune_export.own_head import OF_ANSWERS, OF_WORDS, last_layer
from edgetune_runtime.decoding import rows_of_tags
from edgetune_runtime.errors import DataError, TaskError
from edgetune_runtime.kinds import Kind
from edgetune_runtime.kinds.spans import LABEL, SPANS
from edgetune_runtime.kinds.tokens import TOKENS

KINDS: dict[str, Kind] = {peft.TOKEN_CLS: TOKENS, peft.QUESTION_ANS: SPANS}
"""PEFT's task types with such heads → the kind of answer."""

_OF = {TOKENS: OF_WORDS, SPANS: OF_ANSWERS}
NAMED = {TOKENS: "token classifier", SPANS: "model that answers questions"}
"""Names of such models for people."""

POOLINGS = {kind: of.pooling for kind, of in _OF.items()}
"""The pooling for an adapter's head: tags are at a word's first token, as in transformers' guides; an answer begins at
a word's first token and ends at its last one."""

OUTPUTS = ("start", "end")
"""Outputs of a question answering model."""


def task_type(kind: Kind) -> str | None:
    """PEFT's task type for a kind of answer; `None` if it has another head."""
    return next((name for name, own in KINDS.items() if own is kind), None)


def module_of(backbone: Backbone, origin: str, kind: Kind) -> str:
    """Name in transformers of the last layer of a model with such answers on this backbone.

    Raises:
        TaskError: there is no such model, or its head has more than one linear layer.
    """
    found = last_layer(backbone.config, _OF[kind])
    if found is None:
        raise TaskError(
            f"{origin} is a {NAMED[kind]}: on {backbone.architecture} it has none, or one with layers that are "
            f"not linear, and a task's head is linear; train it again with 'edgetune train'"
        )
    return found


def read(
    kind: Kind, names: Sequence[str], weight: Tensor, bias: Tensor, origin: str
) -> tuple[tuple[str, ...], Tensor, Tensor]:
    """Labels, and weight and bias with their rows in the order of a task's head.

    Args:
        kind: the kind of answer.
        names: names of the rows.
        weight, bias: the model's head.
        origin: how errors refer to it.

    Raises:
        DataError: the rows of a token classifier are not `O`, and `B-` and `I-` of each label.
        TaskError: a question answering model does not have exactly two rows.
    """
    if kind is SPANS:
        if len(weight) != len(OUTPUTS):
            raise TaskError(
                f"{origin} has a head of {len(weight)} outputs: expected two, where an answer begins and ends"
            )
        return (LABEL,), weight, bias
    try:
        labels, rows = rows_of_tags(names)
    except ValueError as error:
        raise DataError(f"{origin} has {error}; name them in the order of its outputs with `labels`") from error
    return labels, weight[rows], bias[rows]


def write(backbone: Backbone, origin: str, kind: Kind, weight: Tensor, bias: Tensor, inside: str) -> dict[str, Tensor]:
    """A task's head as the head of such a model; `inside` is the prefix of PEFT's names.

    Raises:
        TaskError: see `module_of`.
    """
    module = module_of(backbone, origin, kind)
    return {f"{inside}{module}.weight": weight, f"{inside}{module}.bias": bias}
