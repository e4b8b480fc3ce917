"""Training methods: the parts that they train, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from edgetune.training.added import LowRank, Units
from edgetune.training.options import AUTO, EPOCHS, INITS, METHODS, PREFIX, STRONG, TrainingOptions
from edgetune.training.prompts import (
    Perceptron,
    Prefix,
    PrefixPerceptron,
    Recurrent,
    Residual,
    SoftPrompt,
    running_text,
)
from edgetune.training.trained import Tensors, TrainedPart
from edgetune_export.backbone import Backbone
from edgetune_runtime import contract
from edgetune_runtime.errors import TaskError
from edgetune_runtime.parts import titled_lengths
from edgetune_runtime.task import Task


@dataclass(frozen=True)
class Training:
    """How one part is trained.

    Attributes:
        part: the class of the part.
        learning_rate: its usual learning rate.
        weight_decay: weight decay for AdamW.
        reparameterization: creates the network that the part passes through, given its initial value.
        starts_anywhere: whether it can start from a given part, such as another task's.
    """

    part: type[TrainedPart]
    learning_rate: float
    weight_decay: float = 0.0
    reparameterization: Callable[[Tensors], nn.Module] = lambda _: nn.Identity()
    starts_anywhere: bool = True


_PROMPT, _PREFIX = Training(SoftPrompt, 1e-2), Training(Prefix, 2e-2)

TRAININGS: dict[str, Training] = {
    "prompt": _PROMPT,
    "prefix": _PREFIX,
    "low-rank": Training(LowRank, 2e-3, weight_decay=0.01),
    "units": Training(Units, 2e-3, weight_decay=0.01),
}
"""Part of `options.PART_NAMES` → how it is trained."""

REPARAMETERIZED: dict[str, Training] = {
    "prefix-mlp": replace(_PREFIX, learning_rate=1e-3, reparameterization=PrefixPerceptron),
    "prompt-residual": replace(_PROMPT, reparameterization=Residual),
    "p-tuning-mlp": replace(_PROMPT, learning_rate=1e-3, reparameterization=Perceptron, starts_anywhere=False),
    "p-tuning-lstm": replace(_PROMPT, learning_rate=1e-3, reparameterization=Recurrent, starts_anywhere=False),
}
"""Method → how its only part is trained, if that differs from `TRAININGS`."""


def chosen(options: TrainingOptions, recipe: str, backbone: Backbone) -> TrainingOptions:
    """Replace the method "auto" in options.

    The method is `STRONG` for an encoder that is trained in epochs. It is `PREFIX` for few rows (strong is not better
    there), for decoders (strong was not measured there), if an option is set that only prompts have, and if the
    backbone does not support all parts of strong. A task that starts from another task has the same parts.
    """
    if options.method != AUTO or options.parts is not None:
        return options
    if options.init_from is not None:
        has = titled_lengths(options.init_from.tensors)
        alike = [name for name in (PREFIX, "prompt", "lora", "units", STRONG) if METHODS[name].keys() == has.keys()]
        return replace(options, parts=has) if has and not alike else replace(options, method=[*alike, PREFIX][0])
    about_prompts = (
        options.prompt_length is not None
        or options.init != INITS[0]
        or options.label_words is not None
        or options.positions_behind_prompt
    )
    has_place = all(TRAININGS[name].part.has_place(backbone) for name in METHODS[STRONG])
    is_encoder = backbone.family.language_model == "fill-mask"
    is_strong = recipe == EPOCHS and is_encoder and has_place and not about_prompts
    return replace(options, method=STRONG if is_strong else PREFIX)


def trainings(options: TrainingOptions) -> dict[str, Training]:
    """How each of the trained parts is trained."""
    return {name: REPARAMETERIZED.get(options.method, TRAININGS[name]) for name in options.lengths}


class TrainedParts(nn.Module):
    """All parts that are trained together.

    Args:
        parts: name in `options.PART_NAMES` → the part.
    """

    def __init__(self, parts: Mapping[str, TrainedPart]) -> None:
        super().__init__()
        self.each = nn.ModuleDict(parts)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of all parts in the graph's form, without the tasks dimension."""
        found: dict[str, Tensor] = {}
        for part in self.each.values():
            found |= part.tensors()  # type: ignore[operator]
        return found

    @property
    def is_empty(self) -> bool:
        """Whether there are no parts."""
        return not any(one.numel() for one in self.parameters())

    def groups(self, options: TrainingOptions) -> list[dict[str, Any]]:
        """Parameter groups for PyTorch's optimizers, with learning rates and weight decays."""
        return [
            {
                "params": list(self.each[name].parameters()),
                "lr": options.learning_rate or training.learning_rate,
                "weight_decay": training.weight_decay,
            }
            for name, training in trainings(options).items()
        ]


def begin(
    options: TrainingOptions, backbone: Backbone, rows: Sequence[Sequence[int]], labels: Sequence[str] = ()
) -> TrainedParts:
    """New parts, according to the options.

    Args:
        options: the parts, their lengths, and the initial values of prompts.
        backbone: the frozen backbone.
        rows: token ids of training texts, for the init "data".
        labels: for the init "labels".

    Raises:
        BackboneError: the backbone does not support a part.
        DataError: the text for a prompt's initial value has no tokens.
    """
    found: dict[str, TrainedPart] = {}
    for name, training in trainings(options).items():
        length = options.lengths[name]
        text = partial(running_text, backbone, length, options.init, rows, labels, options.init_text)
        found[name] = _build(training, training.part.start(backbone, length, text))
    return TrainedParts(found)


def begin_from(options: TrainingOptions, task: Task) -> TrainedParts:
    """Parts that start from those of a stored task (prompt transfer, Vu et al. 2022).

    `lengths_from` gives their lengths.
    """
    given = {name: torch.from_numpy(tensor) for name, tensor in task.tensors.items()}
    if contract.PROMPT_SOURCE in given:
        given[contract.PROMPT_EMBEDDINGS] = given[contract.PROMPT_SOURCE]
    return TrainedParts(
        {
            name: _build(training, {one: given[one] for one in training.part.names if one in given})
            for name, training in trainings(options).items()
        }
    )


def lengths_from(options: TrainingOptions, task: Task) -> dict[str, int]:
    """The lengths of the parts that start from those of a stored task.

    Raises:
        TaskError: the task lacks one of them, or the method cannot start from given parts.
    """
    source = len(task.tensors.get(contract.PROMPT_SOURCE, ()))
    has = {**titled_lengths(task.tensors), **({"prompt": source} if source else {})}
    for name, training in trainings(options).items():
        if not training.starts_anywhere:
            raise TaskError(
                f"'{options.method}' cannot begin from task '{task.name}': its prompt comes out of an encoder, which "
                f"is not stored; use `method` prompt or prompt-residual"
            )
        if name not in has:
            raise TaskError(
                f"task '{task.name}' was trained as '{task.method}' and has no {training.part.names[0]} for "
                f"'{options.title}' to begin from: use a method of its kind"
            )
    return {name: has[name] for name in options.lengths}


def _build(training: Training, start: Tensors) -> TrainedPart:
    is_empty = not any(tensor.numel() for tensor in start.values())
    # Without tokens there is nothing to reparameterise.
    return training.part(start, nn.Identity() if is_empty else training.reparameterization(start))
