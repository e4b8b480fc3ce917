"""Converting PEFT's adapters and tasks: the same logits, or an error; the table of docs/peft-tables.md."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from conftest import TEXTS
from peft import PeftModel, get_peft_model
from peft_models import (
    FAMILIES,
    LABELS,
    LANGUAGE_MODELS,
    LENGTH,
    MAX_LENGTH,
    POOLED,
    ROWS,
    WORDS,
    Folder,
    Load,
    auto,
    imported,
    logits_of_export,
    models_in,
    peft_logits,
    table_of,
    token_rows,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

from edgetune.data.labelled import LabelledText
from edgetune.peft_adapters import Adapter, export_adapter, import_task
from edgetune.training import TaskData, TrainingOptions, prompts, train, zero_shot
from edgetune_export import Backbone, export_bundle, load_backbone
from edgetune_export.parity import torch_logits
from edgetune_runtime import Engine, Task, contract
from edgetune_runtime.errors import DataError, TaskError
from edgetune_runtime.kinds import KINDS

# Settings that PEFT expects and some configs lack.
SIZES = {"token_dim": 32, "num_layers": 2, "num_attention_heads": 4}
METHODS: dict[str, Callable[..., Any]] = {
    "PROMPT_TUNING": peft.PromptTuningConfig,
    "P_TUNING": lambda **more: peft.PromptEncoderConfig(encoder_hidden_size=16, **more),
    "PREFIX_TUNING": peft.PrefixTuningConfig,
    "MULTITASK_PROMPT_TUNING": lambda **more: peft.MultitaskPromptTuningConfig(
        num_tasks=3, num_ranks=2, num_transformer_submodules=1, **more
    ),
}
WITHOUT_PAST = ("albert", "distilbert", "modernbert")
HEAD, PREFIX, PAST, IDS = "not linear", "self-attention alone", "no past_key_values", "hands no task_ids on"
REASONS = {
    HEAD: "the adapter's head has a layer of its own that is not linear, a task's head is linear",
    PREFIX: "PEFT gives the prefix to the decoder's self-attention alone, a task to every attention",
    PAST: "the model has no `past_key_values`, so PEFT has no such adapters",
    IDS: "PEFT itself does not run it: its `FEATURE_EXTRACTION` hands no `task_ids` on",
}


def outcome(method: str, family: str, task_type: str) -> str:
    """Why an adapter is rejected; empty if it is converted."""
    if task_type == "SEQ_CLS" and family not in (*LANGUAGE_MODELS["CAUSAL_LM"][1], *POOLED):
        return HEAD
    if (method, task_type) == ("MULTITASK_PROMPT_TUNING", "FEATURE_EXTRACTION"):
        return IDS
    if method == "PREFIX_TUNING":
        return PREFIX if task_type == "SEQ_2_SEQ_LM" else PAST if family in WITHOUT_PAST else ""
    return ""


CELLS = [(method, family, kind) for family, kind in ROWS for method in METHODS]


def import_table() -> str:
    """The table of what can be imported, for docs/peft-tables.md."""
    return table_of(list(METHODS), ROWS, outcome, REASONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Saves a tiny random language model of a family, once."""
    return models_in(tmp_path_factory.mktemp("families"))


@pytest.fixture(scope="module")
def load(folder: Folder) -> Load:
    """Loads a family's backbone, once."""
    return functools.cache(lambda family: load_backbone(str(folder(family))))


def trained(folder: Path, out: Path, method: str, task_type: str, **more: Any) -> PeftModel:
    """A PEFT model with random numbers in its prompt, saved in `out`."""
    base = auto(task_type, folder)
    sizes = SIZES | {"token_dim": base.get_input_embeddings().weight.shape[1]} if method != "PREFIX_TUNING" else SIZES
    torch.manual_seed(2)
    model = get_peft_model(base, METHODS[method](task_type=task_type, num_virtual_tokens=LENGTH, **sizes, **more))
    for name, parameter in model.named_parameters():
        if "prompt_encoder" in name or ".score" in name or ".classifier" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    model.eval().save_pretrained(out)
    return model


