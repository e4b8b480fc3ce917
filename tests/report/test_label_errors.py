"""Rows whose label is probably wrong, compared with results by hand and with the authors' package."""

from __future__ import annotations

import numpy as np
import pytest

from edgetune.report.label_errors import label_errors


def test_by_hand() -> None:
    """Thresholds are 0.7, the mean of 0.9, 0.8 and 0.4, and 0.5, that of 0.8, 0.6 and 0.1."""
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.2, 0.8], [0.4, 0.6], [0.9, 0.1]])
    found = label_errors(probabilities, np.array([0, 0, 0, 1, 1, 1]))
    assert [(one.row, one.label) for one in found] == [(5, 0), (2, 1)]
    assert [one.margin for one in found] == pytest.approx([-0.8, -0.2])


def test_a_label_must_reach_its_threshold() -> None:
    """The second row looks like the other label, but the task is usually more confident about rows of that label."""
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.05, 0.95], [0.05, 0.95]])
    assert label_errors(probabilities, np.array([0, 0, 1, 1])) == []


def test_a_given_label_that_is_the_most_probable_is_no_error() -> None:
    """The last row reaches the low threshold of another label (0.3), but not that of its own label (0.75)."""
    probabilities = np.array([[0.3, 0.7, 0.0], [0.0, 1.0, 0.0], [0.4, 0.55, 0.05]])
    assert label_errors(probabilities, np.array([0, 1, 1])) == []


def test_a_label_without_rows_is_never_proposed() -> None:
    probabilities = np.array([[0.2, 0.1, 0.7], [0.9, 0.05, 0.05], [0.1, 0.8, 0.1]])
    assert label_errors(probabilities, np.array([0, 0, 1])) == []


def test_against_cleanlab() -> None:
    cleanlab = pytest.importorskip("cleanlab.filter", reason="the package cleanlab is not there")
    compared = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        labels, rows = int(random.integers(2, 9)), int(random.integers(60, 600))
        true = random.integers(0, labels, rows)
        logits = random.normal(0, 1, (rows, labels))
        logits[np.arange(rows), true] += random.uniform(0.5, 3)
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        given = np.where(random.random(rows) < 0.15, random.integers(0, labels, rows), true)
        if labels > 2 and seed % 3 == 0:
            given[given == 0] = 1  # a label without rows
        wanted = cleanlab.find_label_issues(
            given,
            probabilities,
            filter_by="confident_learning",
            return_indices_ranked_by="normalized_margin",
            min_examples_per_class=0,
            n_jobs=1,
        )
        # If several labels reach their thresholds but the most probable one does not, cleanlab still takes the most
        # probable one. The paper (equation 1) takes the best of those that do.
        numbers = np.bincount(given, minlength=labels)
        means = [probabilities[given == label, label].mean() if numbers[label] else 2 for label in range(labels)]
        reaches = probabilities >= np.array(means) - 1e-6
        apart = (reaches.sum(axis=1) > 1) & ~reaches[np.arange(rows), probabilities.argmax(axis=1)]
        found = [one.row for one in label_errors(probabilities, given)]
        assert [row for row in found if not apart[row]] == [int(row) for row in wanted if not apart[row]]
        compared += len(wanted)
    assert compared > 1000
