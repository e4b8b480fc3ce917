"""The same prefix and the same soft prompt give PEFT's numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TEXTS
from peft import PeftConfig, PrefixTuningConfig, PromptTuningConfig, TaskType, get_peft_model
from transformers import AutoTokenizer, BertModel

from edgetune_export import load_backbone
from edgetune_runtime import contract

LENGTH = 5


def peft_states(folder: Path, config: PeftConfig) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """PEFT's last hidden states, its prompt, and the padded batch."""
    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    torch.manual_seed(1)
    model = get_peft_model(BertModel.from_pretrained(folder, add_pooling_layer=False), config).eval()
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight.normal_()
        return model(**inputs).last_hidden_state, model.prompt_encoder["default"].embedding.weight, inputs


def our_features(folder: Path, inputs: dict[str, torch.Tensor], tensors: dict[str, torch.Tensor]) -> np.ndarray:
    """Features at the first token, with the text's positions after those of the prompt, as in PEFT."""
    backbone = load_backbone(str(folder))
    lengths = {"tasks": 1, "prompt": 0, "prefix": 0, "labels": 2}
    if contract.PROMPT_EMBEDDINGS in tensors:
        lengths["prompt"] = LENGTH
    else:
        lengths["prefix"] = LENGTH
    bank = {
        name: tensors.get(name, torch.ones(backbone.sizes.shape(name, **lengths), dtype=getattr(torch, spec.dtype)))
        for name, spec in contract.BANK_INPUTS.items()
        if name in contract.BASE_INPUTS
    }
    bank[contract.POSITION_OFFSET] *= LENGTH
    bank[contract.POOLING] *= contract.POOLINGS.index("cls")
    index = torch.zeros(len(TEXTS), dtype=torch.int64)
    first = torch.tensor([[[0, 1]]]).expand(len(TEXTS), -1, -1)
    with torch.no_grad():
        return backbone(**inputs, task_index=index, **bank, spans=first)[1][:, 0].numpy()


def test_prefix_tuning(model_folder: Path) -> None:
    config = PrefixTuningConfig(task_type=TaskType.FEATURE_EXTRACTION, num_virtual_tokens=LENGTH)
    hidden, weight, inputs = peft_states(model_folder, config)
    # PEFT stores [prefix, layers · 2 · heads · head_dim], keys and values of a layer in turn.
    pairs = weight.view(LENGTH, -1, 2, 4, 8).permute(1, 2, 3, 0, 4)
    tensors = {contract.PREFIX_KEYS: pairs[None, :, 0], contract.PREFIX_VALUES: pairs[None, :, 1]}
    np.testing.assert_allclose(our_features(model_folder, inputs, tensors), hidden[:, 0], atol=1e-4)


def test_prompt_tuning(model_folder: Path) -> None:
    config = PromptTuningConfig(task_type=TaskType.FEATURE_EXTRACTION, num_virtual_tokens=LENGTH)
    hidden, weight, inputs = peft_states(model_folder, config)
    features = our_features(model_folder, inputs, {contract.PROMPT_EMBEDDINGS: weight[None]})
    np.testing.assert_allclose(features, hidden[:, LENGTH], atol=1e-4)


@pytest.mark.parametrize("length", [1, 2])
def test_the_comparison_would_notice_another_position(model_folder: Path, length: int) -> None:
    config = PromptTuningConfig(task_type=TaskType.FEATURE_EXTRACTION, num_virtual_tokens=LENGTH)
    hidden, weight, inputs = peft_states(model_folder, config)
    features = our_features(model_folder, inputs, {contract.PROMPT_EMBEDDINGS: weight[None]})
    assert np.abs(features - hidden[:, LENGTH - length].numpy()).max() > 1e-2