@pytest.mark.parametrize(("method", "family", "task_type"), [cell for cell in CELLS if not outcome(*cell)], ids=str)
def test_an_imported_adapter_gives_peft_s_logits(
    folder: Folder, load: Load, tmp_path: Path, method: str, family: str, task_type: str
) -> None:
    model, backbone = trained(folder(family), tmp_path / "out", method, task_type), load(family)
    task = imported(backbone, tmp_path / "out", method, task_type)
    expected = peft_logits(model, backbone, task, task_type, method)
    np.testing.assert_allclose(torch_logits(backbone, task, TEXTS), expected, atol=1e-4)
    assert np.ptp(expected, axis=0).min() > 1e-2  # the texts are told apart
    Task.from_bytes(task.to_bytes(), "it is a sound task")


@pytest.mark.parametrize(("method", "family", "task_type"), [cell for cell in CELLS if outcome(*cell)], ids=str)
def test_what_cannot_be_carried_over_is_refused(
    folder: Folder, load: Load, tmp_path: Path, method: str, family: str, task_type: str
) -> None:
    trained(folder(family), tmp_path / "out", method, task_type)
    with pytest.raises(TaskError, match=outcome(method, family, task_type)):
        imported(load(family), tmp_path / "out", method, task_type)


EXPORTED = [(family, kind) for family in FAMILIES for kind in ("prompt", "prefix")]


def export_outcome(family: str, kind: str) -> str:
    """Why a task is not exported; empty if it is."""
    if kind == "prompt":
        return ""
    return PREFIX if family in ("t5", "bart") else PAST if family in WITHOUT_PAST else ""


def export_table() -> str:
    """The table of what can be exported, for docs/peft-tables.md."""
    lines = ["| model | prompt → PROMPT_TUNING | prefix → PREFIX_TUNING |", "|---|---|---|"]
    marks = {"": "yes"} | {reason: f"no ({place})" for place, reason in enumerate(REASONS, 1)}
    lines += [
        f"| {family} | " + " | ".join(marks[export_outcome(family, kind)] for kind in ("prompt", "prefix")) + " |"
        for family in FAMILIES
    ]
    return "\n".join(lines)


@pytest.mark.parametrize("table", [import_table, export_table])
def test_the_documented_tables_are_what_is_tested(table: Callable[[], str]) -> None:
    documented = (Path(__file__).parents[2] / "docs" / "peft-tables.md").read_text(encoding="utf-8")
    assert table() in documented, f"write this into docs/peft-tables.md:\n{table()}"


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("P_TUNING", {"encoder_reparameterization_type": "LSTM"}),
        ("PREFIX_TUNING", {"prefix_projection": True, "encoder_hidden_size": 16}),
    ],
)
def test_networks_that_prompts_come_out_of_are_baked_out(
    folder: Folder, load: Load, tmp_path: Path, method: str, more: dict[str, Any]
) -> None:
    base = auto("SEQ_CLS", folder("gpt2"))
    kind = peft.PromptEncoderConfig if method == "P_TUNING" else peft.PrefixTuningConfig
    config = kind(task_type="SEQ_CLS", num_virtual_tokens=LENGTH, **{"encoder_hidden_size": 16, **more})
    model = get_peft_model(base, config).eval()
    model.save_pretrained(tmp_path)
    task = imported(load("gpt2"), tmp_path, method, "SEQ_CLS")
    expected = peft_logits(model, load("gpt2"), task, "SEQ_CLS", method)
    np.testing.assert_allclose(torch_logits(load("gpt2"), task, TEXTS), expected, atol=1e-4)


