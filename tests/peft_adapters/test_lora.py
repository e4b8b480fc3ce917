"""PEFT's LORA: adapters and tasks are converted with the same logits, or rejected; docs/peft-tables.md."""

from __future__ import annotations

import dataclasses
import functools
import json
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
    MAX_LENGTH,
    POOLED,
    ROWS,
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
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from edgetune.data.labelled import LabelledText
from edgetune.peft_adapters import Adapter, export_adapter, import_task
from edgetune.training import TaskData, TrainingOptions, train
from edgetune_export import Backbone, export_bundle, load_backbone
from edgetune_export.parity import torch_logits
from edgetune_runtime import Engine, Task, contract
from edgetune_runtime.errors import TaskError

NOT_IN_PEFT_S_TABLE = {"albert": ["query", "value"], "distilbert": ["q_lin", "v_lin"], "modernbert": ["Wqkv"]}
"""Families for which PEFT knows no usual layers."""

TARGETS: dict[str, Callable[[str], Any]] = {
    "query and value": NOT_IN_PEFT_S_TABLE.get,
    "all linear layers": lambda _: "all-linear",
}
"""Name in docs/peft-tables.md → `target_modules` for a family; `None` is PEFT's default."""

HEAD, PLACE = "not linear", "does not let a task change"
REASONS = {
    HEAD: "the adapter's head has a layer of its own that is not linear, a task's head is linear",
    PLACE: "among all linear layers there are some of neither attention nor feed-forwards: BERT's and ALBERT's pooler, "
    "the layer before the vocabulary, those between embeddings and layers (ALBERT, ELECTRA, OPT-350m). Name the others "
    "in `target_modules` instead",
}
ELSEWHERE = ("pooler", "cls.", "lm_head", "predictions", "vocab_", "head.", "embedding", "project_")
"""In the names of such layers."""


def outcome(targets: str, family: str, task_type: str) -> str:
    """Why an adapter is rejected; empty if it is converted."""
    if task_type == "SEQ_CLS" and family not in (*LANGUAGE_MODELS["CAUSAL_LM"][1], *POOLED):
        return HEAD
    more = task_type == "FEATURE_EXTRACTION" or family in (*POOLED, "opt")
    return PLACE if targets == "all linear layers" and more else ""


CELLS = [(targets, family, task_type) for family, task_type in ROWS for targets in TARGETS]


def import_table() -> str:
    """The table of what can be imported, for docs/peft-tables.md."""
    return table_of(list(TARGETS), ROWS, outcome, REASONS)


def test_the_documented_table_is_what_is_tested() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "peft-tables.md").read_text(encoding="utf-8")
    assert import_table() in documented, f"write this into docs/peft-tables.md:\n{import_table()}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Saves a tiny random language model of a family, once."""
    return models_in(tmp_path_factory.mktemp("families"))


@pytest.fixture(scope="module")
def load(folder: Folder) -> Load:
    """Loads a family's backbone, once."""
    return functools.cache(lambda family: load_backbone(str(folder(family))))


def adapted(folder: Path, out: Path, task_type: str, without: tuple[str, ...] = (), **settings: Any) -> PeftModel:
    """A PEFT model with random numbers in A, B and head, saved in `out`; B is 0 in the layers `without`."""
    torch.manual_seed(2)
    model = get_peft_model(auto(task_type, folder), peft.LoraConfig(task_type=task_type, **settings))
    for name, parameter in model.named_parameters():
        if any(part in name for part in ("lora_", "score.modules_to_save", "classifier.modules_to_save")):
            torch.nn.init.normal_(parameter, std=0.3)
        if "lora_B" in name and any(part in name for part in without):
            torch.nn.init.zeros_(parameter)
    model.eval().save_pretrained(out)
    return model


