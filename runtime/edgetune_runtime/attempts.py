"""Answers for many texts, each on its own account: one that fails stops no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from edgetune_runtime.engine import Engine, Result, check_min_score
from edgetune_runtime.errors import TextError
from edgetune_runtime.task import Task
from edgetune_runtime.text import Tokens

MOST_CHARACTERS = 100_000
"""Characters from which on a text is refused: it would be split into tokens only to be cut off."""

Made = TypeVar("Made")


def attempt(
    engine: Engine, rows: Sequence[tuple[str, Task]], min_score: float = 0.0, most_characters: int = MOST_CHARACTERS
) -> list[Result | TextError]:
    """Classify texts, each by its own task.

    Args:
        engine: what answers.
        rows: (text, task) pairs.
        min_score: abstain if the best label's score is below it, 0 to 1.
        most_characters: a longer text is not read.

    Returns:
        For each row its result, or why there is none.

    Raises:
        DataError: `min_score` is not from 0 to 1.
    """
    check_min_score(min_score)
    found: dict[int, Result | TextError] = {}
    for place, (text, _) in enumerate(rows):
        if len(text) > most_characters:
            found[place] = TextError(f"a text of {len(text):,} characters: expected at most {most_characters:,}")
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
    """What `work` makes of each place. If it fails, it does so on one half, or on the other, or on both."""
    try:
        return list(work(places))
    except TextError as error:
        if len(places) == 1:
            return [error]
        half = len(places) // 2
        return [*_each(work, places[:half]), *_each(work, places[half:])]
