"""Data for training: development data held out, and labels."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.data.labelled import LabelledText
from edgetune.data.splits import split_dev
from edgetune_runtime.errors import DataError
from edgetune_runtime.kinds import KINDS, Kind, Target
from edgetune_runtime.kinds.multi_label import MULTI_LABEL
from edgetune_runtime.kinds.score import SCORE
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


@pytest.mark.parametrize(("seed", "places"), [(0, [3, 17, 24, 26]), (7, [3, 8, 20, 25])])
def test_a_split_stays_the_same_from_version_to_version(seed: int, places: list[int]) -> None:
    _, dev = split_dev(ROWS, seed, SINGLE_LABEL)
    assert dev == [ROWS[place] for place in places]


def labelled(*targets: Target) -> list[LabelledText]:
    return [LabelledText(str(place), target) for place, target in enumerate(targets)]


@given(st.lists(st.lists(st.sampled_from("abcd"), unique=True), min_size=2, max_size=40), st.integers(0, 5))
def test_a_split_of_several_labels_leaves_every_label_in_training(sets: list[list[str]], seed: int) -> None:
    rows = labelled(*(tuple(sorted(one)) for one in sets))
    counts = Counter(label for row in rows for label in MULTI_LABEL.named(row.target) or ("",))
    free = [row for row in rows if all(counts[label] > 1 for label in MULTI_LABEL.named(row.target) or ("",))]
    if not free:
        with pytest.raises(DataError, match=f"{len(rows)} rows are too few to hold out"):
            split_dev(rows, seed, MULTI_LABEL)
        return
    train, dev = split_dev(rows, seed, MULTI_LABEL)
    assert sorted(train + dev, key=lambda row: int(row.text)) == rows
    assert dev
    kept, held_out = (
        Counter(label for row in some for label in MULTI_LABEL.named(row.target) or ("",)) for some in (train, dev)
    )
    assert set(kept) == set(counts)
    # A label has no held-out row only if each of its rows has a label that would lose its last training row.
    for label in set(counts) - set(held_out):
        own = [
            MULTI_LABEL.named(row.target) or ("",) for row in rows if label in (MULTI_LABEL.named(row.target) or ("",))
        ]
        assert all(any(kept[other] == 1 for other in names) for names in own)
    assert split_dev(rows, seed, MULTI_LABEL) == (train, dev)


def test_a_split_of_several_labels_is_about_a_tenth_of_each() -> None:
    generator = random.Random(3)
    shares = {"a": 0.5, "b": 0.3, "c": 0.1, "d": 0.02}
    rows = labelled(
        *(tuple(label for label, share in shares.items() if generator.random() < share) for _ in range(2_000))
    )
    for seed in (0, 1):
        _, dev = split_dev(rows, seed, MULTI_LABEL)
        assert len(dev) == pytest.approx(200, abs=10)
        for label in shares:
            all_rows, held_out = (sum(label in MULTI_LABEL.named(row.target) for row in some) for some in (rows, dev))
            assert held_out == pytest.approx(all_rows / 10, abs=2)
        assert sum(not row.target for row in dev) == pytest.approx(sum(not row.target for row in rows) / 10, abs=2)
    assert split_dev(rows, 0, MULTI_LABEL) != split_dev(rows, 1, MULTI_LABEL)


@given(st.lists(st.integers(-3, 3) | st.floats(-1e6, 1e6), min_size=2, max_size=60), st.integers(0, 5))
def test_a_split_of_scores_is_spread_over_them(scores: list[float], seed: int) -> None:
    rows = labelled(*map(float, scores))
    train, dev = split_dev(rows, seed, SCORE)
    assert sorted(train + dev, key=lambda row: int(row.text)) == rows
    assert len(dev) == max(1, round(len(rows) / 10))
    ordered = sorted(range(len(rows)), key=lambda place: (scores[place], place))
    for part, place in enumerate(sorted(ordered.index(int(row.text)) for row in dev)):
        assert len(rows) * part // len(dev) <= place < len(rows) * (part + 1) // len(dev)
    assert split_dev(rows, seed, SCORE) == (train, dev)


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        (SINGLE_LABEL, ["a", "b"]),
        (SINGLE_LABEL, ["a"]),
        (MULTI_LABEL, [()]),
        (SCORE, [0.5]),
    ],
)
def test_too_few_rows_to_split(kind: Kind, targets: list[Target]) -> None:
    with pytest.raises(DataError, match=f"{len(targets)} rows .*too few to hold out development data: add rows, or"):
        split_dev(labelled(*targets), 0, kind)


@pytest.mark.parametrize("seed", range(4))
def test_the_only_row_of_a_label_stays_in_training(seed: int) -> None:
    rows = labelled(("a",), ("a", "b"))
    assert split_dev(rows, seed, MULTI_LABEL) == (rows[1:], rows[:1])


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_every_kind_can_be_split(kind: Kind) -> None:
    train, dev = split_dev(labelled(*[kind.target("1" if kind.reading is None else [])] * 30), 0, kind)
    assert (len(train), len(dev)) == (27, 3)
