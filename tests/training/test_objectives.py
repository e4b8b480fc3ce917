"""How each kind of answer is trained: targets as numbers, losses, measures, scales, biases, class weights."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from labelled_kinds import TAGS, rows_of, takes_pairs, task_data

from edgetune.data.labelled import LabelledText
from edgetune.training import TrainingOptions, train
from edgetune.training.batches import Collator, features_of, targets_of
from edgetune.training.objectives import OBJECTIVES, objective_of
from edgetune.training.setup import fit_first_heads, set_up
from edgetune_export import Backbone, load_backbone
from edgetune_runtime import Task
from edgetune_runtime.decoding import Tag
from edgetune_runtime.errors import DataError
from edgetune_runtime.fitting.balance import Spread
from edgetune_runtime.fitting.by_kind import ACCURACY, FITTINGS, MACRO_F1, loss_of
from edgetune_runtime.fitting.examples import Examples
from edgetune_runtime.fitting.head import USUAL_STRENGTH
from edgetune_runtime.kinds import KINDS, Answer, Entity, Read, Target
from edgetune_runtime.kinds.spans import Piece

LABELS = ("a", "b", "c", "d")
OPTIONS = TrainingOptions(recipe="epochs", keep_prompt=True, epochs=1, batch_size=4, prompt_length=2)

some_targets = {
    "single-label": st.sampled_from(LABELS),
    "multi-label": st.sets(st.sampled_from(LABELS)).map(lambda labels: tuple(sorted(labels))),
    "score": st.floats(allow_nan=False, allow_infinity=False),
    "tokens": st.one_of(
        st.builds(Tag, st.sampled_from(LABELS), st.booleans(), st.booleans()),
        st.builds(Tag, st.none(), st.just(False), st.booleans()),
    ),
    "spans": st.builds(Piece, st.integers(-2, 9), st.booleans(), st.booleans()),
}


@pytest.fixture(scope="module")
def backbone(model_folder: Path) -> Backbone:
    return load_backbone(str(model_folder))


def draft(kind: str, labels: tuple[str, ...] = LABELS, **more: object) -> Task:
    """A task of a kind, without trained parts."""
    return Task("t", labels, "", {}, "random", "tiny", "mean", kind_name=kind, **more)  # type: ignore[arg-type]


def test_every_kind_is_trained_and_no_other() -> None:
    assert set(OBJECTIVES) == set(KINDS)
    assert all(objective_of(kind) is OBJECTIVES[name] for name, kind in KINDS.items())


def test_epochs_are_told_by_figures_of_the_kind() -> None:
    targets: dict[str, list[Target]] = {
        "single-label": ["a", "b"],
        "multi-label": [("a",), ("b", "c")],
        "score": [1.0, 2.0],
        "tokens": [(Entity(0, 1, "a"),), ()],
        "spans": [(Answer(0, 1, "a"),), ()],
    }
    for name, kind in KINDS.items():
        none = [(0, 0)] if kind.reading and kind.reading.or_none else []
        reads = [Read("a b", (*none, (0, 1), (2, 3)))] * 2
        task = draft(name, ("score",) if name == "score" else LABELS)
        examples = Examples.of(kind, targets[name], reads, task.labels)
        found = examples.figures(np.eye(len(examples.numbers), task.head_rows), task)
        assert {FITTINGS[name].measure.figure, *FITTINGS[name].stored} <= set(found.values)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_different_targets_have_different_numbers(kind: str, data: st.DataObject) -> None:
    fitting, (one, other) = FITTINGS[kind], data.draw(st.tuples(some_targets[kind], some_targets[kind]))
    numbers = fitting.encode(one, LABELS)
    assert len(numbers) == {"multi-label": len(LABELS), "tokens": 2, "spans": 2}.get(kind, 1)
    assert (fitting.encode(other, LABELS) == numbers) == (one == other)


def test_the_loss_of_one_label_by_hand() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]).log()
    found = OBJECTIVES["single-label"].loss(logits, torch.tensor([[0.0], [1.0]]))
    assert found.tolist() == pytest.approx([-math.log(0.5), -math.log(0.1)])


def test_the_loss_of_several_labels_by_hand() -> None:
    shares = torch.tensor([[0.5, 0.9], [0.2, 0.6]])
    found = OBJECTIVES["multi-label"].loss(torch.logit(shares), torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    assert found.tolist() == pytest.approx([-math.log(0.5) - math.log(0.1), -math.log(0.2) - math.log(0.6)], rel=1e-5)


def test_the_loss_of_a_score_by_hand() -> None:
    found = OBJECTIVES["score"].loss(torch.tensor([[1.5], [-2.0]]), torch.tensor([[1.0], [1.0]]))
    assert found.tolist() == [0.25, 9.0]


def pointed_at(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Three windows of two texts, of which the second has no target: targets, and torch's mean loss."""
    targets = [[-1, 0], [0, 1], [1, 2], [-2, 0], [1, 0], [-1, 3], [0, 0]]
    begins, ends = logits.T
    cross_entropy = torch.nn.functional.cross_entropy
    places = (begins[:3], 1), (ends[:3], 2), (begins[5:], 0), (ends[5:], 0)
    losses = [cross_entropy(own[None], torch.tensor([place])) for own, place in places]
    return torch.tensor(targets, dtype=torch.float32), torch.stack(losses).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_losses_equal_those_of_torch(kind: str) -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 1 if kind == "score" else 4, generator=random)
    right = torch.randint(0, 4, (7,), generator=random)
    applies = torch.rand(7, 4, generator=random).round()
    expected = {
        "single-label": (right[:, None].float(), torch.nn.CrossEntropyLoss()(logits, right) if kind != "score" else 0),
        "tokens": (right[:, None].float(), torch.nn.CrossEntropyLoss()(logits, right) if kind != "score" else 0),
        "multi-label": (applies, 4 * torch.nn.BCEWithLogitsLoss()(logits.expand(7, 4), applies)),
        "score": (right[:, None].float(), torch.nn.MSELoss()(logits[:, 0], right.float())),
        "spans": pointed_at(logits[:, :2]) if logits.shape[1] > 1 else (right, 0),
    }
    targets, mean = expected[kind]
    logits = logits[:, :2] if kind == "spans" else logits
    rows = OBJECTIVES[kind].loss(logits, targets)
    assert rows.shape == (7,)
    assert float(rows.mean()) == pytest.approx(float(mean), rel=1e-5)
    measure = FITTINGS[kind].measure
    assert loss_of(KINDS[kind], logits.numpy(), targets.numpy(), measure) == pytest.approx(float(mean), rel=1e-5)


