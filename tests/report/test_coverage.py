"""Coverage of lowest scores, and the proposed one."""

from __future__ import annotations

import numpy as np
import pytest
from evaluated import evaluated, of_probabilities, task_of
from hypothesis import given
from hypothesis import strategies as st

from edgetune.report.coverage import FEWEST_ROWS, coverage, coverage_curve, proposed
from edgetune.report.section import Material

ROWS = st.lists(
    st.tuples(st.one_of(st.floats(0, 1), st.integers(0, 100).map(lambda part: part / 100)), st.booleans()),
    min_size=1,
    max_size=150,
)


def arrays(rows: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([score for score, _ in rows]), np.array([right for _, right in rows])


@given(ROWS)
def test_it_counts_as_one_would(rows: list[tuple[float, bool]]) -> None:
    curve = coverage_curve(*arrays(rows))
    for place, least in enumerate(curve.min_scores):
        left = [right for score, right in rows if score >= least]
        assert (curve.answered[place], curve.right[place]) == (len(left), sum(left))
        assert curve.accuracy[place] == pytest.approx(sum(left) / len(left) if left else 1)


@given(ROWS)
def test_a_higher_score_answers_no_more_rows(rows: list[tuple[float, bool]]) -> None:
    curve = coverage_curve(*arrays(rows))
    assert curve.coverage[0] == 1
    assert (np.diff(curve.answered) <= 0).all()
    assert (np.diff(curve.right) <= 0).all()
    assert (curve.right <= curve.answered).all()


@given(ROWS)
def test_the_proposal_keeps_its_rule_and_is_the_lowest(rows: list[tuple[float, bool]]) -> None:
    curve = coverage_curve(*arrays(rows))

    def fits(least: float) -> bool:
        left = [right for score, right in rows if score >= least]
        wrong, all_wrong = left.count(False), [right for _, right in rows].count(False)
        return len(left) >= FEWEST_ROWS and wrong * len(rows) * 2 <= all_wrong * len(left)

    place = proposed(curve)
    if all(right for _, right in rows):
        assert place is None
    elif place is None:
        assert not any(fits(least) for least in curve.min_scores[1:])
    else:
        assert fits(curve.min_scores[place])
        assert not any(fits(least) for least in curve.min_scores[1:place])


def test_what_the_proposal_promises_is_what_min_score_does() -> None:
    random = np.random.default_rng(1)
    logits = random.normal(0, 2, (400, 3))
    targets = ["abc"[place] for place in (logits + random.normal(0, 2, logits.shape)).argmax(axis=1)]
    found = evaluated(task_of(), logits, targets)
    part = coverage(Material(found))
    least = float(part.finding.partition("--min-score ")[2].partition(",")[0])
    again = evaluated(task_of(), logits, targets, min_score=least)
    assert again.answered is not None
    assert again.answered.figure is not None
    assert (1 - again.answered.figure) <= (1 - found.figures.values["accuracy"]) / 2
    assert (
        f"{again.coverage:.0%} of the rows are answered, {again.answered.figure:.1%} of these rightly" in part.finding
    )
    assert "read off these rows" in part.body


def test_without_a_proposal_it_says_so() -> None:
    few = of_probabilities(task_of(), [[0.8, 0.1, 0.1], [0.4, 0.3, 0.3]], ["a", "b"])
    assert coverage(Material(few)).finding.startswith("No --min-score halves the share of wrong answers")
    right = of_probabilities(task_of(), [[0.8, 0.1, 0.1], [0.4, 0.3, 0.3]], ["a", "a"])
    assert coverage(Material(right)).finding.startswith("Every row is answered rightly")


def test_the_score_that_was_asked_for_is_marked() -> None:
    found = evaluated(task_of(), [[1, 0, 0], [2, 0, 0]], ["a", "b"], min_score=0.7)
    assert "0.7 (asked for)" in coverage(Material(found)).body
