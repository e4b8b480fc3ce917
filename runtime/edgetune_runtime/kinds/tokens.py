"""Entities in a text, such as names: each word has a tag, and runs of tags are entities.

A head has a row for "outside", which comes first, and for each label two: a word that begins an entity, and one that
goes on inside it (BIO). The words' tags are decided together: of all sequences in which nothing goes on that did not
begin, the most probable one (Viterbi).
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgetune_runtime.arrays import Array
from edgetune_runtime.kinds.kind import (
    WHOLE,
    Entity,
    Figures,
    Kind,
    Output,
    Place,
    Read,
    Reading,
    Result,
    Target,
    whole,
)
from edgetune_runtime.kinds.single_label import probabilities
from edgetune_runtime.metrics import f1_of
from edgetune_runtime.offsets import characters_at
from edgetune_runtime.words import words

if TYPE_CHECKING:
    from edgetune_runtime.task import Task
    from edgetune_runtime.text import Text

_FIELD = "entities"

OUTSIDE = 0
"""The head's row for a word of no entity. The label at place n has the rows 2n + 1, "begins", and 2n + 2, "inside"."""

# One word in eighty is close (MiniLM, wnut17), so nearly every text of some hundred words has one that is. With this a
# sixth of the sentences, and a third of texts of any length, are answered again; of the words of sentences that int8
# changes that catches 94%.
_WORDS_PER_CLOSE_ONE = 64

_STARTS, _ENDS, _LABELS = ("start", "start_offset"), ("end", "end_offset"), ("label", "labels", "entity_group")


