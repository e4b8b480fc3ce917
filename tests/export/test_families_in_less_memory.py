"""Every family with less memory: half precision weights and recomputed layers do not change any number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import save_tokenizer
from half_models import stored_as
from test_against_transformers import FAMILY_DEFAULTS, Model, Pair, save
from torch import Tensor

from edgetune.training.recomputed import layers_recomputed
from edgetune_export import Backbone, half, load_backbone, weights
from edgetune_runtime import contract


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return folder


def answered(pair: Pair, backbone: Backbone) -> list[Tensor]:
    """Features of two texts after a prefix, and the prefix's gradients."""
    sizes = backbone.sizes
    shape = sizes.layers, sizes.kv_heads, 3, sizes.head_dim
    generator = torch.Generator().manual_seed(0)
    prefix = {
        name: torch.randn(shape, generator=generator).requires_grad_()
        for name in (contract.PREFIX_KEYS, contract.PREFIX_VALUES)
    }
    _, features = backbone(**pair.inputs(pair.texts([12, 7]), backbone.poolings[0], **prefix))
    return [features.detach(), *torch.autograd.grad(features.square().sum(), list(prefix.values()))]


@pytest.mark.parametrize("model", FAMILY_DEFAULTS, ids=str)
def test_features_and_gradients_are_the_same(
    model: Model, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "SMALLEST_TAKEN", 512)
    save(model, tmp_path / "wide", tokenizer)
    folder = stored_as(tmp_path / "wide", torch.bfloat16, tmp_path / "net")
    kept, wide = (load_backbone(str(folder), load_in=load_in) for load_in in ("stored", "fp32"))
    assert half.kept(kept.model)
    assert not half.kept(wide.model)
    assert kept.facts == wide.facts
    pair = Pair(folder)
    expected = answered(pair, wide)
    assert all(gradient.abs().max() > 0 for gradient in expected[1:])
    found = [answered(pair, kept)]
    for backbone in (kept, wide):
        with layers_recomputed(backbone):
            found.append(answered(pair, backbone))
    for got in found:
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
