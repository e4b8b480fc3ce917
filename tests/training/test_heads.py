"""What heads begin as: a regression on the features that the prompt gives, unless something else gives them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from edgetune import training
from edgetune.training import TaskData, TrainingOptions, collate, new_tuner
from edgetune.tuner import PromptTuner
from edgetune_export import Backbone, load_backbone
from edgetune_runtime import contract
from edgetune_runtime.rows import LabelledText

ROWS = [
    LabelledText(f"the {thing} {state}", label)
    for thing in ("lamp", "camera", "speaker", "parcel", "screen", "mail")
    for state, label in (("is broken", "bad"), ("works very well", "good"), ("came today", "neutral"))
]
SIZES = [LabelledText(row.text, "long" if len(row.text) > 18 else "short") for row in ROWS]
OPTIONS = TrainingOptions(prompt_length=4)


@pytest.fixture(scope="module")
def backbone(model_folder: Path) -> Backbone:
    return load_backbone(str(model_folder))


def begun(backbone: Backbone, options: TrainingOptions, *data: list[LabelledText]) -> tuple[PromptTuner, list[dict]]:
    tasks = [TaskData(f"task-{n}", Path(f"{n}.safetensors"), rows, rows) for n, rows in enumerate(data)]
    tuner, _, encoded = new_tuner(backbone, tasks, options)
    return tuner, encoded["train"]


@pytest.mark.parametrize("method", ["prefix", "prompt"])
def test_a_head_begins_as_the_regression_on_the_features_of_its_own_task(backbone: Backbone, method: str) -> None:
    tuner, rows = begun(backbone, dataclasses.replace(OPTIONS, method=method), ROWS, SIZES)
    for place, head in enumerate(tuner.heads):
        batch = collate([row for row in rows if row["task_index"] == place])
        features, labels = tuner.features(batch), batch["labels"]
        scale = features.std()
        penalty = (head.weight * scale).square().sum() / (2 * len(labels))
        (torch.nn.functional.cross_entropy(head(features), labels) + penalty).backward()
        # At the optimum nothing pulls: what is left is small beside a label's share of the gradient.
        assert head.bias.grad.abs().max() < 1e-3
        assert (head.weight.grad / scale).abs().max() < 1e-3
        assert (head(features).argmax(dim=1) == labels).float().mean() > 0.8


def test_no_label_is_missing_from_the_rows_that_it_is_fitted_to(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_REGRESSION_ROWS", 1)
    tuner, _ = begun(backbone, OPTIONS, ROWS)
    assert tuner.heads[0].bias.min() > -3  # of a label that is never seen it falls without end


def test_label_words_another_task_and_random_numbers_come_first(backbone: Backbone) -> None:
    tuner, _ = begun(backbone, dataclasses.replace(OPTIONS, head_init="random"), ROWS)
    weight = tuner.heads[0].weight
    assert 0.01 < weight.std() < 0.03
    head = {
        contract.HEAD_WEIGHT: np.full((3, backbone.sizes.hidden), 7, np.float32),
        contract.HEAD_BIAS: np.zeros(3, np.float32),
    }
    (draft,) = new_tuner(backbone, [TaskData("t", Path("t.safetensors"), ROWS, ROWS)], OPTIONS)[1]
    layers = tuner.task_tensors(0)
    prefix = {name: layers[name].detach().numpy() for name in (contract.PREFIX_KEYS, contract.PREFIX_VALUES)}
    origin = dataclasses.replace(draft, tensors={**head, **prefix})
    again, _ = begun(backbone, dataclasses.replace(OPTIONS, init_from=origin), ROWS)
    assert (again.heads[0].weight == 7).all()
    other, _ = begun(backbone, dataclasses.replace(OPTIONS, init_from=origin), SIZES)  # other labels
    assert not (other.heads[0].weight == 7).any()
