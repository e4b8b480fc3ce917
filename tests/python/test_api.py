"""`edgetune.train` and `edgetune.export`: what the commands do, for lists and columns."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import MakeTask
from transformers import TrainerCallback
from transformers.integrations import INTEGRATION_TO_CALLBACK

import edgetune
from edgetune.data.labelled import LabelledText
from edgetune.training import TaskData, TrainingOptions
from edgetune.training import train as run_training
from edgetune_export import Backbone, load_backbone
from edgetune_runtime import Bundle, Engine, Task
from edgetune_runtime.errors import AccuracyDropError, BackboneError, BundleError, DataError, EdgetuneError, TaskError

THINGS = ("lamp", "camera", "screen", "parcel", "mail", "speaker")
SAID = {"works very well": "good", "is broken": "bad"}
ROWS = [(f"the {thing} {said}", label) for thing in THINGS for said, label in SAID.items()]
X, Y = [text for text, _ in ROWS], [label for _, label in ROWS]
QUICK: dict[str, Any] = {"epochs": 2, "prompt_length": 4, "keep_prompt": True, "note": lambda _: None}


@pytest.fixture(scope="module")
def backbone(model_folder: Path) -> Backbone:
    return load_backbone(str(model_folder))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path


def trained(backbone: Backbone, out: Path, options: TrainingOptions, dev: list[tuple[str, str]]) -> Task:
    train, held_out = ([LabelledText(*row) for row in rows] for rows in (ROWS, dev))
    (report,) = run_training(backbone, [TaskData("mood", out, train, held_out)], options, note=lambda _: None)
    return report.task


def test_it_trains_what_the_command_does(backbone: Backbone, temporary: Path) -> None:
    task = edgetune.train(backbone, X, Y, "mood", eval_texts=X[:4], eval_labels=Y[:4], **QUICK)
    options = TrainingOptions(recipe="epochs", epochs=2, prompt_length=4, keep_prompt=True)
    assert list(temporary.iterdir()) == []
    assert task.sha256 == trained(backbone, temporary / "mood.safetensors", options, ROWS[:4]).sha256
    assert task.name == "mood" and task.metrics["dev_rows"] == 4


@pytest.mark.parametrize("model", [str, Path, load_backbone], ids=["folder", "Path", "backbone"])
def test_a_model_is_a_folder_or_loaded(model_folder: Path, model: Any, tmp_path: Path) -> None:
    given = model(str(model_folder))
    task = edgetune.train(given, X, Y, "mood", out=tmp_path / "mood.safetensors", **QUICK)
    assert Task.load(tmp_path / "mood.safetensors").sha256 == task.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["mood.safetensors"]


@pytest.mark.parametrize("of", [tuple, np.array, pd.Series, lambda values: pd.Series(values, dtype="category")])
def test_columns_of_any_sort(backbone: Backbone, of: Any) -> None:
    expected = edgetune.train(backbone, X, Y, "mood", **QUICK).sha256
    assert edgetune.train(backbone, of(X), of(Y), "mood", **QUICK).sha256 == expected


def test_columns_of_datasets(backbone: Backbone) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"text": X, "label": Y})
    found = edgetune.train(backbone, rows["text"], rows["label"], "mood", **QUICK)
    assert found.sha256 == edgetune.train(backbone, X, Y, "mood", **QUICK).sha256


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([["device", one] for one in Y], "multi-label"),
        ([{"good": 4.5, "bad": 1.0}[one] for one in Y], "score"),
        ([one == "good" for one in Y], "single-label"),
    ],
)
def test_every_kind_and_pairs(backbone: Backbone, labels: list[Any], kind: str) -> None:
    pairs = [(text, "it was there") for text in X]
    task = edgetune.train(backbone, pairs, labels, "mood", eval_texts=pairs, eval_labels=labels, **QUICK)
    assert (task.kind_name, task.pairs) == (kind, True)
    assert edgetune.train(backbone, np.array(pairs), labels, "mood", kind=kind, **QUICK).kind_name == kind


def test_few_rows_train_by_pairs_unless_epochs_are_named(backbone: Backbone) -> None:
    few = edgetune.train(backbone, X, Y, "mood", options=TrainingOptions(prompt_length=4), note=lambda _: None)
    assert "cv_accuracy" in few.metrics  # no row was held out for good
    for name in ("epochs", "patience"):
        task = edgetune.train(backbone, X, Y, "mood", **{"prompt_length": 4, name: 1}, note=lambda _: None)
        assert "best_epoch" in task.metrics


def test_options_are_what_fields_leave(backbone: Backbone) -> None:
    options = TrainingOptions(prompt_length=3, recipe="epochs", epochs=1, keep_prompt=True)
    quiet: dict[str, Any] = {"note": lambda _: None}
    assert edgetune.train(backbone, X, Y, "mood", options=options, **quiet).prefix_length == 3
    assert edgetune.train(backbone, X, Y, "mood", options=options, prompt_length=5, **quiet).prefix_length == 5


def test_a_task_begins_as_another(backbone: Backbone, tmp_path: Path) -> None:
    first = edgetune.train(backbone, X, Y, "mood", out=tmp_path / "a.safetensors", **QUICK)
    more = {name: value for name, value in QUICK.items() if name != "prompt_length"}
    by_task = edgetune.train(backbone, X, Y, "again", init_from=first, **more)
    by_file = edgetune.train(backbone, X, Y, "again", init_from=tmp_path / "a.safetensors", **more)
    assert by_task.sha256 == by_file.sha256 and by_task.prefix_length == 4


class Counting(TrainerCallback):
    """Counts what it is told of."""

    def __init__(self) -> None:
        self.epochs, self.logged = 0, []

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self.epochs += 1

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        self.logged += list(logs)


def test_callbacks_are_told_of_the_training(backbone: Backbone) -> None:
    told = Counting()
    edgetune.train(backbone, X, Y, "mood", callbacks=[told], **QUICK)
    assert told.epochs == 2 and {"loss", "eval_score"} <= set(told.logged)


def test_trackers_are_told_of_the_training(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Counting] = []

    class Tracker(Counting):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    class Missing(TrainerCallback):
        def __init__(self) -> None:
            raise RuntimeError("it requires a package. Run `pip install tracker`.")

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "mlflow", Tracker)
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "wandb", Missing)
    edgetune.train(backbone, X, Y, "mood", report_to=["mlflow"], **QUICK)
    edgetune.train(backbone, X, Y, "mood", report_to="mlflow", options=TrainingOptions(), note=lambda _: None)
    assert [one.epochs > 0 for one in made] == [True, True]  # the few rows' trainings share one
    edgetune.train(backbone, X, Y, "mood", **QUICK)
    assert len(made) == 2
    with pytest.raises(DataError, match="report_to has 'wandb', which does not start: it requires a package"):
        edgetune.train(backbone, X, Y, "mood", report_to="wandb", **QUICK)
    with pytest.raises(DataError, match="report_to has 'mlfow': expected 'none', 'all', or some of"):
        edgetune.train(backbone, X, Y, "mood", report_to=["mlfow"], **QUICK)


def test_a_training_that_broke_off_goes_on(backbone: Backbone, tmp_path: Path) -> None:
    class Break(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
            if state.epoch >= 1:
                raise KeyboardInterrupt

    out = tmp_path / "mood.safetensors"
    with pytest.raises(KeyboardInterrupt):
        edgetune.train(backbone, X, Y, "mood", out=out, callbacks=[Break()], **QUICK)
    notes: list[str] = []
    task = edgetune.train(backbone, X, Y, "mood", out=out, resume=True, **{**QUICK, "note": notes.append})
    assert any("epoch" in one or "resum" in one for one in notes)
    assert task.sha256 == edgetune.train(backbone, X, Y, "mood", **QUICK).sha256


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"texts": "one"}, DataError, "one string came instead of a list of texts"),
        ({"labels": Y[:-1]}, DataError, "11 labels came for 12 texts"),
        ({"labels": ["good"] * 12}, DataError, "has only the label 'good'"),
        ({"texts": [*X[:-1], 3]}, DataError, "text 11 is int 3"),
        ({"eval_texts": X}, DataError, "eval_texts came without eval_labels"),
        ({"eval_labels": Y}, DataError, "eval_labels came without eval_texts"),
        (
            {"eval_texts": X[:1], "eval_labels": ["new"]},
            DataError,
            "has labels that the training data does not have: new",
        ),
        ({"eval_texts": [("a", "b")], "eval_labels": ["good"]}, DataError, "texts and eval_texts differ"),
        ({"name": "a/b"}, TaskError, "name"),
        ({"kind": "many"}, DataError, "there is no kind 'many'"),
        ({"out": "."}, EdgetuneError, "is a folder"),
        ({"resume": True}, DataError, "`resume` came without `out`"),
        ({"model": "none/there"}, BackboneError, "none/there"),
        ({"model": 3}, BackboneError, "the model is a int: expected a folder"),
        ({"epoch": 3}, TypeError, "training has no option 'epoch': did you mean 'epochs'?"),
        ({"xyz": 3}, TypeError, "training has no option 'xyz': expected some of method, "),
        ({"options": {"epochs": 3}}, DataError, "the options are a dict: expected edgetune.TrainingOptions"),
        ({"template": "no slot"}, TaskError, "{text}"),
        ({"class_weight": {"god": 2}}, DataError, "there are class weights for god"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_line(
    backbone: Backbone, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments = {"model": backbone, "texts": X, "labels": Y, "name": "mood", **QUICK, **given}
    with pytest.raises(error) as raised:
        edgetune.train(**arguments)
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def mood(backbone: Backbone) -> Task:
    return edgetune.train(backbone, X, Y, "mood", **QUICK)


def test_it_exports_what_the_command_does(backbone: Backbone, mood: Task, bundle: Bundle, tmp_path: Path) -> None:
    notes: list[str] = []
    mood.renamed("stored").save(tmp_path / "stored.safetensors")
    made = edgetune.export(
        backbone, tmp_path / "bundle", tasks=[mood, tmp_path / "stored.safetensors"],
        check_data={"mood": (pd.Series(X), np.array(Y))}, max_drop=1.0, note=notes.append,
    )  # fmt: skip
    assert isinstance(made, Bundle) and made.path == tmp_path / "bundle"
    for name in ("fp32", "int8"):
        assert made.read_graph(name) == bundle.read_graph(name)
        parity = made.manifest.graphs[name].parity
        assert parity["mood"].rows == len(X) and parity["mood"].value is not None
        assert parity["stored"].value is None
    assert notes[0].startswith("answering with PyTorch") and notes[-1].startswith("comparing with PyTorch")
    with Engine(made) as engine:
        assert engine.task_names == ["mood", "stored"]
        assert edgetune.evaluate(engine, X, Y, task="mood").figures.values["accuracy"] > 0
    assert made.precision(None) == "int8"
    again = edgetune.export(backbone, tmp_path / "bundle", precisions=["fp32"], overwrite=True, note=notes.append)
    assert list(again.manifest.graphs) == ["fp32"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"precisions": "int8"}, DataError, "one string came instead of a list of precisions"),
        ({"precisions": ["int4"]}, DataError, "the precisions came as 'int4': expected one or more of fp32, int8, q4"),
        ({"precisions": []}, DataError, "the precisions came as none"),
        ({"tasks": "mood.safetensors"}, DataError, "one task came instead of a list of tasks"),
        ({"tasks": ["none.safetensors"]}, TaskError, "the task file none.safetensors cannot be read"),
        (
            {"check_data": {"size": (X, Y)}},
            DataError,
            "`check_data` has 'size', which is not a task here: expected some",
        ),
        ({"check_data": {"mood": X}}, DataError, "`check_data` of 'mood' is a list: expected a pair (texts, labels)"),
        (
            {"check_data": {"mood": (X, ["x"] * 12)}},
            DataError,
            "the data has labels that the task 'mood' does not have: x",
        ),
        ({"check_data": {"mood": ([("a", "b")], ["bad"])}}, DataError, "pairs of texts came"),
        ({"model": "none/there"}, BackboneError, "none/there"),
        ({"model": None}, BackboneError, "the model is a NoneType"),
        ({"out": Path(__file__).parent}, BundleError, "already exists"),
        ({"out": Path(__file__).parent, "overwrite": True}, BundleError, "is not a bundle"),
        ({"max_drop": -1.0, "check_data": {"mood": (X, Y)}}, AccuracyDropError, "more than `max_drop` -1 allows"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_a_line(
    backbone: Backbone, mood: Task, tmp_path: Path, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments = {"model": backbone, "out": tmp_path / "bundle", "tasks": [mood], "note": lambda _: None, **given}
    with pytest.raises(error) as raised:
        edgetune.export(**arguments)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_task_of_another_model_is_refused(backbone: Backbone, make_task: MakeTask, tmp_path: Path) -> None:
    other = dataclasses.replace(make_task("other"), backbone_sha256="0" * 64)
    with pytest.raises(TaskError, match="other"):
        edgetune.export(backbone, tmp_path / "bundle", tasks=[other])


def test_an_evaluation_needs_an_engine(bundle_folder: Path) -> None:
    with pytest.raises(DataError, match="the engine is a str: expected an edgetune"):
        edgetune.evaluate(str(bundle_folder), X, Y, "colour")  # type: ignore[arg-type]
