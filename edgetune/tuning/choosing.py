"""Which setup is taken, given what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgetune.tuning.questions import Question
from edgetune.tuning.timing import AGAIN, Comparison

_MORE_ERROR = 1.05
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Answers:
    """Answers of a setup to the check texts, compared with the reference: fp32 as exported, if the bundle has it.

    Attributes:
        agreement: share of answers with the same label.
        error: root mean square difference of the logits, over the root mean square of the reference's.
        to_the_bit: whether features are those of the present setup, to the bit.
    """

    agreement: float
    error: float
    to_the_bit: bool


@dataclass(frozen=True)
class Tried:
    """One row of the report.

    Attributes:
        precision: of the graph.
        question: name of the question.
        name: what was tried.
        comparison: how fast it is.
        answers: what it answers.
        chosen: whether it is what is used from now on.
        why: why, or why not.
    """

    precision: str
    question: str
    name: str
    comparison: Comparison
    answers: Answers
    chosen: bool
    why: str

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        told = asdict(self)
        return {**told, "comparison": {name: round(value, 4) for name, value in told["comparison"].items()}}


def choose(
    precision: str,
    question: Question,
    comparisons: Mapping[str, Comparison],
    answers: Mapping[str, Answers],
) -> list[Tried]:
    """The report's rows of one question: the fastest is chosen that answers no worse, if it gains enough to count.

    Args:
        precision, question: what they are about.
        comparisons: name → how fast, of the present one, of itself `AGAIN`, and of the candidates.
        answers: name → answers, of the present one and the candidates.
    """
    present = question.present
    again = comparisons[AGAIN]
    names = [name for name in comparisons if name != AGAIN]
    verdicts = {
        name: _verdict(question, comparisons[name], again, answers[name], answers[present])
        for name in names
        if name != present
    }
    good = [name for name, why in verdicts.items() if not why]
    best = max(good, key=lambda name: comparisons[name].ratio, default=present)
    verdicts |= dict.fromkeys(good, "slower than the chosen one")
    verdicts[best] = "nothing gains more than noise" if best == present else "fastest"
    if best != present:
        verdicts[present] = "slower than the chosen one"
    return [
        Tried(precision, question.name, name, comparisons[name], answers[name], name == best, verdicts[name])
        for name in names
    ]


def _verdict(question: Question, own: Comparison, again: Comparison, answers: Answers, present: Answers) -> str:
    """Why a candidate is not taken; empty if it may be."""
    if question.to_the_bit and not answers.to_the_bit:
        return "not equal to the bit"
    if answers.agreement < present.agreement:
        return "lower agreement"
    if answers.error > max(_MORE_ERROR * present.error, _ROUNDING):
        return "larger error"
    if own.ratio < 1:
        return "slower"
    margin = own.margin(again)
    if own.ratio < 1 + margin:
        return f"gain below {margin:.1%}"
    return "the machine is not quiet" if question.needs_quiet and not again.quiet else ""
