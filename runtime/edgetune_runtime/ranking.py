"""Sort texts by their relevance to a query, with a task that takes pairs (query, text)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetune_runtime.checks import check_text
from edgetune_runtime.errors import DataError
from edgetune_runtime.kinds import Result
from edgetune_runtime.task import Task
from edgetune_runtime.text import is_unicode


@dataclass(frozen=True)
class Ranked:
    """A ranked text.

    Attributes:
        index: its index in the given texts.
        text: the text.
        score: how relevant it is; see `Engine.rank`.
        truncated: whether the end of the text or of the query was cut off.
    """

    index: int
    text: str
    score: float
    truncated: bool = False


class Ranker:
    """How a task ranks.

    Args:
        task: the task.
        label: for tasks with one label per text, the label that means "relevant". With two labels it may be omitted if
            their names make it clear (see `positive`).

    Raises:
        DataError: the task cannot rank, or the label is not clear.
    """

    def __init__(self, task: Task, label: str | None = None) -> None:
        ranking = task.kind.ranking
        if ranking is None:
            raise DataError(
                f"task '{task.name}' is of the kind '{task.kind.name}' ({task.kind.title}), which does not rank: "
                f"expected a task that gives one label or a number"
            )
        if not task.pairs:
            raise DataError(
                f"task '{task.name}' takes single texts, and ranking asks about pairs (query, text): expected a task "
                f"that takes pairs"
            )
        try:
            self._label = ranking.label(task, label)
        except ValueError as error:
            raise DataError(f"task '{task.name}' {error}") from error
        self.task = task
        self._ranking = ranking

    def score(self, result: Result, raw: bool = False) -> float:
        """The relevance of a text; higher is better.

        Args:
            result: the task's answer about the query and the text.
            raw: return a logit instead of a probability; see `Engine.rank`.
        """
        return (self._ranking.raw if raw else self._ranking.relevance)(result, self._label)

    def check(self, query: object, texts: Sequence[object]) -> None:
        """Raise `DataError` unless the query and the texts are valid strings."""
        if isinstance(texts, str):
            raise DataError("one string came instead of a list of texts: write [text]")
        if not isinstance(query, str):
            raise DataError(f"the query is a {type(query).__name__}: expected a string")
        if not is_unicode(query):
            raise DataError("the query has half of a surrogate pair, or is not UTF-8: expected whole characters")
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(f"text {place} is a {type(text).__name__}: expected a string")
            check_text(place, (query, text), self.task)


def can_rank(task: Task) -> bool:
    """Whether a task can rank texts; the caller may have to name the label."""
    return task.pairs and task.kind.ranking is not None


def best_first(scores: Sequence[float]) -> list[int]:
    """Indices of scores, highest first; equal scores keep their order."""
    return sorted(range(len(scores)), key=lambda place: -scores[place])
