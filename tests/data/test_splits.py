"""Data for training: development data held out, and labels."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.data.labelled import LabelledText
from edgetune.data.splits import label_set, split_dev
from edgetune_runtime.errors import DataError
from edgetune_runtime.kinds.single_label import SINGLE_LABEL

ROWS = [LabelledText(f"text {place}", "ab"[place % 2]) for place in range(40)]


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=60), st.integers(0, 5))
def test_a_split_loses_nothing_and_leaves_every_label_in_training(labels: list[str], seed: int) -> None:
    rows = [LabelledText(str(place), label) for place, label in enumerate(labels)]
    if max(Counter(labels).values()) < 2:
        with pytest.raises(DataError):
            split_dev(rows, seed, SINGLE_LABEL)
        return
    train, dev = split_dev(rows, seed, SINGLE_LABEL)
    assert sorted(train + dev, key=lambda row: int(row.text)) == rows
    assert {row.target for row in train} == set(labels)
    assert dev
    assert split_dev(rows, seed, SINGLE_LABEL) == (train, dev)


def test_a_split_is_a_tenth_of_each_label() -> None:
    _, dev = split_dev(ROWS, 0, SINGLE_LABEL)
    assert Counter(row.target for row in dev) == {"a": 2, "b": 2}


def test_labels_are_sorted() -> None:
    assert label_set(ROWS[::-1], ROWS, SINGLE_LABEL) == ("a", "b")


@pytest.mark.parametrize("other", [" a", "a ", '"a"'])
def test_labels_that_differ_only_in_spaces_or_quotes_are_refused(other: str) -> None:
    with pytest.raises(DataError, match="which differ only in spaces or quotes"):
        label_set([*ROWS, LabelledText("text", other)], ROWS, SINGLE_LABEL)
