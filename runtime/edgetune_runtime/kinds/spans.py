"""Answers to questions: a stretch of the context, or no answer.

A text is a pair: the question, and the context that contains the answer. A head has two rows: "the answer begins at
this word" and "it ends at this word". `candidates` defines which pairs of words are legal, and how "no answer" is
represented.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgetune_runtime import contract
from edgetune_runtime.arrays import Array
from edgetune_runtime.candidates import FIRST_WINDOW, MOST_WORDS, NO_PLACE, Candidates, Decision, numbered
from edgetune_runtime.kinds.kind import (
    WHOLE,
    Answer,
    Figures,
    Kind,
    Output,
    Read,
    Reading,
    Result,
    Target,
)
from edgetune_runtime.kinds.single_label import probabilities
from edgetune_runtime.offsets import characters_at
from edgetune_runtime.squad import match
from edgetune_runtime.words import words

if TYPE_CHECKING:
    from edgetune_runtime.task import Task
    from edgetune_runtime.text import Text

LABEL = "answer"
"""The common name of the head's two rows."""

_TEXT, _START = "text", "answer_start"
_EXPECTED = "expected answers as SQuAD has them, {'text': [...], 'answer_start': [...]}, empty lists if there is none"


@dataclass(frozen=True, kw_only=True)
class AnswerResult(Result):
    """An answer to a question.

    Attributes:
        best: the best answer; `None` if "no answer" is more probable than every answer.
        score: probability of `best`.
        no_answer: probability that the context has no answer.
    """

    best: Answer | None
    score: float
    no_answer: float

    @property
    def answer(self) -> Answer | None:
        """The best answer; `None` also if it is withheld because its score is too low."""
        return None if self.abstained else self.best

    def at(self, min_score: float) -> AnswerResult:
        """The same, abstaining if the score is below `min_score`."""
        found: AnswerResult = self._with(abstained=self.score < min_score)
        return found

    def fields(self) -> dict[str, Any]:
        start, end, text = self.answer or (None, None, None)
        return {"answer": text, "start": start, "end": end, "score": self.score, "no_answer": self.no_answer}


class Piece(NamedTuple):
    """The target of a row of a window (see `candidates`).

    Attributes:
        word: the number of the word, or one of the special numbers of `numbered`.
        begins, ends: whether the answer begins and ends here. If the window has no answer, both are set for its "no
            answer" row. A window in which no row has either is not used for training.
    """

    word: int
    begins: bool
    ends: bool


