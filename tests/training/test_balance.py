"""Uneven and few rows: the remarks about them, and the weights that compensate."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from edgetune.data.labelled import LabelledText
from edgetune.training import TaskData, TrainingOptions
from edgetune.training.batches import Collator
from edgetune.training.options import parse_class_weight
from edgetune.training.setup import set_up
from edgetune.training.trainer import training_arguments
from edgetune_export import load_backbone
from edgetune_runtime.errors import DataError
from edgetune_runtime.fitting.balance import Spread


def spread(train: dict[str, int], dev: dict[str, int] | None = None) -> Spread:
    """Rows by label."""
    targets = [[label for label, count in part.items() for _ in range(count)] for part in (train, dev or {})]
    return Spread(sorted(train), *targets)


@pytest.mark.parametrize(
    ("counts", "rare"),
    [
        ({"a": 396, "b": 4}, ["b"]),
        ({"a": 90, "b": 10}, []),  # a fifth of an even share, not less
        ({"a": 91, "b": 9}, ["b"]),
        ({"a": 50, "b": 50, "c": 6, "d": 5}, ["d"]),
        ({"a": 500, "b": 2, "c": 1}, ["c", "b"]),
        ({"a": 3, "b": 2}, []),
    ],
)
def test_what_is_rare(counts: dict[str, int], rare: list[str]) -> None:
    assert spread(counts).rare == rare


@pytest.mark.parametrize(
    ("train", "dev", "weighted", "epochs", "expected"),
    [
        ({"a": 60, "b": 60}, {"a": 20, "b": 20}, False, 10, []),
        (
            {"normal": 396, "fraud": 4},
            {"normal": 40, "fraud": 10},
            False,
            10,
            ["fraud has 4 of 400 training rows, where an even share is 200: .* macro-F1; try `class_weight` balanced$"],
        ),
        ({"normal": 396, "fraud": 4}, {"normal": 40, "fraud": 10}, True, 10, ["fraud has 4 of 400 .* by macro-F1$"]),
        (
            {"normal": 396, "fraud": 4},
            {"normal": 40, "fraud": 1},
            True,
            10,
            ["fraud has 4 of 400", "fraud has 1 of 41 development rows, .*`dev`$"],
        ),
        ({"a": 60, "b": 60}, {"a": 6, "b": 6}, True, 10, [r"12 development rows \(8.3 points of accuracy each\)"]),
        ({"a": 60, "b": 60}, {"a": 6, "b": 6}, True, 1, []),  # nothing to choose
        ({"a": 3, "b": 7, "c": 8}, {"a": 30}, False, 9, ["a has 3, b 7 of 18 training rows: .* fewer than 8 "]),
        (
            {"z": 900, **{f"r{place}": 1 for place in range(6)}},
            {"z": 30},
            False,
            1,
            ["r0 has 1, r1 1, r2 1, r3 1, and 2 more labels about as few of 906 training rows"],
        ),
    ],
)
def test_what_is_said(
    train: dict[str, int], dev: dict[str, int], weighted: bool, epochs: int, expected: list[str]
) -> None:
    said = spread(train, dev).remarks(weighted, epochs)
    assert len(said) == len(expected)
    for line, pattern in zip(said, expected, strict=True):
        assert "\n" not in line
        assert re.search(pattern, line), line


def test_balanced_weights_by_hand() -> None:
    assert spread({"a": 6, "b": 3, "c": 1}).weights("balanced") == pytest.approx([10 / 18, 10 / 9, 10 / 3])


@pytest.mark.parametrize("counts", [{"a": 396, "b": 4}, {"a": 1, "b": 17, "c": 200, "d": 5}])
def test_balanced_weights_equal_scikit_learn(counts: dict[str, int]) -> None:
    theirs = pytest.importorskip("sklearn.utils.class_weight").compute_class_weight
    labels = [label for label, count in counts.items() for _ in range(count)]
    expected = theirs("balanced", classes=np.array(sorted(counts)), y=np.array(labels))
    np.testing.assert_allclose(spread(counts).weights("balanced"), expected)


def test_weights_by_label_keep_their_ratio_and_a_mean_of_one_over_rows() -> None:
    found = spread({"a": 6, "b": 3, "c": 1}).weights({"c": 5.0, "other": 3.0})
    assert found is not None
    assert found / found[0] == pytest.approx([1, 1, 5])
    assert found @ [6, 3, 1] == pytest.approx(10)
    assert spread({"a": 6, "b": 3}).weights("none") is None


@pytest.mark.parametrize(
    ("items", "parsed"),
    [([], "none"), (["none"], "none"), (["balanced"], "balanced"), (["a=2", "b=c=0.5"], {"a": 2.0, "b=c": 0.5})],
)
def test_weights_are_read(items: list[str], parsed: object) -> None:
    assert parse_class_weight(items) == parsed


@pytest.mark.parametrize(
    "items",
    [
        ["balanced", "a=2"],
        ["balanced", "none"],
        ["odd"],
        ["a=0"],
        ["a=-1"],
        ["a=nan"],
        ["a=inf"],
        ["a=x"],
        ["=2"],
        ["a=1", "a=2"],
    ],
)
def test_odd_weights_are_refused(items: list[str]) -> None:
    with pytest.raises(DataError, match=r"`class_weight` .*: expected none or balanced alone, or LABEL=NUMBER"):
        parse_class_weight(items)


@pytest.mark.parametrize("wanted", ["balanced", {"bad": 7.0}])
def test_the_loss_is_weighted_for_each_task_by_its_own_rows(
    model_folder: Path, tmp_path: Path, wanted: str | dict[str, float]
) -> None:
    counts = [{"bad": 1, "good": 9, "neutral": 2}, {"bad": 6, "good": 2}]
    rows = [[LabelledText(f"the lamp {label}", label) for label, n in own.items() for _ in range(n)] for own in counts]
    tasks = [TaskData(f"t{place}", tmp_path / f"{place}", own, own) for place, own in enumerate(rows)]
    backbone = load_backbone(str(model_folder))
    weighted, plain = (
        set_up(
            backbone, tasks, TrainingOptions(recipe="epochs", keep_prompt=True, class_weight=weight, prompt_length=2)
        )
        for weight in (wanted, "none")
    )
    heaviest = max(float(own.weights(wanted).max()) for own in weighted.spreads)
    for setup, expected in ((weighted, heaviest), (plain, 1.0)):
        arguments = training_arguments(
            tmp_path, TrainingOptions(recipe="epochs", keep_prompt=True), setup.tuner.heaviest_row
        )
        assert arguments.max_grad_norm == pytest.approx(expected)
    for head in weighted.tuner.heads:
        torch.nn.init.normal_(head.weight)
    plain.tuner.load_state_dict(weighted.tuner.state_dict())
    batch = Collator(backbone.facts, 1)(weighted.rows["train"])
    with torch.no_grad():
        found, unweighted = (setup.tuner(**batch) for setup in (weighted, plain))
    torch.testing.assert_close(found["logits"], unweighted["logits"])
    total, start = 0.0, 0
    for own, setup_spread in zip(rows, weighted.spreads, strict=True):
        weights = torch.tensor(setup_spread.weights(wanted), dtype=torch.float32)
        part = slice(start, start + len(own))
        logits, right = found["logits"][part, 0, : len(weights)], batch["labels"][part, 0, 0].long()
        # torch's own weighted mean divides by the weights, which are 1 a row on average over all of a task's rows.
        total += float(torch.nn.functional.cross_entropy(logits, right, weight=weights)) * len(own)
        start += len(own)
    assert float(found["loss"]) == pytest.approx(total / start, rel=1e-5)
    assert float(found["loss"]) != pytest.approx(float(unweighted["loss"]), rel=1e-6)


def test_a_weight_for_a_label_that_no_task_has_is_refused(model_folder: Path, tmp_path: Path) -> None:
    rows = [LabelledText("the lamp", "a"), LabelledText("the camera", "b")]
    options = TrainingOptions(recipe="epochs", keep_prompt=True, class_weight={"c": 2.0}, prompt_length=2)
    with pytest.raises(DataError, match="class weights for c, but the labels are a, b"):
        set_up(load_backbone(str(model_folder)), [TaskData("t", tmp_path / "t", rows, rows)], options)