def test_the_measure_of_several_labels_equals_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    logits, targets = random.normal(size=(40, 4)), (random.random((40, 4)) < 0.3).astype(np.float32)
    targets[:, 2] = 0  # a label that no row has is left out
    expected = metrics.average_precision_score(targets[:, [0, 1, 3]], logits[:, [0, 1, 3]], average="macro")
    assert FITTINGS["multi-label"].measure.of(logits, targets) == pytest.approx(expected)
    assert FITTINGS["multi-label"].measure.of(logits, np.zeros((40, 4))) == 0


def test_the_measure_of_scores_is_their_correlation() -> None:
    random = np.random.default_rng(0)
    right = random.normal(size=(20, 1))
    logits = right + random.normal(size=(20, 1))
    expected = np.corrcoef(right[:, 0], logits[:, 0])[0, 1]
    assert FITTINGS["score"].measure.of(logits, right) == pytest.approx(expected)


def test_only_macro_f1_counts_by_label() -> None:
    assert MACRO_F1.by_label
    assert not any(fitting.measure.by_label for fitting in FITTINGS.values())
    assert FITTINGS["single-label"].measure is ACCURACY


@pytest.mark.parametrize("targets", [[0.0, 1.0, 2.0, 5.0], [-3e5, 1e6], [1e-9, 2e-9]])
def test_the_scale_of_scores_is_their_mean_and_spread(targets: list[float]) -> None:
    scale = OBJECTIVES["score"].scale(targets)
    assert (scale.factor, scale.shift) == pytest.approx((np.std(targets), np.mean(targets)))
    assert scale.factor > 0
    assert ((np.array(targets) - scale.shift) / scale.factor).std() == pytest.approx(1, rel=1e-3)


def test_scores_that_are_all_the_same_have_a_scale_of_one() -> None:
    assert OBJECTIVES["score"].scale([4.0, 4.0]).factor == 1.0


@pytest.mark.parametrize("kind", ["single-label", "multi-label"])
def test_labels_have_no_scale(kind: str) -> None:
    scale = OBJECTIVES[kind].scale([("a",), ("b",)])
    assert (scale.factor, scale.shift) == (1.0, 0.0)


