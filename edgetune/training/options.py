"""How to train, as data. Nothing here needs PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgetune.training import balance
from edgetune_runtime import contract, files
from edgetune_runtime.task import Task

LabelWords = Mapping[str, Sequence[str]]
"""Label → the words that a language model would say for it."""


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes:
        method: one of `prompts.METHODS`.
        prompt_length: tokens of the prompt or prefix; 0 trains the head alone.
        init: what the prompt begins as, one of `prompts.INITS`.
        init_text: the text, for the init "text".
        init_from: a task that the prompt begins as, and the head where the labels are the same.
        template: what surrounds a text.
        label_words: label → words that the head begins as.
        train_head: whether the head learns; not where the label words are to stay as they are.
        epochs: passes over the training data; the one best on development data is kept.
        class_weight: how much a row of each label counts in the loss: "none" for all the same, "balanced" for all
            labels the same, or label → weight, 1 if it is not named. Development data is judged without weights.
        batch_size: texts a step.
        learning_rate: of the prompt; the method's own where `None`.
        head_learning_rate: of the head; where `None`, a small one beside a prompt and a larger one alone.
        pooling: where features are read, one of the backbone's; where `None`, its usual one, or at the mask.
        positions_behind_prompt: whether a text's positions begin behind the prompt on an encoder too, as PEFT's do;
            else they begin at 0 there, or where those of `init_from` do.
        max_length: tokens of a text that are read, special tokens and template included.
        seed: of everything random.
        mixed_precision: "no", "bf16" or "fp16".
    """

    method: str = "prefix"
    prompt_length: int = 20
    init: str = "data"
    init_text: str = ""
    init_from: Task | None = None
    template: str = contract.TEXT_SLOT
    label_words: LabelWords | None = None
    train_head: bool = True
    epochs: int = 10
    class_weight: balance.ClassWeight = balance.NONE
    batch_size: int = 32
    learning_rate: float | None = None
    head_learning_rate: float | None = None
    pooling: str | None = None
    positions_behind_prompt: bool = False
    max_length: int = contract.DEFAULT_MAX_LENGTH
    seed: int = 0
    mixed_precision: str = "no"

    def stamp(self) -> dict[str, Any]:
        """The options as JSON has them, to tell one training from another."""
        given = dataclasses.replace(self, init_from=None)
        origin = None if self.init_from is None else files.sha256(self.init_from.to_bytes())
        return {**asdict(given), "init_from": origin}
