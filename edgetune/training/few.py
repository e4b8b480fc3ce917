"""Training with few rows: train a prompt with pairs of texts, then fit a head.

With a few dozen rows, gradient training of a head is worse than fitting a linear model to the same features, and a
development split of two or three rows chooses by chance. So no rows are held out permanently: cross-validation chooses
and calibrates, and then all rows are used for training.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import TrainerCallback

from edgetune.training import prompts
from edgetune.training.batches import Rows, examples_of, text_features
from edgetune.training.contrastive import STEPS, train_prompt
from edgetune.training.described import Described
from edgetune.training.options import TrainingOptions
from edgetune.training.progress import Steps
from edgetune.training.rungs import Rung
from edgetune.training.setup import Setup
from edgetune_runtime.arrays import Array
from edgetune_runtime.fitting.by_kind import fitting_of
from edgetune_runtime.fitting.head import USUAL_STRENGTH, can_be_judged, fit_head, folds
from edgetune_runtime.fitting.join import Trust, join_of, with_descriptions
from edgetune_runtime.fitting.linear import Head, head_tensors

FOLDS = 4

NEW_HEAD, SHARED_HEAD = "prompt", "prompt, head of first features too"
"""Names of the two heads for people."""

DESCRIBED = "descriptions"
"""The head that is made from descriptions, with the same prompt."""


def train_few(
    setup: Setup, options: TrainingOptions, folder: Path, callbacks: Sequence[TrainerCallback] = ()
) -> list[Rung]:
    """Train a prompt and heads on the rows of one task with one label per text.

    The trained prompt gets two heads: one is fitted to its features, and the other also to the features of the
    untrained prompt, which makes it less prone to overfitting. If labels are described, the prompt is also trained with
    the descriptions, and each head is joined with the head that they give. The labels' own names count as descriptions
    if they improve a head without a prompt.

    Args:
        setup: the setup of the training run.
        options: how to train.
        folder: folder for `Trainer`'s files.
        callbacks: callbacks for `Trainer`, used in every training run.

    Returns:
        The prompt with each head, and logits: for the development rows, if there are any; otherwise for each training
        row, from a prompt and a head that were trained without it.
    """
    dev = setup.rows["dev"]
    bar = Steps(STEPS * (1 if dev else FOLDS + 1), "pairs of texts")
    few = _Few(setup, options, folder, [bar, *callbacks])
    try:
        held_out = {} if dev else few.held_out()
        heads, _ = few.learn(np.arange(len(few.targets)))  # last, so that this prompt is the final one
    finally:
        bar.close()
    if dev:
        features = text_features(setup.tuner, dev)
        held_out = {name: head.logits(features) for name, head in heads.items()}
    if few.described is not None:
        targets = few.numbers(dev) if dev else few.targets
        heads, held_out = few.joined(heads, held_out, targets, few.described.trust)
    (draft,) = setup.drafts
    return [Rung(name, draft, few.tensors(head), held_out[name]) for name, head in heads.items()]


class _Few:
    """One task's rows; trains a prompt and its heads with some of them."""

    def __init__(
        self, setup: Setup, options: TrainingOptions, folder: Path, callbacks: Sequence[TrainerCallback]
    ) -> None:
        self._setup, self._options, self._folder, self._callbacks = setup, options, folder, callbacks
        self._rows, self._tuner = setup.rows["train"], setup.tuner
        self.targets = self.numbers(self._rows)
        self._start = copy.deepcopy(self._tuner.parts.state_dict())
        self._first_features = text_features(self._tuner, self._rows)
        self.described = self._usable_descriptions()

    def numbers(self, rows: Rows) -> Array:
        """The targets of the texts of rows. Shape: [texts, numbers]."""
        return examples_of(self._setup.drafts[0].kind, rows).numbers

    def _usable_descriptions(self) -> Described | None:
        """The label descriptions; names are used only if they improve a head without a prompt."""
        (about,), (draft,) = self._setup.about, self._setup.drafts
        if about is None:
            return None
        found = Described(self._setup, 0, about)
        if not about.by_name:
            return found
        fitting, features, targets = fitting_of(draft.kind), self._first_features, self.targets
        weights = self._setup.row_weights(0, targets)
        alone = fit_head(fitting, features, targets, draft.head_rows, weights, self._options.seed)
        with_names = with_descriptions(fitting, alone, found.head(), features, targets, weights, found.trust)
        return found if with_names.share else None

    def learn(self, texts: Array) -> tuple[dict[str, Head], Array]:
        """Train the prompt on some texts, from its initial value. Returns its heads, and the features of all texts."""
        chosen = set(texts.tolist())
        self._tuner.parts.load_state_dict(self._start)
        rows = [row for row in self._rows if row["text"] in chosen]
        if self.described is not None:
            rows += self.described.rows  # without them, training would make the prompt fit the descriptions less
        train_prompt(self._tuner, rows, self._options, self._folder, self._callbacks)
        features = text_features(self._tuner, self._rows)
        new, targets = features[texts], self.targets[texts]
        both = np.concatenate([self._first_features[texts], new]), np.concatenate([targets, targets])
        heads = {NEW_HEAD: self._head(new, targets), SHARED_HEAD: self._head(*both)}
        if self.described is not None:
            heads[DESCRIBED] = self.described.head()
        return heads, features

    def held_out(self) -> dict[str, Array]:
        """Logits of each text, from heads that were trained without it."""
        fold = folds(self.targets, self._options.seed, FOLDS)
        found: dict[str, Array] = {}
        for number in np.unique(fold):
            heads, features = self.learn(np.flatnonzero(fold != number))
            out = fold == number
            for name, head in heads.items():
                found.setdefault(name, np.zeros((len(fold), len(head.bias))))[out] = head.logits(features[out])
        return found

    def joined(
        self, heads: dict[str, Head], held_out: dict[str, Array], targets: Array, trust: Trust
    ) -> tuple[dict[str, Head], dict[str, Array]]:
        """Each fitted head joined with the described head, and its logits.

        Shape:
            held_out: [rows, labels]
            targets: [rows, numbers], of the rows that judge the heads
        """
        (draft,), others = self._setup.drafts, (NEW_HEAD, SHARED_HEAD)
        fitting = fitting_of(draft.kind)
        judged = np.full(len(targets), True) if self._setup.rows["dev"] else can_be_judged(fitting, targets)
        own, described = targets[judged], held_out[DESCRIBED]
        weights = self._setup.row_weights(0, own)
        joins = {
            name: join_of(fitting, held_out[name][judged], described[judged], own, weights, trust) for name in others
        }
        return (
            {name: joins[name].head(heads[name], heads[DESCRIBED]) for name in others},
            {name: joins[name].logits(held_out[name], described) for name in others},
        )

    def tensors(self, head: Head) -> dict[str, Array]:
        """The tensors of the task."""
        (draft,), tuner = self._setup.drafts, self._tuner
        given = {name: torch.from_numpy(values) for name, values in head_tensors(head).items()}
        return prompts.stored(tuner.backbone, {**tuner.task_tensors(0), **given}, draft.max_length)

    def _head(self, features: Array, targets: Array) -> Head:
        (draft,), weights = self._setup.drafts, self._setup.row_weights(0, targets)
        (found,) = fitting_of(draft.kind).head(features, targets, draft.head_rows, (USUAL_STRENGTH,), weights)
        return found
