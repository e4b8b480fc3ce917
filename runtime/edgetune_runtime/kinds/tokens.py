"""Entities in a text, such as names: each word has a tag, and runs of tags are entities.

The rows of its head and how they become entities: edgetune_runtime.decoding. Entities in data:
edgetune_runtime.entities.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune_runtime import entities
from edgetune_runtime.arrays import Array
from edgetune_runtime.decoding import Tag, decode, spans_of
from edgetune_runtime.kinds.kind import (
    WHOLE,
    Entity,
    Figures,
    Kind,
    Output,
    Read,
    Reading,
    Result,
    Target,
)
from edgetune_runtime.kinds.single_label import probabilities
from edgetune_runtime.metrics import f1_of
from edgetune_runtime.words import words

if TYPE_CHECKING:
    from edgetune_runtime.task import Task
    from edgetune_runtime.text import Text

_FIELD = "entities"

# One word in eighty is close (MiniLM, wnut17), so nearly every text of some hundred words has one that is. With this a
# sixth of the sentences, and a third of texts of any length, are answered again; of the words of sentences that int8
# changes that catches 94%.
_WORDS_PER_CLOSE_ONE = 64


@dataclass(frozen=True)
class FoundEntity:
    """An entity that was found.

    Attributes:
        label: its label.
        start, end: in characters of the text.
        text: the text from `start` to `end`.
        score: mean probability of its words' tags.
    """

    label: str
    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True, kw_only=True)
class EntitiesResult(Result):
    """Entities.

    Attributes:
        entities: in the order of the text; there may be none. They do not overlap.
    """

    entities: tuple[FoundEntity, ...]

    def at(self, min_score: float) -> EntitiesResult:
        """The same without the entities whose scores are below `min_score`."""
        found: EntitiesResult = self._with(entities=tuple(one for one in self.entities if one.score >= min_score))
        return found

    def fields(self) -> dict[str, Any]:
        return {"entities": [dict(vars(one)) for one in self.entities]}


class TokensKind(Kind):
    """Each text has entities: a softmax per word over tags at the task's temperature, decoded over all words."""

    name = "tokens"
    title = "entities in a text"
    requires = ("kind:tokens",)
    labels = (1, 4_999)
    columns = {"entities": "entities"}  # noqa: RUF012 - it is never changed
    outputs = (
        Output(
            "entities", "BYTES", False, lambda result: [json.dumps(result.fields()["entities"], ensure_ascii=False)]
        ),
    )
    headline = "entity_f1"
    reading = Reading(words)

    def head_rows(self, labels: int) -> int:
        return 1 + 2 * labels

    def sees(self, values: Sequence[object]) -> bool:
        """Lists, perhaps written as JSON, at least one of which has an object or a triple (start, end, label)."""
        return any(map(entities.are_in, values))

    def target(self, value: object) -> tuple[Entity, ...]:
        return entities.read(value)

    def written(self, target: Target) -> list[dict[str, Any]]:
        return [one._asdict() for one in _entities(target)]

    def named(self, target: Target) -> tuple[str, ...]:
        return tuple(sorted({one.label for one in _entities(target)}))

    def checked(self, target: Target, text: Text) -> tuple[Entity, ...]:
        """Entities inside the text; spaces at their ends are left out."""
        own = text if isinstance(text, str) else text[int(self.reading.second)]
        if not own.strip():
            raise ValueError("the text is empty: add it, or take the row out")
        return entities.inside(_entities(target), own)

    def pieces(self, target: Target, read: Read) -> list[Tag]:
        tags = [Tag(None, False, place == 0) for place in range(len(read.places))]
        for one in _entities(target):
            touched = entities.touched(one, read.places)
            for place in touched:
                if tags[place].label is None:
                    tags[place] = Tag(one.label, place == touched.start, place == 0)
        return tags

    def unfit(self, target: Target, read: Read) -> int:
        end = read.places[-1][1] if read.truncated and read.places else len(read.text)
        return sum(one.start < end and not entities.fits(one, read.places) for one in _entities(target))

    def unfit_remark(self, number: int) -> str:
        return (
            f"{number:,} entities do not begin and end where words do: the words that they touch are learned, and no "
            f"answer is exactly such an entity"
        )

    def answer(self, logits: Array, task: Task, read: Read = WHOLE, precision: str = "fp32") -> EntitiesResult:
        found: tuple[FoundEntity, ...] = ()
        if len(logits):
            tags = decode(logits)
            spans = spans_of(tags)
            if spans:
                scores = probabilities(logits, task.temperature)[np.arange(len(tags)), tags].tolist()
                found = tuple(_found(*span, task, read, scores) for span in spans)
        return EntitiesResult(task=task.name, entities=found, truncated=read.truncated, precision=precision)

    def margin(self, logits: Array, task: Task, read: Read = WHOLE) -> float:
        """The least difference of the two best scores of a word; of a long text one per so many words is left out."""
        if not len(logits):
            return np.inf
        two = np.partition(probabilities(logits, task.temperature), -2, axis=1)[:, -2:]
        rank = len(logits) // _WORDS_PER_CLOSE_ONE
        return float(np.partition(two[:, 1] - two[:, 0], rank)[rank])

    def agreement(
        self, expected: Sequence[Array], got: Sequence[Array], task: Task, reads: Sequence[Read] = ()
    ) -> float:
        """F1 of the entities that one finds, if those of the other are right."""
        right, given = (
            {(text, *one) for text, logits in enumerate(own) for one in spans_of(decode(logits))}
            for own in (expected, got)
        )
        return f1_of(len(right & given), len(right), len(given)) if right or given else 1.0

    def figures(self, expected: Sequence[Target], results: Sequence[EntitiesResult], task: Task) -> Figures:
        """As seqeval counts: an entity is right if its ends and its label are."""
        right = {(place, one) for place, target in enumerate(expected) for one in _entities(target)}
        given = {
            (place, Entity(one.start, one.end, one.label))
            for place, result in enumerate(results)
            for one in result.entities
        }

        def counted(label: str | None = None) -> tuple[int, int, int]:
            own = [{one for one in side if label in (None, one[1].label)} for side in (right & given, right, given)]
            return len(own[0]), len(own[1]), len(own[2])

        by_label = {label: {"entities": counted(label)[1], **_three(*counted(label))} for label in task.labels}
        values = {f"entity_{name}": value for name, value in _three(*counted()).items()}
        return Figures({name: values[name] for name in (self.headline, *values)}, by_label)

    def wrong_by(self, result: EntitiesResult, target: Target) -> float:
        """The scores of the extra entities, and 1 for each that is missed."""
        right = set(_entities(target))
        given = {Entity(one.start, one.end, one.label): one.score for one in result.entities}
        return float(sum(score for one, score in given.items() if one not in right) + len(right - given.keys()))


def _found(begin: int, end: int, label: int, task: Task, read: Read, scores: Sequence[float]) -> FoundEntity:
    start, stop = read.places[begin][0], read.places[end - 1][1]
    return FoundEntity(task.labels[label], start, stop, read.text[start:stop], sum(scores[begin:end]) / (end - begin))


def _three(hits: int, right: int, given: int) -> dict[str, float]:
    return {
        "precision": hits / max(1, given),
        "recall": hits / max(1, right),
        "f1": f1_of(hits, right, given),
    }


def _entities(target: Target) -> tuple[Entity, ...]:
    return tuple(one for one in target if isinstance(one, Entity)) if isinstance(target, tuple) else ()


TOKENS = TokensKind()