def check(model: PeftModel, backbone: Backbone, out: Path, task_type: str) -> Task:
    """The task has PEFT's logits."""
    task = imported(backbone, out, "LORA", task_type)
    expected = peft_logits(model, backbone, task, task_type, "LORA")
    np.testing.assert_allclose(torch_logits(backbone, task, TEXTS), expected, atol=1e-4)
    assert np.ptp(expected, axis=0).min() > 1e-2  # the texts are told apart
    with torch.no_grad(), model.disable_adapter():
        assert not np.allclose(peft_logits(model, backbone, task, task_type, "LORA"), expected, atol=1e-2)
    return Task.from_bytes(task.to_bytes(), "it is a sound task")


@pytest.mark.parametrize(("rank", "stabilized"), [(4, False), (16, True)])
@pytest.mark.parametrize(("targets", "family", "task_type"), [cell for cell in CELLS if not outcome(*cell)], ids=str)
def test_an_imported_adapter_gives_peft_s_logits(
    folder: Folder, load: Load, tmp_path: Path, targets: str, family: str, task_type: str, rank: int, stabilized: bool
) -> None:
    settings = {"r": rank, "lora_alpha": 6, "use_rslora": stabilized, "target_modules": TARGETS[targets](family)}
    model = adapted(folder(family), tmp_path, task_type, **settings)
    task = check(model, load(family), tmp_path, task_type)
    assert (task.method, task.position_offset, task.prompt_length, task.prefix_length) == ("lora", 0, 0, 0)
    if targets == "all linear layers":
        assert task.needed_inputs >= {name for site in load(family).sites for name in (f"{site}_down", f"{site}_up")}


@pytest.mark.parametrize(("targets", "family", "task_type"), [cell for cell in CELLS if outcome(*cell)], ids=str)
def test_what_cannot_be_carried_over_is_refused(
    folder: Folder, load: Load, tmp_path: Path, targets: str, family: str, task_type: str
) -> None:
    # PEFT takes DistilBERT's pre_classifier for the classifier that it saves.
    settings = {"target_modules": TARGETS[targets](family), "exclude_modules": ["pre_classifier"]}
    adapted(folder(family), tmp_path, task_type, **settings)
    with pytest.raises(TaskError, match=outcome(targets, family, task_type)):
        imported(load(family), tmp_path, "LORA", task_type)


@pytest.mark.parametrize(("targets", "family", "task_type"), [cell for cell in CELLS if outcome(*cell) == PLACE])
def test_layers_that_no_task_changes_may_have_a_change_of_nothing(
    folder: Folder, load: Load, tmp_path: Path, targets: str, family: str, task_type: str
) -> None:
    model = adapted(folder(family), tmp_path, task_type, ELSEWHERE, target_modules="all-linear", r=4)
    check(model, load(family), tmp_path, task_type)


@pytest.mark.parametrize(
    ("family", "task_type", "settings"),
    [
        ("gpt2", "SEQ_CLS", {"layers_to_transform": [1], "target_modules": ["c_attn", "mlp.c_proj"]}),
        ("gpt2", "SEQ_CLS", {"init_lora_weights": "mica"}),
        ("llama", "SEQ_CLS", {"init_lora_weights": "gaussian", "lora_dropout": 0.5}),
        ("llama", "CAUSAL_LM", {"init_lora_weights": "orthogonal", "exclude_modules": ["model.layers.0.mlp.up_proj"]}),
        ("llama", "CAUSAL_LM", {"target_modules": r".*layers\.1\..*(k_proj|o_proj|gate_proj)"}),
        (
            "t5",
            "SEQ_2_SEQ_LM",
            {
                "target_modules": ["q", "v", "wo"],
                "rank_pattern": {"encoder.block.0.layer.0.SelfAttention.q": 9, r"decoder\..*\.v": 2},
                "alpha_pattern": {"EncDecAttention.[qv]": 11, "q": 5},
                "use_rslora": True,
            },
        ),
        ("bart", "SEQ_2_SEQ_LM", {"target_modules": ["encoder_attn.out_proj", "fc1"], "r": 3}),
        ("albert", "SEQ_CLS", {"target_modules": ["key", "ffn"]}),
    ],
    ids=str,
)
def test_layers_ranks_and_scales_of_their_own(
    folder: Folder, load: Load, tmp_path: Path, family: str, task_type: str, settings: dict[str, Any]
) -> None:
    model = adapted(folder(family), tmp_path, task_type, **settings)
    check(model, load(family), tmp_path, task_type)