class SpansKind(Kind):
    """Each pair has one answer or none: a softmax over all candidates at the task's temperature; the best one wins."""

    name = "spans"
    title = "an answer in a text"
    requires = ("kind:spans",)
    labels = (1, 1)
    one_answer = True
    columns = {  # noqa: RUF012 - it is never changed
        "answer": "string",
        "start": "integer",
        "end": "integer",
        "score": "number",
        "no_answer": "number",
    }
    outputs = (
        Output("answer", "BYTES", False, lambda result: ["" if result.best is None else result.best.text]),
        Output("start", "INT64", False, lambda result: [-1 if result.best is None else result.best.start]),
        Output("end", "INT64", False, lambda result: [-1 if result.best is None else result.best.end]),
        Output("score", "FP32", False, lambda result: [result.score]),
        Output("no_answer", "FP32", False, lambda result: [result.no_answer]),
    )
    headline = "exact_match"
    reading = Reading(words, second=True, or_none=True, poolings=(*contract.OF_PIECES, contract.ENDS))

    def head_rows(self, labels: int) -> int:
        return 2

    def sees(self, values: Sequence[object]) -> bool:
        """Objects with `answer_start`, or lists of them, possibly as JSON strings; some may be empty."""
        read = [_read_json(value) for value in values]
        some = [value for value in read if value not in (None, "", [], ())]
        return bool(some) and all(_is_answers(value) for value in some)

    def target(self, value: object) -> tuple[Answer, ...]:
        value = _read_json(value)
        if value is None or value == "":
            return ()
        if isinstance(value, list | tuple) and value and all(isinstance(one, Answer) for one in value):
            return tuple(_answer(one.text, one.start) for one in value)
        if isinstance(value, Mapping) and {_TEXT, _START} <= value.keys():
            texts, starts = (_listed(value[name]) for name in (_TEXT, _START))
            if len(texts) != len(starts):
                raise ValueError(f"{len(texts)} texts came with {len(starts)} starts: expected as many of both")
            return tuple(map(_answer, texts, starts))
        if isinstance(value, list | tuple) and all(isinstance(one, Mapping) for one in value):
            return tuple(_answer(one.get(_TEXT), one.get(_START)) for one in value)
        raise ValueError(_EXPECTED)

    def written(self, target: Target) -> dict[str, list[Any]]:
        answers = _answers(target)
        return {_TEXT: [one.text for one in answers], _START: [one.start for one in answers]}

    def named(self, target: Target) -> tuple[str, ...]:
        return ()

    def labels_of(self, targets: Sequence[Target]) -> list[str]:
        return [LABEL]

    def checked(self, target: Target, text: Text) -> tuple[Answer, ...]:
        """Check that answers are at the stated places in the context; spaces at their ends are stripped."""
        if isinstance(text, str):
            raise ValueError("a question came without a context: expected a pair of both (`text_pair`)")
        question, context = text
        if not question.strip():
            raise ValueError("the question is empty: add it, or take the row out")
        if not context.strip():
            raise ValueError("the context is empty: add it, or take the row out")
        return tuple(_found(one, context) for one in _answers(target))

    def pieces(self, target: Target, read: Read) -> list[Piece]:
        """The first right answer that some window fully contains is the target.

        Without one, no window is used for training.
        """
        numbers = numbered(read.places)
        answers = _answers(target)
        window = np.cumsum(numbers < 0)
        right = next((one for one in map(_Words(read, numbers), answers) if one is not None), None)
        if answers and right is None:
            return [Piece(int(number), False, False) for number in numbers]
        begins = ends = np.zeros(len(numbers), bool)
        if right is not None:
            begins, ends = numbers == right[0], numbers == right[1]
            whole = np.intersect1d(window[begins], window[ends])
            begins, ends = (own & np.isin(window, whole) for own in (begins, ends))
        without = (numbers < 0) & ~np.isin(window, window[begins])
        rows = zip(numbers, begins | without, ends | without, strict=True)
        return [Piece(int(number), bool(begin), bool(end)) for number, begin, end in rows]

    def unfit(self, target: Target, read: Read) -> int:
        answers = _answers(target)
        places = _Words(read, numbered(read.places))
        return int(bool(answers) and not any(places.is_exact(one) for one in answers))

    def unfit_remark(self, number: int) -> str:
        return (
            f"{number:,} answers cannot be given exactly: they do not begin and end where words do, or have more than "
            f"{MOST_WORDS} words, or are longer than windows overlap (`stride`)"
        )

    def answer(self, logits: Array, task: Task, read: Read = WHOLE, precision: str = "fp32") -> AnswerResult:
        numbers = _numbers(logits, read)
        found = Candidates.of(logits, numbers)
        scores, decision = probabilities(found.logits, task.temperature), found.best
        best = None
        if decision is not None:
            first, last = (read.places[np.flatnonzero(numbers == word)[0]] for word in decision)
            best = Answer(first[0], last[1], read.text[first[0] : last[1]])
        return AnswerResult(
            task=task.name,
            best=best,
            score=float(scores[found.place(decision)]),
            no_answer=float(scores[-1]),
            truncated=read.truncated,
            precision=precision,
        )

    def margin(self, logits: Array, task: Task, read: Read = WHOLE) -> float:
        """The difference between the scores of the best and the second-best candidate; either may be "no answer"."""
        scores = probabilities(Candidates.of(logits, _numbers(logits, read)).logits, task.temperature)
        if len(scores) < 2:
            return np.inf
        second, best = np.partition(scores, -2)[-2:]
        return float(best - second)

    def agreement(
        self, expected: Sequence[Array], got: Sequence[Array], task: Task, reads: Sequence[Read] = ()
    ) -> float:
        """Share of texts with the same answer."""
        same = [
            Candidates.of(one, numbers).best == Candidates.of(other, numbers).best
            for one, other, read in zip(expected, got, reads or [WHOLE] * len(got), strict=True)
            for numbers in [_numbers(one, read)]
        ]
        return float(np.mean(same))

    def figures(self, expected: Sequence[Target], results: Sequence[AnswerResult], task: Task) -> Figures:
        """Counted as in SQuAD: each answer is compared with the best-matching right answer.

        If there is none, "no answer" is right.
        """
        matches = np.array(
            [_match(result, target) for result, target in zip(results, expected, strict=True)], np.float64
        ).reshape(-1, 2)
        has_answer = np.array([bool(target) for target in expected], bool)
        values = _two(matches)
        if has_answer.any() and not has_answer.all():
            values |= {f"{name}_if_answer": value for name, value in _two(matches[has_answer]).items()}
            values["exact_match_if_none"] = float(matches[~has_answer, 0].mean())
        return Figures(values)

    def wrong_by(self, result: AnswerResult, target: Target) -> float:
        """The score of the wrong answer."""
        return 0.0 if _match(result, target)[0] else result.score


