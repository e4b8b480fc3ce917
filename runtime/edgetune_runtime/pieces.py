"""Which tokens a piece of a text has, and which window of a long text answers it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgetune_runtime.arrays import Array
from edgetune_runtime.kinds.kind import Place

Span = tuple[int, int]
"""Begin and end in tokens of the text; a soft prompt stands before 0."""

TokenPlace = tuple[int, int, int]
"""A token, and where it begins and ends in characters of the text."""

_SPANS: Mapping[str, Callable[[int, int], Span]] = {
    "cls": lambda first, last: (first, first + 1),
    "mean": lambda first, last: (first, last + 1),
    "last": lambda first, last: (last, last + 1),
}
"""Pooling → what is read of a piece, given its first and its last token."""


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
    span_of = _SPANS[pooling]
    tokens = [_tokens_of(window, places) for window in windows]
    if len(windows) == 1:
        return [{place: span_of(*own) for place, own in tokens[0].items()}]
    if all_in_each:
        # Of equal keys the last one stays, which has the most tokens.
        most = dict(sorted((place, last - first) for own in tokens for place, (first, last) in own.items()))
        return [
            {place: span_of(first, last) for place, (first, last) in own.items() if last - first == most[place]}
            for own in tokens
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
        {place: span_of(*own[place]) for place in own if best[place][1] == number} for number, own in enumerate(tokens)
    ]


def span_of_none(length: int, pooling: str) -> Span:
    """What is read for "no answer" of a window of so many tokens: the first or, of what reads forwards, the last."""
    token = length - 1 if pooling == "last" else 0
    return token, token + 1


def _tokens_of(tokens: Sequence[TokenPlace], places: Sequence[Place]) -> dict[int, tuple[int, int]]:
    """Piece → the first and the last token that has a character of it."""
    found: dict[int, tuple[int, int]] = {}
    at = bisect_right(places, tokens[0][1], key=lambda place: place[1]) if tokens else 0
    for token, begin, end in tokens:
        while at < len(places) and places[at][1] <= begin:
            at += 1
        for place in range(at, len(places)):
            if places[place][0] >= end:
                break
            found[place] = found.get(place, (token, token))[0], token
    return found


def stacked_spans(rows: Sequence[Sequence[Span]], fewest: int = 1) -> Array:
    """Spans of each row; a row with fewer than another, or than `fewest`, repeats one. Shape: [rows, most spans, 2]."""
    most = max(fewest, *map(len, rows))
    return np.array([[*spans, *[spans[0] if spans else (0, 1)] * (most - len(spans))] for spans in rows], np.int64)
