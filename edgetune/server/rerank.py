"""text-embeddings-inference's `POST /rerank`, for its clients: rank texts by their relevance to a query.

https://huggingface.github.io/text-embeddings-inference/#/Text%20Embeddings%20Inference/rerank

text-embeddings-inference serves one model. Here a task answers about the pairs (query, text). `model` names the task,
unless only one task can rank. `label` names the label that means "relevant", unless the labels' names make it clear.
Unknown fields are ignored.
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

    A long text is cut or, if `truncate` is false, rejected. With `raw_scores`, logits are returned instead of
    probabilities; the order is the same.
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
        """Raise `RequestError` if a field asks for something that is not supported."""
        direction = self.truncation_direction
        if direction is not None and direction.lower() != "right":
            raise unusable(f"truncation_direction is {direction[:60]!r}: a long text is always cut at its end")

    def pairs(self) -> list[Text]:
        """The pairs of the query and each text."""
        return [(self.query, text) for text in self.texts]

    def ranker(self, task: Task) -> Ranker:
        """How a task ranks.

        Raises:
            RequestError: the task cannot rank, or the label is not clear.
        """
        try:
            return Ranker(task, self.label)
        except DataError as error:
            raise unfit(str(error).replace("`", "'")) from error


class Rank(msgspec.Struct):
    """A ranked text: its index in the request, its relevance and, if requested, the text."""

    index: int
    score: float
    text: str | UnsetType = UNSET


def ranks(request: RerankRequest, ranker: Ranker, results: Sequence[Result]) -> list[Rank]:
    """The ranked texts, most relevant first.

    Args:
        request: the request.
        ranker: how the task ranks.
        results: the task's answer about each text.

    Raises:
        RequestError: a text was cut although `truncate` is false.
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
