"""Whether a setup answers as well as another: the check texts, answered with both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgetune.tuning.choosing import Answers
from edgetune_runtime import files
from edgetune_runtime.arrays import Array
from edgetune_runtime.bundle import Bundle
from edgetune_runtime.check_texts import check_texts
from edgetune_runtime.passes import Pass, Runner
from edgetune_runtime.sharing import head_logits, shared_passes
from edgetune_runtime.task import Task
from edgetune_runtime.text import TextEncoder

_JOINED = (1, 3, 8)


class Check:
    """The check texts, alone and joined to longer ones, as tasks read them, and the answers of the reference.

    Args:
        bundle: the bundle.
        tasks: tasks that answer all texts.
        reference: runs the graph whose answers others are compared with.
        precision: of that graph.
    """

    def __init__(self, bundle: Bundle, tasks: Sequence[Task], reference: Runner, precision: str) -> None:
        facts = bundle.facts
        encoder = TextEncoder(
            bundle.read(files.TOKENIZER), facts.max_positions, facts.mask_token, bundle.vocabulary_size()
        )
        self._tasks = tasks
        self._tokens = [encoder.encode(_texts(task), [task] * len(_texts(task))) for task in tasks]
        windows = [
            (window, task)
            for task, rows in zip(tasks, self._tokens, strict=True)
            for tokens in rows
            for window in tokens.windows
        ]
        self.passes: list[Pass]
        """All that is run to answer them."""
        self.passes, self._places = shared_passes(windows, reference)
        self._expected = self._logits(reference.run(self.passes, precision))

    def answers(self, runners: Mapping[str, Runner], present: str, precision: str) -> dict[str, Answers]:
        """The answers of setups, by name.

        Args:
            runners: name → what runs a setup.
            present: the name of the setup that features are compared with, to the bit.
            precision: of the graph.
        """
        features = {name: runner.run(self.passes, precision) for name, runner in runners.items()}
        return {name: self._compared(own, features[present]) for name, own in features.items()}

    def _compared(self, features: Sequence[Array], present: Sequence[Array]) -> Answers:
        got = self._logits(features)
        agreement = [
            task.kind.agreement(
                [task.kind.logits_of(one) for one in expected],
                [task.kind.logits_of(one) for one in own],
                task,
                [tokens.read for tokens in rows],
            )
            for task, rows, expected, own in zip(self._tasks, self._tokens, self._expected, got, strict=True)
        ]
        ours, theirs = (
            np.concatenate([one.ravel() for task in side for one in task]) for side in (got, self._expected)
        )
        equal = all(np.array_equal(one, other) for one, other in zip(features, present, strict=True))
        return Answers(float(np.mean(agreement)), _distance(ours, theirs), equal)

    def _logits(self, features: Sequence[Array]) -> list[list[Array]]:
        """For each task, for each text: [spans of all windows, rows of the head]."""
        places = iter(self._places)
        found = []
        for task, rows in zip(self._tasks, self._tokens, strict=True):
            own = []
            for tokens in rows:
                parts = [next(places) for _ in tokens.windows]
                own.append(np.concatenate([head_logits(features[one][list(spans)], task) for one, spans in parts]))
            found.append(own)
        return found


def _texts(task: Task) -> list[Any]:
    texts = check_texts()
    texts = [" ".join(texts[place : place + number]) for number in _JOINED for place in range(0, len(texts), number)]
    return list(zip(texts, texts[1:] + texts[:1], strict=True)) if task.pairs else texts


def _distance(some: Array, others: Array) -> float:
    """Root mean square of the difference, relative to `others`; 0 if there is nothing to compare."""
    size = float(np.sqrt((others**2).mean())) if others.size else 0.0
    return float(np.sqrt(((some - others) ** 2).mean())) / size if size else 0.0
