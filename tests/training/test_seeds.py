"""Several seeds: their spread, the one that is kept, and resuming with the remaining seeds."""

from __future__ import annotations

import dataclasses
import gc
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import TrainerCallback

from edgetune.data.labelled import LabelledText
from edgetune.training import TaskData, TrainingOptions, TrainingReport, train
from edgetune.training.few import FOLDS
from edgetune.training.options import CONTRASTIVE, EPOCHS
from edgetune.training.outcomes import Outcome
from edgetune.training.seeds import SeedSpread, Trial, best_trial, seed_spread
from edgetune.training.tuner import PromptTuner
from edgetune_export import Backbone, load_backbone
from edgetune_runtime import Task
from edgetune_runtime.errors import EdgetuneError

THINGS = ("lamp", "camera", "screen", "parcel", "mail", "speaker")
SAID = {"works very well": "good", "is broken": "bad", "came": "bad", "is here": "good"}
ROWS = [LabelledText(f"the {thing} {said}", label) for thing in THINGS for said, label in SAID.items()]
OPTIONS = TrainingOptions(keep_prompt=True, epochs=2, batch_size=8, prompt_length=2, seed=4, seeds=3)
RECIPES = (CONTRASTIVE, EPOCHS)
SEEDS = (4, 5, 6)
STEPS = 3
"""Of the recipe for few rows, instead of a few dozen."""


@pytest.fixture(scope="module")
def backbone(model_folder: Path) -> Backbone:
    return load_backbone(str(model_folder))


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetune.training.contrastive.STEPS", STEPS)
    # It collects garbage as each training begins, which takes longer than a tiny training.
    monkeypatch.setattr("accelerate.utils.memory.gc", SimpleNamespace(collect=lambda: None))