class _Words:
    """Maps answers to words of a text as it was read."""

    def __init__(self, read: Read, numbers: Array) -> None:
        self._places = sorted({place for place in read.places if place != NO_PLACE})
        window = np.cumsum(numbers < 0)
        self._windows = [(own.min(), own.max()) for own in _split(numbers[numbers >= 0], window[numbers >= 0])]

    def __call__(self, answer: Answer) -> Decision:
        """The words that an answer overlaps; `None` if no candidate has exactly these words."""
        first = bisect_right(self._places, answer.start, key=lambda place: place[1])
        last = bisect_left(self._places, answer.end, key=lambda place: place[0]) - 1
        legal = first <= last < first + MOST_WORDS
        return (first, last) if legal and any(one <= first and last <= other for one, other in self._windows) else None

    def is_exact(self, answer: Answer) -> bool:
        """Whether a candidate has exactly this text."""
        own = self(answer)
        return own is not None and (self._places[own[0]][0], self._places[own[1]][1]) == (answer.start, answer.end)


def _split(values: Array, group: Array) -> list[Array]:
    return [values[group == number] for number in np.unique(group)]


def _numbers(logits: Array, read: Read) -> Array:
    """The word numbers of the rows. If nothing is known about the text, all rows are in one window."""
    return numbered(read.places) if read.places else np.arange(FIRST_WINDOW, FIRST_WINDOW + len(logits))


def _match(result: AnswerResult, target: Target) -> tuple[float, float]:
    return match("" if result.best is None else result.best.text, [one.text for one in _answers(target)])


def _two(matches: Array) -> dict[str, float]:
    exact, f1 = matches.mean(axis=0) if len(matches) else (0.0, 0.0)
    return {"exact_match": float(exact), "answer_f1": float(f1)}


def _answers(target: Target) -> tuple[Answer, ...]:
    return tuple(one for one in target if isinstance(one, Answer)) if isinstance(target, tuple) else ()


def _read_json(value: object) -> object:
    """Parse a text that begins like a JSON object or list of objects; return anything else unchanged."""
    if not isinstance(value, str) or not value.startswith(("{", "[{", "[]")):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _is_answers(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(one, Mapping) and _START in one for one in value)
    return isinstance(value, Mapping) and _START in value


def _listed(value: Any) -> list[Any]:
    found = value.tolist() if isinstance(value, np.ndarray) else value
    return list(found) if isinstance(found, list | tuple) else [found]


def _answer(text: object, start: object) -> Answer:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"an answer is {text!r:.40}: expected a text; a question without an answer has empty lists")
    whole = isinstance(start, int) or (isinstance(start, float) and start.is_integer())
    if isinstance(start, bool) or not whole or start < 0:  # type: ignore[operator]
        raise ValueError(f"the answer {text!r:.40} begins at {start!r:.20}: expected a number of characters from 0")
    begin = int(start)  # type: ignore[call-overload]
    return Answer(begin, begin + len(text), text)


def _found(answer: Answer, context: str) -> Answer:
    """The answer, if the context contains it at its place.

    Raises:
        ValueError: it does not. If the answer is at another place, or its offset has another unit, the message says so.
    """
    start, end, text = answer
    if context[start:end] != text:
        raise ValueError(_where(answer, context))
    start += len(text) - len(text.lstrip())
    text = text.strip()
    return Answer(start, start + len(text), text)


def _where(answer: Answer, context: str) -> str:
    """Why an answer is not at its stated place in the context."""
    start, _, text = answer
    places = [place for place in range(len(context)) if context.startswith(text, place)]
    said = f"the answer {text!r:.60} is said to begin at {start}"
    for unit, character_at in characters_at(context):
        if character_at.get(start) in places:
            return f"{said}, which are {unit}; in characters it begins at {character_at[start]}: expected characters"
    if not places:
        return f"{said}, and the context does not have it: expected an answer that is a stretch of the context"
    nearest = min(places, key=lambda place: abs(place - start))
    there = context[start : start + len(text)]
    return f"{said}, and the context has {there!r:.60}; it begins at {nearest}: expected the offset in characters"


SPANS = SpansKind()
