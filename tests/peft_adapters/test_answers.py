"""PEFT's adapters of models that answer questions, in and out: a word's logits are PEFT's."""

from __future__ import annotations

import functools
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from conftest import TEXTS
from peft import PeftModel, get_peft_model
from peft_models import LENGTH, Folder, Load, models_in
from transformers import AutoModelForQuestionAnswering

from edgetune.peft_adapters import Adapter, export_adapter, import_task
from edgetune_export import Backbone, load_backbone
from edgetune_export.parity import logits_by_text
from edgetune_runtime import Task
from edgetune_runtime.errors import DataError, TaskError
from edgetune_runtime.kinds.single_label import SINGLE_LABEL
from edgetune_runtime.text import Text

CHANGED = ["query", "value", "q_lin", "v_lin", "q_proj", "v_proj"]
METHODS = {
    "LORA": lambda width: peft.LoraConfig(task_type="QUESTION_ANS", r=3, target_modules=CHANGED),
    "PROMPT_TUNING": lambda width: peft.PromptTuningConfig(
        task_type="QUESTION_ANS", num_virtual_tokens=LENGTH, token_dim=width
    ),
    "PREFIX_TUNING": lambda width: peft.PrefixTuningConfig(task_type="QUESTION_ANS", num_virtual_tokens=LENGTH),
}
CELLS = [
    ("bert", "LORA"),
    ("roberta", "LORA"),
    ("distilbert", "LORA"),
    ("bert", "PROMPT_TUNING"),
    ("bert", "PREFIX_TUNING"),
]
QUESTIONS: list[Text] = [(one, f"{other} goodness, unfilm") for one, other in pairwise(TEXTS)]
MAX_LENGTH = 24
WITH_SEGMENTS = ("bert", "electra")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return models_in(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def load(folder: Folder) -> Load:
    return functools.cache(lambda family: load_backbone(str(folder(family))))


def base(folder: Path, outputs: int = 2) -> Any:
    torch.manual_seed(1)
    return AutoModelForQuestionAnswering.from_pretrained(folder, num_labels=outputs)


def trained(folder: Path, out: Path, method: str) -> PeftModel:
    """An adapter of random numbers, saved in `out`."""
    inside = base(folder)
    torch.manual_seed(2)
    model = get_peft_model(inside, METHODS[method](inside.get_input_embeddings().weight.shape[1]))
    for name, parameter in model.named_parameters():
        if any(part in name for part in ("prompt_encoder", "lora_", "qa_outputs")):
            torch.nn.init.normal_(parameter, std=0.3)
    model.eval().save_pretrained(out)
    return model


def of_words(model: PeftModel, backbone: Backbone, task: Task, segments: bool) -> list[np.ndarray]:
    """PEFT's logits of each context's words: at their first tokens, and at their last ones."""
    found = []
    for row in backbone.text_encoder.encode(QUESTIONS, [task] * len(QUESTIONS)):
        own = []
        for window in row.windows:
            ids = torch.tensor([window.ids])
            given = {"token_type_ids": torch.tensor([window.type_ids])} if segments else {}
            with torch.no_grad():
                told = model(input_ids=ids, attention_mask=torch.ones_like(ids), **given)
            # Virtual tokens come before those of the text.
            starts, ends = (one[0].numpy()[-len(window.ids) :] for one in (told.start_logits, told.end_logits))
            first, last = ([begin for begin, _ in window.spans[place::2]] for place in range(2))
            own.append(np.stack([starts[first], ends[last]], axis=1))
        found.append(np.concatenate(own))
    return found


def assert_same(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert np.concatenate(expected).std() > 0.1
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(("family", "method"), CELLS, ids=str)
def test_in_and_out(folder: Folder, load: Load, tmp_path: Path, family: str, method: str) -> None:
    model, backbone = trained(folder(family), tmp_path / "in", method), load(family)
    adapter, segments = Adapter.load(tmp_path / "in"), family in WITH_SEGMENTS
    task = import_task(backbone, adapter, "qa", max_length=MAX_LENGTH)
    assert (task.kind_name, task.labels, task.pooling) == ("spans", ("answer",), "ends")
    assert (task.pairs, task.long_texts, task.stride) == (True, "windows", MAX_LENGTH // 4)
    assert {"kind:spans", "pooling:ends"} <= set(Task.from_bytes(task.to_bytes(), "it").requires)
    own, reads = logits_by_text(backbone, task, QUESTIONS)
    assert_same(own, of_words(model, backbone, task, segments))
    assert any(len(read.places) > len(set(read.places)) for read in reads), "several windows"

    exported = export_adapter(backbone, task, str(folder(family)))
    assert (exported.adapter.task_type, exported.head, exported.outputs) == ("QUESTION_ANS", {}, ["start", "end"])
    exported.save(tmp_path / "out")
    again = PeftModel.from_pretrained(base(folder(family)), tmp_path / "out").eval()
    assert_same(own, of_words(again, backbone, task, segments))


def test_what_does_not_go_with_it_is_refused(folder: Folder, load: Load, tmp_path: Path) -> None:
    trained(folder("bert"), tmp_path / "in", "PROMPT_TUNING")
    adapter = Adapter.load(tmp_path / "in")
    for given, says in (
        ({"labels": ["a", "b"]}, "`labels` a, b for .*, which is for QUESTION_ANS: leave it out"),
        ({"kind": SINGLE_LABEL}, "`kind` single-label for .*, which is for QUESTION_ANS: leave it out"),
        ({"words": {"a": ("good",), "b": ("bad",)}}, "a model that answers questions with its own head: leave"),
    ):
        with pytest.raises(DataError, match=says):
            import_task(load("bert"), adapter, "qa", **given)


def test_a_model_without_such_a_head_is_refused(folder: Folder, load: Load, tmp_path: Path) -> None:
    trained(folder("bert"), tmp_path / "in", "PROMPT_TUNING")
    with pytest.raises(TaskError, match="is a model that answers questions: on gemma3_text it has none, or one with"):
        import_task(load("gemma3_text"), Adapter.load(tmp_path / "in"), "qa", same_base=True)