def test_an_imported_task_is_served_as_peft_answers(folder: Folder, load: Load, tmp_path: Path) -> None:
    model = trained(folder("llama"), tmp_path / "adapter", "PROMPT_TUNING", "SEQ_CLS")
    task = imported(load("llama"), tmp_path / "adapter", "PROMPT_TUNING", "SEQ_CLS")
    assert (task.prompt_length, task.prefix_length) == (0, LENGTH)  # computed once, not at each text
    assert contract.PROMPT_SOURCE in task.tensors
    export_bundle(load("llama"), tmp_path / "bundle", tasks=[task], precisions=["fp32"])
    expected = torch.from_numpy(peft_logits(model, load("llama"), task, "SEQ_CLS", "PROMPT_TUNING")).softmax(dim=1)
    with Engine(tmp_path / "bundle") as engine:
        scores = [list(result.scores.values()) for result in engine.classify(TEXTS, task="mood")]
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_labels_are_named_in_order(folder: Folder, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load("gpt2")
    trained(folder("gpt2"), tmp_path, "PROMPT_TUNING", "SEQ_CLS")
    adapter = Adapter.load(tmp_path)
    assert import_task(backbone, adapter, "t").labels == ("0", "1", "2")
    assert import_task(backbone, adapter, "t", labels=["c", "a", "b"]).labels == ("c", "a", "b")
    monkeypatch.setattr(backbone.config, "id2label", {0: "x", 1: "y", 2: "z"})
    assert import_task(backbone, adapter, "t").labels == ("x", "y", "z")
    for labels in (["a", "b"], ["a", "b", "b"]):
        with pytest.raises(DataError, match="expected 3 different names"):
            import_task(backbone, adapter, "t", labels=labels)
    with pytest.raises(DataError, match="a sequence classifier with its own head"):
        import_task(backbone, adapter, "t", words=WORDS)


def test_half_precision_is_read(folder: Folder, load: Load, tmp_path: Path) -> None:
    trained(folder("gpt2"), tmp_path, "PREFIX_TUNING", "SEQ_CLS")
    path = tmp_path / "adapter_model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, path)
    task = imported(load("gpt2"), tmp_path, "PREFIX_TUNING", "SEQ_CLS")
    assert {tensor.dtype for tensor in task.tensors.values()} == {np.dtype(np.float32)}


class TestRefused:
    """Each error is one line: what came, what was expected, what to do."""

    @pytest.fixture
    def saved(self, folder: Folder, tmp_path: Path) -> Path:
        trained(folder("gpt2"), tmp_path / "adapter", "PREFIX_TUNING", "SEQ_CLS")
        return tmp_path / "adapter"

    def configured(self, saved: Path, **changes: Any) -> Adapter:
        path = saved / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        return Adapter.load(saved)

    def test_other_kinds_of_adapter(self, folder: Folder, load: Load, tmp_path: Path) -> None:
        get_peft_model(auto("SEQ_CLS", folder("gpt2")), peft.IA3Config(task_type="SEQ_CLS")).save_pretrained(tmp_path)
        with pytest.raises(TaskError, match="is IA3, which a task cannot do with a frozen model: expected one of"):
            import_task(load("gpt2"), Adapter.load(tmp_path), "t")

    def test_a_classifier_through_a_pooler_that_is_not_there(self, folder: Folder, tmp_path: Path) -> None:
        trained(folder("bert"), tmp_path / "adapter", "PROMPT_TUNING", "SEQ_CLS")
        AutoModelForMaskedLM.from_pretrained(folder("bert")).save_pretrained(tmp_path / "tiny-bert")
        for file in folder("bert").glob("tokenizer*"):
            shutil.copy(file, tmp_path / "tiny-bert")
        with pytest.raises(TaskError, match="reads bert through its pooler, and the weights of tiny-bert have none"):
            import_task(load_backbone(str(tmp_path / "tiny-bert")), Adapter.load(tmp_path / "adapter"), "t")

    def test_other_task_types(self, load: Load, saved: Path) -> None:
        with pytest.raises(TaskError, match="is for FEATURE_EXTRACTION: on tiny-gpt2"):
            import_task(load("gpt2"), self.configured(saved, task_type="FEATURE_EXTRACTION"), "t")

    def test_another_base_model(self, load: Load, saved: Path) -> None:
        adapter = self.configured(saved, base_model_name_or_path="org/gpt2-large")
        with pytest.raises(
            TaskError, match=r"was trained on org/gpt2-large, but this is tiny-gpt2.*as `backbone`, .* `same_base`"
        ):
            import_task(load("gpt2"), adapter, "t")
        assert import_task(load("gpt2"), adapter, "t", same_base=True).labels == ("0", "1", "2")
        assert import_task(load("gpt2"), self.configured(saved, base_model_name_or_path=None), "t").prefix_length

    def test_another_number_of_layers(self, load: Load, saved: Path) -> None:
        adapter = self.configured(saved, num_layers=1, token_dim=64, num_attention_heads=8)
        with pytest.raises(
            TaskError, match=r"prefix_keys of shape \[1, 8, 5, 8\]: expected \[2, 4, 5, 8\] on tiny-gpt2"
        ):
            import_task(load("gpt2"), adapter, "t")
        with pytest.raises(TaskError, match=r"of shape \[5, 128\]: expected \[5, 384\] by its adapter_config.json"):
            import_task(load("gpt2"), self.configured(saved, num_layers=3), "t")

    def test_a_model_that_is_not_frozen(self, load: Load, saved: Path) -> None:
        path = saved / "adapter_model.safetensors"
        save_file({**load_file(path), "base_model.transformer.wte.weight": torch.zeros(3, 3)}, path)
        with pytest.raises(
            TaskError, match=r"also changes the model itself .base_model.transformer.wte.weight.*frozen"
        ):
            import_task(load("gpt2"), Adapter.load(saved), "t")

    def test_a_classifier_without_head(self, load: Load, saved: Path) -> None:
        path = saved / "adapter_model.safetensors"
        save_file({"prompt_embeddings": load_file(path)["prompt_embeddings"]}, path)
        with pytest.raises(TaskError, match="has no head among prompt_embeddings"):
            import_task(load("gpt2"), Adapter.load(saved), "t")

    def test_pickles_are_not_opened(self, saved: Path) -> None:
        (saved / "adapter_model.safetensors").rename(saved / "adapter_model.bin")
        with pytest.raises(TaskError, match=r"adapter_model.bin, a pickle, which can run code and is not opened"):
            Adapter.load(saved)

    def test_damaged_and_missing_files(self, load: Load, saved: Path, tmp_path: Path) -> None:
        weights = (saved / "adapter_model.safetensors").read_bytes()
        (saved / "adapter_model.safetensors").write_bytes(b"nonsense" * 3)
        with pytest.raises(TaskError, match=r"adapter_model.safetensors cannot be read"):
            Adapter.load(saved)
        (saved / "adapter_model.safetensors").write_bytes(weights)
        for content in (
            "[1]",
            "{}",
            "nonsense",
            '{"peft_type": "PREFIX_TUNING", "task_type": "SEQ_CLS", "num_layers": "x"}',
        ):
            (saved / "adapter_config.json").write_text(content)
            with pytest.raises(TaskError, match=r"adapter_config.json.* PEFT's save_pretrained wrote"):
                import_task(load("gpt2"), Adapter.load(saved), "t", same_base=True)
        with pytest.raises(TaskError, match="No such file or directory"):
            Adapter.load(tmp_path / "nothing")

    def test_numbers_that_are_not_finite(self, saved: Path) -> None:
        path = saved / "adapter_model.safetensors"
        save_file({"prompt_embeddings": load_file(path)["prompt_embeddings"] * float("nan")}, path)
        with pytest.raises(TaskError, match="has numbers in prompt_embeddings that are not finite"):
            Adapter.load(saved)

    def test_label_words_and_multitask_prompts(self, folder: Folder, load: Load, tmp_path: Path) -> None:
        trained(folder("gpt2"), tmp_path, "MULTITASK_PROMPT_TUNING", "CAUSAL_LM")
        adapter = Adapter.load(tmp_path)
        with pytest.raises(DataError, match="a language model without labels: say with `words`"):
            import_task(load("gpt2"), adapter, "t", peft_task=0)
        for chosen in (None, 3):
            with pytest.raises(DataError, match=f"3 tasks and `peft_task` is {chosen}: expected 0 to 2"):
                import_task(load("gpt2"), adapter, "t", words=WORDS, peft_task=chosen)

    def test_virtual_tokens_in_the_decoder(self, folder: Folder, load: Load, tmp_path: Path) -> None:
        config = peft.MultitaskPromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=LENGTH, num_tasks=2)
        get_peft_model(auto("SEQ_2_SEQ_LM", folder("t5")), config).save_pretrained(tmp_path)
        with pytest.raises(TaskError, match=r"before the decoder's start too.*num_transformer_submodules 1"):
            import_task(load("t5"), Adapter.load(tmp_path), "t", words=WORDS, peft_task=0)

    def test_a_prefix_out_of_the_window(self, folder: Folder, load: Load, tmp_path: Path) -> None:
        trained(folder("gemma3_text"), tmp_path, "PREFIX_TUNING", "SEQ_CLS")
        adapter = Adapter.load(tmp_path)
        with pytest.raises(TaskError, match=r"see only 64.*`max_length` of at most 59"):
            import_task(load("gemma3_text"), adapter, "t", max_length=60)
        import_task(load("gemma3_text"), adapter, "t", max_length=59)

    def test_texts_that_end_in_padding(self, load: Load, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(load("gpt2").config, "pad_token_id", 3)  # [SEP]
        with pytest.raises(TaskError, match="ends texts with the padding token"):
            import_task(load("gpt2"), Adapter.load(saved), "t")

    def test_a_prompt_longer_than_the_model_reads(self, load: Load, saved: Path) -> None:
        path = saved / "adapter_model.safetensors"
        tensors = load_file(path)
        save_file({**tensors, "prompt_embeddings": torch.zeros(96, 128)}, path)
        with pytest.raises(TaskError, match="has 96 positions, which leaves no room for text"):
            import_task(load("gpt2"), self.configured(saved, num_virtual_tokens=96), "t")


def random_task(backbone: Backbone, kind: str, bias: bool, pooling: str) -> Task:
    """A task of random numbers whose text positions begin as in PEFT."""
    lengths = {"tasks": 1, "prompt": LENGTH, "prefix": LENGTH, "labels": LABELS}
    names = [contract.PROMPT_EMBEDDINGS] if kind == "prompt" else [contract.PREFIX_KEYS, contract.PREFIX_VALUES]
    torch.manual_seed(3)
    tensors = {
        name: torch.randn(backbone.sizes.shape(name, **lengths)[1:])
        for name in (*names, contract.HEAD_WEIGHT, contract.HEAD_BIAS)
    }
    tensors[contract.HEAD_BIAS] *= bias
    return Task(
        name="mood",
        labels=("a", "b", "c"),
        backbone_sha256=backbone.fingerprint(),
        tensors=prompts.stored(backbone, tensors, MAX_LENGTH),
        method="random",
        base_model=backbone.name,
        pooling=pooling,
        position_offset=LENGTH,
        max_length=MAX_LENGTH,
    )


PROBLEMS = {
    "single_label_classification": ("single-label", LABELS),
    "multi_label_classification": ("multi-label", LABELS),
    "regression": ("score", 1),
}
"""Problem type in transformers → the kind of answer, and a number of outputs."""


def classifier(folder: Path, out: Path, problem: str, method: str = "PREFIX_TUNING") -> PeftModel:
    """PEFT's sequence classifier for a kind of problem, saved in `out`."""
    torch.manual_seed(1)
    base = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=PROBLEMS[problem][1], problem_type=problem
    )
    model = get_peft_model(base, METHODS[method](task_type="SEQ_CLS", num_virtual_tokens=LENGTH, **SIZES)).eval()
    for name, parameter in model.named_parameters():
        if "prompt_encoder" in name or ".score" in name or ".classifier" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(out)
    return model


