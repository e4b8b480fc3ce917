"""PEFT's adapters of token classifiers, in and out: a word's logits are PEFT's."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from conftest import TEXTS
from peft import PeftModel, get_peft_model
from peft_models import LENGTH, MAX_LENGTH, Folder, Load, models_in
from transformers import AutoModelForTokenClassification

from edgetune.peft_adapters import Adapter, export_adapter, import_task
from edgetune_export import Backbone, load_backbone
from edgetune_export.parity import logits_by_text
from edgetune_runtime import Task
from edgetune_runtime.decoding import tag_names
from edgetune_runtime.errors import DataError, TaskError

CHANGED = ["query", "value", "q_lin", "v_lin", "q_proj", "v_proj"]
TAGS = ["B-who", "O", "I-place", "I-who", "B-place"]
METHODS = {
    "LORA": lambda width: peft.LoraConfig(task_type="TOKEN_CLS", r=3, target_modules=CHANGED),
    "PROMPT_TUNING": lambda width: peft.PromptTuningConfig(
        task_type="TOKEN_CLS", num_virtual_tokens=LENGTH, token_dim=width
    ),
    "PREFIX_TUNING": lambda width: peft.PrefixTuningConfig(task_type="TOKEN_CLS", num_virtual_tokens=LENGTH),
}
CELLS = [
    *((family, "LORA") for family in ("bert", "roberta", "distilbert", "llama")),
    *((family, "PROMPT_TUNING") for family in ("bert", "electra", "gpt2", "llama")),
    *((family, "PREFIX_TUNING") for family in ("bert", "llama")),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return models_in(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def load(folder: Folder) -> Load:
    return functools.cache(lambda family: load_backbone(str(folder(family))))


def base(folder: Path, outputs: int = len(TAGS)) -> Any:
    torch.manual_seed(1)
    return AutoModelForTokenClassification.from_pretrained(folder, num_labels=outputs)


def trained(folder: Path, out: Path, method: str) -> PeftModel:
    """An adapter of random numbers, saved in `out`."""
    torch.manual_seed(2)
    inside = base(folder)
    model = get_peft_model(inside, METHODS[method](inside.get_input_embeddings().weight.shape[1]))
    for name, parameter in model.named_parameters():
        if any(part in name for part in ("prompt_encoder", "lora_", ".score", ".classifier")):
            torch.nn.init.normal_(parameter, std=0.3)
    model.eval().save_pretrained(out)
    return model


def of_words(model: PeftModel, backbone: Backbone, task: Task, tags: Sequence[str]) -> list[np.ndarray]:
    """PEFT's logits of each text's words, in the order of a task's head: the mean over what the task reads."""
    order = [list(tags).index(tag) for tag in tag_names(task.labels)]
    found = []
    for row in backbone.text_encoder.encode(TEXTS, [task] * len(TEXTS)):
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].numpy()
        logits = logits[-len(row.ids) :][:, order]  # virtual tokens stand before the text's
        found.append(np.array([logits[begin:end].mean(axis=0) for begin, end in row.spans]))
    return found


def assert_same(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert np.concatenate(expected).std() > 0.1
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(("family", "method"), CELLS, ids=str)
def test_in_and_out(folder: Folder, load: Load, tmp_path: Path, family: str, method: str) -> None:
    model, backbone = trained(folder(family), tmp_path / "in", method), load(family)
    adapter = Adapter.load(tmp_path / "in")
    task = import_task(backbone, adapter, "names", labels=TAGS, max_length=MAX_LENGTH)
    assert (task.kind_name, task.labels, task.pooling) == ("tokens", ("who", "place"), "cls")
    assert {"kind:tokens", "input:spans"} <= set(Task.from_bytes(task.to_bytes(), "it").requires)
    own, _ = logits_by_text(backbone, task, TEXTS)
    assert_same(own, of_words(model, backbone, task, TAGS))

    exported = export_adapter(backbone, task, str(folder(family)))
    assert (exported.adapter.task_type, exported.head) == ("TOKEN_CLS", {})
    exported.save(tmp_path / "out")
    again = PeftModel.from_pretrained(base(folder(family)), tmp_path / "out").eval()
    assert_same(own, of_words(again, backbone, task, exported.outputs))


@pytest.mark.parametrize(
    "tags", [["O", "B-a", "I-a", "B-b", "L-b"], ["0", "1", "2", "3", "4"], ["O", "a", "b", "c", "d"]]
)
def test_other_tags_are_refused(folder: Folder, load: Load, tmp_path: Path, tags: list[str]) -> None:
    trained(folder("bert"), tmp_path / "in", "PROMPT_TUNING")
    with pytest.raises(DataError, match=r"expected O, and B- and I- of each label; name them .* with `labels`"):
        import_task(load("bert"), Adapter.load(tmp_path / "in"), "names", labels=tags)


def test_a_head_of_more_layers_is_refused(folder: Folder, load: Load, tmp_path: Path) -> None:
    trained(folder("modernbert"), tmp_path / "in", "PROMPT_TUNING")
    with pytest.raises(
        TaskError, match="is a token classifier: on modernbert it has none, or one with layers that are not"
    ):
        import_task(load("modernbert"), Adapter.load(tmp_path / "in"), "names", labels=TAGS)