@dataclass(frozen=True)
class FoundEntity:
    """An entity that was found.

    Attributes:
        label: its label.
        start, end: in characters of the text.
        text: what stands there.
        score: probability of its words' tags, on average.
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


class Tag(NamedTuple):
    """What is right for a word.

    Attributes:
        label: of the entity that it belongs to, if it does.
        begins: whether it is the entity's first word.
        first: whether it is the first word of its text.
    """

    label: str | None
    begins: bool
    first: bool


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
        lists = [_read_json(value) for value in values]
        return any(_is_entity(one) for value in lists if isinstance(value, list | tuple) for one in value)

    def target(self, value: object) -> tuple[Entity, ...]:
        value = _read_json(value)
        if value is None or value == "":
            return ()
        if not isinstance(value, list | tuple):
            raise ValueError("expected a list of entities, each with start, end and label")
        found = sorted(map(_entity, value))
        for one, other in pairwise(found):
            if other.start < one.end:
                raise ValueError(
                    f"the entities {one.label} from {one.start} to {one.end} and {other.label} from {other.start} to "
                    f"{other.end} overlap: expected each word in one entity at the most"
                )
        return tuple(found)

    def written(self, target: Target) -> list[dict[str, Any]]:
        return [one._asdict() for one in _entities(target)]

    def named(self, target: Target) -> tuple[str, ...]:
        return tuple(sorted({one.label for one in _entities(target)}))

    def checked(self, target: Target, text: Text) -> tuple[Entity, ...]:
        """Entities inside the text; spaces at their ends are left out."""
        own = text if isinstance(text, str) else text[int(self.reading.second)]
        if not own.strip():
            raise ValueError("the text is empty: add it, or take the row out")
        return tuple(_trimmed(one, own) for one in _in_characters(_entities(target), own))

    def pieces(self, target: Target, read: Read) -> list[Tag]:
        tags = [Tag(None, False, place == 0) for place in range(len(read.places))]
        for one in _entities(target):
            touched = _touched(one, read.places)
            for place in touched:
                if tags[place].label is None:
                    tags[place] = Tag(one.label, place == touched.start, place == 0)
        return tags

    def unfit(self, target: Target, read: Read) -> int:
        end = read.places[-1][1] if read.truncated and read.places else len(read.text)
        return sum(one.start < end and not _fits(one, read.places) for one in _entities(target))

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
                scores = probabilities(logits, task.temperature)[np.arange(len(tags)), tags]
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


def decode(logits: Array, first: Array | None = None) -> Array:
    """The rows of the head that are the words' tags: the most probable ones in which only goes on what began.

    Args:
        logits: of words of one or several texts.
        first: whether a word is the first of its text; by default all are of one text.

    Shape:
        logits: [words, rows of the head]
        first: [words]
        output: [words]
    """
    tags: Array = logits.argmax(axis=1)
    if not tags.any():
        return tags
    best = tags.tolist()  # arrays this small cost NumPy more than Python
    starts = [0] if first is None else np.flatnonzero(first).tolist()
    for begin, end in pairwise([*starts, len(best)]):
        best[begin:end] = _repaired(best[begin:end], logits[begin:end])
    return np.array(best)


def _repaired(tags: list[int], logits: Array) -> list[int]:
    """The most probable legal tags of the words of a text, given the best tag of each.

    Stretches around what is broken are decided on their own, and grow until they fit to what is beside them. Together
    the best tags of parts are the best of the whole if they are legal, since no parts of the whole are better.

    Shape:
        tags, output: [words]
        logits: [words, rows of the head]
    """
    broken = [
        place
        for place, (before, tag) in enumerate(zip([OUTSIDE, *tags], tags, strict=False))
        if tag != OUTSIDE and not _follows(before, tag)
    ]
    decided: list[tuple[int, int]] = []
    for place in broken:
        if decided and place < decided[-1][1]:
            continue
        begin, end, fits = max(0, place - 1), place + 1, False
        while not fits:
            while decided and begin < decided[-1][1]:
                begin = min(begin, decided.pop()[0])
            tags[begin:end] = _most_probable(logits[begin:end], goes_on=begin > 0)
            fits_before = begin == 0 or _follows(tags[begin - 1], tags[begin])
            fits_behind = end == len(tags) or _follows(tags[end - 1], tags[end])
            fits = fits_before and fits_behind
            length = end - begin
            begin, end = max(0, begin - length * (not fits_before)), min(len(tags), end + length * (not fits_behind))
        decided.append((begin, end))
    return tags


def _follows(before: int, tag: int) -> bool:
    """Whether a tag may stand behind another one."""
    return tag % 2 == 1 or tag == OUTSIDE or before in (tag, tag - 1)


def _most_probable(logits: Array, goes_on: bool = False) -> list[int]:
    """Viterbi's algorithm.

    Args:
        logits: of the words.
        goes_on: whether the first word may be inside an entity.

    Shape:
        logits: [words, rows of the head]
        output: [words]
    """
    rows = logits.astype(np.float64).tolist()
    inside = range(2, len(rows[0]), 2)
    best = rows[0]
    if not goes_on:
        best[2::2] = [-np.inf] * len(inside)
    came_from: list[list[int]] = []
    for own in rows[1:]:
        highest = max(best)
        before = [best.index(highest)] * len(own)
        reached = [highest + logit for logit in own]
        for row in inside:
            before[row] = row if best[row] >= best[row - 1] else row - 1
            reached[row] = best[before[row]] + own[row]
        came_from.append(before)
        best = reached
    tags = [best.index(max(best))]
    for before in reversed(came_from):
        tags.append(before[tags[-1]])
    return tags[::-1]


def spans_of(tags: Array) -> list[tuple[int, int, int]]:
    """Entities as (first word, word behind the last, place of the label), given tags as `decode` gives them.

    Shape:
        tags: [words]
    """
    found = []
    row = tags.tolist()
    for begin, tag in enumerate(row):
        if tag % 2 == 0:
            continue
        end = begin + 1
        while end < len(row) and row[end] == tag + 1:
            end += 1
        found.append((begin, end, tag // 2))
    return found


def row_of(tag: Tag, labels: Sequence[str]) -> int:
    """The head's row for a tag."""
    return OUTSIDE if tag.label is None else 2 * labels.index(tag.label) + (1 if tag.begins else 2)


def tag_names(labels: Sequence[str]) -> list[str]:
    """The head's rows by the names of their tags: O, B-label, I-label and so on."""
    return ["O", *(f"{prefix}-{label}" for label in labels for prefix in "BI")]


