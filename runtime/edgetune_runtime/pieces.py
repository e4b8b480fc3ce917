"""Which tokens a piece of a text has, and which window of a long text answers it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter

import numpy as np

from edgetune_runtime.arrays import Array
from edgetune_runtime.kinds.kind import Place

Span = tuple[int, int]
"""Begin and end in tokens of the text; a soft prompt stands before 0."""

TokenPlace = tuple[int, int, int]
"""A token, and where it begins and ends in characters of the text."""

_Ends = Mapping[int, tuple[int, int]]
"""Piece → its first and its last token."""

_SPANS: Mapping[str, Callable[[_Ends], dict[int, Span]]] = {
    "cls": lambda ends: {piece: (first, first + 1) for piece, (first, _) in ends.items()},
    "mean": lambda ends: {piece: (first, last + 1) for piece, (first, last) in ends.items()},
    "last": lambda ends: {piece: (last, last + 1) for piece, (_, last) in ends.items()},
}
"""Pooling → what is read of pieces."""


def pieces_of(
    windows: Sequence[Sequence[TokenPlace]], places: Sequence[Place], pooling: str, all_in_each: bool = False
) -> list[dict[int, Span]]:
    """The pieces that each window answers, with what is read of them.

    A piece that stands in several windows is answered by the one in which it stands farthest from an edge, among those
    that do not cut it; the beginning and the end of the text are no edges. A piece that has no token, such as a control
    character that the tokenizer drops, is not read.

    Args:
        windows: for each the tokens of the text that it has, in order; at least one.
        places: of the pieces, in order.
        pooling: what is read of a piece, one of `contract.OF_PIECES`.
        all_in_each: whether each window answers all pieces that it does not cut.
    """
    spans_of = _SPANS[pooling]
    tokens = [_tokens_of(window, places) for window in windows]
    if len(windows) == 1:
        return [spans_of(tokens[0])]
    if all_in_each:
        # Of equal keys the last one stays, which has the most tokens.
        most = dict(sorted((place, last - first) for own in tokens for place, (first, last) in own.items()))
        return [
            spans_of({place: ends for place, ends in own.items() if ends[1] - ends[0] == most[place]}) for own in tokens
        ]
    best: dict[int, tuple[tuple[int, float], int]] = {}
    for number, (window, own) in enumerate(zip(windows, tokens, strict=True)):
        left = window[0][0] if window and number else float("-inf")
        right = window[-1][0] if window and number + 1 < len(windows) else float("inf")
        for place, (first, last) in own.items():
            rank = last - first, min(first - left, right - last)
            if place not in best or rank > best[place][0]:
                best[place] = rank, number
    return [
        spans_of({place: ends for place, ends in own.items() if best[place][1] == number})
        for number, own in enumerate(tokens)
    ]


def span_of_none(length: int, pooling: str) -> Span:
    """What is read for "no answer" of a window of so many tokens: the first or, of what reads forwards, the last."""
    token = length - 1 if pooling == "last" else 0
    return token, token + 1


def _tokens_of(tokens: Sequence[TokenPlace], places: Sequence[Place]) -> dict[int, tuple[int, int]]:
    """Piece → the first and the last token that has a character of it."""
    found: dict[int, tuple[int, int]] = {}
    at = bisect_right(places, tokens[0][1], key=itemgetter(1)) if tokens else 0
    number = len(places)
    for token, begin, end in tokens:
        while at < number and places[at][1] <= begin:
            at += 1
        place = at
        while place < number and places[place][0] < end:
            found[place] = (found[place][0], token) if place in found else (token, token)
            place += 1
    return found


def stacked_spans(rows: Sequence[Sequence[Span]], fewest: int = 1) -> Array:
    """Spans of each row; a row with fewer than another, or than `fewest`, repeats one. Shape: [rows, most spans, 2]."""
    most = max(fewest, *map(len, rows))
    filled = ((*spans, *[spans[0] if spans else (0, 1)] * (most - len(spans))) for spans in rows)
    numbers = chain.from_iterable(chain.from_iterable(filled))
    return np.fromiter(numbers, np.int64, 2 * most * len(rows)).reshape(len(rows), most, 2)
