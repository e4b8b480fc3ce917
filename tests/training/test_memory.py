"""Saving memory in training changes nothing else: recomputed layers, and half precision weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import LanguageModelFolder
from half_models import LARGE, save_in_bf16
from torch import nn

from edgetune.api import train as train_by_name
from edgetune.data.labelled import LabelledText
from edgetune.training import TaskData, TrainingOptions, train
from edgetune.training.batches import Collator, width_of
from edgetune.training.recomputed import layers_recomputed
from edgetune.training.setup import fit_first_heads, set_up
from edgetune.training.tuner import PromptTuner
from edgetune_export import Backbone, half, load_backbone, weights
from edgetune_export.parity import torch_logits
from edgetune_runtime import Engine, Task
from edgetune_runtime.errors import BackboneError, DataError

ROWS = [
    LabelledText(f"the {thing} {state}", label)
    for thing in ("lamp", "camera", "speaker", "parcel")
    for state, label in (("is broken", "bad"), ("works very well", "good"))
]
ARCHITECTURES = ("bert", "gpt2", "llama", "t5")
PARTS = {"prefix": 3, "prompt": 2, "low-rank": 2, "units": 4}
QUIET: dict[str, Any] = {"note": lambda _: None}


def options_of(**more: Any) -> TrainingOptions:
    return TrainingOptions(recipe="epochs", keep_prompt=True, epochs=2, batch_size=4, parts=PARTS, **more)


def trained(backbone: Backbone, options: TrainingOptions, folder: Path) -> Task:
    (report,) = train(backbone, [TaskData("mood", folder / "mood.safetensors", ROWS, ROWS)], options, **QUIET)
    return report.task


def step(tuner: PromptTuner, rows: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of a batch."""
    batch = Collator(tuner.backbone.facts, width_of(rows))(rows)
    tuner.train().zero_grad()
    torch.manual_seed(1)  # of the dropout
    loss = tuner(**batch)["loss"]
    loss.backward()
    return loss.item(), {name: own.grad.clone() for name, own in tuner.named_parameters() if own.grad is not None}


