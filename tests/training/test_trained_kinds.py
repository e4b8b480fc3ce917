"""Training for every kind of answer, for texts and for pairs: training, storage, and the engine's answers."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TEXTS, LanguageModelFolder
from labelled_kinds import EVERY, TAGS, measured, rows_of, tagged, takes_pairs, task_data
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, TrainerCallback

from edgetune.data.labelled import LabelledText
from edgetune.training import TaskData, TrainingOptions, TrainingReport, train, trainer
from edgetune.training.batches import encode_rows, texts_of
from edgetune_export import Backbone, export_bundle, load_backbone
from edgetune_export.parity import logits_by_text, torch_logits
from edgetune_runtime import Engine, Task, contract
from edgetune_runtime.errors import DataError, TaskError
from edgetune_runtime.fitting.examples import answers
from edgetune_runtime.kinds import KINDS, Figures, Result

OPTIONS = TrainingOptions(recipe="epochs", keep_prompt=True, epochs=2, batch_size=4, prompt_length=4)
LEARN = TrainingOptions(
    recipe="epochs", method="prompt", prompt_length=8, epochs=50, batch_size=6, head_learning_rate=0.1
)


@pytest.fixture(scope="module")
def backbone(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """The tiny BERT with a tokenizer that joins pairs as BERT's does, each text in a segment of its own.

    Its vocabulary is written down: one that is trained comes out a little different each time, and so do the weights,
    with which more or less is learned.
    """
    folder = shutil.copytree(model_folder, tmp_path_factory.mktemp("models") / "tiny-bert")
    words = sorted({word for text in TEXTS for word in re.findall(r"\w+", text.lower())} | {"and"})
    letters = [*string.ascii_lowercase, *string.digits]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"?,.;", *letters, *(f"##{one}" for one in letters)]
    vocabulary = {piece: place for place, piece in enumerate(dict.fromkeys([*pieces, *words]))}
    contents = json.loads((folder / "tokenizer.json").read_bytes())
    contents["model"]["vocab"] = vocabulary
    tokenizer = Tokenizer.from_str(json.dumps(contents))
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = BertConfig.from_pretrained(folder, vocab_size=len(vocabulary))
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    return load_backbone(str(folder))


@pytest.fixture(scope="module")
def every(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], TrainingReport]:
    """A short training of every kind, for texts and for pairs."""
    folder = tmp_path_factory.mktemp("every")
    found = {}
    for kind, pairs in EVERY:
        data = task_data(kind, pairs, folder / f"{kind}{'-pairs' * pairs}.safetensors")
        ((found[kind, pairs]),) = train(backbone, [data], OPTIONS)
        assert data.out.read_bytes() == found[kind, pairs].task.to_bytes()
    return found


def fit(backbone: Backbone, data: TaskData, options: TrainingOptions = OPTIONS) -> TrainingReport:
    (report,) = train(backbone, [data], options)
    return report


def logits_of(backbone: Backbone, task: Task, rows: list[LabelledText]) -> np.ndarray:
    return torch_logits(backbone, task, [row.given for row in rows])


def results_of(backbone: Backbone, task: Task, rows: list[LabelledText]) -> list[Result]:
    return answers(task, *logits_by_text(backbone, task, [row.given for row in rows]))


def figures_of(backbone: Backbone, task: Task, rows: list[LabelledText]) -> Figures:
    return task.kind.figures([row.target for row in rows], results_of(backbone, task, rows), task)


@pytest.mark.parametrize(("kind", "pairs"), EVERY)
def test_the_file_is_of_the_kind(every: dict[tuple[str, bool], TrainingReport], kind: str, pairs: bool) -> None:
    task = Task.from_bytes(every[kind, pairs].task.to_bytes(), "it")
    assert (task.kind, task.pairs) == (KINDS[kind], pairs)
    labels = {"single-label": ("bad", "good"), "score": ("score",), "spans": ("answer",)}
    assert task.labels == labels.get(kind, TAGS)
    requires = [f"kind:{kind}"] * (kind != "single-label") + ["pairs"] * pairs + ["long:windows"] * (kind == "spans")
    requires += ["input:token_type_ids"] * pairs + ["input:spans"] * (kind in ("tokens", "spans"))
    assert list(task.requires) == requires
    assert len(task.thresholds) == (3 if kind == "multi-label" else 0)
    assert all(0 < threshold < 1 for threshold in task.thresholds)
    assert (task.temperature == 1) == (kind == "score")
    figures = {"single-label": "accuracy", "multi-label": "macro_f1", "score": "pearson", "spans": "exact_match"}
    figure = f"dev_{figures.get(kind, 'entity_f1')}"
    assert task.metrics[figure] == every[kind, pairs].figures.values[figure.removeprefix("dev_")]


def test_the_exported_bundle_answers_as_pytorch(
    backbone: Backbone, every: dict[tuple[str, bool], TrainingReport], tmp_path: Path
) -> None:
    tasks = {key: report.task for key, report in every.items()}
    export_bundle(backbone, tmp_path / "bundle", precisions=["fp32"], tasks=list(tasks.values()), max_drop=1)
    with Engine(tmp_path / "bundle") as engine:
        for (kind, pairs), task in tasks.items():
            rows = rows_of(kind, pairs)
            expected = results_of(backbone, task, rows)
            got = engine.classify([row.given for row in rows], task.name)
            for one, other in zip(got, expected, strict=True):
                for field, value in other.fields().items():
                    exact = field in ("label", "labels", "answer") or value is None
                    if kind == "tokens":
                        exact = [{**own, "score": pytest.approx(own["score"], abs=1e-5)} for own in value]
                        assert one.fields()[field] == exact
                        continue
                    assert one.fields()[field] == (value if exact else pytest.approx(value, abs=1e-5))


def test_a_multi_label_task_learns_a_rule(backbone: Backbone, tmp_path: Path) -> None:
    rows = tagged()
    data = dataclasses.replace(
        task_data("multi-label", False, tmp_path / "tags.safetensors", rows[::2]), dev=rows[1::2]
    )
    report = fit(backbone, data, LEARN)
    assert report.figures.values["macro_f1"] > 0.9
    assert report.chosen_by == "mean average precision"


def test_a_score_task_learns_a_rule(backbone: Backbone, tmp_path: Path) -> None:
    rows = measured()
    data = dataclasses.replace(task_data("score", False, tmp_path / "long.safetensors", rows[::2]), dev=rows[1::2])
    report = fit(backbone, data, LEARN)
    assert report.figures.values["pearson"] > 0.9
    assert report.figures.values["mean_absolute_error"] < 0.2
    assert report.chosen_by == "Pearson"


def test_scores_are_on_the_scale_of_the_data(backbone: Backbone, tmp_path: Path) -> None:
    options = dataclasses.replace(LEARN, epochs=6)
    found = []
    for factor in (1.0, 1000.0):
        rows = measured(factor)
        report = fit(backbone, task_data("score", False, tmp_path / "long.safetensors", rows), options)
        found.append(logits_of(backbone, report.task, rows))
        assert [epoch.usual for epoch in report.epochs][-1] > 0.3
    np.testing.assert_allclose(found[1], 1000 * found[0], rtol=1e-3, atol=1)
    assert found[0].std() > 0.1


def test_tasks_of_all_kinds_are_trained_together_with_one_prompt(backbone: Backbone, tmp_path: Path) -> None:
    data = [task_data(kind, pairs, tmp_path / f"{kind}{pairs}.safetensors") for kind, pairs in EVERY]
    # A second multi-label task with other numbers of labels and rows.
    narrow = [LabelledText(row.text, tuple(set(row.target) & {"lamp"})) for row in tagged()]  # type: ignore[arg-type]
    data.append(task_data("multi-label", False, tmp_path / "narrow.safetensors", narrow))
    reports = train(backbone, data, OPTIONS)
    measures = {"mean average precision", "accuracy", "Pearson", "entity F1", "exact match"}
    assert {report.chosen_by for report in reports} == measures
    for one, report in zip(data, reports, strict=True):
        task, rows = Task.load(one.out), list(one.train)
        np.testing.assert_array_equal(task.tensors[contract.PREFIX_KEYS], reports[0].task.tensors[contract.PREFIX_KEYS])
        assert (task.kind, task.pairs) == (one.kind, one.pairs)
        expected = figures_of(backbone, task, rows)
        assert report.figures.values == pytest.approx(expected.values, abs=1e-4)
    usual = [report.figures.values["mean_average_precision"] for report in reports if report.usual.startswith("mean")]
    usual += [report.figures.values[report.usual] for report in reports if not report.usual.startswith("mean")]
    best = int(reports[0].task.metrics["best_epoch"])
    assert reports[0].epochs[best - 1].usual == pytest.approx(np.mean(usual), abs=1e-5)


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.reading is None])
def test_the_order_of_a_pair_matters_to_bert(
    backbone: Backbone, every: dict[tuple[str, bool], TrainingReport], kind: str
) -> None:
    task = every[kind, True].task
    assert task.template == "{text}"
    pairs = [(row.text, str(row.text_pair)) for row in rows_of(kind, True)]
    given, swapped = torch_logits(backbone, task, pairs), torch_logits(backbone, task, [pair[::-1] for pair in pairs])
    assert np.abs(given - swapped).max(axis=1).min() > 1e-5, "of every pair"
    assert np.abs(given - swapped).max() > 1e-3


def test_the_segments_of_a_pair_matter_to_bert(
    backbone: Backbone, every: dict[tuple[str, bool], TrainingReport]
) -> None:
    task = every["score", True].task
    pair = ("the lamp", "the camera")
    joined = dataclasses.replace(task, pairs=False, graph_inputs=())
    (tokens,) = backbone.text_encoder.encode([pair], [task])
    assert set(tokens.type_ids) == {0, 1}
    flat = torch_logits(backbone, joined, ["the lamp [SEP] the camera"])
    (alone,) = backbone.text_encoder.encode(["the lamp [SEP] the camera"], [joined])
    assert alone.ids == tokens.ids
    assert np.abs(torch_logits(backbone, task, [pair]) - flat).max() > 1e-3


def test_a_backbone_that_joins_pairs_without_a_separator_gets_a_line_break(
    language_model_folder: LanguageModelFolder, tmp_path: Path
) -> None:
    backbone = load_backbone(str(language_model_folder("gpt2")))
    data = [task_data("score", pairs, tmp_path / f"t{pairs}.safetensors") for pairs in (False, True)]
    single, pair = (report.task for report in train(backbone, data, OPTIONS))
    assert (single.template, pair.template) == ("{text}", "{text}\n{text_pair}")
    assert pair.graph_inputs == ()
    text = torch_logits(backbone, dataclasses.replace(pair, pairs=False, template="{text}"), ["the lamp\nit was"])
    np.testing.assert_allclose(torch_logits(backbone, pair, [("the lamp", "it was")]), text, atol=1e-6)


@pytest.mark.parametrize("template", ["{text} and then {text_pair}", "{text_pair} is what follows {text}"])
def test_a_template_has_the_second_text_where_it_says(backbone: Backbone, tmp_path: Path, template: str) -> None:
    data = task_data("single-label", True, tmp_path / "same.safetensors")
    task = fit(backbone, data, dataclasses.replace(OPTIONS, template=template)).task
    assert task.template == template
    filled = template.replace("{text}", "the lamp").replace("{text_pair}", "the mail")
    plain = dataclasses.replace(task, pairs=False, template="{text}", graph_inputs=())
    np.testing.assert_allclose(
        torch_logits(backbone, task, [("the lamp", "the mail")]), torch_logits(backbone, plain, [filled]), atol=1e-6
    )


@pytest.mark.parametrize(
    ("pairs", "template", "message"),
    [
        (
            False,
            "{text} and {text_pair}",
            "has {text_pair}, and the texts are no pairs: expected data with second texts",
        ),
        (True, "it says {text}", "for pairs of texts: expected {text} and {text_pair} in it, or no template"),
    ],
)
def test_a_template_that_does_not_fit_pairs_is_refused(
    backbone: Backbone, tmp_path: Path, pairs: bool, template: str, message: str
) -> None:
    data = task_data("single-label", pairs, tmp_path / "same.safetensors")
    with pytest.raises((TaskError, DataError), match=message):
        fit(backbone, data, dataclasses.replace(OPTIONS, template=template))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("kind", "pairs"), EVERY)
def test_the_same_training_gives_the_same_file_also_if_it_is_broken_off(
    backbone: Backbone,
    every: dict[tuple[str, bool], TrainingReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    pairs: bool,
) -> None:
    whole = every[kind, pairs].task.to_bytes()
    data = task_data(kind, pairs, tmp_path / f"{kind}{'-pairs' * pairs}.safetensors")
    assert fit(backbone, data).task.to_bytes() == whole
    data.out.unlink()

    class Stop(TrainerCallback):
        def on_step_end(self, args: object, state: object, control: object, **_: object) -> None:
            if state.global_step == 5:  # type: ignore[attr-defined]  # in the second epoch
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "Progress", lambda *_: Stop())
        with pytest.raises(KeyboardInterrupt):
            fit(backbone, data)
    assert not data.out.exists()
    (report,) = train(backbone, [data], OPTIONS, resume=True)
    assert data.out.read_bytes() == whole == report.task.to_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_begins_from_another_tasks_head(
    backbone: Backbone, every: dict[tuple[str, bool], TrainingReport], tmp_path: Path, kind: str
) -> None:
    first = every[kind, takes_pairs(kind)].task
    rows = rows_of(kind, takes_pairs(kind))
    if kind == "score":  # other scores, on which the head has another scale
        rows = [dataclasses.replace(row, target=3 * float(row.target) + 5) for row in rows]  # type: ignore[arg-type]
    still = dataclasses.replace(OPTIONS, init_from=first, learning_rate=1e-30, head_learning_rate=1e-30)
    second = fit(backbone, task_data(kind, takes_pairs(kind), tmp_path / "t.safetensors", rows), still).task
    np.testing.assert_allclose(logits_of(backbone, second, rows), logits_of(backbone, first, rows), atol=1e-4)


class TestWindows:
    """Texts that are read in windows: a row per window in training, a text per text in all that is said of it."""

    OPTIONS = dataclasses.replace(OPTIONS, max_length=10, long_texts="windows", stride=2)

    @pytest.mark.parametrize(("kind", "pairs"), EVERY)
    def test_figures_are_those_of_whole_texts(self, backbone: Backbone, tmp_path: Path, kind: str, pairs: bool) -> None:
        rows = [
            dataclasses.replace(row, text=" ".join([row.text] * (1 + place % 3)))
            for place, row in enumerate(rows_of(kind, pairs))
        ]
        data = dataclasses.replace(task_data(kind, pairs, tmp_path / "t.safetensors", rows), dev=rows[::2])
        report = fit(backbone, data, self.OPTIONS)
        task = Task.load(data.out)
        assert (task.long_texts, task.stride, task.max_length) == ("windows", 2, 10)
        assert "long:windows" in task.requires
        assert task.metrics["dev_rows"] == 6
        expected = figures_of(backbone, task, rows[::2])
        assert report.figures.values == pytest.approx(expected.values, abs=1e-4)
        best = report.epochs[int(task.metrics["best_epoch"]) - 1]
        assert best.usual == pytest.approx(expected.values[report.usual], abs=1e-4)

    def test_rows_expand(self, backbone: Backbone, every: dict[tuple[str, bool], TrainingReport]) -> None:
        task = dataclasses.replace(every["score", False].task, long_texts="windows", max_length=10, stride=2)
        rows = [LabelledText(" ".join(["good"] * words), words / 2) for words in (3, 20, 8, 15)]
        encoded = encode_rows(backbone, rows, task, 7)
        # 8 tokens of room beside [CLS] and [SEP]; each further window has 6 new ones.
        assert [row["text"] for row in encoded] == [0, 1, 1, 1, 2, 3, 3, 3]
        assert {row["task_index"] for row in encoded} == {7}
        assert [row["labels"][0].tolist() for row in encoded] == [[1.5], *[[10.0]] * 3, [4.0], *[[7.5]] * 3]
        assert [len(row["input_ids"]) for row in encoded] == [5, 10, 10, 10, 10, 10, 10, 5]

    def test_logits_of_windows_by_hand(self) -> None:
        logits = np.array([[1.0, 2.0], [3.0, 0.0], [5.0, 5.0], [5.0, 1.0], [7.0, 9.0]])
        targets = np.array([[1.0], [0.0], [1.0], [0.0], [2.0]])
        text = np.array([4, 0, 4, 0, 2])
        found, own = texts_of(logits, targets, text)
        np.testing.assert_array_equal(found, [[4.0, 0.5], [7.0, 9.0], [3.0, 3.5]])  # texts 0, 2, 4
        np.testing.assert_array_equal(own, [[0.0], [2.0], [1.0]])

    def test_texts_of_one_window_each_stay_as_they_are(self) -> None:
        logits, targets = np.eye(3), np.array([[2.0], [0.0], [1.0]])
        found, own = texts_of(logits, targets, np.array([2, 0, 1]))
        assert [(found[place].tolist(), own[place].tolist()) for place in range(3)] == [
            (logits[place].tolist(), targets[place].tolist()) for place in range(3)
        ]

    @pytest.mark.parametrize("stride", [10, 11, 500])
    def test_windows_that_never_move_on_are_refused_before_any_work(
        self, backbone: Backbone, tmp_path: Path, stride: int
    ) -> None:
        data = task_data("score", False, tmp_path / "t.safetensors")
        with pytest.raises(DataError, match=f"`stride` {stride} .*`max_length`"):
            fit(backbone, data, dataclasses.replace(self.OPTIONS, stride=stride))
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [2e6, -1e30, 1e300])
def test_scores_too_large_for_a_head_are_refused_before_any_work(
    backbone: Backbone, tmp_path: Path, number: float
) -> None:
    rows = [*rows_of("score", False), LabelledText("good", number)]
    with pytest.raises(DataError, match="expected scores from -1,000,000 to 1,000,000"):
        fit(backbone, task_data("score", False, tmp_path / "t.safetensors", rows))
    assert not list(tmp_path.iterdir())
