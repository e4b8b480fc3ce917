"""text-embeddings-inference's `POST /rerank`, for its clients: texts in the order of their relevance to a query.

https://huggingface.github.io/text-embeddings-inference/#/Text%20Embeddings%20Inference/rerank

A server of that kind has one model. Here a task answers about the pairs (query, text): `model` names it unless only one
can rank, and `label` names the label that means "relevant" unless the labels' names tell. Fields that nobody knows are
passed over.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType

from edgetune.server.errors import unfit, unusable
from edgetune_runtime.engine import Result
from edgetune_runtime.errors import DataError
from edgetune_runtime.ranking import Ranker, best_first
from edgetune_runtime.task import Task
from edgetune_runtime.text import Text


class RerankRequest(msgspec.Struct):
    """The body of `/rerank`.

    A long text is cut, unless `truncate` is false: then it is refused. With `raw_scores` a probability comes as its
    logit, whose sigmoid it is; the order is the same.
    """

    query: str
    texts: list[str]
    model: str | None = None
    label: str | None = None
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None
    truncation_direction: str | None = None

    def check(self) -> None:
        """Raise `RequestError` if a field asks for what is not done."""
        direction = self.truncation_direction
        if direction is not None and direction.lower() != "right":
            raise unusable(f"truncation_direction is {direction[:60]!r}: a long text is always cut at its end")

    def pairs(self) -> list[Text]:
        """The texts, each behind the query."""
        return [(self.query, text) for text in self.texts]

    def ranker(self, task: Task) -> Ranker:
        """How a task ranks.

        Raises:
            RequestError: it cannot, or its label is not known.
        """
        try:
            return Ranker(task, self.label)
        except DataError as error:
            raise unfit(str(error).replace("`", "'")) from error


class Rank(msgspec.Struct):
    """A text in its order: its place in the request, how relevant it is and, if that was asked for, itself."""

    index: int
    score: float
    text: str | UnsetType = UNSET


def ranks(request: RerankRequest, ranker: Ranker, results: Sequence[Result]) -> list[Rank]:
    """The texts in their order, the most relevant first.

    Args:
        request: what was asked.
        ranker: how the task ranks.
        results: the task's answer about each text.

    Raises:
        RequestError: a text was cut, and should not be.
    """
    cut = [place for place, result in enumerate(results) if result.truncated]
    if cut and request.truncate is False:
        raise unusable(
            f"text {cut[0]} and the query have more tokens than the {ranker.task.max_length} that task "
            f"'{ranker.task.name}' reads, and truncate is false: cut it, or leave truncate out"
        )
    scores = [ranker.score(result, request.raw_scores) for result in results]
    return [
        Rank(place, scores[place], request.texts[place] if request.return_text else UNSET)
        for place in best_first(scores)
    ]
