"""Each way of storing a model is read, and is one model: the features that transformers gives, one fingerprint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from conftest import TEXTS, LanguageModelFolder
from transformers import AutoModel, AutoTokenizer

from edgetune_export import load_backbone
from edgetune_export.loading import language_model_class

WEIGHTS = "model.safetensors"
ARCHITECTURES = ["bert", "gpt2", "llama", "t5"]


def as_one_file(folder: Path, dtype: torch.dtype) -> None:
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    stored = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    safetensors.torch.save_file(stored, folder / WEIGHTS, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": str(dtype).removeprefix("torch.")}))


def as_shards(folder: Path) -> None:
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    places = {}
    for number, name in enumerate(tensors):
        file = f"model-{number % 3 + 1:05}-of-00003.safetensors"
        places[name] = file
    for file in set(places.values()):
        own = {name: tensors[name] for name in tensors if places[name] == file}
        safetensors.torch.save_file(own, folder / file, {"format": "pt"})
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def as_pickle(folder: Path, *, zipped: bool = True) -> None:
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)


def as_pickled_shards(folder: Path) -> None:
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    places = {name: f"pytorch_model-0000{number % 2 + 1}-of-00002.bin" for number, name in enumerate(tensors)}
    for file in set(places.values()):
        torch.save({name: tensors[name] for name in tensors if places[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


STORED: dict[str, Callable[[Path], None]] = {
    "safetensors in float32": lambda folder: as_one_file(folder, torch.float32),
    "safetensors in float16": lambda folder: as_one_file(folder, torch.float16),
    "safetensors in bfloat16": lambda folder: as_one_file(folder, torch.bfloat16),
    "safetensors in shards": as_shards,
    "pytorch_model.bin": as_pickle,
    "pytorch_model.bin as PyTorch wrote it before 1.6": lambda folder: as_pickle(folder, zipped=False),
    "pytorch_model.bin in shards": as_pickled_shards,
}


def features_of_transformers(folder: Path, ids: torch.Tensor, architecture: str) -> torch.Tensor:
    if architecture == "t5":
        model = language_model_class(architecture).from_pretrained(folder, dtype=torch.float32).eval()
        start = torch.full_like(ids[:, :1], model.config.decoder_start_token_id)
        return model(input_ids=ids, decoder_input_ids=start, output_hidden_states=True).decoder_hidden_states[-1]
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    return model(input_ids=ids).last_hidden_state


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_features_are_those_of_the_library_however_a_model_is_stored(
    language_model_folder: LanguageModelFolder, tmp_path: Path, architecture: str, stored: str
) -> None:
    folder = Path(shutil.copytree(language_model_folder(architecture), tmp_path / "model"))
    STORED[stored](folder)
    backbone = load_backbone(str(folder))
    ids = torch.tensor([backbone.text_encoder.ids(TEXTS[1])])
    assert ids.shape[1] > 3
    mask = torch.ones_like(ids)
    got = backbone.model(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(got, features_of_transformers(folder, ids, architecture), atol=1e-5, rtol=1e-4)


def test_the_documentation_has_the_table_of_these_tests() -> None:
    page = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")
    assert "\n".join(["| weights |", "|---|", *(f"| {name} |" for name in STORED)]) in page


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_fingerprint_does_not_depend_on_how_the_same_weights_are_stored(
    language_model_folder: LanguageModelFolder, tmp_path: Path, architecture: str
) -> None:
    """Weights of 16 bits and the same numbers in 32 are one model, too."""

    def fingerprint(name: str, *changes: Callable[[Path], None]) -> str:
        folder = Path(shutil.copytree(language_model_folder(architecture), tmp_path / name))
        for change in changes:
            change(folder)
        return load_backbone(str(folder)).facts.sha256

    whole = {name: fingerprint(name, STORED[name]) for name in STORED if "float" not in name}
    assert set(whole.values()) == {fingerprint("as it was")}
    for short in ("float16", "bfloat16"):
        in_short, in_float32 = STORED[f"safetensors in {short}"], STORED["safetensors in float32"]
        rounded = fingerprint(short, in_short)
        assert rounded == fingerprint(f"{short}, then float32", in_short, in_float32)
        assert rounded not in whole.values()


def test_a_pickle_that_would_run_code_is_refused(language_model_folder: LanguageModelFolder, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(language_model_folder("bert"), tmp_path / "model"))
    as_pickle(folder)
    ran = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (ran,)

    torch.save({"bert.embeddings.word_embeddings.weight": Hostile()}, folder / "pytorch_model.bin")
    with pytest.raises(Exception, match="cannot be loaded"):
        load_backbone(str(folder))
    assert not ran.exists()


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_a_tokenizer_without_tokenizer_json_is_converted(
    language_model_folder: LanguageModelFolder, tmp_path: Path, architecture: str
) -> None:
    """From the vocabulary files of the classes that have no fast one of their own."""
    folder = Path(shutil.copytree(language_model_folder(architecture), tmp_path / "model"))
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    if architecture == "bert":
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")
        config = {"tokenizer_class": "BertTokenizer"}
    else:
        letters = ["[PAD]", "<|endoftext|>", *map(chr, range(33, 127)), "Ġ"]
        learnt = {token: place for place, token in enumerate([*letters, "th", "the"])}
        (folder / "vocab.json").write_text(json.dumps(learnt))
        (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e\n")
        config = {"tokenizer_class": "GPT2Tokenizer", "pad_token": "[PAD]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    backbone = load_backbone(str(folder))
    expected = AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert backbone.text_encoder.ids(text) == expected(text, add_special_tokens=False)["input_ids"]
