"""Loading a backbone: rejected models, and that its fingerprint identifies the weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from edgetune_export import attention, load_backbone
from edgetune_runtime.errors import BackboneError


@pytest.mark.parametrize("architecture", ["deberta", "qwen3_moe", "xlnet"])
def test_architectures_that_do_not_fit_are_refused_by_name(architecture: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": architecture}))
    with pytest.raises(
        BackboneError,
        match=f"'{architecture}', which is not supported: expected one of albert, apertus, arcee, bart, bert",
    ):
        load_backbone(str(tmp_path))


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no weights"), r"model\.safetensors is damaged"),
        (lambda folder: (folder / "config.json").write_text("{"), "config"),
        (lambda folder: (folder / "config.json").unlink(), r"has no config\.json"),
    ],
)
def test_a_broken_folder_is_one_error(model_folder: Path, tmp_path: Path, break_it: object, reason: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    break_it(folder)  # type: ignore[operator]
    with pytest.raises(BackboneError, match=reason) as caught:
        load_backbone(str(folder))
    assert "\n" not in str(caught.value)


def test_weights_that_lack_a_tensor_are_refused(model_folder: Path, tmp_path: Path) -> None:
    """transformers would fill them with random numbers."""
    shutil.copytree(model_folder, tmp_path / "model")
    weights = safetensors.torch.load_file(tmp_path / "model" / "model.safetensors")
    del weights["encoder.layer.1.attention.self.key.weight"]
    safetensors.torch.save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        BackboneError, match=r"lack 1 tensors, the first of them bert\.encoder\.layer\.1\.attention\.self\.key"
    ):
        load_backbone(str(tmp_path / "model"))


def test_a_folder_without_its_tokenizer_is_refused(model_folder: Path, tmp_path: Path) -> None:
    """transformers would create one with five tokens."""
    shutil.copytree(model_folder, tmp_path / "model")
    for path in (tmp_path / "model").glob("tokenizer*"):
        path.unlink()
    with pytest.raises(BackboneError, match=r"is tokenizer\.json missing|cannot be loaded"):
        load_backbone(str(tmp_path / "model"))


def test_a_name_that_is_neither_here_nor_on_the_hub() -> None:
    with pytest.raises(BackboneError, match="no-such/model cannot be loaded"):
        load_backbone("no-such/model")


def test_fingerprint_changes_with_any_weight(model_folder: Path) -> None:
    one, other = load_backbone(str(model_folder)), load_backbone(str(model_folder))
    assert one.fingerprint() == other.fingerprint()
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-6
    assert one.fingerprint() != other.fingerprint()


def test_a_prefix_of_a_texts_own_keys_and_values_equals_attending_to_that_text(model_folder: Path) -> None:
    """The prefix has the keys and values that attention would have read for a preceding text, layer by layer."""
    backbone = load_backbone(str(model_folder))
    keys, values = backbone.keys_and_values(backbone.embed(torch.tensor([[2, 9, 10, 11]])))
    query = torch.randn(1, 4, 3, 8)
    whole = torch.nn.functional.scaled_dot_product_attention(
        query, torch.cat([keys[:, 0], query], 2), torch.cat([values[:, 0], query], 2)
    )
    with attention.prefixes(keys[:, :1], values[:, :1], torch.ones(1, 4)):
        got, _ = attention.attend(torch.nn.Module(), query, query, query, None)
    torch.testing.assert_close(got, whole.transpose(1, 2))


def test_a_model_that_bypasses_the_attention_interface_is_noticed() -> None:
    with (
        pytest.raises(BackboneError, match="0 times for 2 layers"),
        attention.prefixes(torch.zeros(1, 2, 4, 0, 8), torch.zeros(1, 2, 4, 0, 8), torch.zeros(1, 0)),
    ):
        pass