def rows_of_tags(tags: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
    """Labels that tags name, and for each row of a task's head the place of its tag.

    Raises:
        ValueError: they are not `O`, and `B-` and `I-` of each label.
    """
    labels = tuple(dict.fromkeys(tag[2:] for tag in tags if tag.startswith(("B-", "I-")) and tag[2:]))
    wanted = tag_names(labels)
    if sorted(wanted) != sorted(tags) or not labels:
        raise ValueError(f"the tags {', '.join(tags)[:200]}: expected O, and B- and I- of each label")
    return labels, [tags.index(tag) for tag in wanted]


def _found(begin: int, end: int, label: int, task: Task, read: Read, scores: Array) -> FoundEntity:
    start, stop = read.places[begin][0], read.places[end - 1][1]
    return FoundEntity(task.labels[label], start, stop, read.text[start:stop], float(scores[begin:end].mean()))


def _three(hits: int, right: int, given: int) -> dict[str, float]:
    return {
        "precision": hits / max(1, given),
        "recall": hits / max(1, right),
        "f1": f1_of(hits, right, given),
    }


def _entities(target: Target) -> tuple[Entity, ...]:
    return tuple(one for one in target if isinstance(one, Entity)) if isinstance(target, tuple) else ()


def _read_json(value: object) -> object:
    """What a text that begins as a list does means in JSON; anything else as it is."""
    if not isinstance(value, str) or not value.startswith(("[{", "[[", "[]")):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _is_entity(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(name in value for name in _STARTS)
    return isinstance(value, list | tuple) and len(value) == 3 and all(_number(one) is not None for one in value[:2])


def _entity(value: object) -> Entity:
    """An entity as data has it: an object, or start, end and label."""
    if isinstance(value, Mapping):
        start, end, label = (
            next((value[name] for name in names if name in value), None) for names in (_STARTS, _ENDS, _LABELS)
        )
    elif isinstance(value, list | tuple) and len(value) == 3:
        start, end, label = value
    else:
        raise ValueError("expected a list of entities, each an object with start, end and label")
    begin, stop = _number(start), _number(end)
    if begin is None or stop is None or not 0 <= begin < stop:
        raise ValueError(
            f"an entity goes from {start!r:.20} to {end!r:.20}: expected a start of at least 0 and an end behind it, "
            f"in characters"
        )
    several = list(label) if isinstance(label, list | tuple) else [label]
    name = whole(several[0]) if len(several) == 1 else None
    if name is None:
        raise ValueError(f"the entity from {begin} to {stop} has the label {label!r:.40}: expected one label")
    return Entity(begin, stop, name)


def _number(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return int(value) if isinstance(value, int) or value.is_integer() else None


def _touched(entity: Entity, places: Sequence[Place]) -> range:
    """Which of the places an entity touches."""
    first = bisect_right(places, entity.start, key=lambda place: place[1])
    return range(first, max(first, bisect_left(places, entity.end, key=lambda place: place[0])))


def _fits(entity: Entity, places: Sequence[Place]) -> bool:
    """Whether an entity begins where a place does and ends where one does."""
    own = _touched(entity, places)
    return len(own) > 0 and (places[own[0]][0], places[own[-1]][1]) == (entity.start, entity.end)


def _trimmed(entity: Entity, text: str) -> Entity:
    own = text[entity.start : entity.end]
    if not own.strip():
        raise ValueError(f"the entity {entity.label} from {entity.start} to {entity.end} has only spaces")
    start = entity.start + len(own) - len(own.lstrip())
    return Entity(start, start + len(own.strip()), entity.label)


def _in_characters(entities: Sequence[Entity], text: str) -> Sequence[Entity]:
    """The entities, if they can be in characters of the text.

    Raises:
        ValueError: one ends behind the text, or all are exactly words in bytes or UTF-16 units, and not in characters.
    """
    beyond = next((one for one in entities if one.end > len(text)), None)
    if not text.isascii() and entities:
        places = words(text)
        if beyond is not None or not all(_fits(one, places) for one in entities):
            for unit, converted in _converted(entities, text):
                if all(_fits(one, places) for one in converted):
                    one, given = converted[-1], entities[-1]
                    raise ValueError(
                        f"its offsets are {unit}: {text[one.start : one.end]!r:.40}, which the data has from "
                        f"{given.start} to {given.end}, goes from {one.start} to {one.end} in characters; expected "
                        f"characters"
                    )
    if beyond is not None:
        raise ValueError(
            f"the entity {beyond.label} ends at {beyond.end}, and the text has {len(text)} characters: expected it "
            f"inside the text"
        )
    return entities


def _converted(entities: Sequence[Entity], text: str) -> Iterator[tuple[str, list[Entity]]]:
    """The entities in characters, if their offsets are in units of another kind that can be."""
    for unit, character_at in characters_at(text):
        if all(one.start in character_at and one.end in character_at for one in entities):
            yield unit, [Entity(character_at[one.start], character_at[one.end], one.label) for one in entities]


TOKENS = TokensKind()
