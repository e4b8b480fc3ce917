"""Few rows: pairs of texts, the choice of the recipe, and the candidate that is kept."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerCallback

from edgetune.data.labelled import LabelledText
from edgetune.training import TaskData, TrainingOptions, TrainingReport, train
from edgetune.training.contrastive import STEPS, balanced_batches, by_length, pair_loss
from edgetune.training.few import FOLDS, train_few
from edgetune.training.options import CONTRASTIVE, EPOCHS
from edgetune.training.recipes import FEW_ROWS_PER_LABEL, MOST_PASSES, passes_of, recipe_of
from edgetune.training.rungs import HEAD_ALONE, Rung, choose
from edgetune_export import Backbone, load_backbone
from edgetune_export.parity import torch_logits
from edgetune_runtime import Task
from edgetune_runtime.errors import DataError, EdgetuneError
from edgetune_runtime.fitting.by_kind import FITTINGS
from edgetune_runtime.kinds import KINDS

THINGS = ("lamp", "camera", "screen", "parcel", "mail", "speaker")
SAID = {"works very well": "good", "is broken": "bad"}
ROWS = [LabelledText(f"the {thing} {said}", label) for thing in THINGS for said, label in SAID.items()]
OPTIONS = TrainingOptions(prompt_length=2, batch_size=8)


@pytest.fixture(scope="module")
def backbone(model_folder: Path) -> Backbone:
    return load_backbone(str(model_folder))


def one(rows: list[LabelledText], folder: Path, dev: list[LabelledText] | None = None, kind: str = "") -> TaskData:
    return TaskData("t", folder / "t.safetensors", rows, dev or [], KINDS[kind or "single-label"])


def test_the_loss_of_pairs_by_hand() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    # Rows 0 and 2 have a cosine of 1, row 1 of 0 to both.
    assert float(pair_loss(features, torch.tensor([0, 1, 0]))) == pytest.approx(0)
    assert float(pair_loss(features, torch.tensor([0, 0, 1]))) == pytest.approx(1 + 0.5)
    assert float(pair_loss(features, torch.tensor([0, 0, 0]))) == pytest.approx(2 / 3)


def test_a_batch_is_read_in_parts_of_like_length_each_row_once() -> None:
    lengths = [3, 9, 1, 7, 9, 2, 5]
    mask = torch.tensor([[1] * length + [0] * (9 - length) for length in lengths])
    batch = {"input_ids": mask * torch.arange(1, 8)[:, None], "attention_mask": mask, "labels": torch.arange(7)}
    parts = list(by_length(batch, 3))
    assert [part["input_ids"].shape for part in parts] == [(3, 3), (3, 9), (1, 9)]
    assert sorted(int(label) for part in parts for label in part["labels"]) == list(range(7))
    for part in parts:
        assert torch.equal(part["input_ids"], part["attention_mask"] * (part["labels"] + 1)[:, None])
        assert part["attention_mask"].sum(dim=1).tolist() == [lengths[label] for label in part["labels"].tolist()]


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40), st.integers(1, 12), st.integers(0, 3))
def test_batches_are_balanced_and_come_through_all_rows(labels: list[int], size: int, seed: int) -> None:
    batches = list(balanced_batches(labels, size, 30, seed))
    assert batches == list(balanced_batches(labels, size, 30, seed))
    assert {len(batch) for batch in batches} == {size}
    drawn = [labels[place] for place in itertools.chain(*batches)]
    counts = [drawn.count(label) for label in set(labels)]
    assert max(counts) - min(counts) <= 1
    for label in set(labels):
        own = [place for place in itertools.chain(*batches) if labels[place] == label]
        different = labels.count(label)
        assert len(set(own[:different])) == min(different, len(own)), "a row comes again when all have come"


@pytest.mark.parametrize(
    ("rows", "options", "kind", "expected"),
    [
        (2 * FEW_ROWS_PER_LABEL, {}, "", CONTRASTIVE),
        (2 * FEW_ROWS_PER_LABEL + 1, {}, "", EPOCHS),
        (2 * FEW_ROWS_PER_LABEL + 1, {"recipe": CONTRASTIVE}, "", CONTRASTIVE),
        (8, {"recipe": EPOCHS}, "", EPOCHS),
        (8, {"prompt_length": 0}, "", EPOCHS),
        (8, {"label_words": {"good": ["fine"], "bad": ["poor"]}}, "", EPOCHS),
        (8, {}, "multi-label", EPOCHS),
        (8, {}, "score", EPOCHS),
    ],
)
def test_rows_choose_the_recipe(
    tmp_path: Path, rows: int, options: dict[str, object], kind: str, expected: str
) -> None:
    targets = {"multi-label": [("good",), ("bad",)], "score": [1.0, 2.0]}.get(kind, ["good", "bad"])
    data = [LabelledText("text", targets[place % 2]) for place in range(rows)]
    assert recipe_of([one(data, tmp_path, kind=kind)], dataclasses.replace(OPTIONS, **options)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "options", "expected"),
    [
        (10_000, {"method": "strong"}, 4),
        (10_000, {"method": "prefix"}, 10),
        (320, {"method": "strong"}, 20),  # of ten steps each
        (320, {"method": "prefix"}, 20),
        (320, {"method": "strong", "batch_size": 8}, 5),
        (1, {"method": "strong"}, MOST_PASSES),
        (1, {"method": "strong", "epochs": 2}, 2),
        (10_000, {"method": "strong", "epochs": 50}, 50),
    ],
)
def test_few_rows_get_more_passes(rows: int, options: dict[str, object], expected: int) -> None:
    assert passes_of(TrainingOptions(**options), rows) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"prompt_length": 0}, "", "'contrastive' came with a prompt of length 0: expected one task with one label"),
        ({"label_words": {"good": ["fine"]}}, "", "came with label words"),
        ({}, "score", "came with a task of the kind 'score'"),
    ],
)
def test_a_recipe_that_cannot_train_this_is_refused(
    tmp_path: Path, options: dict[str, object], kind: str, message: str
) -> None:
    asked = dataclasses.replace(OPTIONS, recipe=CONTRASTIVE, **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        recipe_of([one(ROWS, tmp_path, kind=kind)], asked)


def rung(name: str, wrong: int, sure: float = 3.0, rows: int = 40) -> Rung:
    """A candidate with a number of wrong answers on rows of the first label."""
    logits = np.array([[sure, 0.0]] * (rows - wrong) + [[0.0, sure]] * wrong)
    return Rung(name, Task("t", ("a", "b"), "", {}, "m", "b", "mean"), {}, logits)


@pytest.mark.parametrize(
    ("prompt", "alone", "kept"),
    [(2, 10, "prompt"), (10, 10, "prompt"), (11, 10, "prompt"), (20, 5, HEAD_ALONE), (39, 1, HEAD_ALONE)],
)
def test_a_prompt_is_dropped_if_it_is_worse_beyond_doubt(prompt: int, alone: int, kept: str) -> None:
    targets = np.zeros((40, 1))
    chosen, errors = choose([rung("prompt", prompt), rung(HEAD_ALONE, alone)], FITTINGS["single-label"], targets, None)
    assert chosen.name == kept
    assert errors == pytest.approx({"prompt": prompt / 40, HEAD_ALONE: alone / 40})


@pytest.mark.parametrize(
    ("prompt", "alone", "rows", "kept"),
    [
        (8, 8, 200, HEAD_ALONE),
        (7, 8, 200, HEAD_ALONE),
        (0, 8, 200, "prompt"),
        (0, 0, 200, HEAD_ALONE),
        (40, 40, 200, "prompt"),  # it leaves room
        (42, 40, 200, "prompt"),
        (0, 0, 16, "prompt"),  # few rows cannot show this
    ],
)
def test_of_few_rows_a_prompt_proves_itself_beside_a_head_that_is_right(
    prompt: int, alone: int, rows: int, kept: str
) -> None:
    own = [rung("prompt", prompt, rows=rows), rung(HEAD_ALONE, alone, rows=rows)]
    fitting, targets = FITTINGS["single-label"], np.zeros((rows, 1))
    assert choose(own, fitting, targets, None, by_pairs=True)[0].name == kept
    assert choose(own, fitting, targets, None)[0].name == "prompt"


def test_of_a_prompts_heads_the_better_one_is_kept() -> None:
    heads = [rung("first", 8), rung("new", 3), rung(HEAD_ALONE, 5)]
    assert choose(heads, FITTINGS["single-label"], np.zeros((40, 1)), None)[0].name == "new"
    nothing = [dataclasses.replace(head, logits=head.logits[:0]) for head in heads]
    assert choose(nothing, FITTINGS["single-label"], np.zeros((0, 1)), None) == (nothing[0], {})


@pytest.mark.parametrize(("good", "bad", "expected"), [(500, 12, CONTRASTIVE), (501, 12, EPOCHS), (100, 60, EPOCHS)])
def test_with_a_rare_label_more_rows_are_few(tmp_path: Path, good: int, bad: int, expected: str) -> None:
    data = [LabelledText("text", label) for label, number in (("good", good), ("bad", bad)) for _ in range(number)]
    assert recipe_of([one(data, tmp_path)], OPTIONS) == expected


class Steps(TrainerCallback):
    def __init__(self) -> None:
        self.number = 0

    def on_step_end(self, args: object, state: object, control: object, **_: object) -> None:
        self.number += 1


@pytest.mark.parametrize("dev", [[], ROWS[:4]], ids=["cv", "dev"])
def test_it_learns_and_the_file_answers_as_the_report_says(
    backbone: Backbone, tmp_path: Path, dev: list[LabelledText]
) -> None:
    steps = Steps()
    options = dataclasses.replace(OPTIONS, keep_prompt=True)
    (report,) = train(backbone, [one(ROWS, tmp_path, dev)], options, callbacks=[steps])
    assert steps.number == STEPS * (1 if dev else FOLDS + 1)
    assert (report.recipe, report.judged_by, report.epochs) == (CONTRASTIVE, "dev" if dev else "cv", [])
    assert report.figures is not None and report.figures.values["accuracy"] >= 0.9
    task = Task.load(tmp_path / "t.safetensors")
    assert task.sha256 == report.task.sha256
    assert task.prefix_length == 2
    assert task.metrics[f"{report.judged_by}_accuracy"] == report.figures.values["accuracy"]
    logits = torch_logits(backbone, task, [row.text for row in ROWS])
    assert [task.labels[place] for place in logits.argmax(axis=1)] == [row.target for row in ROWS]
    if dev:  # judged by the task itself, else by those that learned without the rows
        values = task.kind.figures(
            [row.target for row in dev], [task.kind.answer(own[None], task) for own in logits[: len(dev)]], task
        ).values
        assert report.figures.values == pytest.approx(values, abs=1e-4)
    assert not list(tmp_path.glob("*.checkpoints"))


def test_the_same_seed_gives_the_same_file_and_another_does_not(backbone: Backbone, tmp_path: Path) -> None:
    made: list[TrainingReport] = []
    for number, seed in enumerate((0, 0, 1)):
        (tmp_path / str(number)).mkdir()
        options = dataclasses.replace(OPTIONS, seed=seed, keep_prompt=True)
        made += train(backbone, [one(ROWS, tmp_path / str(number))], options)
    assert made[0].task.to_bytes() == made[1].task.to_bytes() != made[2].task.to_bytes()


@pytest.mark.parametrize("keep", [False, True])
def test_a_head_alone_is_kept_if_it_is_better(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    """If a prompt gives wrong answers to held-out rows, the task is the result of `fit`."""

    def ruined(*arguments: object) -> list[Rung]:
        return [dataclasses.replace(found, logits=-found.logits) for found in train_few(*arguments)]  # type: ignore[arg-type]

    monkeypatch.setattr("edgetune.training.run.train_few", ruined)
    (report,) = train(backbone, [one(ROWS, tmp_path)], dataclasses.replace(OPTIONS, keep_prompt=keep))
    task = Task.load(tmp_path / "t.safetensors")
    assert (report.rung == HEAD_ALONE) == (HEAD_ALONE in report.errors) == (not keep)
    assert (task.method, task.prefix_length) == (("prefix", 2) if keep else ("fit", 0))
    if not keep:
        assert report.trained_parameters == task.num_parameters
        logits = torch_logits(backbone, task, [row.text for row in ROWS])
        assert [task.labels[place] for place in logits.argmax(axis=1)] == [row.target for row in ROWS]


def test_one_row_of_each_label(backbone: Backbone, tmp_path: Path) -> None:
    (report,) = train(backbone, [one(ROWS[:2], tmp_path)], OPTIONS)
    assert report.figures is None
    assert report.rung != HEAD_ALONE
    assert Task.load(tmp_path / "t.safetensors").temperature == 1.0


def test_rare_labels_count_as_much_as_others(backbone: Backbone, tmp_path: Path) -> None:
    rows = [row for row in ROWS for _ in range(4) if row.target == "good"] + ROWS[1:4:2]
    said: list[str] = []
    (report,) = train(backbone, [one(rows, tmp_path)], OPTIONS, note=said.append)
    assert any("all labels count the same in training, since there are few rows of bad" in line for line in said)
    assert report.figures is not None
    assert report.figures.by_label["bad"]["recall"] == 1


@pytest.mark.parametrize("dev", [[], ROWS[:4]], ids=["cv", "dev"])
def test_a_training_that_diverges_says_so(backbone: Backbone, tmp_path: Path, dev: list[LabelledText]) -> None:
    with pytest.raises(EdgetuneError, match=r"the training diverged.*lower `learning_rate`"):
        train(backbone, [one(ROWS, tmp_path, dev)], dataclasses.replace(OPTIONS, learning_rate=1e30))
    assert not list(tmp_path.iterdir())


def test_it_says_which_recipe_it_takes(backbone: Backbone, tmp_path: Path) -> None:
    said: list[str] = []
    train(backbone, [one(ROWS, tmp_path)], OPTIONS, resume=True, note=said.append)
    assert said[0] == "12 training rows: recipe contrastive, method prefix (`recipe` and `method` override)"
    assert said[1] == "the recipe contrastive with one seed keeps nothing to resume: beginning from the start"


def test_resuming_does_not_delete_a_training_in_epochs(backbone: Backbone, tmp_path: Path) -> None:
    left = tmp_path / "t.safetensors.checkpoints"
    left.mkdir()
    with pytest.raises(EdgetuneError, match=r"the unfinished training in .* had other options: repeat them"):
        train(backbone, [one(ROWS, tmp_path)], OPTIONS, resume=True)
    assert left.exists()


def test_of_several_labels_a_prompt_is_not_dropped_for_being_too_sure() -> None:
    random = np.random.default_rng(0)
    targets = (random.random((200, 3)) < 0.3).astype(np.float64)
    better, worse = (4 * targets - 2 + random.normal(0, spread, targets.shape) for spread in (2.0, 4.0))
    rungs = [Rung("prompt", Task("t", (), "", {}, "m", "b", "mean"), {}, 10 * better), rung(HEAD_ALONE, 0)]
    rungs[1] = dataclasses.replace(rungs[1], logits=worse)
    assert choose(rungs, FITTINGS["multi-label"], targets, None)[0].name == "prompt"
