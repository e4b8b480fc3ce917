"""What a task's linear head begins as: label words, another task's head, or a regression on the features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from edgetune import verbalizer
from edgetune.tuner import PromptTuner
from edgetune_export.backbone import Backbone
from edgetune_runtime import contract
from edgetune_runtime.task import Task

HEAD_INITS = ("regression", "random")
"""What a head begins as that neither label words nor another task give."""


def given_head(
    backbone: Backbone, draft: Task, label_words: verbalizer.LabelWords | None, origin: Task | None
) -> tuple[Tensor, Tensor] | None:
    """The head that label words give, or else a task of the same labels and pooling; `None` where neither does.

    Shape:
        weight: [labels, hidden]
        bias: [labels]
    """
    if label_words is not None:
        return verbalizer.head(backbone, label_words, draft.labels)
    if origin is not None and (origin.labels, origin.pooling) == (draft.labels, draft.pooling):
        weight, bias = (origin.tensors[name] for name in (contract.HEAD_WEIGHT, contract.HEAD_BIAS))
        return torch.from_numpy(weight), torch.from_numpy(bias)
    return None


def new_head(backbone: Backbone, draft: Task, given: tuple[Tensor, Tensor] | None) -> nn.Linear:
    """A head of these numbers, or of small random ones."""
    head = nn.Linear(backbone.sizes.hidden, len(draft.labels))
    nn.init.normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    if given is not None:
        with torch.no_grad():
            head.weight.copy_(given[0])
            head.bias.copy_(given[1])
    return head


def fit_by_regression(tuner: PromptTuner, batches: Iterable[Mapping[str, Tensor]], places: Iterable[int]) -> None:
    """Fit the heads of these tasks to the features that the prompt, as it begins, gives.

    A head that is right from the first step does not pull the prompt in random directions (linear probing before
    fine-tuning, Kumar et al. 2022). Logistic regression, with the penalty that scikit-learn has by default.

    Args:
        tuner: the module to train.
        batches: what its forward takes.
        places: of the tasks whose heads are fitted.
    """
    found = [(tuner.features(batch), batch["task_index"], batch["labels"]) for batch in batches]
    features, index, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    for place in places:
        own = index == place
        _regress(tuner.heads[place], features[own], labels[own])


def _regress(head: nn.Module, features: Tensor, labels: Tensor) -> None:
    weight, bias = head.parameters()
    center, scale = features.mean(dim=0), features.std().clamp(min=torch.finfo(features.dtype).tiny)
    inputs = (features - center) / scale
    fitted = [torch.zeros_like(weight, requires_grad=True), torch.zeros_like(bias, requires_grad=True)]
    search = torch.optim.LBFGS(fitted, max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        penalty = fitted[0].square().sum() / (2 * len(labels))
        total = nn.functional.cross_entropy(nn.functional.linear(inputs, *fitted), labels) + penalty
        total.backward()  # type: ignore[no-untyped-call]
        return total

    search.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        weight.copy_(fitted[0] / scale)
        bias.copy_(fitted[1] - weight @ center)
