"""The tokens of a piece of a text, and the window of a long text that answers it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter

import numpy as np

from edgetune_runtime.arrays import Array
from edgetune_runtime.kinds.kind import Place

Span = tuple[int, int]
"""Start and end in tokens of the text; a soft prompt has negative positions."""

TokenPlace = tuple[int, int, int]
"""A token, and its start and end in characters of the text."""

_Ends = Mapping[int, tuple[int, int]]
"""Piece → its first and its last token."""

_SPANS: Mapping[str, Callable[[_Ends], dict[int, Span]]] = {
    "cls": lambda ends: {piece: (first, first + 1) for piece, (first, _) in ends.items()},
    "mean": lambda ends: {piece: (first, last + 1) for piece, (first, last) in ends.items()},
    "last": lambda ends: {piece: (last, last + 1) for piece, (_, last) in ends.items()},
}
"""Pooling → the spans that it reads for pieces."""


def pieces_of(
    windows: Sequence[Sequence[TokenPlace]], places: Sequence[Place], pooling: str, all_in_each: bool = False
) -> list[dict[int, Span]]:
    """The pieces that each window answers, with the spans to read.

    If several windows contain a whole piece, the window in which it is farthest from an edge answers it; the beginning
    and the end of the text do not count as edges. A piece without a token, such as a control character that the
    tokenizer drops, is not read.

    Args:
        windows: for each window its tokens of the text, in order; at least one window.
        places: places of the pieces, in order.
        pooling: how a piece is read, one of `contract.OF_PIECES`.
        all_in_each: whether each window answers all pieces that it contains whole.
    """
    spans_of = _SPANS[pooling]
    tokens = [_tokens_of(window, places) for window in windows]
    if len(windows) == 1:
        return [spans_of(tokens[0])]
    if all_in_each:
        # The last of equal keys wins, and it has the most tokens.
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
    """The token to read for "no answer" in a window of this length.

    It is the first one, or the last one if the pooling reads the last token.
    """
    token = length - 1 if pooling == "last" else 0
    return token, token + 1


def _tokens_of(tokens: Sequence[TokenPlace], places: Sequence[Place]) -> dict[int, tuple[int, int]]:
    """Piece → the first and the last token that contains one of its characters."""
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
    """Stack the spans of rows. Rows with fewer spans than others, or than `fewest`, repeat one.

    Shape: [rows, most spans, 2].
    """
    most = max(fewest, *map(len, rows))
    filled = ((*spans, *[spans[0] if spans else (0, 1)] * (most - len(spans))) for spans in rows)
    numbers = chain.from_iterable(chain.from_iterable(filled))
    return np.fromiter(numbers, np.int64, 2 * most * len(rows)).reshape(len(rows), most, 2)
