"""Products with frozen weights in bf16: where they are, what they are, and what stays in fp32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import LanguageModelFolder
from torch import nn
from transformers.pytorch_utils import Conv1D

from edgetune.data.labelled import LabelledText
from edgetune.training import TaskData, TrainingOptions, checkpoints, products, train
from edgetune.training.batches import Collator, width_of
from edgetune.training.products import autocast, in_bf16, products_in_bf16
from edgetune.training.recomputed import layers_recomputed
from edgetune.training.setup import Setup, fit_first_heads, set_up
from edgetune_export import Backbone, load_backbone
from edgetune_runtime.errors import DeviceError

ROWS = [
    LabelledText(f"the {thing} {state}", label)
    for thing in ("lamp", "camera", "speaker", "parcel")
    for state, label in (("is broken", "bad"), ("works very well", "good"))
]
PARTS = {"prefix": 3, "prompt": 2, "low-rank": 2, "units": 4}
OPTIONS = TrainingOptions(recipe="epochs", epochs=1, batch_size=8, parts=PARTS)
FAST, SLOW = frozenset(("fpu", "avx512_bf16")), frozenset(("fpu", "avx2"))


def prepared(backbone: Backbone, folder: Path) -> Setup:
    setup = set_up(backbone, [TaskData("mood", folder / "mood.safetensors", ROWS, ROWS)], OPTIONS, note=lambda _: None)
    fit_first_heads(setup, OPTIONS)
    with torch.no_grad():
        for own in setup.tuner.parts.parameters():
            own.add_(torch.randn(own.shape, generator=torch.Generator().manual_seed(0)), alpha=0.05)
    return setup


def gradients(setup: Setup) -> torch.Tensor:
    """Of all that learns, in a row."""
    tuner, rows = setup.tuner, setup.rows["train"]
    batch = Collator(tuner.backbone.facts, width_of(rows))(rows)
    tuner.train().zero_grad()
    torch.manual_seed(1)  # of the dropout
    tuner(**batch)["loss"].backward()
    return torch.cat([own.grad.flatten() for own in tuner.parameters() if own.grad is not None])


def logits(setup: Setup) -> torch.Tensor:
    tuner, rows = setup.tuner.eval(), setup.rows["train"]
    with torch.no_grad():
        found: torch.Tensor = tuner(**Collator(tuner.backbone.facts, width_of(rows))(rows))["logits"]
    return found


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "llama", "t5"])
def test_gradients_are_those_of_fp32_but_for_rounding(
    language_model_folder: LanguageModelFolder, tmp_path: Path, architecture: str
) -> None:
    backbone = load_backbone(str(language_model_folder(architecture)))
    setup = prepared(backbone, tmp_path)
    exact, answers = gradients(setup), logits(setup)
    with products_in_bf16(backbone.model):
        rounded = gradients(setup)
        assert torch.equal(logits(setup), answers)  # without a gradient all is in fp32
        with layers_recomputed(backbone):
            again = gradients(setup)
    with products_in_bf16(backbone.model, wanted=False):
        assert torch.equal(gradients(setup), exact)
    assert 1e-5 < float((rounded - exact).norm() / exact.norm()) < 0.05
    torch.testing.assert_close(again, rounded)
    assert torch.equal(gradients(setup), exact)
    assert not any("forward" in vars(module) for module in backbone.model.modules())


@pytest.mark.parametrize("make", [nn.Linear, lambda wide, out: Conv1D(out, wide)], ids=["linear", "conv1d"])
@pytest.mark.parametrize("shape", [(5, 48), (2, 5, 48)])
def test_a_product_is_that_of_rounded_numbers(make: Callable[[int, int], Any], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = nn.ModuleList([make(48, 32)]).requires_grad_(False)
    nn.init.normal_(layer[0].bias)
    read = torch.randn(shape, requires_grad=True)
    rounded = read.detach().bfloat16().float().requires_grad_()
    with products_in_bf16(layer):
        found = layer[0](read)
    for own in layer[0].parameters():
        own.data = own.data.bfloat16().float()
    expected = layer[0](rounded)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=2**-8, atol=2**-8)
    given = torch.randn(found.shape).bfloat16().float()
    found.backward(given)
    expected.backward(given)
    torch.testing.assert_close(read.grad, rounded.grad, rtol=2**-8, atol=2**-8)


def test_what_learns_and_other_layers_stay() -> None:
    class Other(nn.Linear):
        def forward(self, read: torch.Tensor) -> torch.Tensor:
            return super().forward(read) + 1

    frozen, learns, other = nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 4), Other(4, 4).requires_grad_(False)
    model = nn.Sequential(frozen, learns, other)
    with products_in_bf16(model):
        assert ["forward" in vars(layer) for layer in model] == [True, False, False]


def test_weights_in_half_precision_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Linear(8, 8).requires_grad_(False).bfloat16()
    seen: list[int] = []
    monkeypatch.setattr(products._Product, "apply", lambda read, weight, bias: seen.append(weight.data_ptr()) or read)
    with products_in_bf16(nn.Sequential(layer)):
        layer(torch.randn(2, 8))
    assert seen == [layer.weight.data_ptr()]


@pytest.mark.parametrize(
    ("asked", "flags", "gpu", "own", "args"),
    [
        ("auto", FAST, False, True, {"bf16": False, "fp16": False}),
        ("auto", SLOW, False, False, {"bf16": False, "fp16": False}),
        ("auto", frozenset(), False, False, {"bf16": False, "fp16": False}),
        ("auto", FAST, True, False, {"bf16": False, "fp16": False}),
        ("bf16", SLOW, False, True, {"bf16": False, "fp16": False}),
        ("bf16", FAST, True, False, {"bf16": True, "fp16": False}),
        ("fp16", FAST, True, False, {"bf16": False, "fp16": True}),
        ("no", FAST, False, False, {"bf16": False, "fp16": False}),
    ],
)
def test_when(
    monkeypatch: pytest.MonkeyPatch, asked: str, flags: frozenset[str], gpu: bool, own: bool, args: dict[str, bool]
) -> None:
    monkeypatch.setattr(products, "cpu_flags", lambda: flags)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpu)
    options = TrainingOptions(mixed_precision=asked)
    assert in_bf16(options) == own
    assert autocast(options) == args


@pytest.mark.parametrize("recipe", ["epochs", "contrastive"])
@pytest.mark.parametrize(("flags", "said"), [(FAST, True), (SLOW, False)])
def test_training_says_it_and_does_it(
    language_model_folder: LanguageModelFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
    flags: frozenset[str],
    said: bool,
) -> None:
    monkeypatch.setattr(products, "cpu_flags", lambda: flags)
    made: list[torch.dtype] = []
    stamps: list[Any] = []
    prepare = checkpoints.prepare
    monkeypatch.setattr(checkpoints, "prepare", lambda *given: stamps.append(given[1]) or prepare(*given))
    apply = products._Product.apply
    monkeypatch.setattr(
        products._Product, "apply", lambda read, weight, bias: made.append(weight.dtype) or apply(read, weight, bias)
    )
    backbone, notes = load_backbone(str(language_model_folder("bert"))), []
    options = TrainingOptions(recipe=recipe, prompt_length=2, epochs=1 if recipe == "epochs" else None)
    train(backbone, [TaskData("mood", tmp_path / "mood.safetensors", ROWS, ROWS)], options, note=notes.append)
    assert any("multiplies in bf16" in note for note in notes) == said
    assert set(made) == ({torch.bfloat16} if said else set())
    assert [stamp["mixed_precision"] for stamp in stamps] == ["bf16" if said else "no"]


def test_fp16_needs_a_gpu(language_model_folder: LanguageModelFolder, tmp_path: Path) -> None:
    if torch.accelerator.is_available():
        pytest.skip("there is a GPU")
    task, options = TaskData("mood", tmp_path / "mood.safetensors", ROWS, ROWS), TrainingOptions(mixed_precision="fp16")
    with pytest.raises(DeviceError, match="fp16 came, and there is no GPU"):
        train(load_backbone(str(language_model_folder("bert"))), [task], options, note=lambda _: None)
    assert not (tmp_path / "mood.safetensors").exists()