def test_what_a_head_stores_is_what_it_answers_in_training(backbone: Backbone, tmp_path: Path) -> None:
    """The tuner's logits are on the data's scale, its loss on the scale of 1, and the stored head gives the logits."""
    targets = [3.0, 5.0, 400.0, -20.0]
    rows = [LabelledText(row.text, target) for row, target in zip(rows_of("score", False), targets, strict=False)]
    setup = set_up(backbone, [task_data("score", False, tmp_path / "t", rows)], OPTIONS)
    batch = Collator(backbone.facts, 1)(setup.rows["train"])
    assert batch["labels"].tolist() == [[[target]] for target in targets]
    with torch.no_grad():
        found = setup.tuner(**batch)
        tensors = setup.tuner.task_tensors(0)
        given = {name: batch[name] for name in (*backbone.inputs, "task_index") if name in batch}
        features = backbone(**given, **setup.tuner._bank(torch.device("cpu")))[1][:, 0]
    stored = features @ tensors["head_weight"].T + tensors["head_bias"]
    torch.testing.assert_close(found["logits"][:, 0], stored, rtol=1e-4, atol=1e-2)
    own = ((found["logits"][:, 0, 0] - torch.tensor(targets)) / float(np.std(targets))).square().mean()
    assert float(found["loss"]) == pytest.approx(float(own), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_heads_begin_as_the_linear_model_of_the_first_features(backbone: Backbone, tmp_path: Path, kind: str) -> None:
    """So the first answers are those of `edgetune fit`, on the scale of the data."""
    setup = set_up(backbone, [task_data(kind, takes_pairs(kind), tmp_path / "t")], OPTIONS)
    fit_first_heads(setup, OPTIONS)
    rows, (draft_,) = setup.rows["train"], setup.drafts
    features, targets = features_of(setup.tuner, rows), targets_of(rows)
    (expected,) = FITTINGS[kind].head(features, targets, draft_.head_rows, (USUAL_STRENGTH,), None)
    with torch.no_grad():
        batch = Collator(backbone.facts, targets.shape[1])(rows)
        found = setup.tuner(**batch)["logits"][batch["text"] >= 0]
    np.testing.assert_allclose(found.numpy(), expected.logits(features), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["multi-label", "score"])
@pytest.mark.parametrize("wanted", ["balanced", {"lamp": 2.0}, {"score": 2.0}])
def test_class_weights_are_for_one_label(
    backbone: Backbone, tmp_path: Path, kind: str, wanted: str | dict[str, float]
) -> None:
    data = task_data(kind, False, tmp_path / "t.safetensors")
    known = isinstance(wanted, str) or set(wanted) <= set(TAGS if kind == "multi-label" else ("score",))
    message = f"class weights came for a task of the kind '{kind}': expected none; they are for single-label tasks"
    with pytest.raises(DataError, match=message if known else "class weights for .*, but the labels are") as told:
        train(
            backbone, [data], TrainingOptions(recipe="epochs", keep_prompt=True, prompt_length=2, class_weight=wanted)
        )
    assert "\n" not in str(told.value)
    assert not list(tmp_path.iterdir())


def test_class_weights_of_a_task_beside_one_that_takes_none_are_refused(backbone: Backbone, tmp_path: Path) -> None:
    data = [task_data(kind, takes_pairs(kind), tmp_path / f"{kind}.safetensors") for kind in KINDS]
    with pytest.raises(DataError, match="class weights came for a task of the kind 'spans'"):
        train(
            backbone,
            data,
            TrainingOptions(recipe="epochs", keep_prompt=True, prompt_length=2, class_weight={"bad": 3.0}),
        )


@pytest.mark.parametrize(
    ("kind", "train_targets", "said"),
    [
        ("multi-label", [("a",)] * 5 + [("a", "b")] * 9 + [()] * 2, []),
        ("multi-label", [("a",)] * 500 + [("a", "b")] * 5, ["b has 5 of 505 training rows: a label with fewer .*"]),
        ("score", [0.5, 1.0, 2.0], []),
    ],
)
def test_what_is_said_of_rows_of_other_kinds(kind: str, train_targets: list[Target], said: list[str]) -> None:
    spread = Spread(KINDS[kind].labels_of(train_targets), train_targets, train_targets[:3], KINDS[kind])
    # Neither rare labels nor points of accuracy: these are of one label per text.
    said = [*said, "3 development rows choose the epoch coarsely; name more with `dev`"]
    found = spread.remarks(False, 5)
    assert len(found) == len(said)
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(said, found, strict=True))
    assert spread.remarks(False, 1) == found[:-1]