@pytest.mark.parametrize(
    ("family", "task_type", "targets"),
    [("gpt2", "SEQ_CLS", "all-linear"), ("bert", "SEQ_CLS", ["query", "value"]), ("t5", "SEQ_2_SEQ_LM", "all-linear")],
)
def test_an_imported_task_is_served_as_peft_answers(
    folder: Folder, load: Load, tmp_path: Path, family: str, task_type: str, targets: Any
) -> None:
    model = adapted(folder(family), tmp_path / "adapter", task_type, target_modules=targets, r=4)
    task = imported(load(family), tmp_path / "adapter", "LORA", task_type)
    export_bundle(load(family), tmp_path / "bundle", tasks=[task], precisions=["fp32"])
    expected = torch.from_numpy(peft_logits(model, load(family), task, task_type, "LORA")).softmax(dim=1)
    with Engine(tmp_path / "bundle") as engine:
        scores = [list(result.scores.values()) for result in engine.classify(TEXTS, task="mood")]
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_pissa_that_peft_made_plain(folder: Folder, load: Load, tmp_path: Path) -> None:
    config = peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights="pissa", target_modules=["q_proj", "v_proj"], r=4)
    model = get_peft_model(auto("CAUSAL_LM", folder("llama")), config).eval()
    model.peft_config["default"].init_lora_weights = True  # as PEFT's guide to PiSSA does before it saves the start
    model.save_pretrained(tmp_path / "start")
    model.peft_config["default"].init_lora_weights = "pissa"
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    # A classifier's head is not among what this writes.
    model.save_pretrained(tmp_path / "plain", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    task = imported(load("llama"), tmp_path / "plain", "LORA", "CAUSAL_LM")
    expected = peft_logits(model, load("llama"), task, "CAUSAL_LM", "LORA")
    np.testing.assert_allclose(torch_logits(load("llama"), task, TEXTS), expected, atol=1e-4)


def test_an_adapter_that_was_not_trained_is_a_head_alone(folder: Folder, load: Load, tmp_path: Path) -> None:
    get_peft_model(auto("SEQ_CLS", folder("gpt2")), peft.LoraConfig(task_type="SEQ_CLS")).save_pretrained(tmp_path)
    assert set(imported(load("gpt2"), tmp_path, "LORA", "SEQ_CLS").tensors) == {"head_weight", "head_bias"}


def test_half_precision_is_read(folder: Folder, load: Load, tmp_path: Path) -> None:
    adapted(folder("gpt2"), tmp_path, "SEQ_CLS")
    path = tmp_path / "adapter_model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, path)
    task = imported(load("gpt2"), tmp_path, "LORA", "SEQ_CLS")
    assert {tensor.dtype for tensor in task.tensors.values()} == {np.dtype(np.float32)}


class TestRefused:
    """Each error is one line: what came, what was expected, what to do."""

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"use_dora": True},
                "LORA with use_dora True: the model's own weights are scaled too .DoRA.; expected plain",
            ),
            ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa': the model's own weights are changed too"),
            ({"init_lora_weights": "olora"}, "init_lora_weights 'olora': the model's own weights are changed too"),
            ({"bias": "all"}, "bias 'all': the model's own biases are changed too"),
            ({"bias": "lora_only"}, "bias 'lora_only': the model's own biases are changed too"),
            ({"lora_bias": True}, "lora_bias True: B has biases"),
            (
                {"trainable_token_indices": [5]},
                r"trainable_token_indices \[5\]: the model's own embeddings are changed",
            ),
            (
                {"modules_to_save": ["score", "wpe"]},
                r"changes the model itself .base_model.model.transformer.wpe.weight",
            ),
            (
                {"target_modules": ["wte", "c_attn"]},
                "changes transformer.wte, which tiny-gpt2 does not let a task change",
            ),
            (
                {"target_modules": ["wpe", "c_attn"]},
                "changes transformer.wpe, which tiny-gpt2 does not let a task change",
            ),
            ({"alora_invocation_tokens": [5, 6]}, "alora_invocation_tokens .*: it begins in the middle of a text"),
        ],
        ids=str,
    )
    def test_what_is_more_than_low_rank(
        self, folder: Folder, load: Load, tmp_path: Path, settings: dict[str, Any], message: str
    ) -> None:
        kind = "CAUSAL_LM" if "alora_invocation_tokens" in settings else "SEQ_CLS"
        adapted(folder("gpt2"), tmp_path, kind, **settings)
        with pytest.raises(TaskError, match=message):
            imported(load("gpt2"), tmp_path, "LORA", kind)

    @pytest.fixture
    def saved(self, folder: Folder, tmp_path: Path) -> Path:
        adapted(folder("gpt2"), tmp_path / "adapter", "SEQ_CLS")
        return tmp_path / "adapter"

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"target_parameters": ["wte.weight"]}, "it changes parameters that are not those of linear layers"),
            ({"layer_replication": [[0, 2], [1, 2]]}, "layers of the model are repeated"),
            ({"loftq_config": {"loftq_bits": 4}}, "the model's own weights are quantized too"),
            ({"corda_config": {"sample_count": 1}}, "the model's own weights are changed too"),
            ({"init_lora_weights": "pissa_niter_4"}, "the model's own weights are changed too"),
            (
                {"megatron_config": {"a": 1}},
                "LORA with megatron_config .*: a task's low rank does nothing of that kind",
            ),
            (
                {"use_something_new": True},
                "LORA with use_something_new True: a task's low rank does nothing of that kind",
            ),
            ({"r": 9}, r"lora_A.weight of shape \[8, 32\]: expected \[9, 32\] by its adapter_config.json"),
            ({"r": 0}, r"is not a PEFT adapter's .ZeroDivisionError"),
            ({"lora_alpha": "x"}, r"is not a PEFT adapter's .ValueError"),
            ({"lora_alpha": float("inf")}, r"is not a PEFT adapter's .ValueError: a scaling of inf"),
            ({"rank_pattern": {"(": 3}}, r"is not a PEFT adapter's .*unterminated subpattern"),
            ({"rank_pattern": [3]}, r"is not a PEFT adapter's .AttributeError"),
            ({"base_model_name_or_path": "org/gpt2-large"}, "was trained on org/gpt2-large, but this is tiny-gpt2"),
            ({"task_type": "FEATURE_EXTRACTION"}, "is for FEATURE_EXTRACTION: on tiny-gpt2"),
        ],
        ids=str,
    )
    def test_settings(self, load: Load, saved: Path, changes: dict[str, Any], message: str) -> None:
        path = saved / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        with pytest.raises(TaskError, match=message):
            import_task(load("gpt2"), Adapter.load(saved), "t")

    def renamed(self, saved: Path, old: str, new: str, times: int) -> Adapter:
        path = saved / "adapter_model.safetensors"
        tensors = {}
        for name, tensor in load_file(path).items():
            times -= old in name
            tensors[name.replace(old, new) if times >= 0 else name] = tensor
        save_file(tensors, path)
        return Adapter.load(saved)

    @pytest.mark.parametrize(
        ("old", "new", "times", "message"),
        [
            ("lora_B.weight", "lora_B.bias", 1, r"has only .*h.0.attn.c_attn.lora_A.weight of .*: expected lora_A and"),
            (
                "transformer.h",
                "model.vision.h",
                99,
                "changes model.vision.h.0.attn.c_attn, which tiny-gpt2 does not let",
            ),
            ("transformer.h.0", "vision.h.0", 2, "changes layers of 'transformer' and 'vision', of which only one can"),
            ("h.0", "h.7", 99, "changes transformer.h.7.attn.c_attn, which tiny-gpt2 does not let a task change"),
            ("score.weight", "scores.weight", 1, "has no head among"),
        ],
    )
    def test_tensors(self, load: Load, saved: Path, old: str, new: str, times: int, message: str) -> None:
        adapter = self.renamed(saved, old, new, times)
        with pytest.raises(TaskError, match=message):
            import_task(load("gpt2"), adapter, "t")

    def test_another_width(self, folder: Folder, load: Load, tmp_path: Path) -> None:
        adapted(folder("llama"), tmp_path, "SEQ_CLS")
        path = tmp_path / "adapter_model.safetensors"
        name = "base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight"
        save_file({**load_file(path), name: torch.ones(32, 8)}, path)
        with pytest.raises(TaskError, match=r"v_proj.lora_B.weight of shape \[32, 8\]: expected \[16, 8\]"):
            imported(load("llama"), tmp_path, "LORA", "SEQ_CLS")

    def test_texts_that_end_in_padding(self, load: Load, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(load("gpt2").config, "pad_token_id", 3)  # [SEP]
        with pytest.raises(TaskError, match="ends texts with the padding token"):
            import_task(load("gpt2"), Adapter.load(saved), "t")


def low_rank_task(backbone: Backbone, pooling: str, bias: bool, ranks: dict[str, int]) -> Task:
    """A task of random numbers; every call of a layer gets the same, as ALBERT's have to."""
    torch.manual_seed(3)
    lengths = {"tasks": 1, "labels": LABELS, **{contract.rank(site): rank for site, rank in ranks.items()}}
    names = [name for site in ranks for name in (contract.down(site), contract.up(site))]
    shapes = {name: backbone.sizes.shape(name, **lengths)[1:] for name in (*names, "head_weight", "head_bias")}
    tensors = {name: 0.3 * torch.randn(shape) for name, shape in shapes.items()}
    if backbone.architecture == "albert":
        tensors |= {name: tensors[name][:1].expand(shapes[name]).clone() for name in names}
    tensors["head_bias"] *= bias
    return Task(
        name="mood",
        labels=("a", "b", "c"),
        backbone_sha256=backbone.fingerprint(),
        tensors={name: tensor.numpy() for name, tensor in tensors.items()},
        method="random",
        base_model=backbone.name,
        pooling=pooling,
        position_offset=0,
        max_length=MAX_LENGTH,
    )


class TestExport:
    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("bias", [False, True])
    def test_peft_gives_the_task_s_logits(
        self, folder: Folder, load: Load, tmp_path: Path, family: str, bias: bool
    ) -> None:
        backbone = load(family)
        ranks = {site: 2 + place for place, site in enumerate(backbone.sites)}
        for pooling in [found for found in backbone.poolings if found != "mask"][: None if bias else 1]:
            out = tmp_path / pooling
            task = low_rank_task(backbone, pooling, bias, ranks)
            export_adapter(backbone, task, str(folder(family))).save(out)
            config = json.loads((out / "adapter_config.json").read_text())
            classifies = pooling == "pooler" or (backbone.family.causal and pooling == "last" and not bias)
            assert config["task_type"] == ("SEQ_CLS" if classifies else "FEATURE_EXTRACTION")
            assert (out / "head.safetensors").exists() is not classifies
            expected = logits_of_export(folder(family), out, backbone, task)
            np.testing.assert_allclose(torch_logits(backbone, task, TEXTS), expected, atol=1e-4, err_msg=pooling)
            alone = {name: task.tensors[name] for name in ("head_weight", "head_bias")}
            plain = torch_logits(backbone, dataclasses.replace(task, tensors=alone), TEXTS)
            assert not np.allclose(plain, expected, atol=1e-2)

    @pytest.mark.parametrize("stabilized", [False, True])
    def test_there_and_back(self, folder: Folder, load: Load, tmp_path: Path, stabilized: bool) -> None:
        adapted(
            folder("gpt2"),
            tmp_path / "first",
            "SEQ_CLS",
            r=8,
            lora_alpha=8 if not stabilized else 6,
            use_rslora=stabilized,
            target_modules=["c_attn", "mlp.c_proj"],
            rank_pattern={} if stabilized else {"h.0.attn.c_attn": 3},
            alpha_pattern={} if stabilized else {"h.0.attn.c_attn": 3},
        )
        task = imported(load("gpt2"), tmp_path / "first", "LORA", "SEQ_CLS")
        export_adapter(load("gpt2"), task, str(folder("gpt2"))).save(tmp_path / "second")
        first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("first", "second"))
        assert {name: tensor.shape for name, tensor in first.items()} == {
            name: tensor.shape for name, tensor in second.items()
        }
        scaling = 6 / 8**0.5 if stabilized else 1.0
        for name, tensor in first.items():
            torch.testing.assert_close(second[name], tensor * (scaling if "lora_B" in name else 1))
        again = imported(load("gpt2"), tmp_path / "second", "LORA", "SEQ_CLS")
        assert again.to_bytes() == task.to_bytes()

    @pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
    def test_what_was_trained(self, folder: Folder, load: Load, tmp_path: Path, family: str) -> None:
        backbone = load(family)
        rows = [LabelledText(text, "long" if len(text) > 30 else "short") for text in TEXTS]
        data = [TaskData("mood", tmp_path / "mood.safetensors", rows, rows)]
        pooling = "pooler" if family == "bert" else None
        options = TrainingOptions(
            recipe="epochs",
            method="lora",
            prompt_length=4,
            epochs=2,
            batch_size=2,
            pooling=pooling,
            max_length=MAX_LENGTH,
        )
        task = train(backbone, data, options)[0].task
        export_adapter(backbone, task, str(folder(family))).save(tmp_path / "out")
        torch.manual_seed(0)
        if family == "bert":
            base = AutoModelForSequenceClassification.from_pretrained(folder(family), num_labels=2)
            tuned = PeftModel.from_pretrained(base, tmp_path / "out").eval()
            with torch.no_grad():
                expected = np.stack([tuned(input_ids=ids).logits[0].numpy() for ids in token_rows(backbone, task)])
        else:
            expected = logits_of_export(folder(family), tmp_path / "out", backbone, task)
        np.testing.assert_allclose(torch_logits(backbone, task, TEXTS), expected, atol=1e-4)

    def test_shared_layers_that_are_changed_in_several_ways(self, load: Load) -> None:
        task = low_rank_task(load("albert"), "mean", True, {"query": 2})
        task.tensors["query_up"][1] *= 2
        with pytest.raises(TaskError, match="in another way each of the 2 times that tiny-albert calls it"):
            export_adapter(load("albert"), task, "base")

    def test_refusals(self, load: Load) -> None:
        bert = load("bert")
        task = low_rank_task(bert, "mean", True, {"query": 2})
        lengths = {"tasks": 1, "units": 2, "prefix": 2}
        units, prefix = (
            {name: np.ones(bert.sizes.shape(name, **lengths)[1:], np.float32) for name in names}
            for names in (contract.UNIT_INPUTS, ("prefix_keys", "prefix_values"))
        )
        head = {name: task.tensors[name] for name in ("head_weight", "head_bias")}
        zero = {**task.tensors, "query_up": np.zeros_like(task.tensors["query_up"])}
        for message, changed in {
            "has low rank and units: expected a soft prompt, a prefix or low rank, which": {**task.tensors, **units},
            "has prefix and low rank: expected": {**task.tensors, **prefix},
            "has units: expected": {**head, **units},
            "has low rank that changes nothing": zero,
        }.items():
            with pytest.raises(TaskError, match=message):
                export_adapter(bert, dataclasses.replace(task, tensors=changed), "base")
        for message, more in {
            "begin at position 3, PEFT's behind the 0 virtual tokens: expected position_offset 0": {
                "position_offset": 3
            },
            "reads its features at the mask": {"pooling": "mask", "template": "{text} {mask}"},
        }.items():
            with pytest.raises(TaskError, match=message):
                export_adapter(bert, dataclasses.replace(task, **more), "base")  # type: ignore[arg-type]