def kept_numbers(tuner: PromptTuner, rows: Any) -> int:
    """The number of values that the forward pass stores for the backward pass."""
    batch = Collator(tuner.backbone.facts, width_of(rows))(rows)
    own = {parameter.data_ptr() for parameter in tuner.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        tuner.train()(**batch)["loss"].detach()
    return sum(kept.values())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_is_the_same_if_layers_run_again(
    language_model_folder: LanguageModelFolder, tmp_path: Path, architecture: str
) -> None:
    backbone = load_backbone(str(language_model_folder(architecture)))
    data = [TaskData("mood", tmp_path / "mood.safetensors", ROWS, ROWS)]
    options = options_of(dropout=0.1)
    setup = set_up(backbone, data, options, **QUIET)
    fit_first_heads(setup, options)
    with torch.no_grad():
        for own in setup.tuner.parts.parameters():
            own.add_(torch.randn(own.shape, generator=torch.Generator().manual_seed(0)), alpha=0.05)
    rows = setup.rows["train"]
    loss, gradients = step(setup.tuner, rows)
    calls = []
    hooks = [
        layer.register_forward_hook(lambda *_: calls.append(None))
        for layer in backbone.model.modules()
        if isinstance(layer, nn.LayerNorm | nn.Embedding) or type(layer).__name__.endswith("Norm")
    ]
    step(setup.tuner, rows)
    once = len(calls)
    with layers_recomputed(backbone):
        again, others = step(setup.tuner, rows)
        assert len(calls) - once > once
    for hook in hooks:
        hook.remove()
    assert again == loss
    assert gradients.keys() == others.keys()
    assert any(name.startswith("parts.") for name in gradients)
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(others[name], gradient)
    assert all("forward" not in vars(layer) for layer in backbone.model.modules() if "Layer" in type(layer).__name__)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_task_is_the_same_if_layers_run_again(
    language_model_folder: LanguageModelFolder, tmp_path: Path, architecture: str
) -> None:
    backbone = load_backbone(str(language_model_folder(architecture)))
    plain, again = (trained(backbone, options_of(gradient_checkpointing=wanted), tmp_path) for wanted in (False, True))
    assert plain.tensors.keys() == again.tensors.keys()
    for name, tensor in plain.tensors.items():
        np.testing.assert_allclose(again.tensors[name], tensor, atol=1e-5, err_msg=name)
    assert again.temperature == pytest.approx(plain.temperature, rel=1e-3)


def test_a_training_goes_on_in_less_memory() -> None:
    """Recomputed layers count as the same training run, weights in bf16 do not."""
    plain = TrainingOptions()
    assert replace(plain, gradient_checkpointing=True).stamp() == plain.stamp()
    assert replace(plain, load_in="bf16").stamp() != plain.stamp()


def test_the_recipe_for_few_rows_too(language_model_folder: LanguageModelFolder, tmp_path: Path) -> None:
    backbone = load_backbone(str(language_model_folder("bert")))
    options = TrainingOptions(recipe="contrastive", keep_prompt=True, prompt_length=3)
    plain, again = (
        trained(backbone, replace(options, gradient_checkpointing=wanted), tmp_path) for wanted in (False, True)
    )
    for name, tensor in plain.tensors.items():
        np.testing.assert_allclose(again.tensors[name], tensor, atol=1e-4, err_msg=name)


def test_a_model_without_layers_in_a_list(language_model_folder: LanguageModelFolder) -> None:
    backbone = load_backbone(str(language_model_folder("bert")))
    backbone.model.encoder = nn.Identity()
    with pytest.raises(BackboneError, match="no list of layers"), layers_recomputed(backbone):
        pass


class TestBf16:
    @pytest.fixture(autouse=True)
    def _small_is_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(weights, "SMALLEST_TAKEN", LARGE)

    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_weights_that_are_stored_in_bf16_give_the_task_of_fp32(self, tmp_path: Path, architecture: str) -> None:
        """It fits the bundle that was exported from the same model, and is fp32."""
        save_in_bf16(tmp_path / "net", architecture)
        kept, wide = (load_backbone(str(tmp_path / "net"), load_in=load_in) for load_in in ("bf16", "fp32"))
        assert half.kept(kept.model)
        assert not half.kept(wide.model)
        task = trained(kept, options_of(load_in="bf16", gradient_checkpointing=True), tmp_path)
        expected = trained(wide, options_of(), tmp_path)
        assert {str(tensor.dtype) for tensor in task.tensors.values()} == {"float32"}
        assert task.backbone_sha256 == expected.backbone_sha256
        for name, tensor in expected.tensors.items():
            np.testing.assert_allclose(task.tensors[name], tensor, atol=1e-4, err_msg=name)

    def test_weights_that_are_rounded_give_a_task_for_those_that_are_stored(
        self,
        model_folder: Path,
        bundle_folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """A bundle exported from the stored weights accepts it, and gives PyTorch's answers for these weights."""
        monkeypatch.setattr(weights, "SMALLEST_TAKEN", 1024)
        texts, labels = [row.text for row in ROWS], [row.target for row in ROWS]
        options = options_of(load_in="bf16")
        task = train_by_name(model_folder, texts, labels, "mood", options=options, **QUIET)
        assert "are rounded to bf16 to train on" in capsys.readouterr().err
        assert {str(tensor.dtype) for tensor in task.tensors.values()} == {"float32"}
        expected = torch_logits(load_backbone(str(model_folder)), task, texts)
        with Engine(bundle_folder, "fp32") as engine:
            got = engine.run([(row, task) for row in engine.encode(texts, [task] * len(texts))])
            engine.add_task(task)
        np.testing.assert_allclose(np.stack(got), expected, atol=1e-4)

    def test_the_forward_keeps_no_weights_in_fp32(self, tmp_path: Path) -> None:
        save_in_bf16(tmp_path / "net", "llama")
        data = [TaskData("mood", tmp_path / "mood.safetensors", ROWS, ROWS)]
        kept = []
        for load_in in ("fp32", "bf16"):
            setup = set_up(load_backbone(str(tmp_path / "net"), load_in=load_in), data, options_of(), **QUIET)
            kept.append(kept_numbers(setup.tuner, setup.rows["train"]))
        assert kept[1] == kept[0] > 0

    def test_a_backbone_that_was_loaded_in_fp32(self, tmp_path: Path) -> None:
        save_in_bf16(tmp_path / "net", "bert")
        with pytest.raises(DataError, match=r"`load_in` bf16 came with net loaded in fp32: load it with"):
            trained(load_backbone(str(tmp_path / "net")), options_of(load_in="bf16"), tmp_path)
