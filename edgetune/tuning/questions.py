"""The questions to measure, and the candidate setups of each. A new question is a row of `QUESTIONS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from edgetune_runtime import operators
from edgetune_runtime.setups import Setup

LENGTHS = {12: 20, 32: 64, 128: 512}
"""Tokens of the texts that are timed → the most tokens of the texts that they stand for."""

_ROWS = (4, 8, 16)


@dataclass(frozen=True)
class Place:
    """The facts that decide which setups may be tried.

    Attributes:
        graph: the graph, without its large weights.
        batch_invariant: whether its answers do not depend on the other rows of a run.
        threads: threads that the process may use.
    """

    graph: bytes
    batch_invariant: bool
    threads: int


@dataclass(frozen=True)
class Question:
    """One thing that setups can differ in.

    Attributes:
        name: what it is called in the report.
        present: name of the current setup.
        candidates: the other setups to try, by name, given the current setup.
        lengths: tokens of the texts that are timed, each alone. None: many texts at once.
        threads: threads of a text that is alone; `None` as the setup says.
        to_the_bit: whether a candidate must give the same features to the bit.
        needs_quiet: whether other programs mislead: while they run, fewer threads look faster than they are.
    """

    name: str
    present: str
    candidates: Callable[[Place, Setup], Mapping[str, Setup]]
    lengths: tuple[int, ...]
    threads: Literal[1] | None
    to_the_bit: bool = False
    needs_quiet: bool = False


def _attentions(place: Place, setup: Setup) -> dict[str, Setup]:
    return {
        operator: replace(setup, form=replace(setup.form, attention=operator))
        for operator in (operators.ONNX_ATTENTION, operators.OWN_ATTENTION)
        if operators.with_attention(place.graph, operator) is not None
    }


def _normalizations(place: Place, setup: Setup) -> dict[str, Setup]:
    if b"LayerNormalization" not in place.graph:  # which is what it is fused with
        return {}
    return {"one operator": replace(setup, form=replace(setup.form, fuses_normalization=True))}


def _threads(tokens: int) -> Callable[[Place, Setup], dict[str, Setup]]:
    def candidates(place: Place, setup: Setup) -> dict[str, Setup]:
        counts = [number for number in _doubling(place.threads) if number < place.threads]
        most = LENGTHS[tokens]
        return {str(number): replace(setup, threads={**setup.threads, most: number}) for number in counts}

    return candidates


def _rows(place: Place, setup: Setup) -> dict[str, Setup]:
    if not place.batch_invariant:
        return {}
    return {str(rows): replace(setup, rows=rows) for rows in _ROWS}


def _doubling(most: int) -> Iterator[int]:
    number = 1
    while number <= most:
        yield number
        number *= 2


QUESTIONS = (
    Question("attention", "as exported", _attentions, tuple(LENGTHS), threads=1),
    # One operator for both is the slower way on x86 CPUs; on others nobody has measured it.
    Question("normalization", "two operators", _normalizations, tuple(LENGTHS), threads=1),
    *(
        Question(f"threads, {tokens} tokens", "all", _threads(tokens), (tokens,), threads=None, needs_quiet=True)
        for tokens in LENGTHS
    ),
    Question("texts in a run", "1", _rows, (), threads=None, to_the_bit=True),
)
"""In the order in which they are asked: each begins with what those before it chose."""
