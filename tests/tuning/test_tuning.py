"""Tuning: what is measured, and what is chosen given figures that are put in its place."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from edgetune.tuning import check
from edgetune.tuning import tune as tuning
from edgetune.tuning.choosing import Answers, choose
from edgetune.tuning.questions import QUESTIONS, Place, Question
from edgetune.tuning.timing import AGAIN, Comparison, compare, rounds
from edgetune.tuning.tune import tune
from edgetune_runtime import Bundle
from edgetune_runtime.operators import ONNX_ATTENTION, OWN_ATTENTION
from edgetune_runtime.setups import DEFAULT, Form, Setup

SAME = Answers(agreement=0.99, error=0.05, to_the_bit=True)
ATTENTION, THREADS, ROWS = QUESTIONS[0], QUESTIONS[2], QUESTIONS[-1]


def faster(ratio: float, noise: float = 0.001, spread: float = 0.01) -> Comparison:
    return Comparison(ms=1 / ratio, ratio=ratio, noise=noise, spread=spread)


def chosen(
    question: Question, candidate: Comparison, answers: Answers = SAME, again: Comparison | None = None
) -> tuple[str, str]:
    """The name that is chosen, and why the candidate is, or is not."""
    comparisons = {question.present: faster(1.0), "other": candidate, AGAIN: again or faster(1.0)}
    rows = choose("int8", question, comparisons, {question.present: SAME, "other": answers})
    assert [row.name for row in rows] == [question.present, "other"]
    (name,) = (row.name for row in rows if row.chosen)
    return name, rows[1].why


@pytest.mark.parametrize(
    ("candidate", "answers", "why"),
    [
        (faster(3.0), dataclasses.replace(SAME, agreement=0.989), "lower agreement"),
        (faster(3.0), dataclasses.replace(SAME, error=0.053), "larger error"),
        (faster(0.9), SAME, "slower"),
        (faster(1.019), SAME, "gain below 2.0%"),
        (faster(1.05, noise=0.03), SAME, "gain below 6.0%"),
    ],
)
def test_what_is_not_chosen_however_fast(candidate: Comparison, answers: Answers, why: str) -> None:
    assert chosen(ATTENTION, candidate, answers) == (ATTENTION.present, why)


@pytest.mark.parametrize(
    "answers",
    [
        SAME,
        dataclasses.replace(SAME, error=0.052, to_the_bit=False),
        Answers(agreement=1.0, error=0.0, to_the_bit=False),
    ],
)
def test_what_answers_no_worse_and_gains_is_chosen(answers: Answers) -> None:
    assert chosen(ATTENTION, faster(1.03), answers) == ("other", "fastest")


def test_a_gain_counts_only_beyond_what_the_present_setup_gains_over_itself() -> None:
    assert chosen(ATTENTION, faster(1.05), again=faster(0.94)) == (ATTENTION.present, "gain below 6.2%")
    assert chosen(ATTENTION, faster(1.05), again=faster(0.99)) == ("other", "fastest")


@pytest.mark.parametrize("spread", [0.5, 0.06])
def test_threads_are_chosen_on_a_quiet_machine_alone_and_other_things_are_on_any(spread: float) -> None:
    again = faster(1.0, spread=spread)
    assert chosen(THREADS, faster(2.0), again=again) == (THREADS.present, "the machine is not quiet")
    assert chosen(ATTENTION, faster(2.0), again=again) == ("other", "fastest")
    assert chosen(THREADS, faster(2.0)) == ("other", "fastest")


def test_texts_share_a_run_only_if_they_answer_to_the_bit() -> None:
    assert chosen(ROWS, faster(2.0), dataclasses.replace(SAME, to_the_bit=False)) == (
        ROWS.present,
        "not equal to the bit",
    )
    assert chosen(ROWS, faster(2.0)) == ("other", "fastest")


def test_the_fastest_of_several_is_chosen() -> None:
    comparisons = {"1": faster(1.0), "4": faster(1.5), "8": faster(1.7), "16": faster(1.6), AGAIN: faster(1.0)}
    rows = choose("fp32", ROWS, comparisons, dict.fromkeys(["1", "4", "8", "16"], SAME))
    assert {row.name: row.why for row in rows if row.chosen} == {"8": "fastest"}
    assert {row.why for row in rows if not row.chosen} == {"slower than the chosen one"}


def test_sides_are_compared_round_by_round() -> None:
    """A load that doubles all times of a round changes no ratio."""
    load = np.array([1.0, 2.0, 1.0, 4.0, 1.0])
    times = [
        {"present": list(10 * load), "half": list(5 * load), AGAIN: list(10 * load)},
        {"present": list(20 * load), "half": list(40 * load), AGAIN: list(20 * load)},
    ]
    found = compare(times, "present")
    assert found[AGAIN] == Comparison(ms=30.0, ratio=1.0, noise=0.0, spread=0.0)
    assert found["half"].ratio == pytest.approx(1.0)  # the geometric mean of 2 and a half
    assert found["half"].ms == pytest.approx(45.0)
    assert not found[AGAIN].busy


def test_times_that_differ_are_noise() -> None:
    found = compare([{"present": [1.0, 2.0, 1.0, 2.0], AGAIN: [1.0, 1.0, 1.0, 1.0]}], "present")[AGAIN]
    assert found.ratio == pytest.approx(1.5)
    assert found.busy and found.spread == pytest.approx(1.0)
    assert found.noise == pytest.approx(1.2533 * 1.4826 * 0.5 / 2)


def test_all_sides_run_in_each_round() -> None:
    ran: list[str] = []
    times = rounds({name: lambda name=name: ran.append(name) for name in "ab"}, seconds=0.0)
    assert len(times["a"]) == len(times["b"]) == 9
    assert ran[:8] == ["b"] * 4 + ["a"] * 4 and ran[8:16] == ["a"] * 4 + ["b"] * 4  # the order turns


def test_what_may_be_tried_depends_on_the_graph_and_the_machine(bundle: Bundle) -> None:
    def names(precision: str, batch_invariant: bool, threads: int) -> dict[str, list[str]]:
        place = Place(bundle.read_graph(precision)[0], batch_invariant, threads)
        return {question.name: list(question.candidates(place, DEFAULT)) for question in QUESTIONS}

    on_five = names("int8", False, 5)
    assert on_five == {
        "attention": [OWN_ATTENTION],
        "normalization": ["one operator"],
        "threads, 12 tokens": ["1", "2", "4"],
        "threads, 32 tokens": ["1", "2", "4"],
        "threads, 128 tokens": ["1", "2", "4"],
        "texts in a run": [],
    }
    on_one = names("fp32", True, 1)
    assert on_one["attention"] == [ONNX_ATTENTION]
    assert on_one["texts in a run"] == ["4", "8", "16"]
    assert on_one["threads, 12 tokens"] == []


Sides = Mapping[str, Callable[[], object]]


def figures(*fast: str) -> Callable[[Sides, float], dict[str, list[float]]]:
    """Times in place of measured ones: what is named takes half as long; everything is run once."""

    def measure(sides: Sides, seconds: float) -> dict[str, list[float]]:
        for run in sides.values():
            run()
        return {name: [1.0 if name in fast else 2.0] * 9 for name in sides}

    return measure


@pytest.mark.parametrize(
    ("precision", "fast", "expected"),
    [
        ("int8", (), DEFAULT),
        ("int8", (OWN_ATTENTION,), Setup(Form(OWN_ATTENTION))),
        ("fp32", (ONNX_ATTENTION, "16"), Setup(Form(ONNX_ATTENTION), rows=16)),
        ("fp32", ("1",), Setup(threads={20: 1, 64: 1})),  # it has 64 positions, which is too few for a text of 128
    ],
)
def test_what_is_faster_is_chosen_question_by_question(
    bundle: Bundle, precision: str, fast: tuple[str, ...], expected: Setup
) -> None:
    told: list[str] = []
    found = tune(bundle, precision, threads=2, progress=told.append, measure=figures(*fast))
    assert found.setup == expected
    assert not found.busy
    assert {row.precision for row in found.tried} == {precision}
    assert told == [f"{precision}: {name} …" for name in dict.fromkeys(row.question for row in found.tried)]
    assert {row.answers.agreement for row in found.tried if row.question != "normalization"} == {
        found.tried[0].answers.agreement
    }


def test_a_form_that_answers_worse_is_not_chosen_though_it_is_faster(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its logits are changed on their way: labels of some texts are others."""
    logits = check.Check._logits

    def worse(self: check.Check, features: list[np.ndarray]) -> list[list[np.ndarray]]:
        found = logits(self, features)
        form = forms.pop(0)
        return [[-own for own in task] for task in found] if form == "worse" else found

    forms = ["reference", "present", "worse"]
    monkeypatch.setattr(check.Check, "_logits", worse)
    monkeypatch.setattr(tuning, "QUESTIONS", (ATTENTION,))
    found = tune(bundle, "int8", threads=2, measure=figures(OWN_ATTENTION))
    assert forms == [] and found.setup == DEFAULT
    present, other = found.tried
    assert other.comparison.ratio == 2.0 and other.answers.agreement < present.answers.agreement
    assert other.why == "lower agreement"


def test_a_bundle_without_tasks_or_fp32_is_tuned(here: Path) -> None:
    for file in (here / "tasks").iterdir():
        file.unlink()
    for file in (here / "onnx").iterdir():
        if "int8" not in file.name:
            file.unlink()
    found = tune(Bundle(here), "int8", threads=2, measure=figures(OWN_ATTENTION))
    assert found.setup.form == Form(OWN_ATTENTION)
    assert {row.answers.error for row in found.tried if row.question == "attention"} == {0.0}


def test_real_times_of_real_graphs(bundle: Bundle) -> None:
    found = tune(bundle, "fp32", seconds=0.01, threads=2)
    assert all(row.comparison.ms > 0 for row in found.tried)
    assert sum(row.chosen for row in found.tried) == len({row.question for row in found.tried})


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tuning leaves nothing among the user's prepared graphs."""
    monkeypatch.setenv("EDGETUNE_CACHE", str(tmp_path / "cache"))
    yield
    assert not (tmp_path / "cache").exists()
