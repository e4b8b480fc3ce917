"""Data for training: splits, labels, and where data can come from."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.data import label_set, read_data, split_dev
from edgetune_runtime.errors import DataError
from edgetune_runtime.rows import LabelledText

ROWS = [LabelledText(f"text {place}", "ab"[place % 2]) for place in range(40)]


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=60), st.integers(0, 5))
def test_a_split_loses_nothing_and_leaves_every_label_in_training(labels: list[str], seed: int) -> None:
    rows = [LabelledText(str(place), label) for place, label in enumerate(labels)]
    if max(Counter(labels).values()) < 2:
        with pytest.raises(DataError):
            split_dev(rows, seed)
        return
    train, dev = split_dev(rows, seed)
    assert sorted(train + dev, key=lambda row: int(row.text)) == rows
    assert {row.label for row in train} == set(labels)
    assert dev
    assert split_dev(rows, seed) == (train, dev)


def test_a_split_is_a_tenth_of_each_label() -> None:
    _, dev = split_dev(ROWS, 0)
    assert Counter(row.label for row in dev) == {"a": 2, "b": 2}


def test_labels_are_sorted() -> None:
    assert label_set(ROWS[::-1], ROWS) == ("a", "b")


def test_a_file_is_read_by_its_suffix(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": row.text, "label": row.label}) + "\n" for row in ROWS))
    assert read_data(str(path)) == ROWS


def test_a_data_set_folder_is_read_with_its_split(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps({"text": split, "label": 3}) + "\n")
    assert read_data(f"{tmp_path}:test") == [LabelledText("test", "3")]


@pytest.mark.parametrize("source", ["missing.jsonl", "missing.csv", "no_such_thing"])
def test_data_that_is_not_there_is_named(source: str) -> None:
    with pytest.raises(DataError, match=source):
        read_data(source)