class Steps(TrainerCallback):
    """Counts steps, and interrupts (like Ctrl-C) at one of them."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.number, self._stop_at = 0, stop_at

    def on_step_end(self, args: object, state: object, control: object, **_: object) -> None:
        self.number += 1
        if self.number == self._stop_at:
            raise KeyboardInterrupt


def one(folder: Path, name: str = "t", dev: Sequence[LabelledText] = ()) -> TaskData:
    folder.mkdir(exist_ok=True)
    return TaskData(name, folder / f"{name}.safetensors", ROWS, dev)


def trial(seed: int, figure: float | None, loss: float = 1.0) -> Trial:
    return Trial(seed, (figure,), (loss,))


def test_the_best_on_held_out_rows_is_kept() -> None:
    assert best_trial([trial(0, 0.7), trial(1, 0.9), trial(2, 0.8)]).seed == 1
    assert best_trial([trial(0, 0.9, 0.5), trial(1, 0.9, 0.4), trial(2, 0.9, 0.4)]).seed == 1
    assert best_trial([trial(0, math.nan), trial(1, 0.1, math.nan), trial(2, 0.1)]).seed == 2
    assert best_trial([trial(0, None, 0.0), trial(1, None, 0.0)]).seed == 0
    assert best_trial([Trial(0, (0.9, 0.1), (1, 1)), Trial(1, (0.6, 0.6), (1, 1))]).seed == 1  # the mean of the tasks


def test_the_spread_by_hand() -> None:
    found = seed_spread([trial(0, 0.7), trial(1, 0.9), trial(2, 0.8)], 0, "macro_f1", "cv")
    assert found is not None
    assert (found.mean, found.deviation, found.kept) == (pytest.approx(0.8), pytest.approx(0.1), 1)
    assert str(found) == (
        "macro-F1 on rows held out in turn 0.800 ± 0.100 with 3 seeds (seed 0 0.700, seed 1 0.900, seed 2 0.800); "
        "kept seed 1, the best on these rows, so expect the mean"
    )
    assert seed_spread([trial(0, 0.7)], 0, "accuracy", "dev") is None
    assert seed_spread([trial(0, None), trial(1, None)], 0, "accuracy", "cv") is None


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("dev", [(), ROWS[:8]], ids=["held out", "dev"])
def test_it_is_what_the_trainings_with_each_seed_are(
    backbone: Backbone, tmp_path: Path, recipe: str, dev: Sequence[LabelledText]
) -> None:
    options = dataclasses.replace(OPTIONS, recipe=recipe)
    said: list[str] = []
    (report,) = train(backbone, [one(tmp_path / "several", dev=dev)], options, note=said.append)
    if recipe == EPOCHS and not dev:  # all seeds hold out what the first one holds out
        alone = [report]
    else:
        alone = []
        for seed in SEEDS:
            alone += train(
                backbone,
                [one(tmp_path / str(seed), dev=dev)],
                dataclasses.replace(options, seed=seed, seeds=1),
                note=lambda _: None,
            )
        figures = [other.figures.values["accuracy"] for other in alone if other.figures is not None]
        assert report.seeds == SeedSpread(
            "accuracy", "dev" if dev else "cv", dict(zip(SEEDS, figures, strict=True)), report.seeds.kept
        )
        losses = [other.loss for other in alone]
        assert report.seeds.kept == SEEDS[min(range(3), key=lambda place: (-figures[place], losses[place]))]
        kept = alone[report.seeds.kept - SEEDS[0]]
        assert all(np.array_equal(kept.task.tensors[name], own) for name, own in report.task.tensors.items())
        assert kept.task.temperature == report.task.temperature
        assert kept.epochs == report.epochs and kept.seeds is None
    assert report.seeds is not None and list(report.seeds.by_seed) == list(SEEDS)
    stored = Task.load(tmp_path / "several" / "t.safetensors")
    by = f"{report.judged_by}_accuracy"
    assert stored.metrics[by] == report.seeds.by_seed[report.seeds.kept] == max(report.seeds.by_seed.values())
    assert stored.metrics[f"{by}_mean"] == report.seeds.mean
    assert stored.metrics[f"{by}_deviation"] == report.seeds.deviation
    assert [line for line in said if line.startswith("seed ")] == [
        f"seed {number} of 3 (`seed` {seed})" for number, seed in enumerate(SEEDS, 1)
    ]
    assert said[-1] == f"t: {report.seeds}"
    assert [path.name for path in (tmp_path / "several").iterdir()] == ["t.safetensors"]


def test_one_seed_says_nothing_of_seeds(backbone: Backbone, tmp_path: Path) -> None:
    said: list[str] = []
    options = dataclasses.replace(OPTIONS, recipe=EPOCHS, seeds=1)
    (report,) = train(backbone, [one(tmp_path)], options, note=said.append)
    assert report.seeds is None
    assert not any("seed" in line for line in said)
    assert not any("mean" in name or "seed" in name for name in report.task.metrics)


@pytest.mark.parametrize("recipe", RECIPES)
def test_finished_seeds_are_not_trained_again(backbone: Backbone, tmp_path: Path, recipe: str) -> None:
    """It is interrupted in the middle of the second seed."""
    options = dataclasses.replace(OPTIONS, recipe=recipe, keep_prompt=False)
    counted = Steps()
    train(backbone, [one(tmp_path / "whole")], options, callbacks=[counted], note=lambda _: None)
    of_seed = counted.number // 3
    assert of_seed == (STEPS * (FOLDS + 1) if recipe == CONTRASTIVE else 2 * 3)
    broken, said = one(tmp_path / "broken"), list[str]()
    with pytest.raises(KeyboardInterrupt):
        stop = Steps(stop_at=of_seed + of_seed // 2 + 1)
        train(backbone, [broken], options, callbacks=[stop], note=said.append)
    last = "epoch" if recipe == EPOCHS else "seed"
    assert said[-1].endswith(f"stopped: `resume` goes on from the last {last} in {broken.out}.checkpoints")
    assert not broken.out.exists()
    with pytest.raises(EdgetuneError, match="had another model, other options or data"):
        train(backbone, [broken], dataclasses.replace(options, seeds=4), resume=True)
    rest, said = Steps(), []
    train(backbone, [broken], options, resume=True, callbacks=[rest], note=said.append)
    assert rest.number == (of_seed * 2 if recipe == CONTRASTIVE else of_seed * 2 - of_seed // 2)
    assert "seed 1 of 3 (`seed` 4): finished before" in said
    assert broken.out.read_bytes() == (tmp_path / "whole" / "t.safetensors").read_bytes()
    assert [path.name for path in broken.out.parent.iterdir()] == ["t.safetensors"]


def test_a_damaged_outcome_is_said(backbone: Backbone, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, recipe=EPOCHS)
    with pytest.raises(KeyboardInterrupt):
        train(backbone, [one(tmp_path)], options, callbacks=[Steps(stop_at=8)], note=lambda _: None)
    (outcome,) = tmp_path.rglob("seed-4.safetensors")
    outcome.write_bytes(outcome.read_bytes()[:100])
    with pytest.raises(EdgetuneError, match=r"seed-4.safetensors is damaged .*: leave out `resume` to begin"):
        train(backbone, [one(tmp_path)], options, resume=True, note=lambda _: None)


def test_tasks_with_one_prompt_have_a_spread_each(backbone: Backbone, tmp_path: Path) -> None:
    data = [one(tmp_path, "a", ROWS[:8]), one(tmp_path, "b", ROWS[8:])]
    reports = train(backbone, data, dataclasses.replace(OPTIONS, seeds=2), note=lambda _: None)
    spreads = [report.seeds for report in reports if report.seeds is not None]
    assert [len(spread.by_seed) for spread in spreads] == [2, 2]
    assert len({spread.kept for spread in spreads}) == 1, "they share the prompt of one seed"
    assert len({Task.load(one.out).tensors["prefix_keys"].tobytes() for one in data}) == 1


def test_no_row_can_be_held_out(backbone: Backbone, tmp_path: Path) -> None:
    data = dataclasses.replace(one(tmp_path), train=ROWS[:2])
    (report,) = train(backbone, [data], OPTIONS, note=lambda _: None)
    assert report.figures is None and report.seeds is None


def test_seeds_are_not_all_in_memory(backbone: Backbone, tmp_path: Path) -> None:
    alive: list[tuple[int, int]] = []

    class Count(TrainerCallback):
        def on_train_begin(self, args: object, state: object, control: object, **_: object) -> None:
            gc.collect()
            kinds = [type(thing) for thing in gc.get_objects()]
            alive.append((kinds.count(PromptTuner), kinds.count(TrainingReport) + kinds.count(Outcome)))

    options = dataclasses.replace(OPTIONS, recipe=EPOCHS, keep_prompt=False, seeds=5, epochs=1)
    train(backbone, [one(tmp_path)], options, callbacks=[Count()], note=lambda _: None)
    assert len(alive) == 5
    assert max(alive) <= (3, 2), "the last, the next and a head alone; reports of the best and the last"