def loss_of(results: list[Any], problem: str) -> float:
    """transformers' loss for our answers, with the last label, or 2.5, as the target."""
    if problem == "regression":
        return float(np.mean([(result.score - 2.5) ** 2 for result in results]))
    scores = np.array([list(result.scores.values()) for result in results])
    if problem == "single_label_classification":
        return float(-np.log(scores[:, -1]).mean())
    return float(-np.log(np.concatenate([1 - scores[:, :-1], scores[:, -1:]], axis=1)).mean())


class TestKinds:
    """Answers of transformers' problem types, in both directions.

    Transformers' own loss shows that ours mean the same.
    """

    @pytest.mark.parametrize("family", ["gpt2", "bert"])
    @pytest.mark.parametrize("problem", PROBLEMS)
    def test_from_peft(
        self, folder: Folder, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str, family: str
    ) -> None:
        model, backbone = classifier(folder(family), tmp_path, problem), load(family)
        adapter, (kind, outputs) = Adapter.load(tmp_path), PROBLEMS[problem]
        said = import_task(backbone, adapter, "mood", max_length=MAX_LENGTH, kind=KINDS[kind])
        monkeypatch.setattr(backbone.config, "problem_type", problem)
        task = import_task(backbone, adapter, "mood", max_length=MAX_LENGTH)
        assert said.to_bytes() == task.to_bytes()
        assert (task.kind_name, len(task.labels)) == (kind, outputs)
        expected = peft_logits(model, backbone, task, "SEQ_CLS", "PREFIX_TUNING")
        logits = torch_logits(backbone, task, TEXTS)
        np.testing.assert_allclose(logits, expected, atol=1e-4)
        Task.from_bytes(task.to_bytes(), "it is a sound task")
        results = [task.kind.answer(row[None], task) for row in logits]
        right: dict[str, Any] = {
            "single_label_classification": torch.tensor([LABELS - 1]),
            "multi_label_classification": torch.tensor([[0.0] * (LABELS - 1) + [1.0]]),
            "regression": torch.tensor([2.5]),
        }
        with torch.no_grad():
            losses = [model(input_ids=ids, labels=right[problem]).loss.item() for ids in token_rows(backbone, task)]
        assert loss_of(results, problem) == pytest.approx(np.mean(losses), rel=1e-4)

    @pytest.mark.parametrize("family", ["gpt2", "bert"])
    @pytest.mark.parametrize("problem", PROBLEMS)
    def test_to_peft(self, folder: Folder, load: Load, tmp_path: Path, problem: str, family: str) -> None:
        backbone, (kind, outputs) = load(family), PROBLEMS[problem]
        whole = random_task(backbone, "prefix", family == "bert", "pooler" if family == "bert" else "last")
        heads = {name: whole.tensors[name][:outputs] for name in (contract.HEAD_WEIGHT, contract.HEAD_BIAS)}
        changed = {"labels": whole.labels[:outputs], "kind_name": kind, "tensors": {**whole.tensors, **heads}}
        task = dataclasses.replace(whole, **changed)
        exported = export_adapter(backbone, task, str(folder(family)))
        assert exported.problem_type == problem
        assert exported.says_problem_type == (problem == "multi_label_classification")
        exported.save(tmp_path / "out")
        base = AutoModelForSequenceClassification.from_pretrained(
            folder(family), num_labels=outputs, problem_type=exported.problem_type
        )
        model = PeftModel.from_pretrained(base, tmp_path / "out").eval()
        with torch.no_grad():
            expected = np.stack([model(input_ids=ids).logits[0].numpy() for ids in token_rows(backbone, task)])
        np.testing.assert_allclose(torch_logits(backbone, task, TEXTS), expected, atol=1e-4)
        again = import_task(backbone, Adapter.load(tmp_path / "out"), "mood", task.labels, kind=task.kind)
        assert again.kind_name == kind
        assert np.array_equal(again.tensors[contract.HEAD_WEIGHT], task.tensors[contract.HEAD_WEIGHT])

    def test_a_head_beside_says_its_problem_type(self, load: Load, tmp_path: Path) -> None:
        more: dict[str, Any] = {"kind_name": "multi-label", "thresholds": (0.2, 0.5, 0.7)}
        task = dataclasses.replace(random_task(load("bert"), "prompt", True, "mean"), **more)
        export_adapter(load("bert"), task, "base").save(tmp_path / "out")
        with safe_open(tmp_path / "out" / "head.safetensors", "pt") as file:
            assert file.metadata()["problem_type"] == "multi_label_classification"
            assert json.loads(file.metadata()["thresholds"]) == [0.2, 0.5, 0.7]

    def test_one_output_is_a_number_if_nothing_is_said(self, folder: Folder, load: Load, tmp_path: Path) -> None:
        classifier(folder("gpt2"), tmp_path, "regression")
        task = import_task(load("gpt2"), Adapter.load(tmp_path), "t")
        assert (task.kind_name, task.labels) == ("score", ("score",))

    @pytest.mark.parametrize(
        ("problem", "kind", "told"),
        [
            ("regression", "single-label", "a head of 1 outputs: expected 2 to 10,000 for the kind 'single-label'"),
            (
                "multi_label_classification",
                "score",
                "a head of 3 outputs: expected 1 for the kind 'score'; name another",
            ),
        ],
    )
    def test_outputs_that_do_not_fit(
        self, folder: Folder, load: Load, tmp_path: Path, problem: str, kind: str, told: str
    ) -> None:
        classifier(folder("gpt2"), tmp_path, problem)
        with pytest.raises(DataError, match=told):
            import_task(load("gpt2"), Adapter.load(tmp_path), "t", kind=KINDS[kind])

    def test_a_language_model_says_one_word(self, folder: Folder, load: Load, tmp_path: Path) -> None:
        trained(folder("gpt2"), tmp_path, "PROMPT_TUNING", "CAUSAL_LM")
        with pytest.raises(DataError, match=r"`kind` multi-label for .*, a language model, which says one word"):
            import_task(load("gpt2"), Adapter.load(tmp_path), "t", words=WORDS, kind=KINDS["multi-label"])


