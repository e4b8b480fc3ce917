"""The set of labels in targets."""

from __future__ import annotations

import pytest

from edgetune_runtime.errors import DataError
from edgetune_runtime.fitting.label_set import label_set
from edgetune_runtime.kinds import Kind, Target
from edgetune_runtime.kinds.multi_label import MULTI_LABEL
from edgetune_runtime.kinds.score import SCORE
from edgetune_runtime.kinds.single_label import SINGLE_LABEL


def test_labels_are_sorted() -> None:
    assert label_set(["b", "a", "b"], ["a"], SINGLE_LABEL) == ("a", "b")


@pytest.mark.parametrize("other", [" a", "a ", '"a"'])
def test_labels_that_differ_only_in_spaces_or_quotes_are_refused(other: str) -> None:
    with pytest.raises(DataError, match="which differ only in spaces or quotes"):
        label_set(["a", "b", other], ["a"], SINGLE_LABEL)


def test_the_labels_of_each_kind() -> None:
    several = [("b", "c"), (), ("a",)]
    assert label_set(several, several[:1], MULTI_LABEL) == ("a", "b", "c")
    assert label_set([("a",), ()], [], MULTI_LABEL) == ("a",)
    assert label_set([0.5, 1.5], [9.0], SCORE) == ("score",)


@pytest.mark.parametrize(
    ("kind", "train", "dev", "message"),
    [
        (SINGLE_LABEL, ["a", "a"], [], "has only the label 'a': expected at least two"),
        (SINGLE_LABEL, ["a", "b"], ["c"], "labels that the training data does not have: c; training has a, b"),
        (MULTI_LABEL, [(), ()], [], "no row of the training data has a label: expected at least one label"),
        (
            MULTI_LABEL,
            [("a", "b")],
            [("d", "a", "c")],
            "labels that the training data does not have: c, d; training has a, b",
        ),
        (MULTI_LABEL, [("a", "b "), ("b",)], [], "the labels 'b' and 'b ', which differ only in spaces or quotes"),
        (MULTI_LABEL, [("a\x1b",)], [], r"has the label 'a\\x1b': the character .*; call it otherwise"),
        (MULTI_LABEL, [tuple(map(str, range(10_001)))], [], "10,001 different labels: expected at most 10,000"),
        (SCORE, [0.5, 0.5], [1.0], "all scores of the training data are 0.5: expected at least two different ones"),
        (SCORE, [2.0], [], "all scores of the training data are 2.0"),
    ],
)
def test_labels_that_no_task_can_have(kind: Kind, train: list[Target], dev: list[Target], message: str) -> None:
    with pytest.raises(DataError, match=message):
        label_set(train, dev, kind)
