"""The possible answers in a context: pairs of a first and a last word, and "no answer"; and the logit of each.

Each window of a context has a row for "no answer", then a row for each of its words. Each row has two logits, for "the
answer begins here" and "it ends here". A pair is legal if the last word is not before the first, the answer has at most
`MOST_WORDS` words, and one window has both. Its logit is the sum of the two logits, and the highest sum if several
windows have it. The logit of "no answer" is the lowest over all windows, because a window without the answer correctly
says that it has none (Devlin et al. 2019, "BERT", section 4.3, and its `run_squad.py` for SQuAD 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgetune_runtime.arrays import Array
from edgetune_runtime.words import Place

MOST_WORDS = 30
"""Maximum number of words of an answer."""

NO_PLACE: Place = (0, 0)
"""The place, in characters, of a "no answer" row."""

FIRST_WINDOW, NEXT_WINDOW = -1, -2
"""Used instead of a word number: the "no answer" row of a text's first window, and of its later windows."""

Decision = tuple[int, int] | None
"""The first and the last word of an answer; `None` is no answer."""


@dataclass(frozen=True)
class Candidates:
    """The logits of all possible answers in a context.

    Attributes:
        pairs: logits of answers, by the number of the first word and the number of words after it; -inf if not legal.
            Shape: [words, MOST_WORDS].
        none: logit of no answer.
    """

    pairs: Array
    none: float

    @classmethod
    def of(cls, logits: Array, words: Array) -> Candidates:
        """The answers of one context.

        Args:
            logits: logits of the rows of its windows.
            words: the word numbers of the rows, from `numbered`.

        Shape:
            logits: [rows, 2]
            words: [rows]
        """
        window = np.cumsum(words < 0)
        begins, ends = logits.astype(np.float64).T
        is_none = words < 0
        first = np.flatnonzero(~is_none)[:, np.newaxis]
        last = first + np.arange(MOST_WORDS)
        inside = last < len(words)
        last = np.where(inside, last, 0)
        more = words[last] - words[first]
        legal = inside & (window[first] == window[last]) & (more >= 0) & (more < MOST_WORDS)
        pairs = np.full((int(words.max(initial=-1)) + 1, MOST_WORDS), -np.inf)
        at = np.broadcast_to(words[first], legal.shape)[legal], more[legal]
        np.maximum.at(pairs, at, (begins[first] + ends[last])[legal])
        return cls(pairs, float((begins + ends)[is_none].min()))

    @property
    def logits(self) -> Array:
        """Logits of all answers; the last is "no answer". Shape: [answers]."""
        return np.append(self.pairs.ravel(), self.none)

    @property
    def best(self) -> Decision:
        """The answer with the highest logit."""
        return self.decision(int(self.logits.argmax()))

    def decision(self, place: int) -> Decision:
        """The answer at an index of `logits`."""
        if place >= self.pairs.size:
            return None
        first, more = divmod(place, MOST_WORDS)
        return first, first + more

    def place(self, decision: Decision) -> int:
        """The index of an answer in `logits`."""
        if decision is None:
            return int(self.pairs.size)
        first, last = decision
        return first * MOST_WORDS + last - first


def numbered(places: Sequence[Place]) -> Array:
    """Number the rows of windows: the number of each row's word in the text, negative for "no answer".

    Args:
        places: the place of each row. Each window begins with `NO_PLACE`, the "no answer" row.

    Shape:
        output: [rows]
    """
    begins = np.array([-1 if place == NO_PLACE else place[0] for place in places], np.int64)
    is_none = begins < 0
    found = np.searchsorted(np.unique(begins[~is_none]), begins)
    found[is_none] = NEXT_WINDOW
    found[:1] = FIRST_WINDOW
    return found


def by_text(words: Array) -> Iterator[slice]:
    """Split the rows of several texts, one text after the other, into the rows of each text. Shape: [rows]."""
    starts = np.flatnonzero(words == FIRST_WINDOW)
    return (slice(begin, end) for begin, end in zip(starts, [*starts[1:], len(words)], strict=True))