class TestExport:
    @pytest.mark.parametrize(("family", "kind"), [cell for cell in EXPORTED if not export_outcome(*cell)], ids=str)
    @pytest.mark.parametrize("bias", [False, True])
    def test_peft_gives_the_task_s_logits(
        self, folder: Folder, load: Load, tmp_path: Path, family: str, kind: str, bias: bool
    ) -> None:
        backbone = load(family)
        for pooling in [found for found in backbone.poolings if found != "mask"][: None if bias else 1]:
            out = tmp_path / pooling
            task = random_task(backbone, kind, bias, pooling)
            export_adapter(backbone, task, str(folder(family))).save(out)
            classifies = pooling == "pooler" or (backbone.family.causal and pooling == "last" and not bias)
            config = json.loads((out / "adapter_config.json").read_text())
            assert config["task_type"] == ("SEQ_CLS" if classifies else "FEATURE_EXTRACTION")
            assert (out / "head.safetensors").exists() is not classifies
            expected = logits_of_export(folder(family), out, backbone, task)
            np.testing.assert_allclose(torch_logits(backbone, task, TEXTS), expected, atol=1e-4, err_msg=pooling)

    @pytest.mark.parametrize(("family", "kind"), [cell for cell in EXPORTED if export_outcome(*cell)], ids=str)
    def test_what_peft_cannot_is_refused(self, load: Load, family: str, kind: str) -> None:
        task = random_task(load(family), kind, True, load(family).poolings[0])
        with pytest.raises(TaskError, match=export_outcome(family, kind)):
            export_adapter(load(family), task, "base")

    @pytest.mark.parametrize("method", ["PROMPT_TUNING", "PREFIX_TUNING"])
    def test_there_and_back(self, folder: Folder, load: Load, tmp_path: Path, method: str) -> None:
        trained(folder("llama"), tmp_path / "first", method, "SEQ_CLS")
        task = imported(load("llama"), tmp_path / "first", method, "SEQ_CLS")
        export_adapter(load("llama"), task, str(folder("llama"))).save(tmp_path / "second")
        tensors = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("first", "second")]
        assert tensors[0].keys() == tensors[1].keys()
        assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
        again = imported(load("llama"), tmp_path / "second", method, "SEQ_CLS")
        assert again.to_bytes() == task.to_bytes()

    @pytest.mark.parametrize(("method", "peft_type"), [("prompt", "PROMPT_TUNING"), ("prefix", "PREFIX_TUNING")])
    def test_an_encoder_trained_with_peft_s_positions_becomes_a_classifier(
        self, folder: Folder, load: Load, tmp_path: Path, method: str, peft_type: str
    ) -> None:
        backbone = load("bert")
        rows = [LabelledText(text, "long" if len(text) > 30 else "short") for text in TEXTS]
        data = [TaskData("mood", tmp_path / "mood.safetensors", rows, rows)]
        options = TrainingOptions(
            recipe="epochs", method=method, prompt_length=3, epochs=2, pooling="pooler", max_length=40
        )
        with pytest.raises(TaskError, match="expected position_offset 3; train it with `positions_behind_prompt`"):
            export_adapter(backbone, train(backbone, data, options)[0].task, "base")
        options = dataclasses.replace(options, positions_behind_prompt=True)
        task = train(backbone, data, options)[0].task
        export_adapter(backbone, task, str(folder("bert"))).save(tmp_path / "out")
        model = AutoModelForSequenceClassification.from_pretrained(folder("bert"), num_labels=2)
        tuned = PeftModel.from_pretrained(model, tmp_path / "out").eval()
        assert tuned.peft_config["default"].peft_type == peft_type
        with torch.no_grad():
            expected = np.stack([tuned(input_ids=ids).logits[0].numpy() for ids in token_rows(backbone, task)])
        np.testing.assert_allclose(torch_logits(backbone, task, TEXTS), expected, atol=1e-4)
        # A training that begins from it keeps its positions.
        options = dataclasses.replace(options, positions_behind_prompt=False, init_from=task)
        assert train(backbone, data, options)[0].task.position_offset == 3

    def test_label_words_become_a_classifier(self, folder: Folder, load: Load, tmp_path: Path) -> None:
        task = zero_shot.create_task(load("gpt2"), "mood", WORDS, "{text} it was", prompt="the good", max_length=40)
        export_adapter(load("gpt2"), task, str(folder("gpt2"))).save(tmp_path / "out")
        model = AutoModelForSequenceClassification.from_pretrained(folder("gpt2"), num_labels=2)
        tuned = PeftModel.from_pretrained(model, tmp_path / "out").eval()
        with torch.no_grad():
            expected = np.stack([tuned(input_ids=ids).logits[0].numpy() for ids in token_rows(load("gpt2"), task)])
        np.testing.assert_allclose(torch_logits(load("gpt2"), task, TEXTS), expected, atol=1e-4)

    def test_refusals(self, load: Load, tmp_path: Path) -> None:
        bert, gpt2 = load("bert"), load("gpt2")
        task = random_task(bert, "prefix", True, "mean")
        both = {**task.tensors, **random_task(bert, "prompt", True, "mean").tensors}
        alone = {name: task.tensors[name] for name in (contract.HEAD_WEIGHT, contract.HEAD_BIAS)}
        for message, changed in {
            "begin at position 0, PEFT's behind the 5 virtual tokens": {"position_offset": 0},
            "at the mask, behind layers of the masked language model": {
                "pooling": "mask",
                "template": "{text} {mask}",
            },
            "is a head alone": {"tensors": alone},
            "has soft prompt and prefix: expected a soft prompt, a prefix or low rank": {"tensors": both},
            "was trained on the backbone": {"backbone_sha256": "0" * 64},
        }.items():
            with pytest.raises(TaskError, match=message):
                export_adapter(bert, dataclasses.replace(task, **changed), "base")
        (tmp_path / "file").write_text("")
        for place in (tmp_path, tmp_path / "file"):
            with pytest.raises(TaskError, match="already exists: name another folder"):
                export_adapter(gpt2, random_task(gpt2, "prefix", True, "last"), "base").save(place)
