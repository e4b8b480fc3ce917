"""The numbers in a report's pictures and tables, compared with scikit-learn or results by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest
from evaluated import HISTORY, evaluated, of_probabilities, random_evaluation, task_of
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from edgetune.report import calibration, labels, thresholds
from edgetune.report.calibration import reliability
from edgetune.report.confusion import Mistake, confusion, worst_pairs
from edgetune.report.learning import learning
from edgetune.report.numbers import numbers, residuals
from edgetune.report.section import Material
from edgetune.report.seeds import across_seeds
from edgetune.training.seeds import SeedSpread
from edgetune_runtime.metrics import CALIBRATION_BINS, calibration_error


def cells(body: str, caption: str) -> list[list[str]]:
    """The cells of the table with a caption, row by row."""
    table = re.search(rf'aria-label="{caption}".*?</table>', body, re.DOTALL)
    assert table is not None, caption
    rows = re.findall(r"<tr>(.*?)</tr>", table.group(), re.DOTALL)
    return [
        [re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<t[hd][^>]*>.*?</t[hd]>", row, re.DOTALL)]
        for row in rows
    ]


class TestReliability:
    @pytest.mark.parametrize("seed", range(3))
    def test_against_scikit_learn(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        scores = np.concatenate([random.random(500), np.arange(16) / 15])  # some on the edges
        right = random.random(len(scores)) < scores**2
        found = reliability(scores, right)
        share, mean = calibration_curve(right, scores, n_bins=CALIBRATION_BINS)
        np.testing.assert_allclose(found.right, share)
        np.testing.assert_allclose(found.score, mean)
        assert found.counts.sum() == len(scores)

    @given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
    def test_its_gaps_are_the_calibration_error(self, rows: list[tuple[float, bool]]) -> None:
        scores, right = np.array([one for one, _ in rows]), np.array([one for _, one in rows])
        found = reliability(scores, right)
        assert ((found.low - 1e-12 <= found.score) & (found.score <= found.high + 1e-12)).all()
        gaps = (np.abs(found.score - found.right) * found.counts).sum() / len(rows)
        assert gaps == pytest.approx(calibration_error(scores, right), abs=1e-12)

    def test_what_it_says(self) -> None:
        sure = of_probabilities(task_of(), [[0.9, 0.05, 0.05]] * 4, ["a", "a", "b", "b"])
        assert calibration.one_answer(Material(sure)).finding == (
            "Scores are too high: 0.90 per answer on average, and the share right is 0.50."
        )
        unsure = of_probabilities(task_of(), [[0.4, 0.3, 0.3]] * 4, ["a"] * 4)
        assert calibration.one_answer(Material(unsure)).finding.startswith("Scores are too low: 0.40 per answer")
        mixed = of_probabilities(task_of(), [[0.9, 0.05, 0.05], [0.5, 0.3, 0.2]] * 5, ["b"] * 3 + ["a"] * 7)
        assert calibration.one_answer(Material(mixed)).finding.startswith("Scores are off by 0.300 on average")
        good = of_probabilities(task_of(), [[0.8, 0.1, 0.1]] * 5, ["a"] * 4 + ["b"])
        part = calibration.one_answer(Material(good))
        assert part.finding == "Scores are well calibrated: ECE 0.000."
        assert cells(part.body, "Scores and the share right, by range of scores")[1:] == [
            ["0.73–0.80", "5", "0.800", "0.800"]
        ]
        assert "With 5 scores it is a rough figure" in part.body

    def test_of_any_number_of_labels_every_score_counts(self) -> None:
        task = task_of("multi-label", ["a", "b"])
        part = calibration.any_labels(Material(evaluated(task, [[9, -9], [9, -9]], [("a",), ("a",)])))
        assert part.finding == "Scores are well calibrated: ECE 0.000."
        (_, *rows) = cells(part.body, "Scores and the share of rows that have it, by range of scores")
        assert rows == [["0.00–0.07", "2", "0.000", "0.000"], ["0.93–1.00", "2", "1.000", "1.000"]]


class TestConfusion:
    def test_worst_pairs_by_hand(self) -> None:
        table = np.array([[5, 2, 0], [3, 1, 1], [2, 0, 0]])
        assert worst_pairs(table) == [
            Mistake(1, 0, 3, 3 / 5),
            Mistake(2, 0, 2, 1.0),
            Mistake(0, 1, 2, 2 / 7),
            Mistake(1, 2, 1, 1 / 5),
        ]

    def test_against_scikit_learn(self) -> None:
        found = random_evaluation("single-label")
        part = confusion(Material(found))
        assert part is not None
        right, answered = [row.target for row in found.rows], [row.result.best for row in found.rows]
        wanted = confusion_matrix(right, answered, labels=found.task.labels)
        header, *rows = cells(part.body, "Right labels and answers")
        assert header[1:] == list(found.task.labels)
        assert [[int(one) for one in row[1:]] for row in rows] == wanted.tolist()
        _, first, *_ = cells(part.body, "Labels that are mistaken for others")
        off = wanted - np.diag(wanted.diagonal())
        assert int(first[2]) == off.max()
        worst = found.task.labels.index(first[0]), found.task.labels.index(first[1])
        assert off[worst] == off.max()
        assert float(first[3]) == pytest.approx(off[worst] / wanted[worst[0]].sum(), abs=5e-4)

    def test_many_labels_have_no_table(self) -> None:
        names = [f"label{place}" for place in range(13)]
        part = confusion(Material(random_evaluation("single-label", labels=names)))
        assert part is not None
        assert "Right labels and answers" not in part.body
        assert "more pairs" in part.body

    def test_nothing_is_mistaken(self) -> None:
        part = confusion(Material(of_probabilities(task_of(), [[0.8, 0.1, 0.1]], ["a"])))
        assert part is not None
        assert part.finding == "No label is mistaken for another."


class TestLabels:
    def test_one_label_against_scikit_learn(self) -> None:
        found = random_evaluation("single-label")
        part = labels.one_label(Material(found))
        assert part is not None
        right, answered = [row.target for row in found.rows], [row.result.best for row in found.rows]
        wanted = np.array(precision_recall_fscore_support(right, answered, labels=found.task.labels)).T
        header, *rows = cells(part.body, "Figures per label")
        assert header == ["label", "rows", "precision", "recall", "F1"]
        assert [float(row[4]) for row in rows] == sorted(float(row[4]) for row in rows)
        for name, *own in rows:
            precision, recall, f1, number = wanted[found.task.labels.index(name)]
            assert [float(one) for one in own] == pytest.approx([number, precision, recall, f1], abs=5e-4)
        assert (
            part.finding
            == f"The weakest label is “\u2068{rows[0][0]}\u2069”: F1 {float(rows[0][4]):.2f}, {rows[0][1]} rows."
        )

    def test_any_labels_by_hand(self) -> None:
        task = task_of("multi-label", ["a", "b", "c"])
        logits = [[2, -2, -2], [2, 2, -2], [-2, 2, -2], [-2, 2, -2]]
        found = evaluated(task, logits, [("a",), ("a",), ("a", "b"), ()])
        (header, *rows) = cells(labels.any_labels(Material(found)).body, "Figures per label")
        assert header == ["label", "rows", "missed", "extra", "precision", "recall", "F1", "threshold"]
        assert rows == [
            ["b", "1", "0", "2", "0.333", "1.000", "0.500", "0.50"],
            ["a", "3", "1", "0", "1.000", "0.667", "0.800", "0.50"],
            ["c", "0", "0", "0", "0.000", "0.000", "0.000", "0.50"],  # no row has it: last
        ]

    def test_many_labels_are_folded(self) -> None:
        names = [f"label{place}" for place in range(40)]
        part = labels.one_label(Material(random_evaluation("single-label", labels=names)))
        assert part is not None
        assert "25 more labels" in part.body
        assert len(cells(part.body, "Figures of the other labels")) == 1 + 25


class TestThresholds:
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.lists(st.floats(0, 1), max_size=10))
    def test_share_that_reaches_a_score(self, scores: list[float], limits: list[float]) -> None:
        found = thresholds.reached(np.array(scores), np.array(limits))
        wanted = [sum(score >= limit for score in scores) / len(scores) for limit in limits]
        assert found.tolist() == pytest.approx(wanted)

    def test_a_picture_per_label_of_the_worst(self) -> None:
        names = [f"label{place}" for place in range(30)]
        body = thresholds.distributions(Material(random_evaluation("multi-label", labels=names))).body
        assert body.count("<svg") == 24
        assert "Of 30 labels, the 24 with the lowest F1 are shown." in body

    def test_what_it_says_of_a_label(self) -> None:
        task = task_of("multi-label", ["a", "b"])
        found = evaluated(task, [[2, -2], [2, -2], [-2, -2], [2, -2]], [("a",), ("a",), ("a",), ()])
        body = thresholds.distributions(Material(found)).body
        assert "Of 3 rows with the label 67% get it. Of 1 row without the label 100% get it." in body
        assert "Of 4 rows without the label 0% get it." in body


class TestNumbers:
    @given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=40))
    def test_every_row_is_in_the_histogram(self, rows: list[tuple[float, float]]) -> None:
        counts, edges = residuals(np.array([one for one, _ in rows]), np.array([one for _, one in rows]))
        assert counts.sum() == len(rows)
        np.testing.assert_allclose(edges, -edges[::-1])

    def test_what_it_says(self) -> None:
        found = evaluated(task_of("score", ["score"]), [[1], [2], [3]], [1.5, 2.5, 2.5])
        part = numbers(Material(found))
        assert part.finding == "Answers are off by 0.500 on average over 3 rows; on the whole they are 0.167 too low."
        assert part.body.count("<circle") == 3

    def test_of_many_rows_some_are_drawn(self) -> None:
        body = numbers(Material(random_evaluation("score", rows=3100))).body
        assert body.count("<circle") == 1034
        assert "One of 3 rows is drawn." in body

    @pytest.mark.parametrize("value", [0.0, 1e-9, 3e30])
    def test_of_numbers_that_are_all_the_same(self, value: float) -> None:
        found = evaluated(task_of("score", ["score"]), [[value]] * 3, [value] * 3)
        assert "nan" not in numbers(Material(found)).body

    def test_of_numbers_as_large_as_floats_are(self) -> None:
        found = evaluated(task_of("score", ["score"]), [[3e38], [-3e38]], [-1.7e308, 1.7e308])
        body = numbers(Material(found)).body
        assert "nan" not in body
        assert "inf" not in body


class TestLearning:
    def test_what_it_says(self) -> None:
        part = learning(Material(random_evaluation("score"), HISTORY))
        assert part is not None
        # Epoch 3 has the score of epoch 2, and less loss.
        assert part.finding.startswith("Of 4 epochs, epoch 3 had the best score on development data, 0.750")
        assert part.body.count("<svg") == 2
        assert cells(part.body, "Score and loss per epoch")[-1] == ["4", "0.700", "nan"]
        assert "goes from 1.250 at epoch 1 to 0.600 at epoch 3" in part.body  # a loss that is no number is not drawn

    def test_one_epoch(self) -> None:
        part = learning(Material(random_evaluation("score"), HISTORY[:1]))
        assert part is not None
        assert part.finding.startswith("Of 1 epoch, epoch 1 had")

    def test_without_a_history_there_is_nothing(self) -> None:
        assert learning(Material(random_evaluation("score"))) is None


def test_several_seeds() -> None:
    found = random_evaluation("single-label")
    assert across_seeds(Material(found)) is None
    part = across_seeds(Material(found, seeds=SeedSpread("macro_f1", "cv", {3: 0.7, 4: 0.9, 5: 0.8}, 4)))
    assert part is not None
    assert part.finding == (
        "3 trainings with different seeds have a mean macro-F1 of 0.800 ± 0.100: expect that. The kept one, 0.900, was "
        "chosen because it is the best on these rows."
    )
    assert cells(part.body, "The macro-F1 of each seed")[1:] == [
        ["3", "0.700", ""], ["4", "0.900", "kept"], ["5", "0.800", ""],
    ]  # fmt: skip
    assert part.body.count("<circle") == 4
    same = across_seeds(Material(found, seeds=SeedSpread("accuracy", "dev", {0: 1.0, 1: 1.0}, 0)))
    assert same is not None and "1.000 ± 0.000" in same.finding
