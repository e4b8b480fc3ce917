"""Half precision weights stay unchanged until they are used or written, and all results are those of fp32."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TEXTS
from half_models import ARCHITECTURES, LARGE, save_in_bf16, stored_as
from transformers import AutoConfig, AutoModelForSequenceClassification

from edgetune_export import Backbone, export_bundle, external, half, load_backbone, passes, weights
from edgetune_export.graph import to_onnx
from edgetune_export.parity import probe_task, torch_logits
from edgetune_export.quantize import PRECISIONS
from edgetune_export.weights import Weights
from edgetune_runtime import Engine
from edgetune_runtime.errors import BackboneError


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SMALLEST_TAKEN", LARGE)


def large(backbone: Backbone) -> set[torch.dtype]:
    """The dtypes of its large weights."""
    return {parameter.dtype for parameter in backbone.model.parameters() if half.is_large(parameter)}


def graphs(backbone: Backbone) -> dict[str, str]:
    """Precision → SHA-256 of the graph's file."""
    taken = Weights()
    model = passes.optimize(to_onnx(backbone, taken), taken)
    found = {}
    for name, precision in PRECISIONS.items():
        digest = hashlib.sha256()
        for chunk in external.graph_chunks(precision.convert(model, taken), taken):
            digest.update(chunk)
        found[name] = digest.hexdigest()
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features_and_gradients_are_those_of_fp32(architecture: str, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    save_in_bf16(folder, architecture)
    wide = stored_as(folder, torch.float32, tmp_path / "wide" / "net")
    found = []
    for path, kept in ((folder, torch.bfloat16), (wide, torch.float32)):
        backbone = load_backbone(str(path), load_in="stored")
        assert large(backbone) == {kept}
        assert {one.dtype for one in backbone.model.parameters() if not half.is_large(one)} == {torch.float32}
        assert {one.dtype for one in backbone.transforms.parameters()} <= {torch.float32}
        states = backbone.embed(torch.arange(4, 12)[None]).requires_grad_()
        keys, values = backbone.keys_and_values(states)
        hidden = backbone._hidden(states)
        (gradient,) = torch.autograd.grad(hidden.square().sum(), [states])
        logits = torch.from_numpy(torch_logits(backbone, probe_task(backbone), TEXTS))
        assert backbone.vocabulary is not None
        words = backbone.vocabulary.rows([5, 9], backbone.sizes.hidden)
        found.append((backbone.facts, [states, keys, values, hidden, logits, gradient, *words]))
    assert found[0][0] == found[1][0]
    for got, expected in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("architecture", "pooling"), [("bert", "pooler"), ("distilbert", "classifier")])
def test_layers_of_a_classifiers_head_are_fp32(architecture: str, pooling: str, tmp_path: Path) -> None:
    save_in_bf16(tmp_path / "net", architecture)
    config = AutoConfig.from_pretrained(tmp_path / "net")
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).bfloat16().save_pretrained(tmp_path / "net")
    found = []
    for load_in, kept in (("stored", torch.bfloat16), ("fp32", torch.float32)):
        backbone = load_backbone(str(tmp_path / "net"), load_in=load_in)
        assert large(backbone) == {kept}
        assert {one.dtype for one in backbone.transforms[pooling].parameters()} == {torch.float32}
        task = replace(probe_task(backbone), pooling=pooling)
        found.append((backbone.facts, torch.from_numpy(torch_logits(backbone, task, TEXTS))))
    assert found[0][0] == found[1][0]
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_under_autocast_too(architecture: str, tmp_path: Path) -> None:
    """Under autocast, linear layers use the stored weights."""
    save_in_bf16(tmp_path / "net", architecture)
    found = []
    for load_in in ("stored", "fp32"):
        backbone = load_backbone(str(tmp_path / "net"), load_in=load_in)
        states = backbone.embed(torch.arange(4, 12)[None]).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            hidden = backbone._hidden(states).float()
        found.append((hidden, *torch.autograd.grad(hidden.sum(), [states])))
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_graphs_are_those_of_fp32(architecture: str, tmp_path: Path) -> None:
    """In all precisions, byte by byte."""
    folder = tmp_path / "net"
    save_in_bf16(folder, architecture)
    wide = stored_as(folder, torch.float32, tmp_path / "wide" / "net")
    kept, expected = (load_backbone(str(path), load_in="stored") for path in (folder, wide))
    assert graphs(kept) == graphs(expected)
    assert large(kept) == {torch.bfloat16}


def test_without_asking_a_backbone_is_fp32(tmp_path: Path) -> None:
    save_in_bf16(tmp_path / "net", "bert")
    assert large(load_backbone(str(tmp_path / "net"))) == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_bf16_keeps_fp16_and_rounds_fp32(
    dtype: torch.dtype, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The facts describe the stored weights, so that a task fits the bundle. A rounded model cannot be exported."""
    save_in_bf16(tmp_path / "bf16", "llama")
    folder = stored_as(tmp_path / "bf16", dtype, tmp_path / "net")
    stored, rounded = (load_backbone(str(folder), load_in=load_in) for load_in in ("stored", "bf16"))
    assert large(stored) == {dtype}
    assert rounded.facts == stored.facts
    if dtype == torch.float16:
        assert large(rounded) == {dtype}
        assert not rounded.is_rounded
        return
    assert "are rounded to bf16" in capsys.readouterr().err
    assert large(rounded) == {torch.bfloat16}
    with pytest.raises(BackboneError, match=r'were rounded to bf16.*`load_in` "stored"'):
        export_bundle(rounded, tmp_path / "bundle")


def test_weights_of_several_dtypes_become_fp32(tmp_path: Path) -> None:
    """If they were loaded in a 16-bit type, the fp32 weights would be rounded."""
    import safetensors.torch

    save_in_bf16(tmp_path / "net", "llama")
    file = tmp_path / "net" / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    name = next(name for name in tensors if "down_proj" in name)
    tensors[name] = torch.randn(tensors[name].shape, generator=torch.Generator().manual_seed(0))
    safetensors.torch.save_file(tensors, file, {"format": "pt"})
    stored, wide = (load_backbone(str(tmp_path / "net"), load_in=load_in) for load_in in ("stored", "fp32"))
    assert large(stored) == {torch.float32}
    assert stored.facts == wide.facts


@pytest.mark.parametrize("kind", ["shards", "pickle"])
def test_in_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    from test_loading import STORED

    save_in_bf16(tmp_path / "net", "bert")
    expected = load_backbone(str(tmp_path / "net"), load_in="stored")
    STORED[{"shards": "safetensors in shards", "pickle": "pytorch_model.bin"}[kind]](tmp_path / "net")
    got = load_backbone(str(tmp_path / "net"), load_in="stored")
    assert large(got) == {torch.bfloat16}
    assert got.facts == expected.facts


def test_a_bundle_of_weights_in_half_precision_answers(tmp_path: Path) -> None:
    save_in_bf16(tmp_path / "net", "bert")
    backbone = load_backbone(str(tmp_path / "net"), load_in="stored")
    manifest = export_bundle(backbone, tmp_path / "bundle", precisions=["fp32"])
    assert manifest.graphs["fp32"].parity["probe"].max_logit_difference < 1e-5
    task = probe_task(backbone)
    with Engine(tmp_path / "bundle") as engine:
        got = engine.run([(row, task) for row in engine.encode(TEXTS, [task] * len(TEXTS))])
    assert abs(torch_logits(backbone, task, TEXTS) - got).max() < 1e-4


def test_a_load_in_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="`load_in` 'int8': expected one of fp32, bf16, stored"):
        load_backbone(str(tmp_path), load_in="int8")
