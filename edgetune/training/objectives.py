"""How each kind of answer is trained: the parts that fitting uses too (`edgetune_runtime.fitting.by_kind`), and a loss.

A new kind is an entry in `OBJECTIVES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from edgetune_runtime.fitting.by_kind import FITTINGS, Fitting
from edgetune_runtime.kinds import Kind, Target
from edgetune_runtime.kinds.multi_label import MULTI_LABEL
from edgetune_runtime.kinds.score import SCORE
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.kinds.spans import SPANS
from edgetune_runtime.kinds.tokens import TOKENS


@dataclass(frozen=True)
class Scale:
    """A head's outputs are multiplied by the spread of the targets, and then the mean of the targets is added."""

    factor: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class Objective:
    """How tasks of one kind are trained.

    Attributes:
        fitting: numeric targets, measures, and fitting without gradients.
        loss: the loss of each row, which is a text or a piece of a text. Shape: logits [rows, labels], targets
            [rows, numbers] → [rows].
        scale: computes the scale of the head's outputs from the training targets.
    """

    fitting: Fitting
    loss: Callable[[Tensor, Tensor], Tensor]
    scale: Callable[[Sequence[Target]], Scale] = lambda _: Scale()


def objective_of(kind: Kind) -> Objective:
    """How tasks of a kind are trained."""
    return OBJECTIVES[kind.name]


def _mean_and_spread(targets: Sequence[Target]) -> Scale:
    """The scale from a head's outputs, which are about 1, to the targets."""
    values = np.array(targets, np.float64)
    return Scale(float(values.std()) or 1.0, float(values.mean()))


def _pointing_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The same as `fitting.pointers.losses`: for each window, the cross-entropies of an answer's begin and end."""
    is_first = targets[:, 0] < 0
    window = is_first.long().cumsum(0) - 1
    ends = targets[:, 1].long()
    right = torch.stack([ends & 1, ends >> 1], dim=1).to(logits.dtype)
    empty = logits.new_zeros(int(is_first.sum()), 2)
    each = window[:, None].expand_as(logits)
    largest = (empty - torch.inf).scatter_reduce(0, each, logits.detach(), "amax")
    sums = largest + empty.index_add(0, window, (logits - largest[window]).exp()).log()
    count = empty.index_add(0, window, right)
    losses = torch.where(count > 0, sums - empty.index_add(0, window, logits * right), 0.0)
    teaching = (count > 0).any(dim=1).sum().clamp(min=1)
    found: Tensor = is_first * (losses.sum(dim=1) / 2 * len(logits) / teaching)[window]
    return found


OBJECTIVES: dict[str, Objective] = {
    SINGLE_LABEL.name: Objective(
        FITTINGS[SINGLE_LABEL.name],
        loss=lambda logits, targets: nn.functional.cross_entropy(logits, targets[:, 0].long(), reduction="none"),
    ),
    TOKENS.name: Objective(
        FITTINGS[TOKENS.name],
        loss=lambda logits, targets: nn.functional.cross_entropy(logits, targets[:, 0].long(), reduction="none"),
    ),
    SPANS.name: Objective(FITTINGS[SPANS.name], loss=_pointing_loss),
    MULTI_LABEL.name: Objective(
        FITTINGS[MULTI_LABEL.name],
        # Summed over labels, because a mean would become smaller with more labels, and so would the training steps.
        loss=lambda logits, targets: nn.functional.binary_cross_entropy_with_logits(
            logits, targets, reduction="none"
        ).sum(dim=1),
    ),
    SCORE.name: Objective(
        FITTINGS[SCORE.name],
        loss=lambda logits, targets: (logits[:, 0] - targets[:, 0]).square(),
        scale=_mean_and_spread,
    ),
}
"""Kind → how it is trained."""
