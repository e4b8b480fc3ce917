"""Answers for many texts; a text that fails does not affect the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from edgetune_runtime.checks import check_min_score
from edgetune_runtime.engine import Engine, Result
from edgetune_runtime.errors import TextError
from edgetune_runtime.task import Task
from edgetune_runtime.text import Text, Tokens

MOST_CHARACTERS = 100_000
"""Longer texts are rejected: they would be tokenized only to be cut off."""

Made = TypeVar("Made")


def attempt(
    engine: Engine, rows: Sequence[tuple[Text, Task]], min_score: float = 0.0, most_characters: int = MOST_CHARACTERS
) -> list[Result | TextError]:
    """Classify texts, each by its own task.

    Args:
        engine: the engine that answers.
        rows: (text, task) pairs; the text of a task that takes pairs is (text, text_pair).
        min_score: answers that score below it are withheld, 0 to 1; see the task's kind.
        most_characters: longer texts, and pairs with a longer text, are rejected.

    Returns:
        For each row its result, or the error.

    Raises:
        DataError: `min_score` is not between 0 and 1, or a task does not support it.
    """
    check_min_score(min_score, [task for _, task in rows])
    found: dict[int, Result | TextError] = {}
    for place, (text, _) in enumerate(rows):
        longest = len(text) if isinstance(text, str) else max(map(len, text))
        if longest > most_characters:
            found[place] = TextError(f"a text of {longest:,} characters: expected at most {most_characters:,}")
    left = [place for place in range(len(rows)) if place not in found]

    def encode(places: Sequence[int]) -> Sequence[Tokens]:
        return engine.encode([rows[place][0] for place in places], [rows[place][1] for place in places])

    encoded = dict(zip(left, _each(encode, left), strict=True))
    tokens = {place: one for place, one in encoded.items() if isinstance(one, Tokens)}
    found |= {place: one for place, one in encoded.items() if isinstance(one, TextError)}

    def answer(places: Sequence[int]) -> Sequence[Result]:
        return [one.at(min_score) for one in engine.answer([(tokens[place], rows[place][1]) for place in places])]

    found |= zip(tokens, _each(answer, list(tokens)), strict=True)
    return [found[place] for place in range(len(rows))]


def _each(work: Callable[[Sequence[int]], Sequence[Made]], places: Sequence[int]) -> list[Made | TextError]:
    """The result of `work` for each index. If `work` fails, the indices are split in half and each half is tried."""
    try:
        return list(work(places))
    except TextError as error:
        if len(places) == 1:
            return [error]
        half = len(places) // 2
        return [*_each(work, places[:half]), *_each(work, places[half:])]
